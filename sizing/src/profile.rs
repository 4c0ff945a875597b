//! What the telemetry of one size says about an invocation: its work, its waiting and its parallelism.
//!
//! For one thread `wall = busy + starved + idle`. Starved time is measured (run-queue wait, which holds the
//! throttled time), so busy and idle can be told apart even where the function was held back. How long the
//! same work takes at another size is in [`crate::replay`].

use crate::invocation::Work;
use crate::replay::Shape;
use crate::rollup::{Rollup, WorkSum};
use crate::units::Megabytes;

/// Numbers of bursts tried when the replay is fitted to what was seen.
const BURST_COUNTS: [f64; 15] =
    [1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 100.0, 200.0, 400.0];

/// A burst longer than this would have been cut by the scheduler and seen as several, ms.
const LONGEST_BURST_MS: f64 = 80.0;

/// Effective threads below this are one thread and its helpers.
const PARALLEL_FROM: f64 = 1.3;

/// Means over the warm invocations at one size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Profile {
    /// The size it was measured at.
    pub memory: Megabytes,
    /// Invocations behind the means.
    pub invocations: u64,
    /// Wall time, ms.
    pub wall_ms: f64,
    /// CPU time of all threads, ms.
    pub busy_ms: f64,
    /// Wall time lost for want of CPU, ms: starved time on the critical path.
    pub starved_ms: f64,
    /// Wall time with nothing to run, ms.
    pub idle_ms: f64,
    /// Threads that run at once when nothing holds them back; at least 1.
    pub parallel: f64,
    /// Bursts of CPU the work comes in; at least 1.
    pub bursts: f64,
    /// Whether CPU was measured; without it busy, starved and idle time are a guess.
    pub measured: bool,
}

impl Profile {
    /// Reads the means of one size; `None` without any warm invocation.
    ///
    /// Functions so rare that every invocation is cold are read from their cold ones.
    #[must_use]
    pub fn of(memory: Megabytes, rollup: &Rollup) -> Option<Self> {
        let sum = if rollup.warm.invocations > 0 { &rollup.warm } else { &rollup.cold };
        if sum.invocations > 0 && sum.wall_us > 0 {
            return Some(Self::measured(memory, sum));
        }
        let durations =
            if rollup.warm_duration_us.is_empty() { &rollup.duration_us } else { &rollup.warm_duration_us };
        let wall_ms = durations.mean()? / 1e3;
        Some(Self::unmeasured(memory, durations.count(), wall_ms))
    }

    fn measured(memory: Megabytes, sum: &WorkSum) -> Self {
        let per_ms = |total_us: u64| total_us as f64 / 1e3 / sum.invocations as f64;
        let Work { starved_us, top_starved_us, effective_threads_milli, voluntary_switches, .. } = sum.work;
        let wall_ms = per_ms(sum.wall_us);
        let share = memory.share();
        let busy_ms = per_ms(sum.work.busy_us()).clamp(0.0, wall_ms * f64::from(memory.visible_vcpus()));
        let threads = (effective_threads_milli as f64 / 1e3 / sum.invocations as f64)
            .clamp(1.0, busy_threads_cap(memory));

        // A thread that only waits for a sibling's CPU is not held back twice: the busiest thread's wait, or
        // the average over the effective threads where the work wanders between them.
        let room = (wall_ms - busy_ms.min(wall_ms)).max(0.0);
        let starved_ms = per_ms(top_starved_us).max(per_ms(starved_us) / threads).clamp(0.0, room);
        let parallel = if share >= 1.0 {
            (busy_ms / wall_ms).clamp(1.0, f64::from(memory.visible_vcpus()))
        } else if threads > PARALLEL_FROM {
            let wanted = busy_ms + per_ms(starved_us);
            (wanted / (busy_ms + starved_ms).max(1e-3)).clamp(1.0, threads.min(2.0))
        } else {
            1.0
        };
        let idle_ms =
            (wall_ms - busy_ms / parallel - if share < parallel { starved_ms } else { 0.0 }).max(0.0);
        let switches = (voluntary_switches as f64 / sum.invocations as f64).max(1.0);
        let mut profile = Self {
            memory,
            invocations: sum.invocations,
            wall_ms,
            busy_ms,
            starved_ms,
            idle_ms,
            parallel,
            bursts: switches,
            measured: true,
        };
        profile.bursts = profile.fitted_bursts(switches);
        profile
    }

    /// Without CPU counters the split is unknown: half of the wall time is taken as work, which the model's
    /// interval reflects.
    fn unmeasured(memory: Megabytes, invocations: u64, wall_ms: f64) -> Self {
        let busy_ms = 0.5 * wall_ms * memory.share().min(1.0);
        Self {
            memory,
            invocations,
            wall_ms,
            busy_ms,
            starved_ms: (0.5 * wall_ms - busy_ms).max(0.0),
            idle_ms: 0.5 * wall_ms,
            parallel: 1.0,
            bursts: 1.0,
            measured: false,
        }
    }

    /// The size-free work behind the means.
    #[must_use]
    pub const fn shape(&self) -> Shape {
        Shape { busy_ms: self.busy_ms, idle_ms: self.idle_ms, bursts: self.bursts, parallel: self.parallel }
    }

    /// The number of bursts with which the replay best tells the wall time that was measured.
    fn fitted_bursts(&self, switches: f64) -> f64 {
        if self.memory.share() >= self.parallel {
            return switches.max(self.busy_ms / LONGEST_BURST_MS).min(400.0);
        }
        let miss = |bursts: f64| {
            let shape = Shape { bursts, ..self.shape() };
            (shape.wall_ms(self.memory) - self.wall_ms).abs()
        };
        BURST_COUNTS
            .into_iter()
            .filter(|&bursts| bursts <= (2.0 * switches).max(1.0))
            .filter(|&bursts| self.busy_ms / bursts <= LONGEST_BURST_MS || bursts >= 400.0)
            .min_by(|&a, &b| miss(a).total_cmp(&miss(b)))
            .unwrap_or_else(|| (self.busy_ms / LONGEST_BURST_MS).max(1.0))
    }
}

fn busy_threads_cap(memory: Megabytes) -> f64 {
    f64::from(memory.visible_vcpus()).max(8.0)
}
