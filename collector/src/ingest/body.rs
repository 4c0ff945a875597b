//! Decompression under a limit: a few kilobytes must not become gigabytes.

use std::io::Read;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use agent_proto::limits::MAX_BATCH_BYTES;

use crate::http::error::ApiError;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

/// Memory a zstd frame may ask for, as a power of two: 8 MiB, which every decoder should allow (RFC 8878).
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

impl Encoding {
    pub(super) fn of(header: Option<&HeaderValue>) -> Result<Self, ApiError> {
        let name = header.map_or(Ok("identity"), HeaderValue::to_str).unwrap_or("?");
        match name.trim().to_ascii_lowercase().as_str() {
            "identity" | "" => Ok(Self::Identity),
            "gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            _ => Err(ApiError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "content_encoding",
                "a batch is sent plain, with `gzip` or with `zstd`",
            )),
        }
    }
}

/// The plain bytes of a body.
pub(super) fn decompress(encoding: Encoding, body: Bytes) -> Result<Bytes, ApiError> {
    match encoding {
        Encoding::Identity => Ok(body),
        Encoding::Gzip => read_limited(flate2::read::GzDecoder::new(body.as_ref())),
        Encoding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(body.as_ref()).map_err(broken)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(broken)?;
            read_limited(decoder)
        }
    }
}

fn read_limited(decoder: impl Read) -> Result<Bytes, ApiError> {
    let mut plain = Vec::new();
    // One byte more than allowed tells "exactly at the limit" from "beyond it".
    decoder.take(MAX_BATCH_BYTES as u64 + 1).read_to_end(&mut plain).map_err(broken)?;
    if plain.len() > MAX_BATCH_BYTES { Err(ApiError::too_large()) } else { Ok(plain.into()) }
}

fn broken(error: std::io::Error) -> ApiError {
    ApiError::bad_request("content_encoding", format!("the body cannot be decompressed: {error}"))
}
