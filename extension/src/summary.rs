//! What the layer tells without a collector: JSON lines in the function's log, at a bounded rate.
//!
//! A summary of what happened since the one before, every few minutes and at SHUTDOWN, with advice from all that
//! the environment has seen; on request in CloudWatch's Embedded Metric Format. And, on request, a line for each
//! of so many invocations a minute.

use std::time::{Duration, Instant};

use agent_proto::batch::{Environment, Hint as WireHint};
use agent_proto::limits::MAX_TEXT_BYTES;
use serde::Serialize;
use tailor_sizing::advice::hints::Hint;
use tailor_sizing::advice::strategy::Strategy;
use tailor_sizing::advice::{Advice, FunctionEvidence, Verdict, advise};
use tailor_sizing::model::enforcement::Enforcement;
use tailor_sizing::pricing::bill::FREE_STORAGE_MB;
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::pricing::prices::PriceTable;
use tailor_sizing::telemetry::invocation::{Invocation, Outcome, Work};
use tailor_sizing::telemetry::rollup::Rollup;

mod emf;

/// The shortest time from one summary to the next: a dozen lines an hour.
pub const INTERVAL: Duration = Duration::from_secs(300);

/// Times are milliseconds, memory MB, money pico-dollars.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    /// Tells the line apart from the function's own.
    #[serde(rename = "type")]
    kind: &'static str,
    /// What makes CloudWatch read metrics from the line.
    #[serde(rename = "_aws", skip_serializing_if = "Option::is_none")]
    metrics: Option<emf::Metadata>,
    /// The metrics' dimension, by the name that Lambda's own metrics have.
    #[serde(rename = "FunctionName", skip_serializing_if = "Option::is_none")]
    dimension: Option<&'a str>,
    function: &'a str,
    version: &'a str,
    memory_mb: u32,
    invocations: u64,
    errors: u64,
    cold_starts: u64,
    /// Invocations whose durations are estimates.
    estimated: u64,
    /// Invocations of which nothing is in here, since the environment began.
    lost: u64,
    duration_p50_ms: f64,
    duration_p95_ms: f64,
    billed_ms: u64,
    /// Absent when the price of the region is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_pico_usd: Option<i128>,
    /// Absent when it is not known of any invocation.
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_memory_mb: Option<u64>,
    busy_ms: u64,
    starved_ms: u64,
    idle_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<AdviceLine>,
    hints: Vec<HintLine>,
}

#[derive(Debug, Serialize)]
struct AdviceLine {
    memory_mb: u32,
    verdict: Verdict,
    cost_change_percent: f64,
    duration_change_percent: f64,
    reason: String,
}

#[derive(Debug, Serialize)]
struct HintLine {
    code: tailor_sizing::advice::hints::HintCode,
    evidence: String,
    action: String,
}

/// One invocation; units as in [`Summary`].
#[derive(Debug, Serialize)]
struct InvocationLine {
    #[serde(rename = "type")]
    kind: &'static str,
    request_id: String,
    outcome: Outcome,
    cold_start: bool,
    estimated: bool,
    duration_ms: f64,
    billed_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_pico_usd: Option<i128>,
    #[serde(flatten)]
    work: Option<WorkLine>,
}

#[derive(Debug, Serialize)]
struct WorkLine {
    /// Absent when it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_memory_mb: Option<f64>,
    busy_ms: f64,
    starved_ms: f64,
    idle_ms: f64,
}

/// Collects what is to be told, and knows when.
#[derive(Debug)]
pub struct Teller {
    /// What happened since the last summary.
    since: Rollup,
    last: Instant,
    emf: bool,
    /// Lines for single invocations: how many a minute, how many are left of this one, and when it began.
    a_minute: u32,
    left: u32,
    minute: Instant,
}

impl Teller {
    /// Nothing to tell yet.
    #[must_use]
    pub fn new(emf: bool, invocations_a_minute: u32) -> Self {
        let now = Instant::now();
        Self {
            since: Rollup::default(),
            last: now,
            emf,
            a_minute: invocations_a_minute,
            left: invocations_a_minute,
            minute: now,
        }
    }

    /// An invocation is finished; returns its line when it is to have one.
    pub fn finished(&mut self, invocation: &Invocation, environment: &Environment) -> Option<String> {
        self.since.record(invocation);
        if self.a_minute == 0 {
            return None;
        }
        if self.minute.elapsed() >= Duration::from_secs(60) {
            (self.left, self.minute) = (self.a_minute, Instant::now());
        }
        self.left = self.left.checked_sub(1)?;
        let line = InvocationLine {
            kind: "tailor.invocation",
            request_id: invocation.request_id.to_string(),
            outcome: invocation.outcome,
            cold_start: invocation.cold_start,
            estimated: invocation.caveats.estimated,
            duration_ms: milliseconds(invocation.duration_us),
            billed_ms: invocation.billed_ms,
            cost_pico_usd: cost(environment, invocation.billed_ms, 1).map(|cost| cost.0),
            work: invocation.work.map(|work| WorkLine {
                peak_memory_mb: Some(invocation.peak_kib as f64 / 1_024.0).filter(|&peak_mb| peak_mb > 0.0),
                busy_ms: milliseconds(work.busy_us()),
                starved_ms: milliseconds(work.starved_us),
                idle_ms: milliseconds(work.idle_us),
            }),
        };
        serde_json::to_string(&line).ok()
    }

