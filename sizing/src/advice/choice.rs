//! Which size is chosen for one function, and whether to change to it.

use crate::advice::analysis::Analysis;
use crate::advice::recommendation::Verdict;
use crate::advice::strategy::{Candidate, Percent, Strategy, choose, gain};
use crate::model::accounting::Unaccounted;
use crate::model::cfs_simulation::{PERIOD_MS, SLICE_MS};
use crate::model::interval::Prediction;
use crate::model::predict::Expected;
use crate::pricing::cost_model::CostModel;
use crate::units::Megabytes;

/// An objective better by less than this is not worth a change.
pub(crate) const DEAD_BAND: f64 = 0.03;

/// An expected gain below this must also be reached at the unfavourable end of the 80 % interval.
const CERTAIN_GAIN: f64 = 0.10;

/// Warm invocations below which only memory safety is acted on.
pub(crate) const MIN_EVIDENCE: u64 = 5;

/// Step of the first pass over all sizes; the second looks at every size around its best. The objective is
/// smooth between the curve's samples, so the pass cannot miss the best by more than this.
const COARSE_MB: usize = 16;

/// Telemetry of no size above this separates throttled from idle time poorly, and the error grows with the distance.
const SMALL: Megabytes = Megabytes(192);

/// With such telemetry alone, and a half-width of the 80 % interval above this share, a step goes to at most
/// [`STEP`] times the memory.
const WIDE: f64 = 0.15;
const STEP: u32 = 4;

/// A function with a shorter mean, ms, is not moved to a size at which it may take more than [`SLOWER`] times as long.
const SHORT_MS: f64 = 2.0;
const SLOWER: f64 = 2.0;

/// Probability that a short invocation waits for a new period, where the quota is near zero. One CPU can take all of a
/// quota below one slice, and a thread that wakes on another CPU waits. Measured at 128 MB on short functions: their mean is
/// three to six times that at 1,769 MB.
const WAITS_FOR_PERIOD: f64 = 0.35;

