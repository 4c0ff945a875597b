//! Compressed input: gzip, also of several members, and zstd, also several times inside each other.

use std::io::{self, Cursor, Read};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Maximum number of compressions inside each other. Firehose can compress what CloudWatch Logs compressed already.
pub(crate) const MAX_DEPTH: u32 = 3;

/// What gzip begins with in base64.
pub(crate) const GZIP_IN_BASE64: &[u8] = b"H4sI";

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// Largest window of zstd that is accepted, as a power of two of bytes. It bounds the memory.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// The input without compression, and whether there was any.
///
/// # Errors
/// When the input cannot be read.
pub(crate) fn decompress<'a>(mut input: Box<dyn Read + 'a>) -> io::Result<(Box<dyn Read + 'a>, bool)> {
    let mut is_compressed = false;
    for _ in 0..MAX_DEPTH {
        let mut head = Vec::new();
        input.by_ref().take(4).read_to_end(&mut head)?;
        let is_gzip = head.starts_with(GZIP);
        let is_zstd = head.starts_with(ZSTD);
        let whole = Cursor::new(head).chain(input);
        input = if is_gzip {
            Box::new(flate2::read::MultiGzDecoder::new(whole))
        } else if is_zstd {
            let mut decoder = zstd::stream::read::Decoder::new(whole)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        } else {
            return Ok((Box::new(whole), is_compressed));
        };
        is_compressed = true;
    }
    Ok((input, is_compressed))
}

/// The bytes of base64; `None` when it is damaged.
pub(crate) fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    STANDARD.decode(text.trim_ascii()).ok()
}
