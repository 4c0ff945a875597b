//! Held views of small `/proc` files: one `pread` each time instead of an open, a read and a close.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// Longest file that is read; `/proc/PID/status` has about 1,500 bytes.
const CAPACITY: usize = 4_096;

/// A file that is read again and again from its start.
#[derive(Debug)]
pub(super) struct Held(File);

impl Held {
    /// `None` when it is not there or may not be read.
    pub(super) fn open(path: &str) -> Option<Self> {
        File::open(path).ok().map(Self)
    }

    /// Hands its content now to `parse`; `None` when its process is gone.
    pub(super) fn read<T>(&self, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let mut buffer = [0u8; CAPACITY];
        let length = self.0.read_at(&mut buffer, 0).ok().filter(|&length| length > 0)?;
        parse(std::str::from_utf8(&buffer[..length]).ok()?)
    }
}

/// Reads a small file once.
pub(super) fn read_once<T>(path: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    Held::open(path)?.read(parse)
}
