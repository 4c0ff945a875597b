//! Which sizes an experiment measures, how often, and what that costs.

use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::pricing::prices::Rates;
use tailor_sizing::units::Megabytes;

use super::aws::Configuration;
use super::input::{Input, InputError};
use super::statistics::{Average, objectives};

/// Invocations at a size before the first comparison: a cold one and five warm ones.
pub const FIRST_ROUND: usize = 6;
/// Invocations at each open size between two comparisons.
pub const NEXT_ROUND: usize = 3;
/// Most sizes that are measured when there is a prediction.
const MAX_PREDICTED: usize = 3;
/// A size is measured when its predicted objective is at most this much worse than the best.
const PREDICTED_MARGIN: f64 = 1.25;
/// With a prediction, this part of all invocations is enough.
const PREDICTED_PART: usize = 3;

/// A prediction of one size, from telemetry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// The size.
    pub memory: Megabytes,
    /// Mean duration of a warm invocation, ms.
    pub duration_ms: f64,
    /// Mean cost of an invocation, pico-dollars.
    pub cost_pico: f64,
}

/// What an experiment measures.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// All sizes, in rising order.
    pub sizes: Vec<Megabytes>,
    /// The sizes that are measured: with a prediction, the few that can be the best.
    pub measured: Vec<Megabytes>,
    /// The predictions of all sizes that have one.
    pub predicted: Vec<Prediction>,
    /// Most invocations at a measured size.
    pub invocations: usize,
    /// The highest cost: every invocation runs until its timeout.
    pub highest: PicoDollars,
    /// The expected cost; `None` without a prediction.
    pub expected: Option<PicoDollars>,
}

impl Plan {
    /// The plan for a function. `curve` has predictions at some sizes; none means that all sizes are measured.
    ///
    /// # Errors
    /// When the input is not valid.
    pub fn new(
        input: &Input,
        configuration: &Configuration,
        rates: &Rates,
        curve: &[Prediction],
        is_exhaustive: bool,
    ) -> Result<Self, InputError> {
        input.check()?;
        let sizes = input.sizes()?;
        let count = input.invocations() as usize;
        let predicted: Vec<_> = sizes.iter().filter_map(|size| interpolated(curve, *size)).collect();
        let (measured, invocations) = if is_exhaustive || predicted.is_empty() {
            (sizes.clone(), count)
        } else {
            let total = (sizes.len() * count / PREDICTED_PART).max(1);
            let most = MAX_PREDICTED.min(total / FIRST_ROUND.min(count)).max(1);
            let measured = likely(&predicted, input, most);
            let invocations = count.min(total / measured.len().max(1)).max(1);
            (measured, invocations)
        };
        let timeout_ms = u64::from(configuration.timeout_s) * 1_000;
        let cost = |memory: Megabytes, ms: u64| {
            let invocations = invocations as u64;
            rates.cost(memory, ms.saturating_mul(invocations), invocations, configuration.ephemeral_mb)
        };
        let sum = |costs: Vec<PicoDollars>| costs.into_iter().sum();
        let highest = sum(measured.iter().map(|memory| cost(*memory, timeout_ms)).collect());
        #[allow(clippy::cast_possible_truncation, reason = "display of an estimate")]
        let expected = (!predicted.is_empty()).then(|| {
            let measured = predicted.iter().filter(|prediction| measured.contains(&prediction.memory));
            sum(measured.map(|p| PicoDollars((p.cost_pico * invocations as f64) as i128)).collect())
        });
        Ok(Self { sizes, measured, predicted, invocations, highest, expected })
    }

    /// All sizes, when the measurements contradict the prediction.
    pub(super) fn without_prediction(&self, count: usize) -> Self {
        let measured = self.sizes.clone();
        Self { measured, predicted: Vec::new(), invocations: count, ..self.clone() }
    }
}

/// The sizes that can be the best by their predictions.
fn likely(predicted: &[Prediction], input: &Input, most: usize) -> Vec<Megabytes> {
    let averages: Vec<_> = predicted
        .iter()
        .map(|p| Average {
            memory: p.memory,
            duration_ms: p.duration_ms,
            cost_pico: p.cost_pico,
            half_width: 0.0,
            count: 0,
        })
        .collect();
    let weight = input.balanced_weight.unwrap_or(0.5);
    let mut ordered: Vec<_> =
        objectives(&averages, input.strategy, weight).into_iter().zip(predicted).collect();
    ordered.sort_by(|a, b| a.0.total_cmp(&b.0));
    let best = ordered.first().map_or(0.0, |(objective, _)| *objective);
    let near = ordered.iter().enumerate().filter(|(index, (objective, _))| {
        // The second is always measured, if there is room: one size alone cannot confirm a choice.
        *index < 2 || *objective <= best * PREDICTED_MARGIN
    });
    let mut sizes: Vec<_> = near.take(most).map(|(_, (_, prediction))| prediction.memory).collect();
    sizes.sort_unstable();
    sizes
}

/// The prediction at a size between two predicted ones: straight on logarithmic axes.
fn interpolated(curve: &[Prediction], memory: Megabytes) -> Option<Prediction> {
    let above = curve.iter().find(|point| point.memory >= memory)?;
    let below = curve.iter().rfind(|point| point.memory <= memory)?;
    let span = f64::from(above.memory.0).ln() - f64::from(below.memory.0).ln();
    let share =
        if span > 0.0 { (f64::from(memory.0).ln() - f64::from(below.memory.0).ln()) / span } else { 0.0 };
    let between = |a: f64, b: f64| (a.ln() + (b.ln() - a.ln()) * share).exp();
    Some(Prediction {
        memory,
        duration_ms: between(below.duration_ms, above.duration_ms),
        cost_pico: between(below.cost_pico, above.cost_pico),
    })
}
