//! Which size is best: objectives over predicted cost and duration.
//!
//! The names are those of AWS Lambda Power Tuning: `cost` takes the fastest of the cheapest sizes, `speed` the fastest,
//! and `balanced` weighs both, with weight 1 all cost and 0 all speed. Both terms are relative to their own
//! best, so that the range of sizes looked at does not change the choice.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::units::Megabytes;

/// Default of [`Strategy::Cost::tolerance`]: how much more than the cheapest size a faster one may cost.
pub const COST_TOLERANCE: f64 = 0.03;

/// Sizes that meet a latency target and whose cost is within this share of the least are equally cheap: the fastest of
/// them is chosen.
const SAME_COST: f64 = 0.01;

/// Sizes whose duration is within this share of the least are equally fast: the cheapest is chosen.
const SAME_SPEED: f64 = 0.02;

/// The optimization goal.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "strategy", rename_all = "snake_case")]
pub enum Strategy {
    /// The fastest size among those whose expected cost is within a tolerance of the cheapest.
    Cost {
        /// How much more than the cheapest size the chosen one may cost, as a share: 0.03 is 3 %. Negative values are zero.
        tolerance: f64,
    },
    /// The least duration; of sizes that are as fast, the cheapest.
    Speed,
    /// The least `weight × cost / least cost + (1 - weight) × duration / least duration`.
    Balanced {
        /// From 0 (speed alone) to 1 (cost alone); values outside are clamped.
        weight: f64,
    },
    /// The least cost among sizes whose predicted quantile meets a target; if none does, the cheapest of those that come
    /// as near as the fastest, within 2 %.
    Slo {
        /// Which quantile of duration, from 0 to 1 (0.95 for p95).
        quantile: f64,
        /// Its target, ms.
        target_ms: f64,
        /// Whether the quantile is of all invocations, with the Init that callers of cold starts wait for, or of warm ones.
        cold_starts: bool,
    },
}

impl Default for Strategy {
    fn default() -> Self {
        Self::Cost { tolerance: COST_TOLERANCE }
    }
}

impl Strategy {
    /// What the strategy trades for what, in one sentence without a full stop.
    #[must_use]
    pub fn trade(&self) -> String {
        match *self {
            Self::Cost { tolerance } => format!(
                "strategy cost: takes the fastest size whose expected cost is within {} % of the cheapest",
                Percent(tolerance.max(0.0))
            ),
            Self::Speed => {
                "strategy speed: takes the shortest duration at any cost, and of sizes within 2 % of it the \
                            cheapest"
                    .to_owned()
            }
            Self::Balanced { weight } => format!(
                "strategy balanced: accepts a higher cost for a shorter duration, with {} % of the weight on cost",
                Percent(weight_of_cost(weight))
            ),
            Self::Slo { quantile, target_ms, cold_starts } => format!(
                "strategy p{}={target_ms}: takes the cheapest size that keeps this latency target{}, even if a faster size \
                 costs little more",
                Percent(quantile),
                if cold_starts { " with cold starts" } else { " of warm invocations" }
            ),
        }
    }
}

/// A share in percent, rounded because a percentage such as 99.9 is not exact in binary.
pub(crate) struct Percent(pub(crate) f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", (self.0 * 1e6).round() / 1e4)
    }
}

fn weight_of_cost(weight: f64) -> f64 {
    if weight.is_nan() { 0.5 } else { weight.clamp(0.0, 1.0) }
}

/// One size with what is expected of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The size.
    pub memory: Megabytes,
    /// Expected mean duration, ms.
    pub mean_ms: f64,
    /// Expected duration at the strategy's quantile, ms; the mean for other strategies.
    pub quantile_ms: f64,
    /// Expected cost of one invocation, in any unit.
    pub cost: f64,
}

/// The objective of each candidate under `strategy`, lowest best; 1 would be best in cost and speed at once.
#[must_use]
pub fn objectives(candidates: &[Candidate], strategy: Strategy) -> Vec<f64> {
    let cheapest = least(candidates, |candidate| candidate.cost);
    let fastest = least(candidates, |candidate| candidate.mean_ms);
    let cost = |candidate: &Candidate| candidate.cost.max(f64::MIN_POSITIVE) / cheapest;
    let time = |candidate: &Candidate| candidate.mean_ms.max(f64::MIN_POSITIVE) / fastest;
    let score = |candidate: &Candidate| match strategy {
        Strategy::Cost { .. } => cost(candidate),
        Strategy::Speed => time(candidate),
        Strategy::Balanced { weight } => {
            let weight = weight_of_cost(weight);
            weight * cost(candidate) + (1.0 - weight) * time(candidate)
        }
        // A candidate that misses the target ranks below all that meet it; among those, the fastest is best.
        Strategy::Slo { target_ms, .. } if candidate.quantile_ms > target_ms => {
            1e6 * candidate.quantile_ms / target_ms.max(f64::MIN_POSITIVE)
        }
        Strategy::Slo { .. } => cost(candidate),
    };
    candidates.iter().map(score).collect()
}

