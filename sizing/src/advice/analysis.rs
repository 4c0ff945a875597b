//! The analysis of one function's evidence. Advice and explanation use the same analysis.

use crate::advice::evidence::{AdviceError, FunctionEvidence};
use crate::advice::hints::{Hint, HintInput, hints};
use crate::advice::recommendation::{Advice, Confidence, ConfidenceLevel, CurvePoint, Saving, Verdict};
use crate::advice::strategy::{Candidate, Strategy, choose, objectives};
use crate::model::accounting::Unaccounted;
use crate::model::curve::Curve;
use crate::model::interval::Prediction;
use crate::model::memory_floor::{MemoryFloor, memory_floor};
use crate::model::predict::Model;
use crate::model::profile::Profile;
use crate::pricing::cost_model::{CostModel, money};
use crate::pricing::prices::PriceTable;
use crate::telemetry::rollup::Rollup;
use crate::units::{Architecture, Megabytes};

/// An objective better by less than this is not worth a change.
const DEAD_BAND: f64 = 0.03;

/// An expected gain below this must also hold at the bad end of the 80 % interval.
const CERTAIN_GAIN: f64 = 0.10;

/// Warm invocations below which only memory safety is acted on.
const MIN_EVIDENCE: u64 = 5;

/// A shorter span is not extrapolated to a month.
const MIN_SPAN_US: u64 = 3_600_000_000;

/// A month, for "per month": AWS's own 730 hours.
const MONTH_US: f64 = 730.0 * 3_600e6;

/// Step of the first pass over all sizes; the second looks at every size around its best. The objective is
/// smooth between the curve's samples, so the pass cannot miss the best by more than this.
const COARSE_MB: usize = 16;

/// Invocations and relative half-width of the interval that high and medium confidence require.
const HIGH: (u64, f64) = (200, 15.0);
const MEDIUM: (u64, f64) = (50, 30.0);

/// Sizes worth showing besides those observed: Power Tuning's, the vCPU steps and the ends.
const SHOWN: [u32; 15] =
    [128, 192, 256, 384, 512, 768, 1_024, 1_280, 1_536, 1_769, 2_048, 3_008, 3_538, 5_307, 10_240];

/// The evidence with everything derived from it.
pub(crate) struct Analysis<'a> {
    pub(crate) evidence: &'a FunctionEvidence<'a>,
    pub(crate) model: Model,
    pub(crate) curve: Curve,
    pub(crate) floor: MemoryFloor,
    pub(crate) costs: CostModel,
    /// The costs on the other architecture, where it has a price.
    pub(crate) elsewhere: Option<(Architecture, CostModel)>,
    /// The current size's rollup, or the one with the most invocations, and its size.
    pub(crate) main: (Megabytes, &'a Rollup),
}

impl<'a> Analysis<'a> {
    pub(crate) fn new(evidence: &'a FunctionEvidence<'a>, prices: &PriceTable) -> Result<Self, AdviceError> {
        let rates = prices.rates(evidence.region, evidence.architecture)?;
        let model = Model::fit(evidence.sizes, evidence.enforcement).ok_or(AdviceError::NoEvidence)?;
        let curve = Curve::new(&model);
        let seen = || evidence.sizes.iter().filter(|(_, rollup)| rollup.invocations > 0);
        let (main_memory, main) = seen()
            .find(|(memory, _)| *memory == evidence.memory)
            .or_else(|| seen().max_by_key(|(_, rollup)| rollup.invocations))
            .ok_or(AdviceError::NoEvidence)?;
        let costs = CostModel::new(rates, evidence.ephemeral_mb, main, curve.mean_ms(*main_memory));
        let other = match evidence.architecture {
            Architecture::X86_64 => Architecture::Arm64,
            Architecture::Arm64 => Architecture::X86_64,
        };
        let elsewhere =
            prices.rates(evidence.region, other).ok().map(|rates| (other, costs.with_rates(rates)));
        let floor = memory_floor(evidence.memory, evidence.environments, evidence.sizes);
        Ok(Self { evidence, model, curve, floor, costs, elsewhere, main: (*main_memory, main) })
    }

    pub(crate) fn advice(&self, strategy: Strategy) -> Advice {
        let current = self.evidence.memory;
        let best = self.best(&self.costs, strategy);
        let (verdict, gain) = self.verdict(best, strategy);
        let chosen = match verdict {
            Verdict::Change | Verdict::RaiseForMemory => best.memory,
            _ => current,
        };
        let (chosen_ms, now_ms) = (self.curve.mean_ms(chosen), self.curve.mean_ms(current));
        Advice {
            memory: chosen,
            current,
            cost_change_percent: change_percent(
                self.costs.pico(chosen, chosen_ms),
                self.costs.pico(current, now_ms),
            ),
            duration_change_percent: change_percent(chosen_ms, now_ms),
            saving: self.saving(chosen),
            floor: self.floor.clone(),
            verdict,
            reasons: vec![self.reason(verdict, best, gain, strategy)],
            hints: self.hints(chosen),
            confidence: self.confidence(chosen),
            curve: self.points(chosen),
        }
    }

