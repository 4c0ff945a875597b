//! Conditional requests, compression and HEAD, for routes whose responses have no secrets.
//!
//! A page that reflects what an attacker sends and has a secret must not be compressed: the length of the response would
//! show the secret (BREACH). So only the routes that request it are, and never a response to a request that another site
//! started in a browser.

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt;
use sha2::{Digest, Sha256};
use std::io::Write;

/// A smaller body is not compressed, bytes: it fits into one packet anyway.
const MIN_COMPRESSED: usize = 1_024;

/// Level of gzip, 1 to 9: a higher one takes twice the time for 2 % of the size.
const GZIP_LEVEL: u32 = 5;

/// Level of zstd, 1 to 22.
const ZSTD_LEVEL: i32 = 3;

/// Bytes of the digest that an `ETag` has.
const TAG_BYTES: usize = 16;

/// A content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Gzip,
    Zstd,
}

/// Middleware: adds an `ETag`, responds with 304 when the client has the response, compresses it when the client accepts that,
/// and responds to HEAD with the headers of GET.
pub async fn respond(mut request: Request, next: Next) -> Response {
    let is_head = request.method() == Method::HEAD;
    if is_head {
        *request.method_mut() = Method::GET;
    }
    let known = joined(request.headers(), &header::IF_NONE_MATCH);
    let coding = coding(request.headers());
    let (mut parts, body) = next.run(request).await.into_parts();
    // The handlers make whole responses, so nothing is waited for.
    let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    if parts.status != StatusCode::OK {
        return finish(parts, bytes, is_head);
    }
    let tag = tag(&bytes);
    let headers = &mut parts.headers;
    headers.insert(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding, Authorization, Cookie"));
    // Shared caches must not keep it, and clients validate what they kept before they use it.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("private, no-cache"));
    if let Ok(value) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, value);
    }
    if matches(&known, &tag) {
        parts.status = StatusCode::NOT_MODIFIED;
        parts.headers.remove(header::CONTENT_TYPE);
        parts.headers.remove(header::CONTENT_LENGTH);
        return Response::from_parts(parts, Body::empty());
    }
    let compressed = coding.filter(|_| bytes.len() >= MIN_COMPRESSED).and_then(|coding| {
        let compressed = compress(&bytes, coding)?;
        (compressed.len() < bytes.len()).then_some((coding, compressed))
    });
    let Some((coding, compressed)) = compressed else { return finish(parts, bytes, is_head) };
    let name = match coding {
        Coding::Gzip => "gzip",
        Coding::Zstd => "zstd",
    };
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
    finish(parts, compressed.into(), is_head)
}

fn finish(mut parts: http::response::Parts, bytes: Bytes, is_head: bool) -> Response {
    parts.headers.insert(header::CONTENT_LENGTH, bytes.len().into());
    let body = if is_head { Body::empty() } else { Body::from(bytes) };
    Response::from_parts(parts, body).into_response()
}

/// A weak tag: the compressed and the plain form of a response have the same one.
fn tag(bytes: &[u8]) -> String {
    let digits = hex::encode(&Sha256::digest(bytes)[..TAG_BYTES]);
    format!("W/\"{digits}\"")
}

/// All values of a header, with commas between them.
fn joined(headers: &HeaderMap, name: &header::HeaderName) -> String {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.collect::<Vec<_>>().join(",")
}

/// Whether `If-None-Match` has the tag. Weak and strong tags are equal in this comparison.
fn matches(known: &str, tag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    known.split(',').any(|candidate| candidate.trim() == "*" || opaque(candidate) == opaque(tag))
}

/// The coding for the response: zstd before gzip where the client accepts both alike.
fn coding(headers: &HeaderMap) -> Option<Coding> {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if matches!(site, Some(b"cross-site" | b"same-site")) {
        return None;
    }
    let accepted = joined(headers, &header::ACCEPT_ENCODING);
    let zstd = quality(&accepted, "zstd");
    let gzip = quality(&accepted, "gzip");
    match (zstd > 0.0, gzip > 0.0) {
        (true, _) if zstd >= gzip => Some(Coding::Zstd),
        (_, true) => Some(Coding::Gzip),
        _ => None,
    }
}

/// The weight of a coding in `Accept-Encoding`, 0 to 1; 0 when it is not accepted.
fn quality(accepted: &str, name: &str) -> f64 {
    let mut of_any = 0.0;
    for entry in accepted.split(',') {
        let mut parts = entry.split(';').map(str::trim);
        let coding = parts.next().unwrap_or_default();
        let weight =
            parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0), |text| text.parse().ok());
        let weight = weight.unwrap_or(0.0);
        if coding.eq_ignore_ascii_case(name) {
            return weight;
        }
        if coding == "*" {
            of_any = weight;
        }
    }
    of_any
}

fn compress(bytes: &[u8], coding: Coding) -> Option<Vec<u8>> {
    match coding {
        Coding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::new(GZIP_LEVEL));
            encoder.write_all(bytes).ok()?;
            encoder.finish().ok()
        }
        Coding::Zstd => zstd::bulk::compress(bytes, ZSTD_LEVEL).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coding_is_the_best_that_the_client_accepts() {
        let of = |accepted: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_str(accepted).unwrap());
            coding(&headers)
        };
        for (accepted, expected) in [
            ("gzip, deflate, br, zstd", Some(Coding::Zstd)),
            ("zstd;q=0.5, gzip", Some(Coding::Gzip)),
            ("zstd;q=0, gzip;q=0.1", Some(Coding::Gzip)),
            ("GZIP", Some(Coding::Gzip)),
            ("*", Some(Coding::Zstd)),
            ("*;q=0, gzip;q=0", None),
            ("gzip;q=NaN", None),
            ("br", None),
            ("identity", None),
            ("", None),
        ] {
            assert_eq!(of(accepted), expected, "{accepted}");
        }
        assert_eq!(coding(&HeaderMap::new()), None);
    }

    #[test]
    fn tags_are_compared_as_weak_ones() {
        assert!(
            matches("\"a\", W/\"b\"", "W/\"b\"") && matches("\"b\"", "W/\"b\"") && matches(" * ", "W/\"b\"")
        );
        assert!(!matches("", "W/\"b\"") && !matches("\"bb\"", "W/\"b\""));
    }
}
