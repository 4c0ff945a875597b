//! Means of one size's telemetry: how long an invocation used the CPU, waited for it, and was idle.
//!
//! For one thread `wall = busy + starved + idle`. Starved time is measured (run-queue wait, which contains the
//! throttled time), so busy and idle time can be separated even when the function was throttled. The
//! predictions for other sizes start in [`crate::model::hypotheses`].

use crate::model::cfs_simulation::{Kernel, MAX_REFILL, PERIOD_MS, WorkShape, refill_ms};
use crate::model::collection;
use crate::telemetry::histogram::LogHistogram;
use crate::telemetry::invocation::Work;
use crate::telemetry::rollup::{Rollup, WorkSum};
use crate::units::Megabytes;

/// Effective busy threads up to which there is one thread, and nothing else to wait for.
const ONE_THREAD: f64 = 1.3;

/// Effective busy threads up to which there is one thread with its helpers, such as garbage collectors, and beyond which
/// (by one more) work is handed between threads.
const WITH_HELPERS: f64 = 1.8;

/// Share of the CPU time from which the main thread does the work itself. Below it, it waits for other threads, and its idle
/// time is not that of the invocation.
const MAIN_WORKS: f64 = 0.5;

/// Per-thread counters that cover less than this share of the process's CPU time missed the threads that
/// ended within the invocation, and give no information about parallelism.
const THREADS_SEEN: f64 = 0.5;

/// What the kernel's pressure shows of the time in which several threads waited for a CPU, as a share at 128 MB, what each
/// doubling of the size adds, and the most: the kernel averages over the CPUs, and at small sizes more of the time is between
/// two periods. Medians over the first 17 throttled training functions of `truth.json.gz` with several threads were 0.80 at 128 MB
/// and 0.86 at 256 MB. Over the 47 of today they are 0.83 and 0.96, and single functions have 0.6 to 1.1. At larger sizes, waits that nothing waits for are a larger part of it.
const PRESSURE_SHOWS_AT_128: f64 = 0.80;
const PRESSURE_SHOWS_PER_OCTAVE: f64 = 0.06;
const PRESSURE_SHOWS_AT_MOST: f64 = 0.92;

/// Timeslices per blocking of a thread, where the latter was not counted: the median of the sample functions.
const SLICES_PER_SWITCH: f64 = 3.0;

/// How far the run-queue wait of several threads may exceed what one throttled thread would wait: each
/// thread waits for its own CPU, and small quotas serve one CPU at a time.
const THREADED_WAIT: f64 = 3.0;

/// How many more threads than one run at once without a quota, relative to the number that were ready to run at a throttled size, at
/// 128 MB and from 256 MB on. Threads that take turns wait together until the next period, so that more of them are ready at once
/// than with enough CPU. At 128 MB a lower value changes the errors on the training functions by 1 % at most. From 256 MB on, values
/// below 0.5 have lower errors, but the functions ran beside others on two CPUs, which threads that do run at once had to share
/// (decision 0004).
const PARALLEL: [f64; 2] = [1.0, 0.5];

/// More busy threads than Lambda lets a function have.
const MAX_THREADS: f64 = 1_024.0;

/// Coefficient of variation that is assumed when none was measured.
const ASSUMED_SPREAD: f64 = 0.30;

/// Coefficient of variation that a function is expected to have before any of its durations is seen, as strong
/// as one degree of freedom: near the median of the sample functions.
const USUAL_SPREAD: f64 = 0.10;

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
    /// The part of it that the threads of garbage collectors used, ms.
    pub collector_ms: f64,
    /// Wall time lost for lack of CPU, ms: starved time on the critical path.
    pub starved_ms: f64,
    /// The part of it that throttling does not explain, ms: waiting behind others for a CPU, which more memory
    /// does not shorten.
    pub queued_ms: f64,
    /// Wall time with nothing to run, ms.
    pub idle_ms: f64,
    /// Threads that would run at once without a quota, by how many were ready to run; at least 1.
    pub parallel: f64,
    /// How much of the work is handed between threads, from 0 (one thread) to 1.
    pub threaded: f64,
    /// Times a thread blocked; at least 1.
    pub switches: f64,
    /// Relative variance of `wall_ms` as the mean of so many invocations.
    pub noise: f64,
    /// Whether CPU was measured; without it busy, starved and idle time are assumed.
    pub measured: bool,
    /// The kernel it is read for: what throttling can explain depends on it.
    pub kernel: Kernel,
    /// Idle time if only the waits of the busiest thread are on the critical path, ms.
    pub(crate) idle_top_ms: Option<f64>,
    /// The main thread, if the invocation may wait for it only.
    pub(crate) main: Option<MainThread>,
    /// Idle time if threads waited on the critical path whenever the kernel's pressure shows that one waited, ms.
    pub(crate) idle_pressure_ms: Option<f64>,
    /// The measured wall time in which no thread ran or waited, ms, where the kernel shows pressure. With several threads it is an
    /// estimate from the sum of their times.
    pub(crate) idle_seen_ms: Option<f64>,
    /// Whether much of the CPU time is of threads that ended unseen, and the kernel shows no pressure that has their waits.
    pub(crate) hidden_waits: bool,
    /// What the only busy thread waited for a CPU, ms; `None` with several, or when it was not measured.
    waited_ms: Option<f64>,
}