    /// Whether it is time for a summary, and there is something to tell.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.since.invocations > 0 && self.last.elapsed() >= INTERVAL
    }

    /// The summary since the last one; `None` when nothing happened. `totals` is what advice is drawn from.
    pub fn summary(
        &mut self,
        totals: &Rollup,
        environment: &Environment,
        lost: u64,
        now_us: u64,
    ) -> Option<String> {
        if self.since.invocations == 0 {
            return None;
        }
        self.last = Instant::now();
        let since = std::mem::take(&mut self.since);
        let advice = advice(totals, environment);
        let quantile_ms = |q| since.duration_us.quantile(q).unwrap_or_default() / 1_000.0;
        let work = all_work(&since);
        let cost = cost(environment, since.billed_ms, since.invocations).map(|cost| cost.0);
        let peak_memory_mb = Some(since.max_peak_kib.div_ceil(1_024)).filter(|&peak_mb| peak_mb > 0);
        let absent: Vec<&str> =
            [("cost_pico_usd", cost.is_none()), ("peak_memory_mb", peak_memory_mb.is_none())]
                .into_iter()
                .filter_map(|(name, is_absent)| is_absent.then_some(name))
                .collect();
        let summary = Summary {
            kind: "tailor.summary",
            metrics: self.emf.then(|| emf::Metadata::at(now_us / 1_000, &absent)),
            dimension: self.emf.then_some(environment.function.as_str()),
            function: &environment.function,
            version: &environment.version,
            memory_mb: environment.memory.0,
            invocations: since.invocations,
            errors: since.errors,
            cold_starts: since.cold_starts,
            estimated: since.estimated,
            lost,
            duration_p50_ms: quantile_ms(0.5),
            duration_p95_ms: quantile_ms(0.95),
            billed_ms: since.billed_ms,
            cost_pico_usd: cost,
            peak_memory_mb,
            busy_ms: work.busy_us() / 1_000,
            starved_ms: work.starved_us / 1_000,
            idle_ms: work.idle_us / 1_000,
            hints: advice.as_ref().map_or_else(Vec::new, |advice| advice.hints.iter().map(line).collect()),
            advice: advice.map(|advice| AdviceLine {
                memory_mb: advice.memory.0,
                verdict: advice.verdict,
                cost_change_percent: advice.cost_change_percent,
                duration_change_percent: advice.duration_change_percent,
                reason: advice.reasons.into_iter().next().unwrap_or_default(),
            }),
        };
        serde_json::to_string(&summary).ok()
    }
}

fn line(hint: &Hint) -> HintLine {
    HintLine { code: hint.code, evidence: hint.evidence.clone(), action: hint.action.clone() }
}

/// What `totals` say of the function, for a batch: codes, and text within the wire's limit.
#[must_use]
pub fn hints(totals: &Rollup, environment: &Environment) -> Vec<WireHint> {
    let hints = advice(totals, environment).map(|advice| advice.hints).unwrap_or_default();
    let wire = |hint: &Hint| {
        let mut message = format!("{}: {}", hint.evidence, hint.action);
        message.truncate(message.floor_char_boundary(MAX_TEXT_BYTES));
        let code = serde_json::to_value(hint.code).ok()?.as_str()?.to_owned();
        Some(WireHint { code, message })
    };
    hints.iter().filter_map(wire).collect()
}

/// Advice from one environment's evidence; `None` where there is no price or nothing was measured, and on
/// managed instances, whose size is not the function's.
fn advice(totals: &Rollup, environment: &Environment) -> Option<Advice> {
    if environment.is_managed_instances() {
        return None;
    }
    let evidence = FunctionEvidence {
        region: &environment.region,
        architecture: environment.architecture,
        memory: environment.memory,
        ephemeral_mb: environment.ephemeral_mb.max(FREE_STORAGE_MB),
        timeout_ms: Some(environment.timeout_ms).filter(|&timeout_ms| timeout_ms > 0),
        environments: 1,
        // One function cannot tell; a collector knows more of them.
        enforcement: Enforcement::default(),
        sizes: &[(environment.memory, totals.clone())],
    };
    advise(&evidence, &PriceTable::embedded(), Strategy::default()).ok()
}

/// `None` where there is no price, and on managed instances, which are billed by the instance.
fn cost(environment: &Environment, billed_ms: u64, invocations: u64) -> Option<PicoDollars> {
    let rates = PriceTable::embedded().rates(&environment.region, environment.architecture).ok()?;
    (!environment.is_managed_instances())
        .then(|| rates.cost(environment.memory, billed_ms, invocations, environment.ephemeral_mb))
}

fn all_work(rollup: &Rollup) -> Work {
    let mut work = rollup.warm.work;
    work.add(&rollup.cold.work);
    work
}

fn milliseconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1_000.0
}

#[cfg(test)]
mod tests;
