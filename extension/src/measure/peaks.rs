//! The highest memory of all processes together, from the peaks of each.

use super::{Reading, Snapshot};

/// Sums of the processes that exist at the end.
#[derive(Debug, Default)]
pub(super) struct Peaks {
    /// Peaks of the processes that existed at the start, KiB.
    old_kib: u64,
    /// Peaks of the processes that began since, KiB.
    new_kib: u64,
    /// The highest peak of one process, KiB.
    highest_kib: u64,
    /// Memory above the present one that the processes had at some time, KiB.
    released_kib: u64,
}

impl Peaks {
    /// Adds a process; `is_new` is whether it began since the start.
    pub(super) fn add(&mut self, process: &Reading, is_new: bool) {
        *(if is_new { &mut self.new_kib } else { &mut self.old_kib }) += process.peak_kib;
        self.highest_kib = self.highest_kib.max(process.peak_kib);
        self.released_kib += process.peak_kib.saturating_sub(process.resident_kib);
    }

    /// The peak of all processes, KiB. It is the sum of their peaks where it is not known which pages they share. The second
    /// value is then the highest peak of one process, KiB, which is a lower bound.
    pub(super) fn of_all(&self, end: &Snapshot) -> (u64, Option<u64>) {
        let sampled = end.sampled_peaks;
        let highest_kib = self.highest_kib.max(sampled.new_process_kib);
        let sum_kib = self.old_kib + self.new_kib.max(sampled.new_processes_kib);
        let used_kib = match end.processes.as_slice() {
            [only] if sampled.used_kib > 0 => Some(only.resident_kib),
            _ => end.used_kib,
        };
        let once_kib =
            used_kib.map(|used_kib| highest_kib.max(sampled.used_kib).max(used_kib + self.released_kib));
        match once_kib {
            Some(once_kib) => (once_kib.min(sum_kib), None),
            None => (sum_kib, (sum_kib > highest_kib).then_some(highest_kib)),
        }
    }
}
