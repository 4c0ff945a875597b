//! Judges the new size by measurements: during a canary against the previous version at the same time, during a soak
//! against the time before.

mod sequential;

use tailor_sizing::pricing::prices::Rates;
use tailor_sizing::telemetry::histogram::LogHistogram;
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::Megabytes;

use super::limits::Limits;
use super::machine::Verdict;
use crate::changes::comparison::Measurements;
use crate::changes::{Cause, Change, State};

pub use sequential::{Decision, Sprt, mean_interval};

/// Relative excess over a prediction above which the change is rolled back.
const TOLERANCE: f64 = 0.10;

/// Probability of a wrong alarm of each test, and of a missed fault.
const ALPHA: f64 = 0.01;
const BETA: f64 = 0.05;

/// Lowest error rate that is assumed of the previous version.
const LEAST_ERROR_RATE: f64 = 0.001;

/// Warm invocations of the previous version in a canary from which a change of the workload is computed.
const MIN_DRIFT_INVOCATIONS: u64 = 100;

/// The invocations of one size and version.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// All invocations.
    pub invocations: u64,
    /// Failed invocations: errors, timeouts and out-of-memory kills.
    pub errors: u64,
    /// Those that the timeout ended.
    pub timeouts: u64,
    /// Those that ran out of memory.
    pub out_of_memory: u64,
    /// Duration of successful warm invocations, microseconds.
    pub warm_us: LogHistogram,
    /// Start of the latest invocation, microseconds since the Unix epoch.
    pub last_at_us: u64,
}

impl Sample {
    /// The sample of a rollup.
    #[must_use]
    pub fn of(rollup: &Rollup) -> Self {
        Self {
            invocations: rollup.invocations,
            errors: rollup.errors,
            timeouts: rollup.timeouts,
            out_of_memory: rollup.out_of_memory,
            warm_us: rollup.warm_duration_us.clone(),
            last_at_us: rollup.last_at_us,
        }
    }

    /// Adds another sample.
    pub fn merge(&mut self, other: &Self) {
        self.invocations += other.invocations;
        self.errors += other.errors;
        self.timeouts += other.timeouts;
        self.out_of_memory += other.out_of_memory;
        self.warm_us.merge(&other.warm_us);
        self.last_at_us = self.last_at_us.max(other.last_at_us);
    }

    /// The summary for the log, with cost if `rates` are known.
    #[must_use]
    pub fn measurements(&self, memory: Megabytes, rates: Option<&Rates>) -> Measurements {
        let ms = |us: Option<f64>| us.unwrap_or(0.0) / 1_000.0;
        let warm = self.warm_us.count();
        let mean_ms = ms(self.warm_us.mean());
        let cost = rates.filter(|_| warm > 0).map(|rates| {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the cost of an invocation is far below 2^63"
            )]
            let pico = (rates.expected_pico(memory, billed_ms(mean_ms), 512) * 1e6).round() as i128;
            tailor_sizing::pricing::money::PicoDollars(pico)
        });
        Measurements {
            invocations: self.invocations,
            errors: self.errors,
            out_of_memory: self.out_of_memory,
            warm,
            cost_per_million_pico_usd: cost,
            mean_ms,
            p50_ms: ms(self.warm_us.quantile(0.5)),
            p95_ms: ms(self.warm_us.quantile(0.95)),
            mean_error_ms: if warm > 0 {
                ms(self.warm_us.variance().map(|variance| (variance / warm as f64).sqrt()))
            } else {
                0.0
            },
        }
    }

    fn error_rate(&self) -> f64 {
        (self.errors as f64 + 0.5) / (self.invocations as f64 + 1.0)
    }

    fn above(&self, limit_us: f64) -> u64 {
        self.warm_us.values().filter(|(value, _)| *value > limit_us).map(|(_, count)| count).sum()
    }
}

/// Each invocation is billed in whole milliseconds, rounded up: half of one more on average.
fn billed_ms(mean_ms: f64) -> f64 {
    mean_ms + 0.5
}

/// What is compared.
#[derive(Clone, Copy)]
pub struct Comparison<'a> {
    /// The change.
    pub change: &'a Change,
    /// Invocations of the new size, since it is in use.
    pub new: &'a Sample,
    /// Invocations of the previous size in the same time; for a soak, those of the canary or before the change.
    pub old: &'a Sample,
    /// Prices.
    pub rates: Option<&'a Rates>,
    /// Why the measurements cannot be trusted, if they cannot.
    pub unhealthy: Option<&'a str>,
    /// The present time, microseconds since the Unix epoch.
    pub now_us: u64,
}

/// Judges a canary or a soak.
#[must_use]
pub fn judge(comparison: &Comparison<'_>, limits: &Limits) -> Verdict {
    match comparison.change.state {
        State::Canary | State::Hold => canary(comparison, limits),
        State::Soaking => soak(comparison, limits),
        _ => Verdict::Continue(String::new()),
    }
}

fn fail(comparison: &Comparison<'_>, cause: Cause, reason: String) -> Verdict {
    let (after, baseline) = summaries(comparison);
    Verdict::Fail { cause, reason, after, baseline: Some(baseline) }
}

