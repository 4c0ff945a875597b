//! CPU, memory and concurrency of environments that run several invocations at once: those of managed instances.
//!
//! There, a counter of a process belongs to no single invocation. So the environment is measured in intervals.

use crate::telemetry::histogram::LogHistogram;

/// What one environment used in one interval: the time between two of its batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interval {
    /// Its length, microseconds.
    pub duration_us: u64,
    /// CPU time of the function's processes, microseconds.
    pub cpu_us: u64,
    /// Highest CPU use in a step of about five seconds, thousandths of a vCPU.
    pub max_cpu_milli: u64,
    /// Highest resident memory of the function's processes, KiB.
    pub peak_kib: u64,
    /// Most invocations at the same time.
    pub max_concurrency: u32,
}

/// The intervals of the environments of one series, summed up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Utilization {
    /// Number of intervals.
    pub intervals: u64,
    /// Their length, microseconds.
    pub measured_us: u64,
    /// CPU time in them, microseconds.
    pub cpu_us: u64,
    /// The durations of the invocations that ended in them, microseconds.
    pub invocations_us: u64,
    /// Most invocations at the same time in one environment.
    pub max_concurrency: u32,
    /// Highest memory of one environment, KiB.
    pub max_peak_kib: u64,
    /// `max_cpu_milli` of each interval.
    pub cpu_milli: LogHistogram,
    /// `peak_kib` of each interval.
    pub peak_kib: LogHistogram,
}

impl Utilization {
    /// Adds one interval, in which invocations with a total duration of `invocations_us` ended.
    pub fn record(&mut self, interval: &Interval, invocations_us: u64) {
        self.merge(&Self {
            intervals: 1,
            measured_us: interval.duration_us,
            cpu_us: interval.cpu_us,
            invocations_us,
            max_concurrency: interval.max_concurrency,
            max_peak_kib: interval.peak_kib,
            ..Self::default()
        });
        self.cpu_milli.record(interval.max_cpu_milli);
        self.peak_kib.record(interval.peak_kib);
    }

    /// Adds other intervals.
    pub fn merge(&mut self, other: &Self) {
        // Every field is named, so that a new one cannot be left out.
        let Self {
            intervals,
            measured_us,
            cpu_us,
            invocations_us,
            max_concurrency,
            max_peak_kib,
            cpu_milli,
            peak_kib,
        } = self;
        *intervals = intervals.saturating_add(other.intervals);
        *measured_us = measured_us.saturating_add(other.measured_us);
        *cpu_us = cpu_us.saturating_add(other.cpu_us);
        *invocations_us = invocations_us.saturating_add(other.invocations_us);
        *max_concurrency = (*max_concurrency).max(other.max_concurrency);
        *max_peak_kib = (*max_peak_kib).max(other.max_peak_kib);
        cpu_milli.merge(&other.cpu_milli);
        peak_kib.merge(&other.peak_kib);
    }

    /// Mean CPU use of one environment, vCPUs; zero when nothing was measured.
    #[must_use]
    pub fn mean_cpu(&self) -> f64 {
        ratio(self.cpu_us, self.measured_us)
    }

    /// Mean number of invocations at the same time in one environment; zero when nothing was measured.
    #[must_use]
    pub fn mean_concurrency(&self) -> f64 {
        ratio(self.invocations_us, self.measured_us)
    }

    /// CPU of one invocation while it runs, vCPUs. The CPU time between invocations counts, too. `None` without invocations.
    #[must_use]
    pub fn cpu_per_invocation(&self) -> Option<f64> {
        (self.invocations_us > 0).then(|| ratio(self.cpu_us, self.invocations_us))
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_of_the_measured_time() {
        let mut utilization = Utilization::default();
        assert_eq!((utilization.mean_cpu(), utilization.cpu_per_invocation()), (0.0, None));
        let busy = Interval {
            duration_us: 10_000_000,
            cpu_us: 5_000_000,
            max_cpu_milli: 900,
            peak_kib: 300_000,
            max_concurrency: 4,
        };
        let low = Interval { cpu_us: 1_000_000, max_cpu_milli: 100, max_concurrency: 1, ..busy };
        utilization.record(&busy, 18_000_000);
        utilization.record(&low, 2_000_000);
        assert_eq!((utilization.intervals, utilization.max_concurrency), (2, 4));
        assert!((utilization.mean_cpu() - 0.3).abs() < 1e-12);
        assert!((utilization.mean_concurrency() - 1.0).abs() < 1e-12);
        assert!((utilization.cpu_per_invocation().unwrap() - 0.3).abs() < 1e-12);
    }
}
