//! Scores the predictor: predicts from the telemetry of one size, and compares with the measured durations at the other
//! sizes.
//!
//! The definitions are those of Sizeless (Middleware 2021), so that results can be compared: the error is relative to the
//! measured mean, and a chosen size is correct when it has the best measured objective. The caller provides the cases,
//! from files or from a benchmark.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::paired::Predicted;
use tailor_sizing::advice::strategy::{Candidate, Strategy, objectives};
use tailor_sizing::model::cfs_simulation::Kernel;
use tailor_sizing::model::enforcement::Enforcement;
use tailor_sizing::model::predict::Model;
use tailor_sizing::model::profile::Profile;
use tailor_sizing::pricing::prices::Rates;
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::Megabytes;

/// Weights of cost at which choices are scored.
pub const WEIGHTS: [f64; 3] = [0.75, 0.5, 0.25];

/// The weight of cost for which regret is reported.
const REGRET_WEIGHT: f64 = 0.5;

/// One function measured at several sizes.
#[derive(Debug, Clone, Default)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Its sizes, in ascending order.
    pub sizes: Vec<SizeCase>,
}

/// One function at one size.
#[derive(Debug, Clone)]
pub struct SizeCase {
    /// The size.
    pub memory: Megabytes,
    /// Input of the predictor when this is the base size.
    pub telemetry: Rollup,
    /// Mean duration of other invocations at this size, ms: the true value.
    pub truth_ms: f64,
}

/// Scores of the predictions from one base size.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct BaseScore {
    /// Mean absolute percentage error over all functions and targets.
    pub mape_mean: f64,
    /// Median absolute percentage error.
    pub mape_median: f64,
    /// Mean absolute percentage error by target size in MB.
    pub by_target: BTreeMap<u32, f64>,
    /// Percentage of functions whose chosen size is the best, by weight of cost, and `pooled`.
    pub best: BTreeMap<String, f64>,
    /// Percentage of functions whose chosen size is the best or the second best, all weights together.
    pub best_two_pooled: f64,
    /// Mean regret at weight 0.5, percent: the excess of the chosen size's objective over that of the best size.
    pub regret_mean: f64,
    /// 95th percentile of the regret, percent.
    pub regret_p95: f64,
    /// Percentage of true values within the 80 % interval; `None` when nothing was predicted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coverage_80: Option<f64>,
    /// Percentage of true values within the 95 % interval; `None` when nothing was predicted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coverage_95: Option<f64>,
}

/// Scores of a data set.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Report {
    /// Functions scored.
    pub functions: usize,
    /// Scores by base size in MB.
    pub by_base: BTreeMap<u32, BaseScore>,
    /// Scores of a choice from measurements of every size instead of predictions. No predictor can be much better.
    pub noise_ceiling: BaseScore,
}

/// Scores every base size in `bases`. When `bases` is empty, scores every size in `cases`.
#[must_use]
pub fn score(cases: &[Case], bases: &[Megabytes], rates: &Rates) -> Report {
    let mut bases = bases.to_vec();
    if bases.is_empty() {
        bases = cases.iter().flat_map(|case| case.sizes.iter().map(|size| size.memory)).collect();
        bases.sort_unstable();
        bases.dedup();
    }
    let mut report = Report { functions: cases.len(), ..Report::default() };
    for base in bases {
        let mut tally = Tally::default();
        let enforcement = enforcement(cases, base);
        cases.iter().for_each(|case| tally.predict(case, base, rates, enforcement));
        report.by_base.insert(base.0, tally.score());
    }
    let mut ceiling = Tally::default();
    cases.iter().for_each(|case| ceiling.measure(case, rates));
    report.noise_ceiling = ceiling.score();
    report
}

/// The evidence about the kernel in the telemetry of one size.
#[must_use]
pub fn enforcement(cases: &[Case], base: Megabytes) -> Enforcement {
    let sizes = cases.iter().flat_map(|case| &case.sizes).filter(|size| size.memory == base);
    Enforcement::of(sizes.map(|size| (size.memory, &size.telemetry)))
}

