//! JSON lines in the function's log, at a bounded rate, for functions without a collector.
//!
//! Every five minutes and at SHUTDOWN there is a summary of the time since the last one, with advice from all invocations
//! of the environment. Optionally it has CloudWatch's Embedded Metric Format. Optionally there is also a line for each
//! invocation, up to a number per minute.

use std::time::{Duration, Instant};

use agent_proto::batch::Environment;
use serde::Serialize;
use tailor_sizing::advice::hints::Hint;
use tailor_sizing::advice::strategy::Strategy;
use tailor_sizing::advice::{Advice, FunctionEvidence, Verdict, advise};
use tailor_sizing::model::enforcement::Enforcement;
use tailor_sizing::pricing::bill::FREE_STORAGE_MB;
use tailor_sizing::pricing::embedded_rates::EmbeddedRates;
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::pricing::prices::RateTable;
use tailor_sizing::telemetry::invocation::{Initialization, Invocation, Outcome, Work};
use tailor_sizing::telemetry::rollup::Rollup;

mod emf;

/// The shortest time between two summaries: 12 lines in an hour.
pub const INTERVAL: Duration = Duration::from_secs(300);

/// Times are milliseconds, memory MB, money pico-dollars.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    /// Distinguishes the line from those of the function.
    #[serde(rename = "type")]
    kind: &'static str,
    /// Makes CloudWatch read metrics from the line.
    #[serde(rename = "_aws", skip_serializing_if = "Option::is_none")]
    metrics: Option<emf::Metadata>,
    /// The dimension of the metrics, with the name that Lambda's own metrics use.
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
    /// Invocations that were lost since the environment began.
    lost: u64,
    duration_p50_ms: f64,
    duration_p95_ms: f64,
    billed_ms: u64,
    /// Absent without a price for the region.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_pico_usd: Option<i128>,
    /// Absent when unknown for all invocations.
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
    /// What the strategy trades for what.
    trade: String,
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
    initialization: Initialization,
    estimated: bool,
    duration_ms: f64,
    /// Absent without an Init.
    #[serde(skip_serializing_if = "Option::is_none")]
    init_ms: Option<f64>,
    /// Absent unless the platform reported both durations.
    #[serde(skip_serializing_if = "Option::is_none")]
    post_runtime_ms: Option<f64>,
    billed_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_pico_usd: Option<i128>,
    #[serde(flatten)]
    work: Option<WorkLine>,
}

#[derive(Debug, Serialize)]
struct WorkLine {
    /// Absent when unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_memory_mb: Option<f64>,
    busy_ms: f64,
    starved_ms: f64,
    idle_ms: f64,
}

/// Collects invocations for the summaries and the invocation lines.
#[derive(Debug)]
pub struct SummaryLog {
    /// The invocations since the last summary.
    since: Rollup,
    last: Instant,
    emf: bool,
    /// Invocation lines: the most in a minute, those left in this minute, and its start.
    a_minute: u32,
    left: u32,
    minute: Instant,
}

impl SummaryLog {
    /// A log without invocations. `invocations_a_minute` is the most invocation lines in a minute.
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

    /// Adds a finished invocation. Returns its line if invocation lines are enabled and some are left.
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
            cold_start: invocation.is_cold_start(),
            initialization: invocation.initialization,
            estimated: invocation.caveats.estimated,
            duration_ms: milliseconds(invocation.duration_us),
            init_ms: (invocation.init_us > 0).then(|| milliseconds(invocation.init_us)),
            post_runtime_ms: invocation
                .has_post_runtime_time()
                .then(|| milliseconds(invocation.post_runtime_us())),
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

    /// Whether a summary is due and there are invocations for it.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.since.invocations > 0 && self.last.elapsed() >= INTERVAL
    }

    /// The summary since the last one; `None` without invocations. The advice uses `totals`. `lost` counts since the
    /// environment began; `now_us` is microseconds since the Unix epoch.
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
                trade: advice.trade,
            }),
        };
        serde_json::to_string(&summary).ok()
    }
}

fn line(hint: &Hint) -> HintLine {
    HintLine { code: hint.code, evidence: hint.evidence.clone(), action: hint.action.clone() }
}

/// Advice from one environment's evidence. `None` without a price or a measurement, and on managed instances, where the
/// memory size is not the function's.
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
        // Unknown from one function; the collector compares several.
        enforcement: Enforcement::default(),
        sizes: &[(environment.memory, totals.clone())],
    };
    advise(&evidence, &EmbeddedRates, Strategy::default()).ok()
}

/// The cost; `None` without a price, and on managed instances, where the instance is billed.
fn cost(environment: &Environment, billed_ms: u64, invocations: u64) -> Option<PicoDollars> {
    let rates = EmbeddedRates.rates(&environment.region, environment.architecture).ok()?;
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
