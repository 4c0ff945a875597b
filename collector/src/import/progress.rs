//! Progress of an import on a terminal: bytes, rate, and the time that is left.

use std::io::{self, IsTerminal, Read, Write};
use std::time::{Duration, Instant};

/// Time between two updates of the line.
const INTERVAL: Duration = Duration::from_millis(250);

/// Writes a line to standard error, if it is a terminal, and updates it.
#[derive(Debug)]
pub struct Progress {
    started: Instant,
    shown: Option<Instant>,
    is_terminal: bool,
    read_bytes: u64,
    /// The size of all inputs; zero when it is unknown.
    total_bytes: u64,
}

impl Progress {
    /// Starts with the size of all inputs, bytes; zero when it is unknown.
    #[must_use]
    pub fn start(total_bytes: u64) -> Self {
        Self {
            started: Instant::now(),
            shown: None,
            is_terminal: io::stderr().is_terminal(),
            read_bytes: 0,
            total_bytes,
        }
    }

    /// Bytes that were read, before decompression.
    #[must_use]
    pub const fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// Time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// A reader that counts.
    pub const fn count<R: Read>(&mut self, input: R) -> Counting<'_, R> {
        Counting { progress: self, input }
    }

    fn add(&mut self, bytes: usize) {
        self.read_bytes = self.read_bytes.saturating_add(bytes as u64);
        // The first bytes have no rate yet: they are the start of a file, by which its form is recognized.
        if self.is_terminal && self.shown.unwrap_or(self.started).elapsed() >= INTERVAL {
            self.shown = Some(Instant::now());
            let text = line(self.read_bytes, self.total_bytes, self.elapsed());
            // A terminal that cannot be written to shows no progress.
            let _ = write!(io::stderr(), "\r\x1b[K{text}");
        }
    }

    /// Removes the line.
    pub fn finish(&self) {
        if self.shown.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// `1.2 of 5.0 GB, 480 MB/s, 8 s left`.
fn line(read_bytes: u64, total_bytes: u64, elapsed: Duration) -> String {
    let rate = read_bytes as f64 / elapsed.as_secs_f64().max(0.001);
    let left = total_bytes.saturating_sub(read_bytes) as f64 / rate.max(1.0);
    let (read, rate) = (size(read_bytes as f64), size(rate));
    match total_bytes {
        0 => format!("{read}, {rate}/s"),
        _ => format!("{read} of {}, {rate}/s, {} left", size(total_bytes as f64), time_left(left)),
    }
}

/// A time for people, from seconds.
fn time_left(seconds: f64) -> String {
    match seconds {
        s if s >= 120.0 => format!("{:.0} min", s / 60.0),
        s => format!("{s:.0} s"),
    }
}

/// A size for people.
#[must_use]
pub fn size(bytes: f64) -> String {
    match bytes {
        b if b >= 1e9 => format!("{:.1} GB", b / 1e9),
        b if b >= 1e6 => format!("{:.0} MB", b / 1e6),
        b => format!("{:.0} kB", b / 1e3),
    }
}

/// Counts what is read.
#[derive(Debug)]
pub struct Counting<'a, R> {
    progress: &'a mut Progress,
    input: R,
}

impl<R: Read> Read for Counting<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.progress.add(read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_has_rate_and_time_left() {
        let second = Duration::from_secs(2);
        assert_eq!(line(1_000_000_000, 5_000_000_000, second), "1.0 GB of 5.0 GB, 500 MB/s, 8 s left");
        assert_eq!(line(1_000_000, 1_201_000_000, second), "1 MB of 1.2 GB, 500 kB/s, 40 min left");
        assert_eq!(line(2_000_000, 0, second), "2 MB, 1 MB/s");
    }
}