/// The main thread of a function with several.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct MainThread {
    /// Its idle time, ms.
    pub(crate) idle_ms: f64,
    /// CPU time of all threads over its own: how many run at once when the others work beside it. At least 1.
    pub(crate) parallel: f64,
}

impl Profile {
    /// Reads the means of one size as measured on such a kernel; `None` without any invocation that took time.
    ///
    /// When every invocation was cold, the cold invocations are used.
    #[must_use]
    pub fn of(memory: Megabytes, rollup: &Rollup, kernel: Kernel) -> Option<Self> {
        let sum = if rollup.warm.invocations > 0 { &rollup.warm } else { &rollup.cold };
        if sum.invocations > 0 && sum.wall_us > 0 {
            let noise = relative_variance(&rollup.warm_duration_us, sum.invocations);
            return Some(Self { noise, ..Self::measured(memory, sum, kernel) });
        }
        let durations =
            if rollup.warm_duration_us.is_empty() { &rollup.duration_us } else { &rollup.warm_duration_us };
        let wall_ms = durations.mean()? / 1e3;
        let noise = relative_variance(durations, durations.count());
        (wall_ms > 0.0)
            .then(|| Self { noise, ..Self::unmeasured(memory, durations.count(), wall_ms, kernel) })
    }

    fn measured(memory: Megabytes, sum: &WorkSum, kernel: Kernel) -> Self {
        let count = sum.invocations as f64;
        let per_ms = |total_us: u64| total_us as f64 / 1e3 / count;
        let Work { starved_us, top_starved_us, .. } = sum.work;
        let vcpus = f64::from(memory.visible_vcpus());
        let wall_ms = per_ms(sum.wall_us);
        // Clocks that tick may show less than the busiest thread alone was measured to use.
        let busy_us = sum.work.busy_us().max(sum.work.top_busy_us);
        let busy_ms = per_ms(busy_us).min(wall_ms * vcpus);

        let threads = (sum.work.effective_threads_milli as f64 / 1e3 / count).clamp(1.0, MAX_THREADS);
        let unseen = !threads_seen(&sum.work, threads);
        let threads = if unseen { 1.0 } else { threads };
        let threaded = (threads - WITH_HELPERS).clamp(0.0, 1.0);
        let mut profile = Self {
            memory,
            invocations: sum.invocations,
            wall_ms,
            busy_ms,
            collector_ms: per_ms(sum.work.collector.busy_us).min(busy_ms),
            starved_ms: 0.0,
            queued_ms: 0.0,
            idle_ms: 0.0,
            parallel: (busy_ms / wall_ms).clamp(1.0, vcpus),
            threaded,
            switches: (switches(&sum.work) / count).max(1.0),
            noise: 0.0,
            measured: true,
            kernel,
            idle_top_ms: None,
            main: None,
            idle_pressure_ms: None,
            idle_seen_ms: None,
            hidden_waits: unseen && sum.work.pressure_us == 0,
            waited_ms: (threads <= ONE_THREAD).then(|| per_ms(top_starved_us)),
        };
        let (mut top_ms, mut all_ms) = (per_ms(top_starved_us), per_ms(starved_us));
        let pressure_ms =
            (per_ms(sum.work.pressure_us) / pressure_shows(memory)).min((wall_ms - busy_ms / vcpus).max(0.0));
        if unseen {
            // The waits of threads and children that ended are not counted per thread. The kernel's pressure has them: the
            // time in which any thread waited, which is not more than the wall time.
            (top_ms, all_ms) = (top_ms.max(pressure_ms), all_ms.max(pressure_ms));
        }
        let throttled_ms =
            if memory.share() < 1.0 { profile.throttled(top_ms, all_ms, threads) } else { 0.0 };
        if threads > WITH_HELPERS {
            // Threads that were ready to run, on average over the time in which any did.
            let active_ms =
                if memory.share() < 1.0 { (busy_ms + throttled_ms).min(wall_ms) } else { wall_ms };
            let demand = (busy_ms + all_ms) / active_ms.max(1e-3);
            profile.parallel = profile.parallel.max(demand.min(threads));
            if memory.share() < 1.0 {
                profile.parallel = 1.0 + by_size(memory, PARALLEL) * (profile.parallel - 1.0);
            }
        }
        let at_once = profile.parallel.min(vcpus);
        let rest_ms = (wall_ms - busy_ms / at_once - throttled_ms).max(0.0);
        profile.queued_ms = (top_ms - throttled_ms).clamp(0.0, rest_ms);
        profile.idle_ms = rest_ms - profile.queued_ms;
        profile.starved_ms = throttled_ms + profile.queued_ms;
        if threads > ONE_THREAD || unseen {
            profile.consider_threads(&sum.work, top_ms.min(throttled_ms), count, !unseen);
            if memory.share() < 1.0 && sum.work.pressure_us > 0 {
                let most_ms = (wall_ms - busy_ms / at_once).max(0.0);
                profile.idle_pressure_ms = Some((most_ms - pressure_ms).max(0.0));
                profile.idle_seen_ms = Some(per_ms(sum.work.idle_us).min(most_ms));
            }
        }
        profile
    }

