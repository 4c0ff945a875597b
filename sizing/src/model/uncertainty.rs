//! The sources of uncertainty of a prediction and their weights.
//!
//! Each source is the square of a logarithm computed from telemetry. Its weight is the part of it that becomes variance
//! of the prediction. The weights were fitted by `examples/calibrate`, which prints them with the coverage of
//! the intervals on functions left out of the fit.

use serde::{Deserialize, Serialize};

use crate::model::cfs_simulation::PERIOD_MS;
use crate::units::Megabytes;

/// What multiplies each uncertainty, in the order of [`Uncertainty::parts`]. The first is the noise of a mean, which is
/// known; the last was not fitted, since no measured function came near its limit: a fifth of the CPU time.
pub const WEIGHTS: [f64; 9] = [1.0, 0.276, 1.46, 0.051, 0.003_3, 0.53, 1.86, 0.019, 0.04];

/// What the variance is multiplied by where several threads worked.
pub const SEVERAL_THREADS: f64 = 2.0;

/// A change beyond a factor of 20 counts as a factor of 20.
const MAX_CHANGE: f64 = 3.0;

/// Lower limit of the CPU time in the term `fall`, ms.
const MIN_BUSY_MS: f64 = 0.3;

/// Lower limit of the predicted duration in the term `rise`, ms.
const MIN_WALL_MS: f64 = 1.0;

/// Shares of its memory between which a function comes under pressure: collectors of garbage work more, and
/// give that back where there is room.
const PRESSURE: [f64; 2] = [0.80, 0.95];

/// The uncertainty of one prediction by source: squares of logarithms, to be weighted and summed.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Uncertainty {
    /// Whether several threads worked: which of them the invocation waits for is not measured.
    pub several_threads: bool,
    /// Relative variance of the measured mean: noise of the function itself.
    pub noise: f64,
    /// Variance of the simulation's own error that no measured size reduces.
    pub simulation: f64,
    /// Variance between hypotheses on the work and the kernel.
    pub between: f64,
    /// Square of the rise from the nearest measured size, per period that the invocation lasts: which of few
    /// bursts run into the quota must be assumed.
    pub rise: f64,
    /// Square of the fall from the nearest measured size over the share it had, per millisecond of CPU time:
    /// throttled and idle time must be separated in few bursts that were mostly throttled.
    pub fall: f64,
    /// Square of the share of the wall time queued behind others, measured while throttled, for larger sizes:
    /// whether they stay is unknown.
    pub queued: f64,
    /// Relative variance that the moment of a period gives single durations at the target: callers do not
    /// begin at all moments with equal probability, so it does not average out.
    pub moment: f64,
    /// Square of the share of CPU time in the predicted one: competing processes on the same core and different
    /// hosts make the same work faster or slower.
    pub speed: f64,
    /// The same, by how near the peak of memory is to either size's limit.
    pub pressure: f64,
}

/// The values of one measured size that the uncertainty depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MeasuredPoint {
    pub(crate) memory: Megabytes,
    /// Logarithm of the simulated wall time there, in ms.
    pub(crate) log_simulated: f64,
    /// CPU time, ms.
    pub(crate) busy_ms: f64,
    /// Share of the wall time queued behind others.
    pub(crate) queued: f64,
    /// Highest memory in use, MB.
    pub(crate) used_mb: f64,
}

/// One size to predict.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) memory: Megabytes,
    /// Logarithm of the simulated wall time there, in ms.
    pub(crate) log_simulated: f64,
    /// Relative variance of single durations that the quota alone gives.
    pub(crate) quota_spread: f64,
    /// Distance from the measured sizes, from 0 (it is one of them) to 1.
    pub(crate) unknown: f64,
}

impl Uncertainty {
    /// The sources in the order of [`WEIGHTS`].
    #[must_use]
    pub const fn parts(&self) -> [f64; WEIGHTS.len()] {
        [
            self.noise,
            self.simulation,
            self.between,
            self.rise,
            self.fall,
            self.queued,
            self.moment,
            self.speed,
            self.pressure,
        ]
    }

