//! The CPU budget for samples.
//!
//! The extension uses the function's CPU. Its budget is a percentage of the share's CPU time since the invocation began.
//! All CPU time of the extension counts, and a sample is taken only when the budget allows it. The work that every
//! invocation needs comes first, so a short invocation has no samples.

use std::time::Duration;

use crate::clock::own_cpu_time;

/// The shortest interval between two samples.
const MIN_INTERVAL: Duration = Duration::from_millis(5);

/// The longest interval. The longer it is, the more is lost of a thread that ends between two samples.
const MAX_INTERVAL: Duration = Duration::from_millis(500);

/// Decides when the next sample is due.
#[derive(Debug)]
pub struct CpuBudget {
    /// Allowed CPU time per wall time; 0 disables samples.
    rate: f64,
    /// Own CPU time when the invocation began, and when the last sample ended.
    invocation_cpu: Duration,
    last_cpu: Duration,
    /// The running mean of the cost of a sample, with the timer that wakes the extension.
    sample_cost: Duration,
    samples: u64,
}

impl CpuBudget {
    /// `percent` of a share of `share` vCPUs.
    #[must_use]
    pub fn new(percent: f64, share: f64) -> Self {
        let now = own_cpu_time();
        Self {
            rate: percent / 100.0 * share,
            invocation_cpu: now,
            last_cpu: now,
            // An estimate until the first one is measured.
            sample_cost: Duration::from_micros(100),
            samples: 0,
        }
    }

    /// An invocation begins. CPU time since the last sample of the previous invocation counts for this one: waking,
    /// telemetry, and a delivery.
    pub fn begin(&mut self) {
        self.invocation_cpu = self.last_cpu;
        self.last_cpu = own_cpu_time();
    }

    /// How long to wait before the next sample of an invocation that has run for `elapsed`; `None` when samples are
    /// disabled.
    ///
    /// Intervals grow with the invocation: at most a fifth of the time of a thread that ends after the last sample is
    /// lost, and a long invocation has few samples.
    #[must_use]
    pub fn pause(&self, elapsed: Duration) -> Option<Duration> {
        if self.rate <= 0.0 {
            return None;
        }
        let used = self.last_cpu.saturating_sub(self.invocation_cpu);
        let affordable_at = (used + self.sample_cost).div_f64(self.rate.max(1e-6));
        let grown = (elapsed / 4).clamp(MIN_INTERVAL, MAX_INTERVAL);
        Some(affordable_at.saturating_sub(elapsed).max(grown))
    }

    /// Runs `sample` and measures the CPU time since the last one, waking included.
    pub fn spend<T>(&mut self, sample: impl FnOnce() -> T) -> T {
        let result = sample();
        let now = own_cpu_time();
        self.sample_cost = (self.sample_cost * 3 + now.saturating_sub(self.last_cpu)) / 4;
        self.last_cpu = now;
        self.samples += 1;
        result
    }

    /// The number of samples taken.
    #[must_use]
    pub const fn samples(&self) -> u64 {
        self.samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(percent: f64, share: f64) -> CpuBudget {
        let mut budget = CpuBudget::new(percent, share);
        // Ignores the CPU time of the test runner.
        (budget.invocation_cpu, budget.last_cpu) = (Duration::ZERO, Duration::ZERO);
        budget
    }

    fn spin(duration: Duration) {
        let until = own_cpu_time() + duration;
        while own_cpu_time() < until {}
    }

    #[test]
    fn a_sample_waits_until_the_budget_allows_it() {
        // 128 MB give 72 ms of CPU in each second; 1 % of it is one sample of 100 µs in 138 ms.
        let small = budget(1.0, 128.0 / 1_769.0);
        assert_eq!(small.pause(Duration::ZERO).unwrap().as_millis(), 138);
        assert_eq!(small.pause(Duration::from_millis(130)).unwrap().as_millis(), 32);
        let large = budget(1.0, 2.0);
        assert_eq!(large.pause(Duration::ZERO), Some(MIN_INTERVAL));
        assert_eq!(large.pause(Duration::from_millis(400)), Some(Duration::from_millis(100)));
        assert_eq!(large.pause(Duration::from_secs(900)), Some(MAX_INTERVAL));
        assert_eq!(budget(0.0, 2.0).pause(Duration::ZERO), None);
    }

    #[test]
    fn used_cpu_time_delays_the_next_sample() {
        let mut budget = CpuBudget::new(1.0, 1.0);
        budget.begin();
        budget.spend(|| spin(Duration::from_millis(2)));
        // At least 2 ms are used and a sample costs a quarter of that: at 1 %, not before 250 ms.
        assert!(budget.pause(Duration::from_millis(10)).unwrap() > Duration::from_millis(200));
        budget.begin();
        let next = budget.pause(Duration::ZERO).unwrap();
        assert!(next < Duration::from_millis(200), "the next invocation has its own budget: {next:?}");
        assert_eq!(budget.samples(), 1);
    }
}
