//! Damage of the write-ahead log. SQLite reads a log up to the first frame that does not match its checksum and takes the
//! rest for what a crash left, so committed transactions after a damaged frame would be missing silently.
//!
//! The format: <https://www.sqlite.org/fileformat2.html#the_write_ahead_log>.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::Path;

use super::files::{FILE_NAME, unreadable};
use crate::store::StoreError;

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;

/// The magic number of a log whose checksums read big-endian words. The other one is smaller by 1.
const MAGIC_BIG_ENDIAN: u32 = 0x377f_0683;

/// What is wrong with a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogFault {
    /// The header does not match its checksum: nothing of the log is read.
    Header,
    /// A frame does not match its checksum: it and those after it are not read.
    Frame {
        /// Its number, from 1.
        frame: u64,
        /// Frames of the same log after it. Without any, a crash during the last write explains it.
        later: u64,
    },
}

impl std::fmt::Display for LogFault {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header => {
                formatter.write_str("write-ahead log: the header is damaged, and nothing of it is read")
            }
            Self::Frame { frame, later } => write!(
                formatter,
                "write-ahead log: frame {frame} is damaged or incomplete; it and {later} after it are not read"
            ),
        }
    }
}

/// Reads the log of the store in `folder`, which no collector may have open for writing.
///
/// # Errors
/// [`StoreError::Engine`] when the file cannot be read.
pub(super) fn fault(folder: &Path) -> Result<Option<LogFault>, StoreError> {
    let path = folder.join(format!("{FILE_NAME}-wal"));
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(&path, &error)),
    };
    examine(BufReader::new(file)).map_err(|error| unreadable(&path, &error))
}

/// The running checksum of a log.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Checksum {
    is_big_endian: bool,
    sums: (u32, u32),
}

impl Checksum {
    fn add(&mut self, bytes: &[u8]) {
        for pair in bytes.chunks_exact(8) {
            let word = |at: usize| {
                let bytes = [pair[at], pair[at + 1], pair[at + 2], pair[at + 3]];
                if self.is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
            };
            self.sums.0 = self.sums.0.wrapping_add(word(0)).wrapping_add(self.sums.1);
            self.sums.1 = self.sums.1.wrapping_add(word(4)).wrapping_add(self.sums.0);
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().fold(0, |word, byte| word << 8 | u32::from(*byte))
}

fn examine(mut log: impl Read) -> std::io::Result<Option<LogFault>> {
    let mut header = [0; HEADER_BYTES];
    if !read_whole(&mut log, &mut header)? {
        return Ok(None);
    }
    let magic = word(&header, 0);
    let mut checksum = Checksum { is_big_endian: magic == MAGIC_BIG_ENDIAN, sums: (0, 0) };
    checksum.add(&header[..24]);
    let page_bytes = usize::try_from(word(&header, 8)).unwrap_or(usize::MAX);
    let is_header_valid = magic | 1 == MAGIC_BIG_ENDIAN
        && checksum.sums == (word(&header, 24), word(&header, 28))
        && (512..=65_536).contains(&page_bytes);
    if !is_header_valid {
        return Ok(Some(LogFault::Header));
    }
    let salts = (word(&header, 16), word(&header, 20));
    let mut frame = vec![0; FRAME_HEADER_BYTES + page_bytes];
    let mut damaged: Option<(u64, u64)> = None;
    let mut number = 0;
    while read_whole(&mut log, &mut frame)? {
        number += 1;
        let found = (word(&frame, 8), word(&frame, 12));
        if let Some((_, later)) = &mut damaged {
            *later += u64::from(found == salts);
            continue;
        }
        // A frame of an earlier use of the file has two other salts.
        if found.0 != salts.0 && found.1 != salts.1 {
            break;
        }
        checksum.add(&frame[..8]);
        checksum.add(&frame[FRAME_HEADER_BYTES..]);
        if found != salts || checksum.sums != (word(&frame, 16), word(&frame, 20)) {
            damaged = Some((number, 0));
        }
    }
    Ok(damaged.map(|(frame, later)| LogFault::Frame { frame, later }))
}

/// Whether there were enough bytes.
fn read_whole(log: &mut impl Read, bytes: &mut [u8]) -> std::io::Result<bool> {
    match log.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
