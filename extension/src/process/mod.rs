//! Measuring the function's processes from outside, through `/proc` and their CPU clocks.
//!
//! Between freeze and thaw the counters stand still, so one reading at the next INVOKE closes one
//! invocation and opens the next, exactly, and no handler ever waits for it.

mod difference;
mod parse;
mod probe;
mod scan;

pub use difference::{Measured, between};
pub use probe::{Reading, ThreadReading};

use probe::Probe;
use scan::Scanner;

use crate::settings::Peak;

/// The function's processes: every descendant of the platform's process that is not an extension.
#[derive(Debug)]
pub struct Processes {
    scanner: Scanner,
    probes: Vec<Probe>,
    peak: Peak,
}

/// All of the function's processes at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// One reading per live process.
    pub processes: Vec<Reading>,
    /// Whether the peaks in this snapshot go back to a reset at the start of the invocation only.
    pub peaks_reset: bool,
}

impl Processes {
    /// Nothing is read before the first [`Processes::read`].
    #[must_use]
    pub fn new(peak: Peak) -> Self {
        Self { scanner: Scanner::of_this_process(), probes: vec![], peak }
    }

    /// Reads every process, new ones included. Processes that ended are dropped.
    ///
    /// The CPU clocks of known processes are read before anything else: the thawed handler is running
    /// already, and each microsecond later is a microsecond of the next invocation counted to the last.
    pub fn read(&mut self) -> Snapshot {
        let clocks: Vec<_> = self.probes.iter().map(Probe::cpu_ns).collect();
        let mut processes = Vec::with_capacity(self.probes.len());
        let mut peaks_reset = self.peak == Peak::Reset;
        let mut clock = clocks.into_iter();
        self.probes.retain(|probe| {
            let reading = probe.read(clock.next().flatten());
            peaks_reset &= probe.peak_was_reset();
            let alive = reading.is_some();
            processes.extend(reading);
            alive
        });
        for pid in self.scanner.new_pids(|pid| self.probes.iter().any(|probe| probe.pid() == pid)) {
            let Some(probe) = Probe::open(pid) else { continue };
            if let Some(reading) = probe.read(probe.cpu_ns()) {
                processes.push(reading);
                self.probes.push(probe);
            }
        }
        Snapshot { processes, peaks_reset }
    }

    /// Starts a new peak for every process, where that is wanted and permitted.
    pub fn reset_peaks(&mut self) {
        if self.peak == Peak::Reset {
            self.probes.iter_mut().for_each(Probe::reset_peak);
        }
    }
}

/// Our own resident memory, KiB. Not `getrusage`'s maximum: that is inherited from whoever started us.
#[must_use]
pub fn own_resident_kib() -> u64 {
    parse::value(&std::fs::read_to_string("/proc/self/status").unwrap_or_default(), "VmRSS:")
}

impl Snapshot {
    /// Resident memory of all processes, KiB. Pages they share count once for each.
    #[must_use]
    pub fn resident_kib(&self) -> u64 {
        self.processes.iter().map(|process| process.resident_kib).sum()
    }

    /// Sum of the processes' peaks, KiB: the most they can have held at once.
    #[must_use]
    pub fn peak_kib(&self) -> u64 {
        self.processes.iter().map(|process| process.peak_kib).sum()
    }
}
