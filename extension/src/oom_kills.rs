//! The kernel's count of processes that it killed because memory ran out.
//!
//! An environment is a virtual machine of its own, so that the count is the environment's. Where several environments share
//! a kernel, as in the sandbox, it has the kills of all, and is evidence only together with the memory of the invocation.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// The file with the kernel's counters.
const PATH: &str = "/proc/vmstat";

/// More than the file has: some 200 lines.
const MAX_BYTES: usize = 16 * 1024;

/// Reads the count. It is read seldom: it takes some ten microseconds.
#[derive(Debug, Default)]
pub struct OomKills {
    /// Opened at the first reading.
    file: Option<File>,
    /// The count at the last reading.
    last: Option<u64>,
}

impl OomKills {
    /// The number of kills since the last call; `None` at the first call, and when the kernel does not count them.
    pub fn take(&mut self) -> Option<u64> {
        let now = self.read()?;
        self.last.replace(now).map(|last| now.saturating_sub(last))
    }

    fn read(&mut self) -> Option<u64> {
        let mut buffer = [0; MAX_BYTES];
        if self.file.is_none() {
            self.file = File::open(PATH).ok();
        }
        let length = self.file.as_ref()?.read_at(&mut buffer, 0).ok()?;
        oom_kills(std::str::from_utf8(buffer.get(..length)?).ok()?)
    }
}

fn oom_kills(vmstat: &str) -> Option<u64> {
    vmstat.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_read() {
        assert_eq!(oom_kills("nr_free_pages 5\noom_kill_x 1\noom_kill 38\n"), Some(38));
        assert_eq!(oom_kills("nr_free_pages 5\n"), None);
        let mut kills = OomKills::default();
        assert_eq!(kills.take(), None, "it counts from now on");
        assert_eq!(kills.take(), Some(0), "nothing was killed");
    }
}
