//! AWS Signature Version 4, for requests without a query: to Lambda function URLs, Secrets Manager and SSM.
//!
//! AWS's SDK would make the layer two to three times as large. This module uses two hash functions that TLS links anyway,
//! and is tested with AWS's published test suite and against botocore.

use std::fmt::Write;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::Full;
use ring::{digest, hmac};

use super::credentials::Credentials;
use crate::timestamp;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// The signed parts of a request.
#[derive(Debug, Clone, Copy)]
pub struct ToSign<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// The path as sent. There is no query.
    pub path: &'a str,
    /// The signed headers with `host` and `x-amz-date`: lower-case names in ascending order, values as sent.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body as sent.
    pub body: &'a [u8],
}

/// The time, region and service for which a signature is valid.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// `20150830T123600Z`: the value of `x-amz-date`.
    pub time: &'a str,
    /// AWS region.
    pub region: &'a str,
    /// The name of the service: `lambda` for function URLs.
    pub service: &'a str,
}

/// The headers that are signed when a request has them, in ascending order.
const SIGNED_HEADERS: [&str; 5] =
    ["content-type", "host", "x-amz-date", "x-amz-security-token", "x-amz-target"];

/// Signs `request`, which has the body `body`, for a service in a region. `now_s` is seconds since the Unix epoch.
///
/// # Errors
/// When a credential has characters that are not allowed in a header.
pub fn sign_request(
    request: &mut Request<Full<Bytes>>,
    body: &[u8],
    region: &str,
    service: &str,
    credentials: &Credentials,
    now_s: u64,
) -> Result<(), http::Error> {
    let time = timestamp::basic_format(now_s);
    insert_secret(request.headers_mut(), "x-amz-date", &time)?;
    if let Some(token) = credentials.session_token() {
        insert_secret(request.headers_mut(), "x-amz-security-token", token)?;
    }
    let present = |name| Some((name, request.headers().get(name)?.to_str().ok()?));
    let headers: Vec<_> = SIGNED_HEADERS.into_iter().filter_map(present).collect();
    let to_sign =
        ToSign { method: request.method().as_str(), path: request.uri().path(), headers: &headers, body };
    let signature = authorization(&to_sign, &Scope { time: &time, region, service }, credentials);
    insert_secret(request.headers_mut(), "authorization", &signature)
}

/// Sets a header whose value is never printed.
///
/// # Errors
/// When the value has characters that are not allowed.
pub fn insert_secret(headers: &mut HeaderMap, name: &'static str, value: &str) -> Result<(), http::Error> {
    let mut value = HeaderValue::try_from(value)?;
    value.set_sensitive(true);
    headers.insert(name, value);
    Ok(())
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

/// The path without empty and dot segments, percent-encoded once more, as every service except S3 requires.
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
                // Writing to a string cannot fail.
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

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
