//! Advice: from what was measured to one recommended size, with reasons, confidence and the whole curve.

use serde::Serialize;

use crate::choice::{Candidate, Strategy, choose, objectives};
use crate::cost_model::CostModel;
use crate::curve::Curve;
use crate::floor::{Floor, floor};
use crate::hints::{Facts, Hint, hints};
use crate::interval::Prediction;
use crate::money::PicoDollars;
use crate::predict::Model;
use crate::prices::{PriceError, PriceTable};
use crate::rollup::Rollup;
use crate::units::{Architecture, Megabytes};

/// An objective better by less than this is not worth a change.
const DEAD_BAND: f64 = 0.03;

/// An expected gain below this must also hold at the bad end of the 80 % interval.
const SURE_GAIN: f64 = 0.10;

/// Warm invocations below which only memory safety is acted on.
const LEAST_EVIDENCE: u64 = 5;

/// A shorter span says nothing of a month.
const LEAST_SPAN_US: u64 = 3_600_000_000;

/// A month, for "per month": AWS's own 730 hours.
const MONTH_US: f64 = 730.0 * 3_600e6;

/// What is known of one function.
#[derive(Debug, Clone, Copy)]
pub struct FunctionEvidence<'a> {
    /// AWS region, such as `eu-central-1`.
    pub region: &'a str,
    /// Architecture now.
    pub architecture: Architecture,
    /// Memory size configured now.
    pub memory: Megabytes,
    /// `/tmp` configured now, MB; 512 is free.
    pub ephemeral_mb: u32,
    /// Timeout configured now, ms.
    pub timeout_ms: Option<u64>,
    /// Execution environments behind the evidence.
    pub environments: u64,
    /// What was measured of the same code, one rollup per size.
    pub sizes: &'a [(Megabytes, Rollup)],
}

/// Why no advice could be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdviceError {
    /// The function's price is not known.
    #[error(transparent)]
    Price(#[from] PriceError),
    /// No invocation with a duration was seen at any size.
    #[error("no invocation was measured yet: invoke the function and ask again")]
    NoEvidence,
}

/// A recommended size and everything behind it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Advice {
    /// The recommended size; the current one when staying put.
    #[serde(rename = "memory_mb")]
    pub memory: Megabytes,
    /// The size configured now.
    #[serde(rename = "current_memory_mb")]
    pub current: Megabytes,
    /// Expected change of the cost of an invocation; negative is cheaper.
    pub cost_change_percent: f64,
    /// Expected change of the mean duration of a warm invocation; negative is faster.
    pub duration_change_percent: f64,
    /// Expected saving; zero when staying put.
    pub saving: Saving,
    /// The smallest size judged safe from running out of memory.
    pub floor: Floor,
    /// Whether to change, and if not, why not.
    pub verdict: Verdict,
    /// The verdict for people, a sentence each.
    pub reasons: Vec<String>,
    /// What else the measurements say.
    pub hints: Vec<Hint>,
    /// How far to believe it.
    pub confidence: Confidence,
    /// What is expected at sizes worth showing, rising; each observed or predicted.
    pub curve: Vec<CurvePoint>,
}

/// Whether a change is worth it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Another size is better.
    Change,
    /// The current size is below the floor: raise it, whatever it costs.
    RaiseForMemory,
    /// No size is better by more than the dead band.
    AlreadyBest,
    /// Another size may be better, but the interval is too wide for what it would gain.
    TooUncertain,
    /// Too few invocations were measured.
    TooLittleEvidence,
    /// CPU time was not measured and only one size was seen.
    NoCpuTelemetry,
}

/// Expected saving of the recommended size against the current one; negative when it costs more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Saving {
    /// For a million invocations, pico-dollars.
    pub per_million: PicoDollars,
    /// Its 80 % interval, low and high.
    pub per_million_interval_80: [PicoDollars; 2],
    /// For a month at the observed rate; `None` when less than an hour was observed.
    pub per_month: Option<PicoDollars>,
    /// Its 80 % interval, low and high.
    pub per_month_interval_80: Option<[PicoDollars; 2]>,
}