fn summaries(comparison: &Comparison<'_>) -> (Measurements, Measurements) {
    let Comparison { change, new, old, rates, .. } = comparison;
    (new.measurements(change.to, *rates), old.measurements(change.from, *rates))
}

/// The sequential tests of a canary.
fn canary(comparison: &Comparison<'_>, limits: &Limits) -> Verdict {
    let Comparison { change, new, old, unhealthy, now_us, .. } = *comparison;
    let mut needed = 0;
    for (decision, what) in tests(comparison) {
        match decision {
            Decision::Worse => return fail(comparison, Cause::Worse, what),
            Decision::Continue(more) => needed = needed.max(more),
            Decision::Same => {}
        }
    }
    if let Some(reason) = unhealthy {
        return Verdict::NoData(format!("the telemetry is not healthy: {reason}"));
    }
    if new.invocations == 0 || old.invocations == 0 {
        let which = if new.invocations == 0 { "new" } else { "previous" };
        return Verdict::NoData(format!("no invocation of the {which} version was measured"));
    }
    let weighted_us = now_us.saturating_sub(change.weighted_at_us);
    if new.last_at_us <= change.weighted_at_us && weighted_us >= limits.canary_step_us.max(1) {
        return Verdict::NoData(
            "no invocation of the new version was measured since its weight was set".to_owned(),
        );
    }
    let step = limits.canary_steps.iter().find(|step| step.weight == change.weight);
    let missing = step.map_or(0, |step| step.invocations).saturating_sub(new.invocations);
    // The first weights look for a clear fault only. From 25 % on, the tests must end.
    let is_early = change.weight < 2_500;
    let more = if is_early { missing } else { missing.max(needed) };
    if more > 0 {
        return Verdict::Continue(format!(
            "{} invocations of the new version were measured, about {more} more are needed",
            new.invocations
        ));
    }
    if weighted_us < limits.canary_step_us {
        return Verdict::Continue("the time at this weight is not over".to_owned());
    }
    let (after, baseline) = summaries(comparison);
    let reason = format!(
        "{} invocations of the new version have {} errors and {:.2} ms, {} of the previous version have {} and {:.2} ms",
        after.invocations,
        after.errors,
        after.mean_ms,
        baseline.invocations,
        baseline.errors,
        baseline.mean_ms
    );
    Verdict::Pass { reason, after, baseline: Some(baseline) }
}

/// The tests of a canary: errors, slow invocations, cost.
fn tests(comparison: &Comparison<'_>) -> [(Decision, String); 4] {
    let Comparison { change, new, old, .. } = *comparison;
    let rate = old.error_rate().max(LEAST_ERROR_RATE);
    let errors = Sprt { healthy: rate, faulty: (3.0 * rate + 0.007).min(0.99), alpha: ALPHA, beta: BETA };
    let killed = new.out_of_memory > 0 && change.to < change.from;
    let kills = if killed { Decision::Worse } else { Decision::Same };
    let limit_ms = match change.intent.p95_limit_ms {
        limit if limit > 0.0 => limit.max(old.warm_us.quantile(0.95).unwrap_or(0.0) / 1_000.0),
        _ => f64::INFINITY,
    };
    let slow = new.above(limit_ms * 1_000.0 * (1.0 + TOLERANCE));
    let slowness = Sprt { healthy: 0.05, faulty: 0.10, alpha: ALPHA, beta: BETA };
    // Killed invocations have no duration, and the ones with the most memory often take the longest: durations and costs of both
    // sizes cannot be compared after a repair.
    let slow_decision = if limit_ms.is_finite() && !change.is_repair() {
        slowness.decide(slow, new.warm_us.count())
    } else {
        Decision::Same
    };
    [
        (kills, format!("{} invocations of the new version ran out of memory", new.out_of_memory)),
        (
            errors.decide(new.errors, new.invocations),
            format!(
                "{} of {} invocations of the new version failed, {} of {} of the previous version",
                new.errors, new.invocations, old.errors, old.invocations
            ),
        ),
        (
            slow_decision,
            format!("{slow} of {} invocations took more than {limit_ms:.1} ms", new.warm_us.count()),
        ),
        cost(comparison),
    ]
}

/// Compares the cost of an invocation with the prediction, by an interval that is valid at any time.
fn cost(comparison: &Comparison<'_>) -> (Decision, String) {
    let Comparison { change, new, old, .. } = *comparison;
    if change.is_repair() {
        return (Decision::Same, String::new());
    }
    let (Some(new_mean), Some(old_mean)) = (new.warm_us.mean(), old.warm_us.mean()) else {
        return (Decision::Continue(100), String::new());
    };
    let half = |sample: &Sample| {
        let variance = sample.warm_us.variance().unwrap_or(0.0);
        mean_interval(variance, sample.warm_us.count(), ALPHA)
    };
    let size_ratio = f64::from(change.to.0) / f64::from(change.from.0);
    let ratio = |new: f64, old: f64| size_ratio * new / old.max(f64::MIN_POSITIVE);
    let low = ratio((new_mean - half(new)).max(0.0), old_mean + half(old));
    let high = ratio(new_mean + half(new), (old_mean - half(old)).max(old_mean * 0.01));
    let bound = 1.0 + change.intent.cost_change_percent.max(0.0) / 100.0 + TOLERANCE;
    let text = format!(
        "an invocation costs {:+.1} %, {:+.1} % was predicted",
        100.0 * (ratio(new_mean, old_mean) - 1.0),
        change.intent.cost_change_percent
    );
    let decision = if low > bound {
        Decision::Worse
    } else if high <= bound {
        Decision::Same
    } else {
        // The width shrinks with the root of the number of invocations.
        let excess = ((high - low) / (bound - low).max(1e-3)).powi(2).min(100.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a number of invocations that is bounded by the factor of 100"
        )]
        Decision::Continue(((excess - 1.0).max(0.1) * new.warm_us.count() as f64).ceil() as u64)
    };
    (decision, text)
}

