//! Decompression of request bodies with a size limit, which protects against decompression bombs.

use std::io::Read;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use agent_proto::limits::MAX_BATCH_BYTES;

use crate::http::error::ApiError;

/// The content encoding of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

/// Largest window of a zstd frame, log2 of bytes: 8 MiB, which RFC 8878 recommends that decoders support.
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
                "the content encoding of a batch must be `identity`, `gzip` or `zstd`",
            )),
        }
    }
}

/// The decompressed bytes of a body.
pub(super) fn decompress(encoding: Encoding, body: Bytes) -> Result<Bytes, ApiError> {
    match encoding {
        Encoding::Identity => Ok(body),
        Encoding::Gzip => read_limited(flate2::read::GzDecoder::new(body.as_ref())),
        Encoding::Zstd => {
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(body.as_ref()).map_err(decompression_error)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(decompression_error)?;
            read_limited(decoder)
        }
    }
}

fn read_limited(decoder: impl Read) -> Result<Bytes, ApiError> {
    let mut plain = Vec::new();
    // One byte above the limit shows whether the body exceeds it.
    decoder.take(MAX_BATCH_BYTES as u64 + 1).read_to_end(&mut plain).map_err(decompression_error)?;
    if plain.len() > MAX_BATCH_BYTES { Err(ApiError::too_large()) } else { Ok(plain.into()) }
}

fn decompression_error(error: std::io::Error) -> ApiError {
    ApiError::bad_request("content_encoding", format!("the body cannot be decompressed: {error}"))
}
