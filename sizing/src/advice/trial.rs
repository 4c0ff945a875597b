//! Trial measurements: whether a short measurement at another size is expected to change the choice, and what it costs.

use serde::{Deserialize, Serialize};

use crate::advice::analysis::{Analysis, SHOWN};
use crate::advice::choice::DEAD_BAND;
use crate::advice::evidence::{AdviceError, FunctionEvidence};
use crate::advice::strategy::{Candidate, Strategy, choose, gain};
use crate::pricing::cost_model::money;
use crate::pricing::money::PicoDollars;
use crate::pricing::prices::RateTable;
use crate::units::Megabytes;

/// Invocations of a trial measurement: the mean of so many is known within a few percent.
const INVOCATIONS: u64 = 30;

/// The size of a trial measurement when only small sizes were measured, and when only large ones were. A size far from those measured
/// reduces the error most: on the validation functions 2,048 MB besides 256 MB brings it from 15 to 9 %.
const LARGE: Megabytes = Megabytes(2_048);
const SMALL: Megabytes = Megabytes(256);

/// A measured size within this factor of the trial's would add little.
const NEAR: f64 = 2.5;

/// Deviations at which the prediction is tried, in widths of the 80 % interval, and their weights.
const OUTCOMES: [(f64, f64); 5] = [(-1.0, 0.15), (-0.5, 0.2), (0.0, 0.3), (0.5, 0.2), (1.0, 0.15)];

/// A short measurement at another size that is expected to change the choice.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TrialMeasurement {
    /// The size to set for it.
    #[serde(rename = "memory_mb")]
    pub memory: Megabytes,
    /// Warm invocations that it takes.
    pub invocations: u64,
    /// What these invocations cost there, pico-dollars.
    pub cost: PicoDollars,
    /// The expected gain of the choice after the trial over the choice now, percent of the strategy's objective.
    pub expected_gain_percent: f64,
}

impl TrialMeasurement {
    /// It in one sentence without a full stop.
    #[must_use]
    pub fn sentence(&self) -> String {
        format!(
            "a trial measurement of {} invocations at {} is expected to change the choice: it costs {}, and the expected gain is {:.0} %",
            self.invocations, self.memory, self.cost, self.expected_gain_percent
        )
    }
}

/// The trial measurement that is expected to change the choice; `None` when its outcomes improve the choice by less than 3 % on average.
///
/// # Errors
/// As [`crate::advice::advise`].
pub fn trial_measurement(
    evidence: &FunctionEvidence<'_>,
    prices: &dyn RateTable,
    strategy: Strategy,
) -> Result<Option<TrialMeasurement>, AdviceError> {
    let analysis = Analysis::new(evidence, prices)?;
    Ok(analysis.trial(analysis.advice(strategy).memory, strategy))
}

impl Analysis<'_> {
    /// The trial measurement that may improve on `chosen`.
    pub(crate) fn trial(&self, chosen: Megabytes, strategy: Strategy) -> Option<TrialMeasurement> {
        let memory = self.size_of_trial()?;
        // The weighted gain of the best size over the chosen one, over what the true durations may be.
        let expected: f64 = OUTCOMES
            .into_iter()
            .map(|(deviation, weight)| weight * self.gain_if(deviation, chosen, strategy).clamp(0.0, 1.0))
            .sum();
        let cost = self.costs.pico(memory, self.curve.mean_ms(memory)) * INVOCATIONS as f64;
        (expected >= DEAD_BAND).then(|| TrialMeasurement {
            memory,
            invocations: INVOCATIONS,
            cost: money(cost),
            expected_gain_percent: 100.0 * expected,
        })
    }

    fn size_of_trial(&self) -> Option<Megabytes> {
        let seen = || {
            let measured = self.evidence.sizes.iter().filter(|(_, rollup)| rollup.invocations > 0);
            measured.map(|(memory, _)| f64::from(memory.0.max(1)))
        };
        let is_far = |from: &Megabytes| {
            let mb = f64::from(from.0);
            seen().all(|other| mb / other > NEAR || other / mb > NEAR)
        };
        // The larger size first: a throttled size shows less of the work than a large one.
        [LARGE, SMALL].into_iter().filter(|memory| *memory >= self.floor.memory).find(is_far)
    }

    /// The gain of the best size over `chosen` if all durations differ from the prediction by so many half-widths.
    fn gain_if(&self, deviation: f64, chosen: Megabytes, strategy: Strategy) -> f64 {
        let candidate = |memory: Megabytes| {
            let prediction = self.curve.predict(memory);
            let [low, high] = prediction.interval_80;
            let half_width = 0.5 * (high.max(f64::MIN_POSITIVE) / low.max(f64::MIN_POSITIVE)).ln();
            let mean_ms = prediction.mean_ms * (deviation * half_width).exp();
            Candidate { memory, mean_ms, quantile_ms: mean_ms, cost: self.costs.pico(memory, mean_ms) }
        };
        let sizes = SHOWN.into_iter().map(Megabytes).filter(|memory| *memory >= self.floor.memory);
        let candidates: Vec<Candidate> = sizes.chain([chosen]).map(candidate).collect();
        choose(&candidates, strategy).map_or(0.0, |best| gain(best, candidate(chosen), strategy))
    }
}
