//! What an environment uses where several invocations run at the same time: on managed instances.
//!
//! No counter of a process belongs to one invocation there. So the processes are read in steps, and each batch has the sums
//! and maxima of the steps since the batch before it.

use std::time::{Duration, Instant};

use tailor_sizing::telemetry::utilization::Interval;

use super::{Processes, Snapshot, between};

/// The shortest step whose CPU use counts as a maximum: a shorter one is a moment.
const MIN_STEP: Duration = Duration::from_secs(1);

/// Measures the intervals of one environment. Nothing is measured before the first step.
#[derive(Debug, Default)]
pub struct UtilizationMeter {
    /// The last reading, and its time. The CPU time of Init is before the first one.
    last: Option<(Instant, Snapshot)>,
    interval: Interval,
}

impl UtilizationMeter {
    /// `running` invocations run at the same time now.
    pub fn on_start(&mut self, running: usize) {
        let running = u32::try_from(running).unwrap_or(u32::MAX);
        self.interval.max_concurrency = self.interval.max_concurrency.max(running);
    }

    /// Whether there is a reading that the next step continues.
    #[must_use]
    pub const fn has_begun(&self) -> bool {
        self.last.is_some()
    }

    /// Reads the processes. A reading without processes is ignored: the platform has ended them.
    pub fn step(&mut self, processes: &mut Processes) {
        let snapshot = processes.read_all();
        if snapshot.processes.is_empty() {
            return;
        }
        processes.reset_peaks();
        let now = Instant::now();
        if let Some((began, start)) = &self.last {
            let measured = between(start, &snapshot);
            let length = now.duration_since(*began);
            let us = u64::try_from(length.as_micros()).unwrap_or(u64::MAX);
            let cpu_us = measured.work.busy_us();
            let interval = &mut self.interval;
            interval.duration_us += us;
            interval.cpu_us += cpu_us;
            if length >= MIN_STEP {
                interval.max_cpu_milli = interval.max_cpu_milli.max(cpu_us * 1_000 / us.max(1));
            }
            interval.peak_kib = interval.peak_kib.max(measured.peak_kib);
        }
        self.last = Some((now, snapshot));
    }

    /// The interval since the last call. `running` invocations run on.
    pub fn take(&mut self, running: usize) -> Interval {
        let mut taken = std::mem::take(&mut self.interval);
        // Without a step that is long enough, or where the mean is above them.
        taken.max_cpu_milli = taken.max_cpu_milli.max(taken.cpu_us * 1_000 / taken.duration_us.max(1));
        self.on_start(running);
        taken
    }
}
