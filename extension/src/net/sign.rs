//! AWS Signature Version 4, as much as one POST to a Lambda function URL needs.
//!
//! AWS's own SDK would make the layer two to three times as large; this is two hash functions that TLS has
//! linked already, and held to AWS's published test suite and to botocore.

use std::fmt::Write;

use ring::{digest, hmac};

use crate::net::credentials::Credentials;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What is signed of a request.
#[derive(Debug, Clone, Copy)]
pub struct ToSign<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its path as it is sent; requests have no query.
    pub path: &'a str,
    /// Headers to sign, `host` and `x-amz-date` among them: lower-case names in rising order, values as sent.
    pub headers: &'a [(&'a str, &'a str)],
    /// Its body as it is sent.
    pub body: &'a [u8],
}

/// Where and when a signature is good.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// `20150830T123600Z`: the value of `x-amz-date`.
    pub time: &'a str,
    /// AWS region.
    pub region: &'a str,
    /// AWS's name of the service: `lambda` for function URLs.
    pub service: &'a str,
}

/// The value of the `Authorization` header.
#[must_use]
pub fn authorization(request: &ToSign<'_>, scope: &Scope<'_>, credentials: &Credentials) -> String {
    let signed_headers = request.headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let canonical = canonical_request(request, &signed_headers);
    let date = scope.time.get(..8).unwrap_or_default();
    let credential_scope = format!("{date}/{}/{}/aws4_request", scope.region, scope.service);
    let to_sign =
        format!("{ALGORITHM}\n{}\n{credential_scope}\n{}", scope.time, sha256(canonical.as_bytes()));
    let key = signing_key(credentials.secret_key(), date, scope);
    let signature = hex(mac(key, &to_sign).as_ref());
    format!(
        "{ALGORITHM} Credential={}/{credential_scope}, SignedHeaders={signed_headers}, Signature={signature}",
        credentials.access_key()
    )
}

fn canonical_request(request: &ToSign<'_>, signed_headers: &str) -> String {
    let mut text = format!("{}\n{}\n\n", request.method, canonical_path(request.path));
    for (name, value) in request.headers {
        let words: Vec<_> = value.split_ascii_whitespace().collect();
        text.extend([*name, ":", &words.join(" "), "\n"]);
    }
    text.extend(["\n", signed_headers, "\n", &sha256(request.body)]);
    text
}

/// The path without empty and dot segments, encoded once more than it is sent, as every service but S3 has it.
fn canonical_path(path: &str) -> String {
    let mut segments: Vec<&str> = vec![];
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    let mut encoded = String::with_capacity(path.len());
    for segment in &segments {
        encoded.push('/');
        for byte in segment.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                encoded.push(char::from(byte));
            } else {
                // Writing to a string does not fail.
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    if path.ends_with('/') || segments.is_empty() {
        encoded.push('/');
    }
    encoded
}

fn signing_key(secret: &str, date: &str, scope: &Scope<'_>) -> hmac::Tag {
    let mut key = mac(format!("AWS4{secret}").as_bytes(), date);
    for part in [scope.region, scope.service, "aws4_request"] {
        key = mac(key.as_ref(), part);
    }
    key
}

fn mac(key: impl AsRef<[u8]>, text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()), text.as_bytes())
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