/// The best candidate under `strategy`; `None` of none.
#[must_use]
pub fn choose(candidates: &[Candidate], strategy: Strategy) -> Option<Candidate> {
    let scores = objectives(candidates, strategy);
    let best = scores.iter().copied().fold(f64::INFINITY, f64::min);
    let near = |tolerance: f64| {
        candidates
            .iter()
            .zip(&scores)
            .filter(move |(_, score)| **score <= best * (1.0 + tolerance))
            .map(|(candidate, _)| *candidate)
    };
    match strategy {
        // If none meets the target, a price for the last percent of speed is not justified.
        Strategy::Slo { target_ms, .. }
            if candidates.iter().all(|candidate| candidate.quantile_ms > target_ms) =>
        {
            near(SAME_SPEED).min_by(|a, b| a.cost.total_cmp(&b.cost))
        }
        Strategy::Cost { tolerance } => {
            near(tolerance.max(0.0)).min_by(|a, b| a.mean_ms.total_cmp(&b.mean_ms))
        }
        Strategy::Slo { .. } => near(SAME_COST).min_by(|a, b| a.mean_ms.total_cmp(&b.mean_ms)),
        Strategy::Speed => near(SAME_SPEED).min_by(|a, b| a.cost.total_cmp(&b.cost)),
        Strategy::Balanced { .. } => near(0.0).next(),
    }
}

/// The share by which `new` is better than `current`; negative when it is worse.
///
/// For `cost` it is the larger of the saving and the gain of speed, unless the cost grows by more than the tolerance.
#[must_use]
pub fn gain(new: Candidate, current: Candidate, strategy: Strategy) -> f64 {
    let saved = |new: f64, current: f64| if current > 0.0 { 1.0 - new / current } else { 0.0 };
    match strategy {
        Strategy::Cost { tolerance } => {
            let cheaper = saved(new.cost, current.cost);
            if cheaper < -tolerance.max(0.0) {
                cheaper
            } else {
                cheaper.max(saved(new.mean_ms, current.mean_ms))
            }
        }
        _ => match objectives(&[new, current], strategy).as_slice() {
            [new, current] => saved(*new, *current),
            _ => 0.0,
        },
    }
}

fn least(candidates: &[Candidate], of: impl Fn(&Candidate) -> f64) -> f64 {
    candidates.iter().map(of).fold(f64::INFINITY, f64::min).max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates() -> Vec<Candidate> {
        // Work-bound up to 1,769 MB: cost hardly moves while duration halves, then the reverse.
        [(128, 100.0, 10.0), (256, 50.0, 10.02), (512, 25.0, 10.05), (1_024, 12.0, 10.5), (3_008, 11.9, 30.0)]
            .into_iter()
            .map(|(memory, mean_ms, cost)| Candidate {
                memory: Megabytes(memory),
                mean_ms,
                quantile_ms: 2.0 * mean_ms,
                cost,
            })
            .collect()
    }

    fn chosen(strategy: Strategy) -> u32 {
        choose(&candidates(), strategy).unwrap().memory.0
    }

    #[test]
    fn each_strategy_chooses_its_optimum() {
        assert_eq!(
            chosen(Strategy::Cost { tolerance: 0.01 }),
            512,
            "half a percent less cost does not justify ten times the duration"
        );
        assert_eq!(chosen(Strategy::Cost { tolerance: 0.0 }), 128);
        assert_eq!(chosen(Strategy::Cost { tolerance: 0.06 }), 1_024, "five percent are accepted");
        assert_eq!(
            chosen(Strategy::Speed),
            1_024,
            "one percent less duration does not justify three times the cost"
        );
        assert_eq!(chosen(Strategy::default()), 512, "the bill grows by 3 % at most");
        assert_eq!(chosen(Strategy::Balanced { weight: 0.5 }), 1_024);
        assert_eq!(chosen(Strategy::Slo { quantile: 0.95, target_ms: 60.0, cold_starts: false }), 512);
        assert_eq!(chosen(Strategy::Slo { quantile: 0.95, target_ms: 24.5, cold_starts: false }), 1_024);
        assert_eq!(
            chosen(Strategy::Slo { quantile: 0.95, target_ms: 1.0, cold_starts: false }),
            1_024,
            "no size meets it"
        );
        assert_eq!(choose(&[], Strategy::default()), None);
    }

    #[test]
    fn the_gain_of_cost_counts_speed_within_the_tolerance() {
        let [_, small, _, large, _] = candidates()[..] else { panic!("five candidates") };
        let tolerance = |tolerance| gain(large, small, Strategy::Cost { tolerance });
        assert!((tolerance(0.06) - 0.76).abs() < 1e-9, "three quarters less duration for 5 % more cost");
        assert!(tolerance(0.03) < 0.0, "5 % more cost are too much");
    }

    #[test]
    fn each_strategy_states_what_it_trades() {
        assert!(Strategy::default().trade().contains("within 3 % of the cheapest"));
        let slo = Strategy::Slo { quantile: 0.999, target_ms: 300.0, cold_starts: true };
        assert!(slo.trade().contains("p99.9=300") && slo.trade().contains("with cold starts"));
        assert!(Strategy::Balanced { weight: 0.25 }.trade().contains("25 % of the weight on cost"));
        assert!(Strategy::Speed.trade().contains("at any cost"));
    }

    #[test]
    fn invalid_numbers_do_not_panic() {
        let odd = |x: f64| Candidate { memory: Megabytes(0), mean_ms: x, quantile_ms: x, cost: x };
        let odd = [odd(f64::NAN), odd(0.0), odd(f64::INFINITY), odd(-1.0)];
        for strategy in [
            Strategy::Cost { tolerance: f64::NAN },
            Strategy::Speed,
            Strategy::Balanced { weight: f64::NAN },
            Strategy::Slo { quantile: f64::NAN, target_ms: f64::NAN, cold_starts: true },
        ] {
            let _ = (choose(&odd, strategy), gain(odd[0], odd[2], strategy), strategy.trade());
        }
    }
}
