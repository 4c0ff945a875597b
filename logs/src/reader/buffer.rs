//! The buffer between an input and the search for lines.

use std::io::{self, Read};

use memchr::memchr;

/// Size of the buffer, bytes.
const CHUNK_BYTES: usize = 1 << 20;

/// Bytes that were read and not used yet.
pub(crate) struct Buffer<'a> {
    input: Box<dyn Read + 'a>,
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    is_ended: bool,
    /// What ended the input early.
    pub(super) error: Option<io::Error>,
}

impl<'a> Buffer<'a> {
    pub(super) fn new(input: Box<dyn Read + 'a>) -> Self {
        Self { input, bytes: vec![0; CHUNK_BYTES], start: 0, end: 0, is_ended: false, error: None }
    }

    /// The bytes that are not used yet.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Marks bytes as used.
    pub(crate) fn consume(&mut self, bytes: usize) {
        self.start = (self.start + bytes).min(self.end);
    }

    /// Reads more. Returns `false` at the end of the input, which may be an error.
    pub(crate) fn fill(&mut self) -> bool {
        if self.is_ended {
            return false;
        }
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.end == self.bytes.len() {
            self.bytes.resize(2 * self.end, 0);
        }
        while self.end < self.bytes.len() {
            match self.input.read(&mut self.bytes[self.end..]) {
                Ok(0) => {
                    self.is_ended = true;
                    return false;
                }
                Ok(read) => self.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.is_ended = true;
                    self.error = Some(error);
                    return false;
                }
            }
        }
        true
    }

    /// Drops everything up to the next line.
    pub(super) fn skip_line(&mut self) {
        loop {
            match memchr(b'\n', self.bytes()) {
                Some(newline) => {
                    self.consume(newline + 1);
                    return;
                }
                None => self.consume(usize::MAX - self.start),
            }
            if !self.fill() && self.bytes().is_empty() {
                return;
            }
        }
    }
}
