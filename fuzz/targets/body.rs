//! Bodies of posted batches: decompression keeps its limit, whatever the compressed bytes claim.
//!
//! The first byte chooses the content encoding; the rest is the body.

#![no_main]
#![allow(dead_code, reason = "both files are included whole; the module is private in the collector")]

#[path = "../../collector/src/ingest/body.rs"]
mod body;
#[path = "."]
mod http {
    //! The part of the collector's module that decompression uses, from the collector's own file.
    #[path = "../../collector/src/http/error.rs"]
    pub(crate) mod error;
}

use ::http::HeaderValue;
use agent_proto::limits::MAX_BATCH_BYTES;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, body)) = bytes.split_first() else { return };
    let name = ["identity", "gzip", "zstd"][usize::from(choice % 3)];
    let Ok(encoding) = body::Encoding::of(Some(&HeaderValue::from_static(name))) else { return };
    if let Ok(plain) = body::decompress(encoding, Bytes::copy_from_slice(body)) {
        assert!(name == "identity" || plain.len() <= MAX_BATCH_BYTES);
    }
});
