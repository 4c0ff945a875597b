//! Explanation: all measurements and predictions of one function, for a page or a terminal.
//!
//! Advice with its curve, what each measured size showed, what the bill is made of, and what the same work
//! would cost on the other architecture.

use serde::Serialize;

use crate::advice::analysis::{Analysis, change_percent};
use crate::advice::evidence::{AdviceError, FunctionEvidence};
use crate::advice::recommendation::Advice;
use crate::advice::strategy::Strategy;
use crate::model::cfs_simulation::Kernel;
use crate::model::memory_floor::peak_memory_mb;
use crate::model::profile::Profile;
use crate::pricing::bill::{Bill, Usage};
use crate::pricing::money::PicoDollars;
use crate::pricing::prices::PriceTable;
use crate::telemetry::rollup::Rollup;
use crate::units::{Architecture, Megabytes};

/// One function explained.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The advice, with the curve of all sizes.
    pub advice: Advice,
    /// What was measured, by rising size.
    pub measured: Vec<MeasuredSize>,
    /// What all measured invocations cost, and what that is made of.
    pub bill: Bill,
    /// The same on the other architecture; `None` where it has no price in the region.
    pub other_architecture: Option<Counterfactual>,
    /// The day of the prices.
    pub prices_of: String,
    /// Whether the compute price was inferred from another region or architecture.
    pub price_derived: bool,
}

/// What was measured at one size. Times are means of a warm invocation in ms.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MeasuredSize {
    /// The size.
    #[serde(rename = "memory_mb")]
    pub memory: Megabytes,
    /// All invocations.
    pub invocations: u64,
    /// Failed ones.
    pub errors: u64,
    /// Cold ones.
    pub cold_starts: u64,
    /// Wall time.
    pub wall_ms: f64,
    /// CPU time of all threads; `None` when it was not measured, as for the next two.
    pub busy_ms: Option<f64>,
    /// Wall time lost for lack of CPU.
    pub starved_ms: Option<f64>,
    /// Wall time with nothing to run.
    pub idle_ms: Option<f64>,
    /// Median duration, ms.
    pub p50_ms: f64,
    /// 95th percentile, ms.
    pub p95_ms: f64,
    /// 99th percentile, ms.
    pub p99_ms: f64,
    /// Highest memory in use, MB; zero when unknown.
    pub peak_mb: f64,
    /// What these invocations cost.
    pub bill: Bill,
}

/// The function on the other architecture, if its durations are the same there.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Counterfactual {
    /// The other architecture.
    pub architecture: Architecture,
    /// Expected cost per million at the current size.
    pub cost_per_million: PicoDollars,
    /// Change of the cost at the current size.
    pub cost_change_percent: f64,
    /// The best size there.
    #[serde(rename = "best_memory_mb")]
    pub best_memory: Megabytes,
    /// Change of the cost from the current size here to the best size there.
    pub best_cost_change_percent: f64,
}

/// Explains one function.
///
/// # Errors
/// As [`crate::advice::advise`].
pub fn explain(
    evidence: &FunctionEvidence<'_>,
    prices: &PriceTable,
    strategy: Strategy,
) -> Result<Explanation, AdviceError> {
    let analysis = Analysis::new(evidence, prices)?;
    let rates = analysis.costs.rates();
    let usage = |memory: Megabytes, rollup: &Rollup| {
        Usage::of(memory, rollup.billed_ms, rollup.invocations, evidence.ephemeral_mb)
            .with_init(memory, rollup.billed_init_us().div_ceil(1_000))
    };
    let mut all = Usage::default();
    let mut measured = Vec::new();
    for (memory, rollup) in evidence.sizes {
        let usage = usage(*memory, rollup);
        all.add(&usage);
        let kernel = evidence.enforcement.likeliest();
        measured.extend(measured_size(*memory, rollup, kernel, rates.bill(&usage)));
    }
    measured.sort_by_key(|size| size.memory);
    Ok(Explanation {
        advice: analysis.advice(strategy),
        measured,
        bill: rates.bill(&all),
        other_architecture: counterfactual(&analysis, strategy),
        prices_of: prices.compiled().to_owned(),
        price_derived: rates.derived,
    })
}

fn measured_size(memory: Megabytes, rollup: &Rollup, kernel: Kernel, bill: Bill) -> Option<MeasuredSize> {
    let profile = Profile::of(memory, rollup, kernel)?;
    let measured = |ms: f64| profile.measured.then_some(ms);
    let durations =
        if rollup.warm_duration_us.is_empty() { &rollup.duration_us } else { &rollup.warm_duration_us };
    let quantile_ms = |q: f64| durations.quantile(q).unwrap_or(0.0) / 1e3;
    Some(MeasuredSize {
        memory,
        invocations: rollup.invocations,
        errors: rollup.errors,
        cold_starts: rollup.cold_starts,
        wall_ms: profile.wall_ms,
        busy_ms: measured(profile.busy_ms),
        starved_ms: measured(profile.starved_ms),
        idle_ms: measured(profile.idle_ms),
        p50_ms: quantile_ms(0.5),
        p95_ms: quantile_ms(0.95),
        p99_ms: quantile_ms(0.99),
        peak_mb: peak_memory_mb(rollup),
        bill,
    })
}

fn counterfactual(analysis: &Analysis<'_>, strategy: Strategy) -> Option<Counterfactual> {
    let (architecture, costs) = analysis.elsewhere.as_ref()?;
    let memory = analysis.evidence.memory;
    let now_ms = analysis.curve.mean_ms(memory);
    let now = analysis.costs.pico(memory, now_ms);
    let best = analysis.best(costs, strategy);
    Some(Counterfactual {
        architecture: *architecture,
        cost_per_million: costs.per_million(memory, now_ms),
        cost_change_percent: change_percent(costs.pico(memory, now_ms), now),
        best_memory: best.memory,
        best_cost_change_percent: change_percent(best.cost, now),
    })
}