    /// Variance of the prediction's logarithm.
    #[must_use]
    pub fn variance(&self) -> f64 {
        let weighted = self.parts().iter().zip(WEIGHTS).map(|(part, weight)| part * weight).sum::<f64>();
        let factor = if self.several_threads { SEVERAL_THREADS } else { 1.0 };
        (factor * weighted).max(0.0)
    }

    /// The uncertainty of a prediction from the measured size that gives the smallest one.
    pub(crate) fn of_step(target: &Target, seen: &[MeasuredPoint]) -> Self {
        let ways = seen.iter().map(|from| Self::of_step_from(target, from));
        ways.min_by(|a, b| a.variance().total_cmp(&b.variance())).unwrap_or_default()
    }

    fn of_step_from(target: &Target, from: &MeasuredPoint) -> Self {
        let change = (target.log_simulated - from.log_simulated).clamp(-MAX_CHANGE, MAX_CHANGE);
        let wall_ms = target.log_simulated.exp().max(MIN_WALL_MS);
        let share = from.memory.share().clamp(1e-3, 1.0);
        let square = change * change;
        let (rise, fall) = if change > 0.0 {
            (square * PERIOD_MS / wall_ms, 0.0)
        } else {
            (0.0, square / (share * share * from.busy_ms.max(MIN_BUSY_MS)))
        };
        let throttled_below = share < 1.0 && target.memory > from.memory;
        let queued = if throttled_below { from.queued * from.queued } else { 0.0 };
        let work = (from.busy_ms / wall_ms).min(1.0);
        let pressed = work * pressure(from.used_mb, from.memory).max(pressure(from.used_mb, target.memory));
        Self {
            rise,
            fall,
            queued: target.unknown * queued,
            moment: target.unknown * target.quota_spread,
            speed: target.unknown * work * work,
            pressure: target.unknown * pressed * pressed,
            ..Self::default()
        }
    }
}

/// Memory pressure at a size with this much memory in use, from 0 to 1.
fn pressure(used_mb: f64, memory: Megabytes) -> f64 {
    let [from, to] = PRESSURE;
    let filled = used_mb / f64::from(memory.0.max(1));
    ((filled - from) / (to - from)).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(memory: u32, ms: f64, used_mb: f64) -> MeasuredPoint {
        MeasuredPoint {
            memory: Megabytes(memory),
            log_simulated: ms.ln(),
            busy_ms: 40.0,
            queued: 0.0,
            used_mb,
        }
    }

    fn target(memory: u32, ms: f64) -> Target {
        Target { memory: Megabytes(memory), log_simulated: ms.ln(), quota_spread: 0.0, unknown: 1.0 }
    }

    #[test]
    fn the_nearer_measured_size_counts() {
        let (far, near) = (seen(128, 600.0, 50.0), seen(1_024, 75.0, 50.0));
        let both = Uncertainty::of_step(&target(1_769, 42.0), &[far, near]);
        assert_eq!(both, Uncertainty::of_step(&target(1_769, 42.0), &[near]));
        assert!(both.variance() < Uncertainty::of_step(&target(1_769, 42.0), &[far]).variance());
    }

    #[test]
    fn a_full_size_makes_every_other_size_uncertain() {
        let width =
            |used_mb| Uncertainty::of_step(&target(1_024, 75.0), &[seen(256, 300.0, used_mb)]).variance();
        assert!(width(250.0) > width(230.0) && width(230.0) > width(100.0));
        let down =
            |used_mb| Uncertainty::of_step(&target(128, 600.0), &[seen(256, 300.0, used_mb)]).variance();
        assert!(down(120.0) > down(60.0), "the same memory use causes pressure at the smaller size");
    }

    #[test]
    fn a_measured_size_adds_no_uncertainty() {
        let at = Target { unknown: 0.0, ..target(256, 300.0) };
        assert_eq!(Uncertainty::of_step(&at, &[seen(256, 300.0, 250.0)]), Uncertainty::default());
    }
}