/// How far to believe the advice.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Confidence {
    /// In one word.
    pub level: ConfidenceLevel,
    /// Warm invocations measured, all sizes together.
    pub invocations: u64,
    /// Environments they ran in.
    pub environments: u64,
    /// Sizes they ran at.
    pub sizes: usize,
    /// Hours from the first to the last of them.
    pub span_hours: f64,
    /// Half of the 80 % interval of the duration at the recommended size, as a percentage of it.
    pub duration_within_percent: f64,
}

/// Confidence in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfidenceLevel {
    /// Fewer than 50 invocations, or a prediction that may be off by more than 30 %.
    Low,
    /// In between.
    Medium,
    /// At least 200 invocations and a prediction within 15 %.
    High,
}

/// What is expected at one size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CurvePoint {
    /// The size.
    #[serde(rename = "memory_mb")]
    pub memory: Megabytes,
    /// Whether invocations were measured at this size.
    pub observed: bool,
    /// Mean duration of a warm invocation, ms.
    pub mean: Prediction,
    /// Its quantiles, ms.
    pub p50: Prediction,
    /// 95th percentile, ms.
    pub p95: Prediction,
    /// 99th percentile, ms.
    pub p99: Prediction,
    /// Expected cost of a million invocations, pico-dollars.
    pub cost_per_million: PicoDollars,
    /// Its 80 % interval.
    pub cost_per_million_interval_80: [PicoDollars; 2],
}

/// Sizes worth showing besides those observed: Power Tuning's, the vCPU steps and the ends.
const SHOWN: [u32; 15] =
    [128, 192, 256, 384, 512, 768, 1_024, 1_280, 1_536, 1_769, 2_048, 3_008, 3_538, 5_307, 10_240];

/// Recommends a memory size for one function.
///
/// # Errors
/// [`AdviceError::Price`] for a region or architecture without prices, [`AdviceError::NoEvidence`] when no
/// invocation was measured.
pub fn advise(
    evidence: &FunctionEvidence<'_>,
    prices: &PriceTable,
    strategy: Strategy,
) -> Result<Advice, AdviceError> {
    let rates = prices.rates(evidence.region, evidence.architecture)?;
    let model = Model::fit(evidence.sizes).ok_or(AdviceError::NoEvidence)?;
    let floor = floor(evidence.memory, evidence.environments, evidence.sizes);
    let curve = Curve::new(&model);
    let now_ms = curve.predict(evidence.memory).mean_ms;
    let costs = cost_model(evidence, &curve, rates);

    let quantile = match strategy {
        Strategy::Slo { quantile, .. } => model.quantile_ratio(quantile),
        _ => 1.0,
    };
    let candidate = |memory: Megabytes| {
        let mean_ms = curve.mean_ms(memory);
        Candidate { memory, mean_ms, quantile_ms: mean_ms * quantile, cost: costs.pico(memory, mean_ms) }
    };
    let candidates: Vec<Candidate> =
        (floor.memory.0..=Megabytes::MAX.0).map(|memory| candidate(Megabytes(memory))).collect();
    let best = choose(&candidates, strategy).unwrap_or_else(|| candidate(floor.memory));
    let cheapest = choose(&candidates, Strategy::Cost).unwrap_or(best);

    let (verdict, gain) =
        verdict(evidence, &model, &curve, &costs, &floor, candidate(evidence.memory), best, strategy);
    let chosen = match verdict {
        Verdict::Change | Verdict::RaiseForMemory => best.memory,
        _ => evidence.memory,
    };
    let saving = saving(evidence, &curve, &costs, chosen);
    let facts = Facts {
        evidence,
        profile: model.profile(),
        floor: &floor,
        costs: &costs,
        now_ms,
        cheapest: (cheapest.memory, cheapest.mean_ms),
    };
    let change = |new: f64, old: f64| if old > 0.0 { 100.0 * (new / old - 1.0) } else { 0.0 };
    let chosen_ms = curve.mean_ms(chosen);
    Ok(Advice {
        memory: chosen,
        current: evidence.memory,
        cost_change_percent: change(costs.pico(chosen, chosen_ms), costs.pico(evidence.memory, now_ms)),
        duration_change_percent: change(chosen_ms, now_ms),
        saving,
        reasons: reasons(verdict, evidence, &floor, best.memory, gain),
        verdict,
        hints: hints(&facts),
        confidence: confidence(evidence, &curve, chosen),
        curve: points(evidence, &model, &curve, &costs, chosen),
        floor,
    })
}

