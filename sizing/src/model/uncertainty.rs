//! What is doubtful about a prediction, and how much each doubt weighs.
//!
//! Each doubt is the square of a logarithm that telemetry gives; its weight says how much of it becomes variance
//! of the prediction. The weights were fitted by `examples/calibrate`, which prints them with the coverage of
//! the intervals on functions left out of the fit.

use serde::Serialize;

use crate::model::cfs_simulation::PERIOD_MS;
use crate::units::Megabytes;

/// What multiplies each doubt, in the order of [`Uncertainty::parts`]. The first is the noise of a mean, which is
/// known; the last was not fitted, since no measured function came near its limit: a fifth of the CPU time.
pub const WEIGHTS: [f64; 9] = [1.0, 0.276, 1.46, 0.051, 0.003_3, 0.53, 1.86, 0.019, 0.04];

/// A change beyond a factor of 20 is as doubtful as one of 20.
const MAX_CHANGE: f64 = 3.0;

/// Less CPU time than this says no less of its bursts, ms.
const MIN_BUSY_MS: f64 = 0.3;

/// Shorter predictions are not more doubtful, ms.
const MIN_WALL_MS: f64 = 1.0;

/// Shares of its memory between which a function comes under pressure: collectors of garbage work more, and
/// give that back where there is room.
const PRESSURE: [f64; 2] = [0.80, 0.95];

/// What is doubtful about one prediction. Squares of logarithms, to be weighted and summed.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Uncertainty {
    /// Relative variance of the measured mean: noise of the function itself.
    pub noise: f64,
    /// Variance of the replay's own error that no measured size speaks of.
    pub replay: f64,
    /// Variance between hypotheses on the work and the kernel.
    pub between: f64,
    /// Square of the rise from the nearest measured size, per period that the invocation lasts: which of few
    /// bursts run into the quota must be guessed.
    pub rise: f64,
    /// Square of the fall from the nearest measured size over the share it had, per millisecond of CPU time:
    /// what was throttled and what was waiting must be told apart in few bursts that were mostly throttled.
    pub fall: f64,
    /// Square of the share of the wall time queued behind others, seen while throttled and on the way up:
    /// nobody knows whether they stay.
    pub queued: f64,
    /// Relative variance that the moment of a period gives single durations at the target: callers do not
    /// begin at all moments alike, so that it does not average out.
    pub moment: f64,
    /// Square of the share of CPU time in the predicted one: neighbours on the same core, and other hosts, run the
    /// same work faster or slower.
    pub speed: f64,
    /// The same, by how near the peak of memory is to either size's limit.
    pub pressure: f64,
}

/// One measured size, as far as doubts depend on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) memory: Megabytes,
    /// Logarithm of the replayed wall time there, in ms.
    pub(crate) log_replayed: f64,
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
    /// Logarithm of the replayed wall time there, in ms.
    pub(crate) log_replayed: f64,
    /// Relative variance of single durations that the quota alone gives.
    pub(crate) quota_spread: f64,
    /// How little the measured sizes say of it, from 0 (it is one of them) to 1.
    pub(crate) unknown: f64,
}

impl Uncertainty {
    /// The doubts in the order of [`WEIGHTS`].
    #[must_use]
    pub const fn parts(&self) -> [f64; WEIGHTS.len()] {
        [
            self.noise,
            self.replay,
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
        self.parts().iter().zip(WEIGHTS).map(|(part, weight)| part * weight).sum::<f64>().max(0.0)
    }

    /// What is doubtful of the way from the measured size that leaves the least doubt.
    pub(crate) fn of_way(target: &Target, seen: &[Seen]) -> Self {
        let ways = seen.iter().map(|from| Self::of_way_from(target, from));
        ways.min_by(|a, b| a.variance().total_cmp(&b.variance())).unwrap_or_default()
    }

    fn of_way_from(target: &Target, from: &Seen) -> Self {
        let change = (target.log_replayed - from.log_replayed).clamp(-MAX_CHANGE, MAX_CHANGE);
        let wall_ms = target.log_replayed.exp().max(MIN_WALL_MS);
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

/// How hard so much memory in use presses on a size, from 0 to 1.
fn pressure(used_mb: f64, memory: Megabytes) -> f64 {
    let [from, to] = PRESSURE;
    let filled = used_mb / f64::from(memory.0.max(1));
    ((filled - from) / (to - from)).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(memory: u32, ms: f64, used_mb: f64) -> Seen {
        Seen { memory: Megabytes(memory), log_replayed: ms.ln(), busy_ms: 40.0, queued: 0.0, used_mb }
    }

    fn target(memory: u32, ms: f64) -> Target {
        Target { memory: Megabytes(memory), log_replayed: ms.ln(), quota_spread: 0.0, unknown: 1.0 }
    }

    #[test]
    fn the_way_from_the_nearer_size_counts() {
        let (far, near) = (seen(128, 600.0, 50.0), seen(1_024, 75.0, 50.0));
        let both = Uncertainty::of_way(&target(1_769, 42.0), &[far, near]);
        assert_eq!(both, Uncertainty::of_way(&target(1_769, 42.0), &[near]));
        assert!(both.variance() < Uncertainty::of_way(&target(1_769, 42.0), &[far]).variance());
    }

    #[test]
    fn a_full_size_makes_every_other_doubtful() {
        let width =
            |used_mb| Uncertainty::of_way(&target(1_024, 75.0), &[seen(256, 300.0, used_mb)]).variance();
        assert!(width(250.0) > width(230.0) && width(230.0) > width(100.0));
        let down =
            |used_mb| Uncertainty::of_way(&target(128, 600.0), &[seen(256, 300.0, used_mb)]).variance();
        assert!(down(120.0) > down(60.0), "what fits here presses there");
    }

    #[test]
    fn a_measured_size_leaves_no_doubt_of_its_way() {
        let at = Target { unknown: 0.0, ..target(256, 300.0) };
        assert_eq!(Uncertainty::of_way(&at, &[seen(256, 300.0, 250.0)]), Uncertainty::default());
    }
}
