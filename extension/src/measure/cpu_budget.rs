//! What looking costs, and when it may be done.
//!
//! The extension lives on the function's CPU. All it uses during an invocation is held against a budget, a
//! percentage of what the function's share could have done since the invocation began; it looks inside only
//! when that has room. What must be done for every invocation comes first, so a short one is never looked at.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The shortest interval between two looks.
const SHORTEST: Duration = Duration::from_millis(5);

/// Intervals stop growing here: with them grows what is lost of a thread that ends unseen.
const LONGEST: Duration = Duration::from_millis(500);

/// Decides when the next tick is due.
#[derive(Debug)]
pub struct CpuBudget {
    /// CPU time that may be used per time passed; 0 turns ticks off.
    rate: f64,
    /// Own CPU time when the invocation began, and when the last tick ended.
    invocation_cpu: Duration,
    last_cpu: Duration,
    /// What a tick costs, the timer that wakes us included: a running mean.
    tick_cost: Duration,
    ticks: u64,
}

impl CpuBudget {
    /// `percent` of a share of `share` vCPU.
    #[must_use]
    pub fn new(percent: f64, share: f64) -> Self {
        let now = own_cpu();
        Self {
            rate: percent / 100.0 * share,
            invocation_cpu: now,
            last_cpu: now,
            // Until one was measured.
            tick_cost: Duration::from_micros(100),
            ticks: 0,
        }
    }

    /// An invocation begins. What was used since the last tick of the one before counts to this one:
    /// waking, telemetry, and a delivery.
    pub fn begin(&mut self) {
        self.invocation_cpu = self.last_cpu;
        self.last_cpu = own_cpu();
    }

    /// How long to wait before the next tick of an invocation that has run for `elapsed`; `None` when there
    /// is to be none.
    ///
    /// Intervals grow with the invocation: a thread that ends unseen after the last tick takes a fifth of its
    /// time with it at most, and a long invocation is not looked at more than it needs.
    #[must_use]
    pub fn pause(&self, elapsed: Duration) -> Option<Duration> {
        if self.rate <= 0.0 {
            return None;
        }
        let used = self.last_cpu.saturating_sub(self.invocation_cpu);
        let affordable_at = (used + self.tick_cost).div_f64(self.rate.max(1e-6));
        let grown = (elapsed / 4).clamp(SHORTEST, LONGEST);
        Some(affordable_at.saturating_sub(elapsed).max(grown))
    }

    /// Runs `tick` and learns what it cost since the last one, waking included.
    pub fn spend<T>(&mut self, tick: impl FnOnce() -> T) -> T {
        let result = tick();
        let now = own_cpu();
        self.tick_cost = (self.tick_cost * 3 + now.saturating_sub(self.last_cpu)) / 4;
        self.last_cpu = now;
        self.ticks += 1;
        result
    }

    /// Ticks made so far.
    #[must_use]
    pub const fn ticks(&self) -> u64 {
        self.ticks
    }
}

/// CPU time of this process.
fn own_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(percent: f64, share: f64) -> CpuBudget {
        let mut budget = CpuBudget::new(percent, share);
        // As if nothing was used yet, whatever the test runner did.
        (budget.invocation_cpu, budget.last_cpu) = (Duration::ZERO, Duration::ZERO);
        budget
    }

    fn spin(duration: Duration) {
        let until = own_cpu() + duration;
        while own_cpu() < until {}
    }

    #[test]
    fn the_budget_has_to_have_room_for_a_tick() {
        // 128 MB buys 72 ms of CPU a second; 1 % of it pays one tick of 100 µs in 138 ms.
        let small = budget(1.0, 128.0 / 1_769.0);
        assert_eq!(small.pause(Duration::ZERO).unwrap().as_millis(), 138);
        assert_eq!(small.pause(Duration::from_millis(130)).unwrap().as_millis(), 32);
        let large = budget(1.0, 2.0);
        assert_eq!(large.pause(Duration::ZERO), Some(SHORTEST));
        assert_eq!(large.pause(Duration::from_millis(400)), Some(Duration::from_millis(100)));
        assert_eq!(large.pause(Duration::from_secs(900)), Some(LONGEST));
        assert_eq!(budget(0.0, 2.0).pause(Duration::ZERO), None);
    }

    #[test]
    fn what_was_used_is_paid_before_the_next_look() {
        let mut budget = CpuBudget::new(1.0, 1.0);
        budget.begin();
        budget.spend(|| spin(Duration::from_millis(2)));
        // At least 2 ms used and a tick that costs a quarter of that: at 1 %, not before 250 ms.
        assert!(budget.pause(Duration::from_millis(10)).unwrap() > Duration::from_millis(200));
        budget.begin();
        let afresh = budget.pause(Duration::ZERO).unwrap();
        assert!(afresh < Duration::from_millis(200), "the next invocation has its own budget: {afresh:?}");
        assert_eq!(budget.ticks(), 1);
    }
}