/// Anchors the costs at the current size, or, where it was never run, at the size with the most invocations.
fn cost_model(evidence: &FunctionEvidence<'_>, curve: &Curve, rates: crate::prices::Rates) -> CostModel {
    let current =
        evidence.sizes.iter().find(|(memory, rollup)| *memory == evidence.memory && rollup.invocations > 0);
    let anchor = current.or_else(|| evidence.sizes.iter().max_by_key(|(_, rollup)| rollup.invocations));
    match anchor {
        Some((memory, rollup)) => {
            CostModel::new(rates, evidence.ephemeral_mb, rollup, curve.mean_ms(*memory))
        }
        None => CostModel::new(rates, evidence.ephemeral_mb, &Rollup::default(), 0.0),
    }
}

#[expect(clippy::too_many_arguments, reason = "the verdict weighs everything")]
fn verdict(
    evidence: &FunctionEvidence<'_>,
    model: &Model,
    curve: &Curve,
    costs: &CostModel,
    floor: &Floor,
    current: Candidate,
    best: Candidate,
    strategy: Strategy,
) -> (Verdict, f64) {
    let scores = objectives(&[best, current], strategy);
    let gain = match scores.as_slice() {
        [best, current] if *current > 0.0 => 1.0 - best / current,
        _ => 0.0,
    };
    if floor.memory > evidence.memory {
        return (Verdict::RaiseForMemory, gain);
    }
    let warm: u64 = evidence.sizes.iter().map(|(_, rollup)| rollup.warm_duration_us.count()).sum();
    if warm < LEAST_EVIDENCE {
        return (Verdict::TooLittleEvidence, gain);
    }
    if !model.profile().measured && evidence.sizes.len() < 2 {
        return (Verdict::NoCpuTelemetry, gain);
    }
    if best.memory == evidence.memory || gain.is_nan() || gain < DEAD_BAND {
        return (Verdict::AlreadyBest, gain);
    }
    let worst_ms = curve.predict(best.memory).interval_80[1];
    let worst = Candidate {
        mean_ms: worst_ms,
        quantile_ms: best.quantile_ms * worst_ms / best.mean_ms.max(f64::MIN_POSITIVE),
        cost: costs.pico(best.memory, worst_ms),
        ..best
    };
    let scores = objectives(&[worst, current, best], strategy);
    let sure = matches!(scores.as_slice(), [worst, current, _] if worst <= current);
    if gain < SURE_GAIN && !sure {
        return (Verdict::TooUncertain, gain);
    }
    (Verdict::Change, gain)
}

fn reasons(
    verdict: Verdict,
    evidence: &FunctionEvidence<'_>,
    floor: &Floor,
    best: Megabytes,
    gain: f64,
) -> Vec<String> {
    let current = evidence.memory;
    let gain = 100.0 * gain;
    let sentence = match verdict {
        Verdict::Change => format!("{best} is better than {current} by {gain:.0} % of the objective"),
        Verdict::RaiseForMemory => format!(
            "{current} is below the floor of {}: up to {:.0} MB were in use",
            floor.memory, floor.peak_mb
        ),
        Verdict::AlreadyBest => {
            format!("no size is better than {current} by {:.0} % or more", 100.0 * DEAD_BAND)
        }
        Verdict::TooUncertain => {
            format!(
                "{best} may be better by {gain:.0} %, but the prediction is not sure enough for so little"
            )
        }
        Verdict::TooLittleEvidence => {
            format!("fewer than {LEAST_EVIDENCE} warm invocations were measured")
        }
        Verdict::NoCpuTelemetry => {
            "CPU time was not measured and only one size was seen: another size would be a guess".to_owned()
        }
    };
    vec![sentence]
}