    /// Adds the idle time that the measurements allow if the invocation waits for one thread only.
    fn consider_threads(&mut self, work: &Work, top_ms: f64, count: f64, seen: bool) {
        let at_once = self.parallel.min(f64::from(self.memory.visible_vcpus()));
        let idle_ms = self.wall_ms - self.busy_ms / at_once - top_ms - self.queued_ms;
        self.idle_top_ms = Some(idle_ms.max(0.0));
        let main = work.main;
        if main.threads > 0 && seen && main.busy_us as f64 >= MAIN_WORKS * work.busy_us() as f64 {
            let used_ms = main.busy_us.saturating_add(main.starved_us) as f64 / 1e3 / count;
            self.main = Some(MainThread {
                idle_ms: (self.wall_ms - used_ms).max(0.0),
                parallel: (work.busy_us() as f64 / main.busy_us as f64).max(1.0),
            });
        }
    }

    /// Wall time lost to throttling, from the waits of the busiest thread and of all threads.
    ///
    /// Threads that take turns wait one after the other: the sum counts. Threads that run at once wait at
    /// once: the busiest counts, or the mean over the effective threads. Which it is shows where both are
    /// compared with the most that throttling can take, which is when the work comes in one burst, and, where
    /// the kernel allows no overrun, when every invocation begins just as the quota was used up; waits beyond that
    /// are for a CPU that others used.
    ///
    /// Where the kernel hides waits (no thread ever waited), throttling is taken to explain what it can.
    fn throttled(&self, top_ms: f64, all_ms: f64, threads: f64) -> f64 {
        let one_burst = WorkShape {
            busy_ms: self.busy_ms,
            collecting_ms: 0.0,
            idle_ms: 0.0,
            bursts: 1.0,
            parallel: 1.0,
            threaded: self.threaded,
        };
        let mean_ms = (one_burst.wall_ms(self.memory, self.kernel) - self.busy_ms).max(0.0);
        let least_ms = self.busy_ms / threads.min(f64::from(self.memory.visible_vcpus()));
        let rest_ms = (self.wall_ms - least_ms).max(0.0);
        if all_ms <= 0.0 {
            return mean_ms.min(rest_ms);
        }
        let most_ms =
            mean_ms + if mean_ms > 0.0 { max_extra_throttling_ms(self.kernel, self.memory) } else { 0.0 };
        let at_once = top_ms.max(all_ms / threads).min(most_ms * (1.0 + THREADED_WAIT * self.threaded));
        let more_in_turn = (all_ms.min(most_ms) - at_once).max(0.0);
        // A bound with one more period does not keep helpers' waits from being counted twice.
        let counted = if self.kernel == Kernel::HighResolution { self.threaded } else { 1.0 };
        (at_once + counted * more_in_turn).min(rest_ms)
    }

