//! What an extension states about a profile before its upload.

use serde::Deserialize;

use super::object::{ObjectName, format_of, is_request_id};
use super::{MAX_BYTES, ProfileError};
use crate::store::FunctionKey;

/// How far the clock of an environment may be ahead until the collector's time is used, microseconds.
const MAX_AHEAD_US: u64 = 600_000_000;

/// Maximum memory size, MB, of managed instances.
const MAX_MEMORY_MB: u32 = 32_768;

/// Bytes of a SHA-256.
const DIGEST_BYTES: usize = 32;

/// The body of a request, as the extension sends it.
#[derive(Debug, Deserialize)]
struct Body {
    #[serde(default)]
    account: String,
    region: String,
    function: String,
    memory_mb: u32,
    #[serde(default)]
    request_id: String,
    name: String,
    bytes: u64,
    sha256: String,
    completed_at_us: u64,
}

/// A profile to upload, with valid values.
#[derive(Debug)]
pub struct NewProfile {
    function: FunctionKey,
    body: Body,
    digest: [u8; DIGEST_BYTES],
}

impl NewProfile {
    /// Reads and checks a request.
    ///
    /// # Errors
    /// With the first field that has an impossible value, or when the profile is too large.
    pub fn parse(json: &[u8]) -> Result<Self, ProfileError> {
        let body: Body =
            serde_json::from_slice(json).map_err(|error| ProfileError::Unreadable(error.to_string()))?;
        let of = |text: &str, most: usize, more: &[u8]| {
            (1..=most).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
        };
        let digest = digest_of(&body.sha256);
        let checks = [
            ("account", body.account.is_empty() || of(&body.account, 12, b"")),
            ("region", of(&body.region, 32, b"-")),
            // The name is a part of an object's key, in which `..` could lead to another folder.
            ("function", of(&body.function, 170, b"-_.") && !body.function.starts_with('.')),
            ("memory_mb", (1..=MAX_MEMORY_MB).contains(&body.memory_mb)),
            ("request_id", body.request_id.is_empty() || is_request_id(&body.request_id)),
            ("name", format_of(&body.name).is_some()),
            ("bytes", body.bytes > 0),
            ("sha256", digest.is_some()),
        ];
        if body.bytes > MAX_BYTES {
            return Err(ProfileError::TooLarge);
        }
        let wrong = checks.iter().find(|(_, is_valid)| !is_valid);
        let (None, Some(digest)) = (wrong, digest) else {
            let field = wrong.map_or("sha256", |(field, _)| field);
            return Err(ProfileError::Impossible(field));
        };
        let function = FunctionKey {
            account: body.account.clone(),
            region: body.region.clone(),
            name: body.function.clone(),
        };
        Ok(Self { function, body, digest })
    }

    /// The function.
    #[must_use]
    pub const fn function(&self) -> &FunctionKey {
        &self.function
    }

    /// Size, bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.body.bytes
    }

    /// The digest, as S3 expects it in a header.
    #[must_use]
    pub fn sha256_base64(&self) -> String {
        aws_smithy_types::base64::encode(self.digest)
    }

    /// The name of its object.
    #[must_use]
    pub fn object_name(&self, now_us: u64) -> ObjectName {
        let Body { request_id, memory_mb, name, sha256, completed_at_us, .. } = &self.body;
        let is_ahead = *completed_at_us > now_us.saturating_add(MAX_AHEAD_US);
        let at_us = if is_ahead { now_us } else { *completed_at_us };
        let request_id = Some(request_id.as_str()).filter(|id| !id.is_empty());
        ObjectName::new(at_us, request_id, *memory_mb, sha256, name)
    }
}

/// The bytes of a digest in lower-case hexadecimal digits.
fn digest_of(text: &str) -> Option<[u8; DIGEST_BYTES]> {
    let is_hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if text.len() != 2 * DIGEST_BYTES || !is_hex {
        return None;
    }
    let mut bytes = [0; DIGEST_BYTES];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_with_an_impossible_value_is_refused() {
        let with = |field: &'static str, value: serde_json::Value| {
            let mut body = serde_json::json!({
                "account": "123456789012", "region": "eu-west-1", "function": "f", "memory_mb": 128,
                "request_id": "3f2504e0-4f89-41d3-9a0c-0305e82c3301", "name": "a.pprof",
                "bytes": 1, "sha256": "00ff".repeat(16), "completed_at_us": 1,
            });
            body[field] = value;
            NewProfile::parse(body.to_string().as_bytes())
        };
        assert_eq!(
            with("name", "a.jfr".into()).unwrap().sha256_base64(),
            "AP8A/wD/AP8A/wD/AP8A/wD/AP8A/wD/AP8A/wD/AP8="
        );
        assert!(with("request_id", "".into()).unwrap().object_name(0).text().contains("_init_"));
        for (field, value) in [
            ("account", "../etc".into()),
            ("region", "".into()),
            ("function", "a/b".into()),
            ("function", "..".into()),
            ("function", "é".into()),
            ("memory_mb", 0.into()),
            ("request_id", "../../../../x".into()),
            ("name", "../a.pprof".into()),
            ("name", "a.sh".into()),
            ("bytes", 0.into()),
            ("sha256", "00FF".repeat(16).into()),
            ("sha256", "".into()),
        ] {
            assert_eq!(with(field, value).unwrap_err(), ProfileError::Impossible(field));
        }
        assert_eq!(with("bytes", (MAX_BYTES + 1).into()).unwrap_err(), ProfileError::TooLarge);
        let ahead = with("completed_at_us", u64::MAX.into()).unwrap();
        assert!(ahead.object_name(1_795_966_691_123_456).text().starts_with("20261129T"));
    }
}