fn saving(evidence: &FunctionEvidence<'_>, curve: &Curve, costs: &CostModel, chosen: Megabytes) -> Saving {
    if chosen == evidence.memory {
        return Saving::default();
    }
    let prediction = curve.predict(chosen);
    let now = costs.per_million(evidence.memory, curve.mean_ms(evidence.memory));
    let saved = |mean_ms: f64| now - costs.per_million(chosen, mean_ms);
    let per_million = saved(prediction.mean_ms);
    let interval = [saved(prediction.interval_80[1]), saved(prediction.interval_80[0])];
    let millions = monthly_invocations(evidence).map(|monthly| monthly / 1e6);
    let scale = |amount: PicoDollars, by: f64| crate::cost_model::money(amount.0 as f64 * by);
    Saving {
        per_million,
        per_million_interval_80: interval,
        per_month: millions.map(|by| scale(per_million, by)),
        per_month_interval_80: millions.map(|by| interval.map(|amount| scale(amount, by))),
    }
}

/// Microseconds from the first to the last invocation.
fn span_us(evidence: &FunctionEvidence<'_>) -> u64 {
    let seen = || evidence.sizes.iter().filter(|(_, rollup)| rollup.first_at_us > 0);
    let first = seen().map(|(_, rollup)| rollup.first_at_us).min().unwrap_or(0);
    let last = seen().map(|(_, rollup)| rollup.last_at_us).max().unwrap_or(0);
    last.saturating_sub(first)
}

fn monthly_invocations(evidence: &FunctionEvidence<'_>) -> Option<f64> {
    let span = span_us(evidence);
    let seen: u64 = evidence.sizes.iter().map(|(_, rollup)| rollup.invocations).sum();
    (span >= LEAST_SPAN_US).then(|| seen as f64 * MONTH_US / span as f64)
}

fn confidence(evidence: &FunctionEvidence<'_>, curve: &Curve, chosen: Megabytes) -> Confidence {
    let invocations = evidence.sizes.iter().map(|(_, rollup)| rollup.warm_duration_us.count()).sum();
    let prediction = curve.predict(chosen);
    let [low, high] = prediction.interval_80;
    let within = 50.0 * (high - low) / prediction.mean_ms.max(f64::MIN_POSITIVE);
    let level = match (invocations, within) {
        (200.., within) if within <= 15.0 => ConfidenceLevel::High,
        (50.., within) if within <= 30.0 => ConfidenceLevel::Medium,
        _ => ConfidenceLevel::Low,
    };
    Confidence {
        level,
        invocations,
        environments: evidence.environments,
        sizes: evidence.sizes.len(),
        span_hours: span_us(evidence) as f64 / 3_600e6,
        duration_within_percent: within,
    }
}

fn points(
    evidence: &FunctionEvidence<'_>,
    model: &Model,
    curve: &Curve,
    costs: &CostModel,
    chosen: Megabytes,
) -> Vec<CurvePoint> {
    let observed = |memory: Megabytes| {
        evidence.sizes.iter().any(|(size, rollup)| *size == memory && rollup.invocations > 0)
    };
    let mut sizes: Vec<Megabytes> = SHOWN.into_iter().map(Megabytes).collect();
    sizes.extend(evidence.sizes.iter().map(|(memory, _)| *memory));
    sizes.extend([evidence.memory, chosen]);
    sizes.sort_unstable();
    sizes.dedup();
    let ratios = [0.5, 0.95, 0.99].map(|q| model.quantile_ratio(q));
    sizes
        .into_iter()
        .map(|memory| {
            let mean = curve.predict(memory);
            let [p50, p95, p99] = ratios.map(|ratio| mean.times(ratio));
            CurvePoint {
                memory,
                observed: observed(memory),
                mean,
                p50,
                p95,
                p99,
                cost_per_million: costs.per_million(memory, mean.mean_ms),
                cost_per_million_interval_80: mean.interval_80.map(|ms| costs.per_million(memory, ms)),
            }
        })
        .collect()
}