/// Predicts every size of every case from the telemetry of `base`, or of `base` and `also`.
#[must_use]
pub fn predictions(set: &str, cases: &[Case], base: Megabytes, also: Option<Megabytes>) -> Vec<Predicted> {
    let enforcement = enforcement(cases, base);
    let mut rows = Vec::new();
    for case in cases {
        let is_seen = |memory: Megabytes| memory == base || Some(memory) == also;
        let seen: Vec<(Megabytes, Rollup)> = case
            .sizes
            .iter()
            .filter(|size| is_seen(size.memory))
            .map(|size| (size.memory, size.telemetry.clone()))
            .collect();
        if !seen.iter().any(|(memory, _)| *memory == base) {
            continue;
        }
        let Some(model) = Model::fit(&seen, enforcement) else { continue };
        for size in case.sizes.iter().filter(|size| !is_seen(size.memory)) {
            let prediction = model.predict(size.memory);
            let within = |[low, high]: [f64; 2]| (low..=high).contains(&size.truth_ms);
            rows.push(Predicted {
                set: set.to_owned(),
                function: case.name.clone(),
                kind: case.kind.clone(),
                base_mb: base.0,
                target_mb: size.memory.0,
                truth_ms: size.truth_ms,
                predicted_ms: prediction.mean_ms,
                in_80: within(prediction.interval_80),
                in_95: within(prediction.interval_95),
            });
        }
    }
    rows
}

/// Mean absolute percentage error of each case predicted from one size, in the order of `cases`; `None` when
/// it was not measured at that size or at no other size.
#[must_use]
pub fn errors(cases: &[Case], base: Megabytes) -> Vec<Option<f64>> {
    let enforcement = enforcement(cases, base);
    let error = |case: &Case| {
        let seen = case.sizes.iter().find(|size| size.memory == base)?;
        let model = Model::fit(&[(base, seen.telemetry.clone())], enforcement)?;
        let others = case.sizes.iter().filter(|size| size.memory != base);
        let errors: Vec<f64> =
            others.map(|size| relative_error(model.predict(size.memory).mean_ms, size.truth_ms)).collect();
        (!errors.is_empty()).then(|| mean(&errors))
    };
    cases.iter().map(error).collect()
}

/// Running sums of one base size.
#[derive(Default)]
struct Tally {
    errors: Vec<f64>,
    by_target: BTreeMap<u32, Vec<f64>>,
    /// Rank of the chosen size by weight, 0 the best.
    ranks: BTreeMap<String, Vec<usize>>,
    regrets: Vec<f64>,
    within_80: Vec<bool>,
    within_95: Vec<bool>,
}

impl Tally {
    /// Predicts a case from one of its sizes, and chooses a size from the predictions as advice does. The duration at the
    /// measured size is the model's too.
    fn predict(&mut self, case: &Case, base: Megabytes, rates: &Rates, enforcement: Enforcement) {
        let Some(seen) = case.sizes.iter().find(|size| size.memory == base) else { return };
        let Some(model) = Model::fit(&[(base, seen.telemetry.clone())], enforcement) else { return };
        let mut assumed = Vec::with_capacity(case.sizes.len());
        for size in &case.sizes {
            let prediction = model.predict(size.memory);
            assumed.push(model.expect(size.memory).mean_ms());
            if size.memory == base {
                continue;
            }
            self.error(size, prediction.mean_ms);
            let within = |[low, high]: [f64; 2]| (low..=high).contains(&size.truth_ms);
            self.within_80.push(within(prediction.interval_80));
            self.within_95.push(within(prediction.interval_95));
        }
        self.choose(case, &assumed, rates);
    }

    /// Uses the measured mean duration of every size instead of a prediction.
    fn measure(&mut self, case: &Case, rates: &Rates) {
        let mut assumed = Vec::with_capacity(case.sizes.len());
        for size in &case.sizes {
            let Some(profile) = Profile::of(size.memory, &size.telemetry, Kernel::default()) else { return };
            self.error(size, profile.wall_ms);
            assumed.push(profile.wall_ms);
        }
        self.choose(case, &assumed, rates);
    }

    fn error(&mut self, size: &SizeCase, predicted_ms: f64) {
        let error = relative_error(predicted_ms, size.truth_ms);
        self.errors.push(error);
        self.by_target.entry(size.memory.0).or_default().push(error);
    }

    /// Chooses a size by assumed durations, and ranks the choice by measured durations.
    fn choose(&mut self, case: &Case, assumed: &[f64], rates: &Rates) {
        let truths = case.sizes.iter().map(|size| size.truth_ms);
        for weight in WEIGHTS {
            let strategy = Strategy::Balanced { weight };
            let predicted = objectives(&candidates(case, assumed.iter().copied(), rates), strategy);
            let real = objectives(&candidates(case, truths.clone(), rates), strategy);
            let Some(chosen) = position_of_least(&predicted) else { continue };
            let best = real.iter().copied().fold(f64::INFINITY, f64::min);
            let rank = real.iter().filter(|&&score| score < real[chosen] - 1e-12).count();
            self.ranks.entry(weight.to_string()).or_default().push(rank);
            if weight == REGRET_WEIGHT {
                self.regrets.push(100.0 * (real[chosen] / best - 1.0));
            }
        }
    }

