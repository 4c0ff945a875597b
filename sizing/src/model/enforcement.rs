//! How the kernel of a fleet enforces the CPU quota.
//!
//! The scheduler's bandwidth control is the same everywhere, except for the moment at which it checks the quota. A kernel without
//! high-resolution ticks finds a quota used up at its timer tick, every 4 ms, so that a burst a little longer
//! than the quota is not slowed; one with them (`CONFIG_SCHED_HRTICK`) stops it at once. The difference is a
//! factor of three in the duration of a burst of 4 ms at 256 MB, and the telemetry of one function cannot distinguish it
//! from interference by a competing process. All functions of a fleet together do, since they run on the same kernel.

use crate::model::cfs_simulation::Kernel;
use crate::model::hypotheses::{Tolerance, log_likelihood};
use crate::model::profile::Profile;
use crate::telemetry::rollup::Rollup;
use crate::units::Megabytes;

/// Prior probability of a high-resolution kernel. A loop of bursts measured on Lambda is far likelier on a tick-based one
/// (pwrdrvr/lambda-throttling, 2025), but that is one account on one day. Durations published by others fit both equally well
/// (decision 0002).
const HIGH_RESOLUTION_PRIOR: f64 = 0.15;

/// Accepted error of a simulated wall time when all waits count as throttling, including waits behind
/// competing processes.
const TOLERANCE: Tolerance = Tolerance { share: 0.07, ms: 0.3 };

/// Limit of the evidence from one profile, as a logarithm of odds: too little to overturn the prior, since
/// one function cannot distinguish throttling from a temporary competing process.
const MAX_EVIDENCE_PER_PROFILE: f64 = 1.7;

/// Evidence at which no further function is read, as a logarithm of odds.
const DECIDED: f64 = 30.0;

/// A kernel less likely than this is left out of predictions.
const MIN_PROBABILITY: f64 = 0.02;

/// The evidence of a fleet's telemetry about its kernel. The default is no evidence.
///
/// Evidence adds up: the order of functions does not matter, and parts may be merged.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Enforcement {
    /// Logarithm of how much likelier the telemetry is on a high-resolution kernel than on a tick-based one.
    evidence: f64,
}