/// The comparison of a soak with the time before, and the check of the saving at its end.
fn soak(comparison: &Comparison<'_>, limits: &Limits) -> Verdict {
    let Comparison { change, new, unhealthy, now_us, .. } = *comparison;
    let before = &change.intent.before;
    let (after, old) = summaries(comparison);
    if after.out_of_memory > 0 && change.to < change.from {
        return fail(
            comparison,
            Cause::Worse,
            format!("{} invocations ran out of memory", after.out_of_memory),
        );
    }
    let rate = (before.errors as f64 + 0.5) / (before.invocations as f64 + 1.0);
    let rate = rate.max(LEAST_ERROR_RATE);
    let errors = Sprt { healthy: rate, faulty: (3.0 * rate + 0.007).min(0.99), alpha: ALPHA, beta: BETA };
    // An increase ends kills, and the rest of the errors is judged.
    if errors.decide(after.errors - after.out_of_memory.min(after.errors), after.invocations)
        == Decision::Worse
    {
        let expected = rate * after.invocations as f64;
        let reason = format!(
            "{} of {} invocations failed, {expected:.1} were expected",
            after.errors, after.invocations
        );
        return fail(comparison, Cause::Worse, reason);
    }
    let drift = drift(change);
    let predicted_ms = change.predicted_mean_ms() * drift;
    let bound_ms = (predicted_ms * (1.0 + TOLERANCE)).max(change.intent.duration_interval_ms[1] * drift);
    let error_ms = mean_interval(new.warm_us.variance().unwrap_or(0.0), new.warm_us.count(), ALPHA) / 1_000.0;
    if after.warm > 0 && after.mean_ms - error_ms > bound_ms && !change.is_repair() {
        let reason = format!(
            "mean duration is {:.2} ms, {predicted_ms:.2} ms was predicted, the limit is {bound_ms:.2} ms",
            after.mean_ms
        );
        return fail(comparison, Cause::Worse, reason);
    }
    if let Some(reason) = unhealthy {
        return Verdict::NoData(format!("the telemetry is not healthy: {reason}"));
    }
    let soaked_us = now_us.saturating_sub(change.applied_at_us.unwrap_or(change.planned_at_us));
    let missing = limits.soak_invocations.saturating_sub(after.warm);
    if missing > 0 || soaked_us < limits.soak_us {
        return Verdict::Continue(format!(
            "{} warm invocations were measured, {missing} more are needed",
            after.warm
        ));
    }
    let baseline = change.baseline.or_else(|| (old.warm > 0).then_some(old));
    if let Some(reason) = no_saving(change, &after, baseline.as_ref().unwrap_or(before), limits) {
        return Verdict::Fail { cause: Cause::NoSaving, reason, after, baseline };
    }
    let reason = format!(
        "mean duration is {:.2} ms, {predicted_ms:.2} ms was predicted, over {} warm invocations",
        after.mean_ms, after.warm
    );
    Verdict::Pass { reason, after, baseline }
}

/// How much slower the previous version was in the canary than before the change, as a factor of at least 1. The workload
/// changed then, and not because of the size.
fn drift(change: &Change) -> f64 {
    let before = &change.intent.before;
    match &change.baseline {
        Some(baseline) if baseline.warm >= MIN_DRIFT_INVOCATIONS && before.mean_ms > 0.0 => {
            let sure_ms = baseline.mean_ms - 2.0 * baseline.mean_error_ms;
            (sure_ms / before.mean_ms).max(1.0)
        }
        _ => 1.0,
    }
}

/// Why the saving is too small, if it is.
fn no_saving(
    change: &Change,
    after: &Measurements,
    baseline: &Measurements,
    limits: &Limits,
) -> Option<String> {
    let predicted = change.intent.saving_per_million.to_dollars();
    if change.intent.for_memory || predicted <= 0.0 {
        return None;
    }
    let new = after.cost_per_million_pico_usd?.to_dollars();
    let old = baseline.cost_per_million_pico_usd?.to_dollars();
    let saved = old - new;
    if saved >= limits.min_realised * predicted {
        return None;
    }
    Some(format!(
        "a million invocations save ${saved:.2}, ${predicted:.2} was predicted, at least {:.0} % of it is needed",
        100.0 * limits.min_realised
    ))
}
