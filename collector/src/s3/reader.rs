//! Reads an object where the caller expects a blocking reader.

use std::io::{self, Read};

use aws_sdk_s3::primitives::ByteStream;
use bytes::{Buf, Bytes};
use tokio::runtime::Handle;

/// A reader of the content of an object. It must not be used in an asynchronous task.
pub struct BlockingReader {
    runtime: Handle,
    body: ByteStream,
    chunk: Bytes,
}

impl BlockingReader {
    /// Reads `body` on `runtime`.
    #[must_use]
    pub const fn new(runtime: Handle, body: ByteStream) -> Self {
        Self { runtime, body, chunk: Bytes::new() }
    }
}

impl Read for BlockingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.runtime.block_on(self.body.next()) {
                Some(chunk) => self.chunk = chunk.map_err(io::Error::other)?,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}
