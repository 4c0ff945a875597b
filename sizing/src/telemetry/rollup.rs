//! Mergeable summaries: many invocations of one function at one size, in a few hundred bytes.

use crate::telemetry::extension_waits::ExtensionWaits;
use crate::telemetry::histogram::LogHistogram;
use crate::telemetry::initialization::Initializations;
use crate::telemetry::invocation::{Invocation, Outcome, Work};
use crate::telemetry::utilization::Utilization;

/// What the processes did over a set of measured invocations.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WorkSum {
    /// Invocations measured; those without [`Work`] are not in here.
    pub invocations: u64,
    /// Their wall time: the sum of `duration_us`.
    pub wall_us: u64,
    /// Their counters, added up.
    pub work: Work,
}

impl WorkSum {
    fn record(&mut self, duration_us: u64, work: &Work) {
        self.invocations = self.invocations.saturating_add(1);
        self.wall_us = self.wall_us.saturating_add(duration_us);
        self.work.add(work);
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &Self) {
        self.invocations = self.invocations.saturating_add(other.invocations);
        self.wall_us = self.wall_us.saturating_add(other.wall_us);
        self.work.add(&other.work);
    }
}

/// A mergeable summary of invocations of one function, version, memory size and architecture.
///
/// Every field merges by addition (or by maximum), so partial rollups may be appended, re-ordered and
/// merged when they are read. Costs are not in here: they follow from `billed_ms` and `invocations` by the
/// price table, once, so that no rounding is summed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rollup {
    /// All invocations.
    pub invocations: u64,
    /// Those that failed, timeouts and out-of-memory kills included.
    pub errors: u64,
    /// Those the timeout ended.
    pub timeouts: u64,
    /// Those killed for memory.
    pub out_of_memory: u64,
    /// Those whose caller waited for an environment.
    pub cold_starts: u64,
    /// First invocations of an environment, by how it was initialized. Rollups of earlier versions count none.
    pub initializations: Initializations,
    /// Those whose durations are the extension's own estimate.
    pub estimated: u64,
    /// Billed milliseconds, init included.
    pub billed_ms: u64,
    /// Billed milliseconds of those the timeout ended, init included. Rollups of earlier versions have none.
    pub timeouts_billed_ms: u64,
    /// Init time that belongs to invocations, microseconds.
    pub init_us: u64,
    /// The part of `init_us` that was not billed. Rollups of earlier versions have none.
    pub unbilled_init_us: u64,
    /// Time of successful warm invocations after the runtime answered, microseconds: extensions use it. An invocation
    /// without both durations of the platform adds nothing.
    pub post_runtime_us: u64,
    /// Invocations of any outcome that spent most of their time waiting for an extension.
    pub extension_waits: ExtensionWaits,
    /// Earliest start, microseconds since the epoch; zero when empty.
    pub first_at_us: u64,
    /// Latest start, microseconds since the epoch.
    pub last_at_us: u64,
    /// `duration_us` of every invocation.
    pub duration_us: LogHistogram,
    /// `duration_us` of the successful ones that were not the first of their environment: what a size change acts on.
    pub warm_duration_us: LogHistogram,
    /// `peak_kib` of the function's processes, where known.
    pub peak_kib: LogHistogram,
    /// Highest `peak_kib`, exactly.
    pub max_peak_kib: u64,
    /// Highest `max_memory_used_mb`, the environment's own.
    pub max_memory_used_mb: u32,
    /// Highest `/tmp` use, KiB.
    pub max_tmp_used_kib: u64,
    /// Work of successful warm invocations.
    pub warm: WorkSum,
    /// Work of first invocations: slower, and not what a size change should be judged by.
    pub cold: WorkSum,
    /// CPU, memory and concurrency of environments of managed instances.
    pub utilization: Utilization,
}