    /// This profile with all waits counted as throttling; `None` when several threads waited or nothing was measured.
    #[must_use]
    pub(crate) fn all_throttled(self) -> Option<Self> {
        let rest_ms = (self.wall_ms - self.busy_ms).max(0.0);
        let starved_ms = self.waited_ms?.min(rest_ms);
        Some(Self { starved_ms, queued_ms: 0.0, idle_ms: rest_ms - starved_ms, ..self })
    }

    /// Wall time lost to throttling, ms: the part of `starved_ms` that more memory shortens.
    #[must_use]
    pub fn throttled_ms(&self) -> f64 {
        self.starved_ms - self.queued_ms
    }

    /// CPU time of the same work where nothing is throttled, ms.
    fn unthrottled_busy_ms(&self) -> f64 {
        let refills = self.throttled_ms() / PERIOD_MS;
        let cost_ms = refills * refill_ms(self.memory, self.threaded);
        (self.busy_ms - cost_ms).max((1.0 - MAX_REFILL) * self.busy_ms)
    }

    /// Whether other threads than the busiest used much CPU time, seen or not.
    #[must_use]
    pub const fn has_helpers(&self) -> bool {
        self.idle_top_ms.is_some()
    }

    /// The work behind the means, in so many bursts.
    #[must_use]
    pub fn shape(&self, bursts: f64) -> WorkShape {
        // Queued waits at a throttled size are those for other processes or for helpers, which a larger size does not have.
        let stays = if self.memory.share() < 1.0 { 0.0 } else { 1.0 };
        let busy_ms = self.unthrottled_busy_ms();
        let collecting_ms = collection::added_ms(self.memory, busy_ms, self.collector_ms);
        WorkShape {
            busy_ms: busy_ms - collecting_ms * collection::added_at(self.memory),
            collecting_ms,
            idle_ms: self.idle_ms + stays * self.queued_ms,
            bursts,
            parallel: self.parallel,
            threaded: self.threaded,
        }
    }

    /// Without CPU counters only the wall time is known; the rest is assumed, half of it work, that
    /// [`crate::model::hypotheses`] replaces by hypotheses.
    fn unmeasured(memory: Megabytes, invocations: u64, wall_ms: f64, kernel: Kernel) -> Self {
        let busy_ms = 0.5 * wall_ms * memory.share().min(1.0);
        Self {
            memory,
            invocations,
            wall_ms,
            busy_ms,
            collector_ms: 0.0,
            starved_ms: (0.5 * wall_ms - busy_ms).max(0.0),
            queued_ms: 0.0,
            idle_ms: 0.5 * wall_ms,
            parallel: 1.0,
            threaded: 0.0,
            switches: 1.0,
            noise: 0.0,
            measured: false,
            kernel,
            idle_top_ms: None,
            main: None,
            idle_pressure_ms: None,
            idle_seen_ms: None,
            hidden_waits: false,
            waited_ms: None,
        }
    }
}

/// Whether the per-thread counters cover the work. The busiest thread's time times the effective threads is
/// never less than the time of all threads seen, so a product far below the process's CPU time means that
/// threads ended unseen.
fn threads_seen(work: &Work, threads: f64) -> bool {
    work.top_busy_us as f64 * threads >= THREADS_SEEN * work.busy_us() as f64
}

/// A constant at `memory` that is known at 128 MB and from 256 MB on. At 128 MB most of the time is throttled, and little is visible
/// of what a function does.
pub(crate) fn by_size(memory: Megabytes, [at_128, from_256]: [f64; 2]) -> f64 {
    at_128 + (from_256 - at_128) * octaves_above_128(memory).min(1.0)
}

/// How often 128 MB is doubled up to `memory`; 0 below it.
fn octaves_above_128(memory: Megabytes) -> f64 {
    (f64::from(memory.0.max(1)) / 128.0).log2().max(0.0)
}

/// What the kernel's pressure at `memory` shows of the time in which several threads waited for a CPU, as a share.
fn pressure_shows(memory: Megabytes) -> f64 {
    (PRESSURE_SHOWS_AT_128 + PRESSURE_SHOWS_PER_OCTAVE * octaves_above_128(memory))
        .min(PRESSURE_SHOWS_AT_MOST)
}