impl Enforcement {
    /// Reads a fleet's telemetry, each function at each of its sizes, until the evidence is decisive.
    #[must_use]
    pub fn of<'a>(telemetry: impl IntoIterator<Item = (Megabytes, &'a Rollup)>) -> Self {
        let mut enforcement = Self::default();
        for (memory, rollup) in telemetry {
            enforcement.observe(memory, rollup);
            if enforcement.is_decided() {
                break;
            }
        }
        enforcement
    }

    /// Adds one function at one size.
    ///
    /// Only functions of one thread count: the waits of several threads have more than one explanation.
    pub fn observe(&mut self, memory: Megabytes, rollup: &Rollup) {
        if memory.share() >= 1.0 {
            return;
        }
        let on = |kernel: Kernel| {
            let profile = Profile::of(memory, rollup, kernel)?.all_throttled()?;
            Some(log_likelihood(&profile, TOLERANCE))
        };
        if let (Some(high_resolution), Some(tick_based)) = (on(Kernel::HighResolution), on(Kernel::TickBased))
        {
            self.evidence +=
                (high_resolution - tick_based).clamp(-MAX_EVIDENCE_PER_PROFILE, MAX_EVIDENCE_PER_PROFILE);
        }
    }

    /// Adds evidence of the same fleet that was collected elsewhere.
    pub fn merge(&mut self, other: Self) {
        self.evidence += other.evidence;
    }

    /// Whether more telemetry would change nothing.
    #[must_use]
    pub fn is_decided(self) -> bool {
        self.evidence.abs() > DECIDED
    }

    /// Probability that the kernel is high-resolution.
    #[must_use]
    pub fn high_resolution_probability(self) -> f64 {
        let prior = (HIGH_RESOLUTION_PRIOR / (1.0 - HIGH_RESOLUTION_PRIOR)).ln();
        1.0 / (1.0 + (-(prior + self.evidence)).exp())
    }

    /// The likelier kernel.
    #[must_use]
    pub fn likeliest(self) -> Kernel {
        if self.high_resolution_probability() > 0.5 { Kernel::HighResolution } else { Kernel::TickBased }
    }

    /// The kernels to predict for, with their probabilities, the likelier first.
    pub(crate) fn kernels(self) -> impl Iterator<Item = (Kernel, f64)> {
        let high_resolution = self.high_resolution_probability();
        let mut kernels =
            [(Kernel::TickBased, 1.0 - high_resolution), (Kernel::HighResolution, high_resolution)];
        kernels.sort_by(|a, b| b.1.total_cmp(&a.1));
        kernels.into_iter().filter(|(_, probability)| *probability >= MIN_PROBABILITY)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::cfs_simulation::WorkShape;
    use crate::telemetry::invocation::{Invocation, Outcome, Work};
    use proptest::prelude::*;

    /// A fleet of functions of one burst each, as `kernel` would have run them.
    fn fleet(kernel: Kernel, memory: Megabytes) -> Vec<Rollup> {
        let busy_ms = [3.5, 5.0, 7.0, 9.0, 14.0, 22.0, 35.0];
        let rollup = |busy_ms: f64| {
            let shape = WorkShape {
                busy_ms,
                collecting_ms: 0.0,
                idle_ms: 5.0,
                bursts: 1.0,
                parallel: 1.0,
                threaded: 0.0,
            };
            let us = |ms: f64| u64::try_from(Duration::from_secs_f64(ms / 1e3).as_micros()).unwrap();
            let (wall_us, busy_us) = (us(shape.wall_ms(memory, kernel)), us(busy_ms));
            let starved_us = wall_us - busy_us - 5_000;
            let work = Work {
                user_us: busy_us,
                starved_us,
                top_busy_us: busy_us,
                top_starved_us: starved_us,
                effective_threads_milli: 1_000,
                voluntary_switches: 2,
                ..Work::default()
            };
            let mut rollup = Rollup::default();
            for i in 0..20 {
                rollup.record(&Invocation {
                    outcome: Outcome::Success,
                    duration_us: wall_us + 100 * (i % 5),
                    work: Some(work),
                    ..Invocation::default()
                });
            }
            rollup
        };
        busy_ms.into_iter().map(rollup).collect()
    }

    #[test]
    fn a_fleet_identifies_its_kernel_and_one_function_does_not() {
        let memory = Megabytes(256);
        for kernel in [Kernel::TickBased, Kernel::HighResolution] {
            let fleet = fleet(kernel, memory);
            let all = Enforcement::of(fleet.iter().map(|rollup| (memory, rollup)));
            assert_eq!(all.likeliest(), kernel, "{all:?}");
            assert!(!(0.01..0.99).contains(&all.high_resolution_probability()), "{all:?}");
            for one in &fleet {
                assert_eq!(Enforcement::of([(memory, one)]).likeliest(), Kernel::TickBased);
            }
        }
        assert_eq!(Enforcement::default().likeliest(), Kernel::TickBased);
    }

    #[test]
    fn sizes_without_throttling_give_no_evidence() {
        let fleet = fleet(Kernel::HighResolution, Megabytes(256));
        let all = Enforcement::of(fleet.iter().map(|rollup| (Megabytes(2_048), rollup)));
        assert_eq!(all, Enforcement::default());
    }

    proptest! {
        #[test]
        fn merging_parts_equals_reading_all(split in 0usize..7) {
            let (memory, fleet) = (Megabytes(256), fleet(Kernel::HighResolution, Megabytes(256)));
            let read = |part: &[Rollup]| Enforcement::of(part.iter().map(|rollup| (memory, rollup)));
            let (mut merged, rest) = (read(&fleet[..split]), read(&fleet[split..]));
            merged.merge(rest);
            prop_assert!((merged.high_resolution_probability() - read(&fleet).high_resolution_probability()).abs() < 1e-9);
        }
    }
}