impl Rollup {
    /// Adds one invocation.
    pub fn record(&mut self, invocation: &Invocation) {
        let failed = !matches!(invocation.outcome, Outcome::Success | Outcome::Unknown);
        let warm = !failed && !invocation.initialization.is_first();
        let is_timeout = invocation.outcome == Outcome::Timeout;
        self.merge_totals(&Self {
            invocations: 1,
            errors: u64::from(failed),
            timeouts: u64::from(is_timeout),
            out_of_memory: u64::from(invocation.outcome == Outcome::OutOfMemory),
            cold_starts: u64::from(invocation.is_cold_start()),
            initializations: Initializations::of_one(invocation.initialization),
            estimated: u64::from(invocation.caveats.estimated),
            billed_ms: invocation.billed_ms,
            timeouts_billed_ms: if is_timeout { invocation.billed_ms } else { 0 },
            init_us: invocation.init_us,
            unbilled_init_us: unbilled_init_us(invocation),
            post_runtime_us: if warm { invocation.post_runtime_us() } else { 0 },
            extension_waits: ExtensionWaits::of_one(invocation),
            first_at_us: invocation.started_at_us,
            last_at_us: invocation.started_at_us,
            max_peak_kib: invocation.peak_kib,
            max_memory_used_mb: invocation.max_memory_used_mb,
            max_tmp_used_kib: invocation.tmp_used_kib,
            ..Self::default()
        });
        self.duration_us.record(invocation.duration_us);
        if warm {
            self.warm_duration_us.record(invocation.duration_us);
        }
        if invocation.peak_kib > 0 {
            self.peak_kib.record(invocation.peak_kib);
        }
        if let Some(work) = &invocation.work {
            if invocation.initialization.is_first() {
                self.cold.record(invocation.duration_without_init_us(), work);
            } else if !failed {
                self.warm.record(invocation.duration_us, work);
            }
        }
    }

    /// First invocations of an environment.
    #[must_use]
    pub fn first_invocations(&self) -> u64 {
        // Rollups of earlier versions counted all of them as cold starts.
        self.initializations.total().max(self.cold_starts)
    }

    /// Invocations that an Init belongs to.
    #[must_use]
    pub const fn inits(&self) -> u64 {
        let without_restores = self.cold_starts.saturating_sub(self.initializations.snap_start);
        without_restores.saturating_add(self.initializations.proactive)
    }

    /// Init time that was billed, microseconds: the part of `init_us` that is in `billed_ms`.
    #[must_use]
    pub const fn billed_init_us(&self) -> u64 {
        self.init_us.saturating_sub(self.unbilled_init_us)
    }

    /// Adds another rollup of the same function, version, size and architecture.
    pub fn merge(&mut self, other: &Self) {
        self.merge_totals(other);
        self.duration_us.merge(&other.duration_us);
        self.warm_duration_us.merge(&other.warm_duration_us);
        self.peak_kib.merge(&other.peak_kib);
        self.warm.merge(&other.warm);
        self.cold.merge(&other.cold);
        self.utilization.merge(&other.utilization);
    }

    /// Merges everything but the histograms and the work, each field by its rule.
    fn merge_totals(&mut self, other: &Self) {
        // Every field is named, so that a new one cannot be left out.
        let Self {
            invocations,
            errors,
            timeouts,
            out_of_memory,
            cold_starts,
            initializations,
            estimated,
            billed_ms,
            timeouts_billed_ms,
            init_us,
            unbilled_init_us,
            post_runtime_us,
            extension_waits,
            first_at_us,
            last_at_us,
            max_peak_kib,
            max_memory_used_mb,
            max_tmp_used_kib,
            duration_us: _,
            warm_duration_us: _,
            peak_kib: _,
            warm: _,
            cold: _,
            utilization: _,
        } = self;
        let sums = [
            (invocations, other.invocations),
            (errors, other.errors),
            (timeouts, other.timeouts),
            (out_of_memory, other.out_of_memory),
            (cold_starts, other.cold_starts),
            (estimated, other.estimated),
            (billed_ms, other.billed_ms),
            (timeouts_billed_ms, other.timeouts_billed_ms),
            (init_us, other.init_us),
            (unbilled_init_us, other.unbilled_init_us),
            (post_runtime_us, other.post_runtime_us),
        ];
        for (total, other) in sums {
            *total = total.saturating_add(other);
        }
        let maxima = [
            (last_at_us, other.last_at_us),
            (max_peak_kib, other.max_peak_kib),
            (max_tmp_used_kib, other.max_tmp_used_kib),
        ];
        for (total, other) in maxima {
            *total = (*total).max(other);
        }
        initializations.merge(&other.initializations);
        extension_waits.merge(&other.extension_waits);
        *max_memory_used_mb = (*max_memory_used_mb).max(other.max_memory_used_mb);
        *first_at_us = earliest(*first_at_us, other.first_at_us);
    }
}

/// The part of the Init of an invocation that was not billed, microseconds. Until August 2025 AWS did not bill the Init of
/// managed runtimes.
const fn unbilled_init_us(invocation: &Invocation) -> u64 {
    let billed_us = invocation.billed_ms.saturating_mul(1_000);
    let left_us = billed_us.saturating_sub(invocation.duration_without_init_us());
    let init_us = invocation.init_us;
    // Less than a millisecond is the rounding of the billed duration.
    if left_us < 1_000 && left_us < init_us { init_us } else { init_us.saturating_sub(left_us) }
}