    /// The best size not below the floor.
    pub(crate) fn best(&self, costs: &CostModel, strategy: Strategy) -> Candidate {
        let candidate = |memory: u32| self.candidate(Megabytes(memory), costs, strategy);
        let (floor, most) = (self.floor.memory.0, Megabytes::MAX.0);
        let coarse: Vec<Candidate> = (floor..=most).step_by(COARSE_MB).chain([most]).map(candidate).collect();
        let Some(near) = choose(&coarse, strategy) else { return candidate(floor) };
        let reach = u32::try_from(COARSE_MB).unwrap_or(1);
        let from = near.memory.0.saturating_sub(reach).max(floor);
        let to = near.memory.0.saturating_add(reach).min(most);
        // The ends of the scale stay in view: what is cheapest and fastest must not depend on the window.
        let fine: Vec<Candidate> = (from..=to).map(candidate).chain(coarse).collect();
        choose(&fine, strategy).unwrap_or(near)
    }

    fn candidate(&self, memory: Megabytes, costs: &CostModel, strategy: Strategy) -> Candidate {
        let expected = self.curve.expect(memory);
        let mean_ms = expected.log_ms.exp();
        let quantile_ms = match strategy {
            Strategy::Slo { quantile, .. } => self.model.quantile(&expected, quantile).mean_ms,
            _ => mean_ms,
        };
        Candidate { memory, mean_ms, quantile_ms, cost: costs.pico(memory, mean_ms) }
    }

    /// Whether to move to `best`, and what share of the objective that gains.
    fn verdict(&self, best: Candidate, strategy: Strategy) -> (Verdict, f64) {
        let current = self.candidate(self.evidence.memory, &self.costs, strategy);
        let gain = match objectives(&[best, current], strategy).as_slice() {
            [best, current] if *current > 0.0 => 1.0 - best / current,
            _ => 0.0,
        };
        let warm = self.warm_invocations();
        let verdict = if self.floor.memory > self.evidence.memory {
            Verdict::RaiseForMemory
        } else if warm < MIN_EVIDENCE {
            Verdict::TooLittleEvidence
        } else if !self.model.profile().measured && self.evidence.sizes.len() < 2 {
            Verdict::NoCpuTelemetry
        } else if best.memory < self.evidence.memory && Unaccounted::of(self.evidence.sizes).is_relevant() {
            Verdict::CpuUnaccounted
        } else if best.memory == self.evidence.memory || gain.is_nan() || gain < DEAD_BAND {
            Verdict::AlreadyBest
        } else if gain < CERTAIN_GAIN && !self.holds_at_worst(best, current, strategy) {
            Verdict::TooUncertain
        } else {
            Verdict::Change
        };
        (verdict, gain)
    }

    /// Whether `best` is no worse than `current` even at the slow end of its 80 % interval.
    fn holds_at_worst(&self, best: Candidate, current: Candidate, strategy: Strategy) -> bool {
        let slow_ms = self.curve.predict(best.memory).interval_80[1];
        let worst = Candidate {
            mean_ms: slow_ms,
            quantile_ms: best.quantile_ms * slow_ms / best.mean_ms.max(f64::MIN_POSITIVE),
            cost: self.costs.pico(best.memory, slow_ms),
            ..best
        };
        let scores = objectives(&[worst, current, best], strategy);
        matches!(scores.as_slice(), [worst, current, _] if worst <= current)
    }

    fn reason(&self, verdict: Verdict, best: Candidate, gain: f64, strategy: Strategy) -> String {
        let current = self.evidence.memory;
        let gain = 100.0 * gain;
        if let (Strategy::Slo { quantile, target_ms }, Verdict::Change) = (strategy, verdict) {
            return service_level(best, 100.0 * quantile, target_ms);
        }
        let best = best.memory;
        match verdict {
            Verdict::Change => format!("{best} is better than {current} by {gain:.0} % of the objective"),
            Verdict::RaiseForMemory => format!(
                "{current} is below the memory floor of {}: up to {:.0} MB were in use",
                self.floor.memory, self.floor.peak_mb
            ),
            Verdict::AlreadyBest => {
                format!("no size is better than {current} by {:.0} % or more", 100.0 * DEAD_BAND)
            }
            Verdict::TooUncertain => {
                format!(
                    "{best} may be better by {gain:.0} %, but the prediction is too uncertain for a gain this small"
                )
            }
            Verdict::TooLittleEvidence => {
                format!("fewer than {MIN_EVIDENCE} warm invocations were measured")
            }
            Verdict::CpuUnaccounted => {
                let unaccounted = Unaccounted::of(self.evidence.sizes);
                format!(
                    "{} % of the environment's CPU time ({:.1} ms of an invocation) is of no known process: no \
                     smaller size is recommended",
                    unaccounted.percent(),
                    unaccounted.mean_ms
                )
            }
            Verdict::NoCpuTelemetry => {
                "CPU time was not measured and only one size was seen: a prediction would be a guess"
                    .to_owned()
            }
        }
    }

