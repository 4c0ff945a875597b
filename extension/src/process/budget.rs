//! What looking costs, and how often it may be done.
//!
//! The extension lives on the function's CPU. Ticks are paid from a budget, a percentage of what the
//! function's share could have done, and their interval follows from what the last ones cost.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The first look, and the shortest interval: handlers that are done by then have no thread that came and
/// went without being seen for long.
const SHORTEST: Duration = Duration::from_millis(5);

/// The longest interval. A thread's last moments are lost with it, up to one interval of them.
const LONGEST: Duration = Duration::from_millis(500);

/// Decides when the next tick is due.
#[derive(Debug)]
pub struct Budget {
    /// CPU time ticks may use per time passed; 0 turns them off.
    rate: f64,
    /// What a tick costs: a running mean.
    tick_cost: Duration,
    ticks: u64,
}

impl Budget {
    /// `percent` of a share of `share` vCPU.
    #[must_use]
    pub fn new(percent: f64, share: f64) -> Self {
        // Until one was measured: a scan of ten threads on a slow core.
        Self { rate: percent / 100.0 * share, tick_cost: Duration::from_micros(80), ticks: 0 }
    }

    /// How long to wait before the next tick of an invocation that has run for `elapsed`; `None` when there
    /// is to be none.
    ///
    /// Intervals grow with the invocation: a thread that ends unseen after the last tick takes a fifth of its
    /// time with it at most, and a long invocation is not looked at more than it needs.
    #[must_use]
    pub fn pause(&self, elapsed: Duration) -> Option<Duration> {
        let affordable = self.tick_cost.div_f64(self.rate.max(1e-6));
        (self.rate > 0.0).then(|| affordable.max(elapsed / 4).clamp(SHORTEST, LONGEST))
    }

    /// Runs `tick` and learns from what it cost.
    pub fn spend<T>(&mut self, tick: impl FnOnce() -> T) -> T {
        let before = own_cpu();
        let result = tick();
        let cost = own_cpu().saturating_sub(before);
        self.tick_cost = (self.tick_cost * 3 + cost) / 4;
        self.ticks += 1;
        result
    }

    /// Ticks made so far.
    #[must_use]
    pub const fn ticks(&self) -> u64 {
        self.ticks
    }
}

/// CPU time of this process; the timer that wakes us is paid, too.
fn own_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_keeps_the_cost_within_the_budget() {
        // 128 MB buys 72 ms of CPU a second; 1 % of it pays nine ticks of 80 µs.
        let small = Budget::new(1.0, 128.0 / 1_769.0);
        let pause = small.pause(Duration::ZERO).unwrap();
        assert!((100..=120).contains(&pause.as_millis()), "{pause:?}");
        let large = Budget::new(1.0, 2.0);
        assert_eq!(large.pause(Duration::ZERO), Some(SHORTEST));
        assert_eq!(large.pause(Duration::from_millis(400)), Some(Duration::from_millis(100)));
        assert_eq!(large.pause(Duration::from_secs(900)), Some(LONGEST));
        assert_eq!(Budget::new(0.0, 2.0).pause(Duration::ZERO), None);
    }

    #[test]
    fn dear_ticks_become_rare() {
        let mut budget = Budget::new(1.0, 0.5);
        let before = budget.pause(Duration::ZERO).unwrap();
        let spin = || {
            let until = own_cpu() + Duration::from_millis(2);
            while own_cpu() < until {}
        };
        budget.spend(spin);
        budget.spend(spin);
        assert!(budget.pause(Duration::ZERO).unwrap() > before);
        assert_eq!(budget.ticks(), 2);
    }
}
