//! The replay: how long an invocation's work takes under the CPU quota of a memory size.
//!
//! Lambda gives a size `share = memory / 1769` vCPU through the kernel's CFS bandwidth control: in every
//! period of 20 ms the function may run `20 ms × share` and then waits for the next (measured by
//! pwrdrvr/lambda-throttling, 2025). A burst below that quota is not slowed at all, a longer one in jumps of
//! the rest of the period; so duration is not `idle + work / share`, and the replay follows the periods.
//! Where an invocation's work and waiting come from is in [`crate::profile`].

use crate::units::Megabytes;

/// Period of the kernel's bandwidth control on Lambda, in ms.
pub const PERIOD_MS: f64 = 20.0;

/// Phases of the period at which an invocation may begin that are averaged over.
const PHASES: u32 = 8;

/// Bursts followed one by one; of a chattier invocation this many are replayed and scaled up.
const MAX_BURSTS: f64 = 60.0;

/// No invocation has more work than this, ms: six vCPU for the fifteen minutes Lambda allows. Beyond it the
/// periods do not matter, and numbers are absurd anyway.
const LONGEST_MS: f64 = 6.0 * 900_000.0;

/// An invocation's work, free of the size it was measured at. All finite and not negative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// CPU time, ms.
    pub busy_ms: f64,
    /// Wall time in which nothing wanted to run, ms.
    pub idle_ms: f64,
    /// Bursts of CPU the work comes in, with the idle time spread between them; at least 1.
    pub bursts: f64,
    /// Threads that run at once when nothing holds them back; at least 1.
    pub parallel: f64,
}

impl Shape {
    /// Expected wall time at `memory`, in ms, averaged over the phase at which it begins.
    #[must_use]
    pub fn wall_ms(&self, memory: Megabytes) -> f64 {
        let share = memory.share();
        let parallel = self.parallel.min(f64::from(memory.visible_vcpus())).max(1.0);
        if self.busy_ms <= 0.0 || share <= 0.0 {
            return self.idle_ms;
        }
        if self.busy_ms > LONGEST_MS {
            return self.idle_ms + self.busy_ms / share.min(parallel);
        }
        if share >= parallel {
            return self.idle_ms + self.busy_ms / parallel;
        }
        let bursts = self.bursts.round().clamp(1.0, MAX_BURSTS);
        let scale = self.bursts.round().max(1.0) / bursts;
        let burst = Burst {
            busy_ms: self.busy_ms / (bursts * scale),
            gap_ms: self.idle_ms / (bursts * scale),
            quota_ms: PERIOD_MS * share,
            parallel,
        };
        let total: f64 = (0..PHASES)
            .map(|phase| burst.repeat(bursts, PERIOD_MS * (f64::from(phase) + 0.5) / f64::from(PHASES)))
            .sum();
        total * scale / f64::from(PHASES)
    }
}

/// One of the equal bursts and the gap after it.
struct Burst {
    busy_ms: f64,
    gap_ms: f64,
    quota_ms: f64,
    parallel: f64,
}

impl Burst {
    /// Wall time of `count` bursts and their gaps, the first beginning `phase` ms into a period.
    fn repeat(&self, count: f64, phase: f64) -> f64 {
        let mut clock = Clock { phase, elapsed: 0.0 };
        let mut left = self.quota_ms;
        let mut done = 0.0;
        while done < count {
            self.run(&mut clock, &mut left);
            if clock.advance(self.gap_ms) {
                left = self.quota_ms;
            }
            done += 1.0;
        }
        clock.elapsed
    }

    /// Runs one burst with `left` ms of quota.
    fn run(&self, clock: &mut Clock, left: &mut f64) {
        let mut need = self.busy_ms;
        while need > 1e-9 {
            let until_period = PERIOD_MS - clock.phase;
            let run = (need.min(*left) / self.parallel).min(until_period);
            need -= run * self.parallel;
            *left -= run * self.parallel;
            let mut refilled = clock.advance(run);
            if need > 1e-9 && !refilled {
                // Throttled until the period ends; whole periods that will be used up are skipped at once.
                let whole = ((need / self.quota_ms).floor() - 1.0).max(0.0);
                need -= whole * self.quota_ms;
                clock.elapsed += whole * PERIOD_MS;
                clock.finish_period();
                refilled = true;
            }
            if refilled {
                *left = self.quota_ms;
            }
        }
    }
}

/// Time since the first burst, and where in a period it stands. The two are apart so that long waits do not
/// cost the phase its precision.
struct Clock {
    phase: f64,
    elapsed: f64,
}

impl Clock {
    /// Lets time pass; says whether a period ended.
    fn advance(&mut self, by_ms: f64) -> bool {
        self.elapsed += by_ms;
        self.phase += by_ms;
        let ended = self.phase >= PERIOD_MS - 1e-9;
        if ended {
            self.phase = (self.phase % PERIOD_MS).max(0.0);
            if self.phase >= PERIOD_MS - 1e-9 {
                self.phase = 0.0;
            }
        }
        ended
    }

    fn finish_period(&mut self) {
        self.elapsed += PERIOD_MS - self.phase;
        self.phase = 0.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn single(busy_ms: f64, idle_ms: f64, bursts: f64) -> Shape {
        Shape { busy_ms, idle_ms, bursts, parallel: 1.0 }
    }

    #[test]
    fn long_work_takes_its_share() {
        let shape = single(5_000.0, 0.0, 1.0);
        for memory in [128, 256, 512, 1_024] {
            let expected = 5_000.0 / Megabytes(memory).share();
            let wall = shape.wall_ms(Megabytes(memory));
            assert!((wall / expected - 1.0).abs() < 0.01, "{memory} MB: {wall} against {expected}");
        }
    }

    #[test]
    fn a_burst_within_the_quota_is_not_slowed() {
        // 256 MB buys 2.9 ms a period; two thirds of the phases leave room for 1 ms without a boundary.
        let wall = single(1.0, 50.0, 1.0).wall_ms(Megabytes(256));
        assert!((wall - 51.0).abs() < 1e-6, "{wall}");
    }

    #[test]
    fn threads_share_the_quota() {
        let shape = Shape { busy_ms: 400.0, idle_ms: 0.0, bursts: 1.0, parallel: 2.0 };
        assert!((shape.wall_ms(Megabytes(3_538)) - 200.0).abs() < 1e-6);
        assert!((shape.wall_ms(Megabytes(1_769)) / 400.0 - 1.0).abs() < 0.05);
    }

    proptest! {
        #[test]
        fn wall_is_never_less_than_work_allows(busy in 0.0f64..1e5, idle in 0.0f64..1e5, bursts in 0.0f64..1e5, parallel in 0.0f64..9.0, memory in 1u32..20_000) {
            let wall = Shape { busy_ms: busy, idle_ms: idle, bursts, parallel }.wall_ms(Megabytes(memory));
            prop_assert!(wall.is_finite() && wall >= idle * 0.999);
            prop_assert!(wall >= busy / parallel.max(1.0) * 0.999);
        }
    }
}