impl Analysis<'_> {
    /// The best size not below the floor.
    pub(crate) fn best(&self, costs: &CostModel, strategy: Strategy) -> Candidate {
        let candidate = |memory: u32| self.candidate(Megabytes(memory), costs, strategy);
        let (floor, most) = (self.floor.memory.0, Megabytes::MAX.0);
        let is_permitted = |memory: &u32| self.is_permitted(Megabytes(*memory), strategy);
        let sizes = (floor..=most).step_by(COARSE_MB).chain([most, self.evidence.memory.0.max(floor)]);
        let coarse: Vec<Candidate> = sizes.filter(is_permitted).map(candidate).collect();
        let Some(near) = choose(&coarse, strategy) else { return candidate(floor) };
        let reach = u32::try_from(COARSE_MB).unwrap_or(1);
        let from = near.memory.0.saturating_sub(reach).max(floor);
        let to = near.memory.0.saturating_add(reach).min(most.max(near.memory.0));
        // The ends of the scale stay in view: what is cheapest and fastest must not depend on the window.
        let fine = (from..=to).filter(is_permitted).map(candidate).chain(coarse).collect::<Vec<_>>();
        choose(&fine, strategy).unwrap_or(near)
    }

    /// What is expected at `memory`.
    fn candidate(&self, memory: Megabytes, costs: &CostModel, strategy: Strategy) -> Candidate {
        let expected = self.curve.expect(memory);
        let mean_ms = expected.mean_ms();
        let quantile_ms = match strategy {
            Strategy::Slo { quantile, cold_starts: true, .. } => self.quantile_with_cold(&expected, quantile),
            Strategy::Slo { quantile, .. } => self.model.quantile(&expected, quantile).mean_ms,
            _ => mean_ms,
        };
        Candidate { memory, mean_ms, quantile_ms, cost: costs.pico(memory, mean_ms) }
    }

    /// The duration at quantile `q` of all invocations, ms. The duration of a cold start for its caller is that of its Init
    /// and of its first invocation.
    fn quantile_with_cold(&self, expected: &Expected, q: f64) -> f64 {
        let warm_ms = |q: f64| self.model.quantile(expected, q).mean_ms;
        let (share, cold_ms) = self.costs.cold_start(expected.log_ms.exp());
        if share <= 0.0 {
            return warm_ms(q);
        }
        if share >= 1.0 {
            return cold_ms;
        }
        // The distribution is that of the warm invocations with a step at the duration of a cold start.
        if q < 1.0 - share {
            let below = warm_ms(q / (1.0 - share));
            if below <= cold_ms {
                return below;
            }
        }
        if q > share { warm_ms((q - share) / (1.0 - share)).max(cold_ms) } else { cold_ms }
    }

    /// Whether advice may lead to `memory` at all.
    fn is_permitted(&self, memory: Megabytes, strategy: Strategy) -> bool {
        let current = self.evidence.memory;
        memory == current || (!self.is_too_far(memory) && !self.is_too_slow(memory, strategy))
    }

    /// Whether `memory` is more than one step up from telemetry that does not reach so far.
    fn is_too_far(&self, memory: Megabytes) -> bool {
        let measured = self.evidence.sizes.iter().filter(|(_, rollup)| rollup.invocations > 0);
        let largest = measured.map(|(memory, _)| *memory).max().unwrap_or(SMALL);
        let step_mb = self.evidence.memory.max(self.floor.memory).0.saturating_mul(STEP);
        largest <= SMALL && memory.0 > step_mb && {
            let Prediction { mean_ms, interval_80: [low, high], .. } = self.curve.predict(memory);
            0.5 * (high - low) > WIDE * mean_ms
        }
    }

    /// Whether a short function may take more than twice as long at `memory`. A latency target states what is slow.
    fn is_too_slow(&self, memory: Megabytes, strategy: Strategy) -> bool {
        let now_ms = self.curve.mean_ms(self.evidence.memory);
        if matches!(strategy, Strategy::Slo { .. }) || memory >= self.evidence.memory || now_ms >= SHORT_MS {
            return false;
        }
        let slow_ms = self.curve.predict(memory).interval_80[1];
        let missing = (1.0 - PERIOD_MS * memory.share() / SLICE_MS).max(0.0);
        let wait_ms = WAITS_FOR_PERIOD * missing * PERIOD_MS * (1.0 - memory.share()).max(0.0);
        slow_ms + wait_ms > SLOWER * now_ms
    }

    /// Whether to move to `best`, and what share of the objective that gains.
    pub(crate) fn verdict(&self, best: Candidate, strategy: Strategy) -> (Verdict, f64) {
        let current = self.candidate(self.evidence.memory, &self.costs, strategy);
        let gain = gain(best, current, strategy);
        let verdict = if self.floor.memory > self.evidence.memory {
            Verdict::RaiseForMemory
        } else if self.warm_invocations() < MIN_EVIDENCE {
            Verdict::TooLittleEvidence
        } else if !self.model.profile().measured && self.evidence.sizes.len() < 2 {
            Verdict::NoCpuTelemetry
        } else if best.memory < self.evidence.memory && Unaccounted::of(self.evidence.sizes).is_relevant() {
            Verdict::CpuUnaccounted
        } else if best.memory == self.evidence.memory || gain.is_nan() || gain < DEAD_BAND {
            Verdict::AlreadyBest
        } else if !self.is_worth_the_risk(best, current, gain, strategy) {
            Verdict::TooUncertain
        } else {
            Verdict::Change
        };
        (verdict, gain)
    }

    /// Whether the loss at the slow end of the 80 % interval of `best` is no larger than the expected gain; of a small gain,
    /// whether there is no loss.
    fn is_worth_the_risk(
        &self,
        best: Candidate,
        current: Candidate,
        expected: f64,
        strategy: Strategy,
    ) -> bool {
        let slow_ms = self.curve.predict(best.memory).interval_80[1];
        let worst = Candidate {
            mean_ms: slow_ms,
            quantile_ms: best.quantile_ms * slow_ms / best.mean_ms.max(f64::MIN_POSITIVE),
            cost: self.costs.pico(best.memory, slow_ms),
            ..best
        };
        let accepted = match strategy {
            // A target that the current size misses is a loss already.
            Strategy::Slo { target_ms, .. } if current.quantile_ms > target_ms => return true,
            _ if expected < CERTAIN_GAIN => 0.0,
            _ => expected,
        };
        gain(worst, current, strategy) >= -accepted
    }
}

/// The reason for the size chosen for a latency target.
pub(crate) fn service_level(best: Candidate, quantile: f64, target_ms: f64) -> String {
    let (memory, expected_ms) = (best.memory, best.quantile_ms);
    let percentile = Percent(quantile);
    if expected_ms <= target_ms {
        format!(
            "{memory} is the cheapest size that is predicted to keep p{percentile} within {target_ms} ms: {expected_ms:.1} ms"
        )
    } else {
        format!(
            "no size is predicted to keep p{percentile} within {target_ms} ms: {memory} is the cheapest of the sizes that come closest: {expected_ms:.1} ms"
        )
    }
}