/// The earlier of two times, where zero means "none yet".
fn earliest(a: u64, b: u64) -> u64 {
    match (a, b) {
        (0, other) | (other, 0) => other,
        (a, b) => a.min(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::invocation::{Caveats, Initialization};
    use proptest::prelude::*;

    fn invocation() -> impl Strategy<Value = Invocation> {
        let outcome = prop::sample::select(vec![
            Outcome::Unknown,
            Outcome::Success,
            Outcome::Error,
            Outcome::Timeout,
            Outcome::OutOfMemory,
        ]);
        let class = prop::sample::select(vec![
            Initialization::Warm,
            Initialization::OnDemand,
            Initialization::ProvisionedConcurrency,
            Initialization::InsideInvocation,
        ]);
        (outcome, class, any::<bool>(), 1u64..1 << 40, 0u64..1 << 30, 0u64..1 << 24).prop_map(
            |(outcome, initialization, measured, at, duration_us, peak_kib)| Invocation {
                outcome,
                initialization,
                started_at_us: at,
                duration_us,
                billed_ms: duration_us / 1000 + 1,
                init_us: if initialization == Initialization::OnDemand { peak_kib } else { 0 },
                peak_kib,
                work: measured.then(|| Work::from_counters(0..37)),
                ..Invocation::default()
            },
        )
    }

    #[test]
    fn post_runtime_time_needs_both_durations_of_the_platform() {
        let known = Invocation { duration_us: 30_000, runtime_us: 2_000, ..Invocation::default() };
        let estimated = Caveats { estimated: true, ..Caveats::default() };
        let report_missing = Caveats { report_missing: true, ..Caveats::default() };
        let mut rollup = Rollup::default();
        for invocation in [
            known,
            Invocation { runtime_us: 0, ..known },
            Invocation { caveats: estimated, ..known },
            Invocation { caveats: report_missing, ..known },
            Invocation { initialization: Initialization::OnDemand, ..known },
            Invocation { outcome: Outcome::Error, ..known },
        ] {
            rollup.record(&invocation);
        }
        assert_eq!(rollup.post_runtime_us, 28_000);
    }

    #[test]
    fn only_billed_init_counts_as_billed() {
        // The examples of the documentation: until August 2025, 133.61 ms and an Init of 80 ms were billed as 134 ms.
        let cold = Invocation {
            initialization: Initialization::OnDemand,
            duration_us: 133_610,
            init_us: 80_000,
            ..Invocation::default()
        };
        let inside = Invocation {
            initialization: Initialization::InsideInvocation,
            duration_us: 213_610,
            billed_ms: 214,
            ..cold
        };
        let of = |invocations: &[Invocation]| {
            let mut rollup = Rollup::default();
            invocations.iter().for_each(|invocation| rollup.record(invocation));
            (rollup.init_us, rollup.billed_init_us())
        };
        let (before, after) = (Invocation { billed_ms: 134, ..cold }, Invocation { billed_ms: 214, ..cold });
        assert_eq!(of(&[before]), (80_000, 0));
        assert_eq!(of(&[after]), (80_000, 80_000));
        assert_eq!(of(&[inside]), (80_000, 80_000));
        assert_eq!(of(&[before, after, inside, before]), (320_000, 160_000));
        // An Init of less than the rounding.
        let short = Invocation { duration_us: 1_100, init_us: 400, billed_ms: 2, ..cold };
        assert_eq!(of(&[short]), (400, 400));
    }

    #[test]
    fn timeouts_have_their_billed_time() {
        let timeout = Invocation { outcome: Outcome::Timeout, billed_ms: 4_200, ..Invocation::default() };
        let mut rollup = Rollup::default();
        rollup.record(&timeout);
        rollup.record(&Invocation { outcome: Outcome::Error, ..timeout });
        assert_eq!((rollup.timeouts_billed_ms, rollup.billed_ms), (4_200, 8_400));
    }

    proptest! {
        #[test]
        fn merging_equals_recording_together(a in prop::collection::vec(invocation(), 0..20), b in prop::collection::vec(invocation(), 0..20)) {
            let roll = |invocations: &[Invocation]| {
                let mut rollup = Rollup::default();
                invocations.iter().for_each(|invocation| rollup.record(invocation));
                rollup
            };
            let (mut ab, mut ba) = (roll(&a), roll(&b));
            ab.merge(&roll(&b));
            ba.merge(&roll(&a));
            prop_assert_eq!(&ab, &ba);
            prop_assert_eq!(ab, roll(&[a, b].concat()));
        }
    }
}
