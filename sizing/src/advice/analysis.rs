//! The analysis of one function's evidence. Advice and explanation use the same analysis.

use crate::advice::choice::{DEAD_BAND, MIN_EVIDENCE, service_level};
use crate::advice::evidence::{AdviceError, FunctionEvidence};
use crate::advice::hints::{Hint, HintInput, hints};
use crate::advice::recommendation::{Advice, Confidence, ConfidenceLevel, CurvePoint, Saving, Verdict};
use crate::advice::strategy::{Candidate, Strategy};
use crate::model::accounting::Unaccounted;
use crate::model::curve::Curve;
use crate::model::interval::Prediction;
use crate::model::memory_floor::{MemoryFloor, memory_floor};
use crate::model::predict::Model;
use crate::model::profile::Profile;
use crate::pricing::cost_model::{CostModel, money};
use crate::pricing::prices::RateTable;
use crate::telemetry::rollup::Rollup;
use crate::units::{Architecture, Megabytes};

/// A shorter span is not extrapolated to a month.
const MIN_SPAN_US: u64 = 3_600_000_000;

/// A month, for "per month": AWS's own 730 hours.
const MONTH_US: f64 = 730.0 * 3_600e6;

/// Invocations and relative half-width of the interval that high and medium confidence require.
const HIGH: (u64, f64) = (200, 15.0);
const MEDIUM: (u64, f64) = (50, 30.0);

/// Sizes worth showing besides those observed: Power Tuning's, the vCPU steps and the ends.
pub(crate) const SHOWN: [u32; 15] =
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
    pub(crate) fn new(
        evidence: &'a FunctionEvidence<'a>,
        prices: &dyn RateTable,
    ) -> Result<Self, AdviceError> {
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
            trade: strategy.trade(),
            trial: self.trial(chosen, strategy),
            hints: self.hints(chosen),
            confidence: self.confidence(chosen),
            curve: self.points(chosen),
        }
    }

    fn reason(&self, verdict: Verdict, best: Candidate, gain: f64, strategy: Strategy) -> String {
        let current = self.evidence.memory;
        let gain = 100.0 * gain;
        match (strategy, verdict) {
            (Strategy::Slo { quantile, target_ms, .. }, Verdict::Change) => {
                return service_level(best, quantile, target_ms);
            }
            (Strategy::Cost { .. }, Verdict::Change) => return self.cheaper_or_faster(best.memory),
            _ => {}
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
                "CPU time was not measured and only one size was seen: a prediction would have no basis"
                    .to_owned()
            }
        }
    }

    /// The reason for the size that `cost` chose.
    fn cheaper_or_faster(&self, best: Megabytes) -> String {
        let current = self.evidence.memory;
        let (best_ms, now_ms) = (self.curve.mean_ms(best), self.curve.mean_ms(current));
        let cost = change_percent(self.costs.pico(best, best_ms), self.costs.pico(current, now_ms));
        let time = change_percent(best_ms, now_ms);
        let change = |percent: f64, less: &str, more: &str| {
            format!("{:.0} % {}", percent.abs(), if percent < 0.0 { less } else { more })
        };
        format!(
            "{best} is expected to cost {} than {current} and to take {} time",
            change(cost, "less", "more"),
            change(time, "less", "more")
        )
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

    pub(crate) fn warm_invocations(&self) -> u64 {
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