    fn saving(&self, chosen: Megabytes) -> Saving {
        let current = self.evidence.memory;
        if chosen == current {
            return Saving::default();
        }
        let prediction = self.curve.predict(chosen);
        let now = self.costs.per_million(current, self.curve.mean_ms(current));
        let saved = |mean_ms: f64| now - self.costs.per_million(chosen, mean_ms);
        let per_million = saved(prediction.mean_ms);
        let interval = [saved(prediction.interval_80[1]), saved(prediction.interval_80[0])];
        let millions = self.monthly_invocations().map(|monthly| monthly / 1e6);
        Saving {
            per_million,
            per_million_interval_80: interval,
            per_month: millions.map(|by| money(per_million.0 as f64 * by)),
            per_month_interval_80: millions.map(|by| interval.map(|amount| money(amount.0 as f64 * by))),
        }
    }

    /// Microseconds from the first to the last invocation.
    fn span_us(&self) -> u64 {
        let seen = || self.evidence.sizes.iter().filter(|(_, rollup)| rollup.first_at_us > 0);
        let first = seen().map(|(_, rollup)| rollup.first_at_us).min().unwrap_or(0);
        let last = seen().map(|(_, rollup)| rollup.last_at_us).max().unwrap_or(0);
        last.saturating_sub(first)
    }

    fn monthly_invocations(&self) -> Option<f64> {
        let span = self.span_us();
        let seen = self.evidence.sizes.iter().map(|(_, rollup)| rollup.invocations);
        let seen = seen.fold(0, u64::saturating_add);
        (span >= MIN_SPAN_US).then(|| seen as f64 * MONTH_US / span as f64)
    }

    fn warm_invocations(&self) -> u64 {
        let warm = self.evidence.sizes.iter().map(|(_, rollup)| rollup.warm_duration_us.count());
        warm.fold(0, u64::saturating_add)
    }

    fn confidence(&self, chosen: Megabytes) -> Confidence {
        let invocations = self.warm_invocations();
        let prediction = self.curve.predict(chosen);
        let [low, high] = prediction.interval_80;
        let within = 50.0 * (high - low) / prediction.mean_ms.max(f64::MIN_POSITIVE);
        let reaches = |(least, widest): (u64, f64)| invocations >= least && within <= widest;
        let level = if reaches(HIGH) {
            ConfidenceLevel::High
        } else if reaches(MEDIUM) {
            ConfidenceLevel::Medium
        } else {
            ConfidenceLevel::Low
        };
        Confidence {
            level,
            invocations,
            environments: self.evidence.environments,
            sizes: self.evidence.sizes.len(),
            span_hours: self.span_us() as f64 / 3_600e6,
            duration_within_percent: within,
        }
    }

    fn hints(&self, recommended: Megabytes) -> Vec<Hint> {
        let (memory, rollup) = self.main;
        let kernel = self.evidence.enforcement.likeliest();
        let profile = Profile::of(memory, rollup, kernel).unwrap_or_else(|| *self.model.profile());
        let on_arm64 = match &self.elsewhere {
            Some((Architecture::Arm64, costs)) => Some(costs.clone()),
            _ => None,
        };
        hints(&HintInput {
            evidence: self.evidence,
            rollup,
            profile: &profile,
            floor: &self.floor,
            curve: &self.curve,
            costs: &self.costs,
            on_arm64,
            recommended,
        })
    }

    fn points(&self, chosen: Megabytes) -> Vec<CurvePoint> {
        let observed = |memory: Megabytes| {
            self.evidence.sizes.iter().any(|(size, rollup)| *size == memory && rollup.invocations > 0)
        };
        let mut sizes: Vec<Megabytes> = SHOWN.into_iter().map(Megabytes).collect();
        sizes.extend(self.evidence.sizes.iter().map(|(memory, _)| *memory));
        sizes.extend([self.evidence.memory, chosen]);
        sizes.sort_unstable();
        sizes.dedup();
        let point = |memory: Megabytes| {
            let expected = self.curve.expect(memory);
            let mean = Prediction::new(expected.log_ms, expected.variance);
            let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|q| self.model.quantile(&expected, q));
            CurvePoint {
                memory,
                observed: observed(memory),
                mean,
                p50,
                p95,
                p99,
                cost_per_million: self.costs.per_million(memory, mean.mean_ms),
                cost_per_million_interval_80: mean.interval_80.map(|ms| self.costs.per_million(memory, ms)),
            }
        };
        sizes.into_iter().map(point).collect()
    }
}

/// By how much `new` differs from `old`, in percent; zero where there is nothing to compare with.
pub(crate) fn change_percent(new: f64, old: f64) -> f64 {
    if old > 0.0 { 100.0 * (new / old - 1.0) } else { 0.0 }
}

/// The reason for the size chosen for a latency target.
fn service_level(best: Candidate, percentile: f64, target_ms: f64) -> String {
    let (memory, expected_ms) = (best.memory, best.quantile_ms);
    // Rounded, because a percentage such as 99.9 is not exact in binary.
    let percentile = (percentile * 1e4).round() / 1e4;
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