/// How much longer than on average throttling may take of one invocation, ms.
///
/// The average is over all moments of a period at which an invocation may begin. Where no overrun is allowed, the
/// runtime's own work before it may have used up the quota, and a caller that invokes again at once always begins at that moment.
fn max_extra_throttling_ms(kernel: Kernel, memory: Megabytes) -> f64 {
    match kernel {
        Kernel::TickBased => 0.0,
        Kernel::HighResolution => PERIOD_MS * (1.0 - memory.share()).max(0.0),
    }
}

fn switches(work: &Work) -> f64 {
    if work.voluntary_switches > 0 {
        work.voluntary_switches as f64
    } else {
        work.timeslices as f64 / SLICES_PER_SWITCH
    }
}

/// Relative variance of the mean duration of so many invocations: the measured variance, shrunk
/// towards the usual one.
fn relative_variance(durations: &LogHistogram, invocations: u64) -> f64 {
    let spread = match (durations.mean(), durations.variance()) {
        // No spread at all means that a mean was recorded in place of its values.
        (Some(mean), Some(variance)) if mean > 0.0 && variance > 0.0 => {
            let freedom = durations.count() as f64 - 1.0;
            let seen = variance / (mean * mean);
            (USUAL_SPREAD * USUAL_SPREAD + freedom * seen) / (1.0 + freedom)
        }
        _ => ASSUMED_SPREAD * ASSUMED_SPREAD,
    };
    spread / invocations.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::invocation::{Invocation, Outcome};
    use proptest::prelude::*;

    #[test]
    fn pressure_shows_the_waits_of_children_that_ended() {
        // Measured at 256 MB: a handler that runs one child. Of 202 ms it was throttled for 171, and 125 were seen.
        let with_pressure = |pressure_us| {
            let mut rollup = Rollup::default();
            rollup.record(&Invocation {
                outcome: Outcome::Success,
                duration_us: 202_000,
                work: Some(Work {
                    user_us: 29_000,
                    starved_us: 125_000,
                    top_busy_us: 2_000,
                    top_starved_us: 12_000,
                    effective_threads_milli: 1_000,
                    voluntary_switches: 4,
                    pressure_us,
                    ..Work::default()
                }),
                ..Invocation::default()
            });
            Profile::of(Megabytes(256), &rollup, Kernel::TickBased).unwrap()
        };
        let (without, with) = (with_pressure(0), with_pressure(171_000));
        assert!(without.idle_ms > 40.0 && with.idle_ms < 5.0, "{without:?} {with:?}");
        assert!(with.starved_ms > 160.0 && without.hidden_waits && !with.hidden_waits, "{with:?}");
    }

    proptest! {
        #[test]
        fn the_parts_make_up_the_wall_time(
            memory in 128u32..=10_240,
            (wall_us, user_us, top_busy_us) in (1u64..100_000_000, 0u64..200_000_000, 0u64..100_000_000),
            (starved_us, top_starved_us) in (0u64..1_000_000_000, 0u64..100_000_000),
            (threads, voluntary_switches) in (0u64..20_000, 0u64..10_000),
            high_resolution: bool,
        ) {
            let kernel = if high_resolution { Kernel::HighResolution } else { Kernel::TickBased };
            let mut rollup = Rollup::default();
            rollup.record(&Invocation {
                outcome: Outcome::Success,
                duration_us: wall_us,
                work: Some(Work {
                    user_us,
                    starved_us,
                    top_busy_us,
                    top_starved_us,
                    effective_threads_milli: threads,
                    voluntary_switches,
                    ..Work::default()
                }),
                ..Invocation::default()
            });
            let profile = Profile::of(Megabytes(memory), &rollup, kernel).unwrap();
            let Profile { wall_ms, busy_ms, starved_ms, queued_ms, idle_ms, parallel, .. } = profile;
            prop_assert!(idle_ms >= 0.0 && (0.0..=starved_ms).contains(&queued_ms) && parallel >= 1.0);
            let at_once = parallel.min(f64::from(Megabytes(memory).visible_vcpus()));
            let sum = busy_ms / at_once + starved_ms + idle_ms;
            prop_assert!(sum >= wall_ms * 0.999_999, "{sum} of {wall_ms}: {profile:?}");
            prop_assert!(starved_ms + idle_ms <= wall_ms * 1.000_001, "{profile:?}");
        }
    }
}