    fn score(self) -> BaseScore {
        let all: Vec<usize> = self.ranks.values().flatten().copied().collect();
        let share = |ranks: &[usize], limit: usize| {
            percent(ranks.iter().filter(|&&rank| rank < limit).count(), ranks.len())
        };
        let mut best: BTreeMap<String, f64> =
            self.ranks.iter().map(|(weight, ranks)| (weight.clone(), share(ranks, 1))).collect();
        best.insert("pooled".to_owned(), share(&all, 1));
        let covered = |within: &[bool]| {
            (!within.is_empty()).then(|| percent(within.iter().filter(|&&hit| hit).count(), within.len()))
        };
        BaseScore {
            mape_mean: mean(&self.errors),
            mape_median: quantile(self.errors, 0.5),
            by_target: self.by_target.iter().map(|(&target, errors)| (target, mean(errors))).collect(),
            best,
            best_two_pooled: share(&all, 2),
            regret_mean: mean(&self.regrets),
            regret_p95: quantile(self.regrets, 0.95),
            coverage_80: covered(&self.within_80),
            coverage_95: covered(&self.within_95),
        }
    }
}

fn candidates(case: &Case, durations: impl Iterator<Item = f64>, rates: &Rates) -> Vec<Candidate> {
    let sizes = case.sizes.iter().zip(durations);
    sizes
        .map(|(size, mean_ms)| Candidate {
            memory: size.memory,
            mean_ms,
            quantile_ms: mean_ms,
            cost: rates.expected_pico(size.memory, mean_ms, 0),
        })
        .collect()
}

/// Absolute relative error, percent.
fn relative_error(predicted: f64, truth: f64) -> f64 {
    100.0 * (predicted / truth - 1.0).abs()
}

fn position_of_least(scores: &[f64]) -> Option<usize> {
    (0..scores.len()).min_by(|&a, &b| scores[a].total_cmp(&scores[b]))
}

fn percent(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// Quantile by linear interpolation between ranks.
fn quantile(mut values: Vec<f64>, q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return 0.0 };
    let at = q.clamp(0.0, 1.0) * last as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and `last`")]
    let below = at.floor() as usize;
    let above = (below + 1).min(last);
    values[below] + (values[above] - values[below]) * (at - at.floor())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailor_sizing::pricing::prices::PriceTable;
    use tailor_sizing::telemetry::invocation::{Invocation, Outcome};
    use tailor_sizing::units::Architecture;

    /// A function that only waits: its duration is the same at every size.
    fn waiting(name: &str) -> Case {
        let size = |memory: u32| {
            let mut telemetry = Rollup::default();
            for _ in 0..20 {
                telemetry.record(&Invocation {
                    outcome: Outcome::Success,
                    duration_us: 50_000,
                    billed_ms: 50,
                    work: Some(tailor_sizing::telemetry::invocation::Work {
                        user_us: 100,
                        top_busy_us: 100,
                        effective_threads_milli: 1_000,
                        ..Default::default()
                    }),
                    ..Invocation::default()
                });
            }
            SizeCase { memory: Megabytes(memory), telemetry, truth_ms: 50.0 }
        };
        Case { name: name.to_owned(), kind: String::new(), sizes: [128, 512, 2_048].map(size).to_vec() }
    }

    #[test]
    fn a_function_that_only_waits_is_predicted_without_error() {
        let rates = PriceTable::embedded().rates("us-east-1", Architecture::X86_64).unwrap();
        let report = score(&[waiting("a"), waiting("b")], &[], &rates);
        assert_eq!(report.functions, 2);
        let base = &report.by_base[&512];
        assert!(base.mape_mean < 2.0, "{base:?}");
        assert!((base.best["pooled"] - 100.0).abs() < 1e-9 && base.regret_mean < 1e-9);
        assert_eq!(base.coverage_95, Some(100.0));
        assert!(report.noise_ceiling.coverage_80.is_none());
    }

    #[test]
    fn quantiles_interpolate() {
        assert!((quantile(vec![3.0, 1.0, 2.0], 0.75) - 2.5).abs() < 1e-12);
        assert!(quantile(Vec::new(), 0.5).abs() < 1e-12);
    }
}
