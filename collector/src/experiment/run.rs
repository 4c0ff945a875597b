//! The steps of an experiment.
//!
//! `$LATEST` is changed only while the versions are published, and is restored before the first invocation. The
//! description of `$LATEST` and of the versions has the marker of the experiment meanwhile, so the clean-up finds
//! everything that was made, also what was made in the moment of a kill.

use serde_json::Value;
use tokio::task::JoinSet;

use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::pricing::prices::Rates;
use tailor_sizing::units::Megabytes;

use super::aws::{Alias, CallError, Configuration, FunctionCalls, Response};
use super::input::{Input, InputError};
use super::invocation::Measured;
use super::outcome::{Execution, Outcome, Stat};
use super::plan::{FIRST_ROUND, NEXT_ROUND, Plan};
use super::state::Record;
use super::statistics::{Average, best, open, trimmed};
use super::visualization;
use crate::lambda_functions::LATEST;

/// Measured and predicted durations that differ by more than this factor contradict each other.
const CONTRADICTION: f64 = 1.5;

/// Why an experiment failed.
#[derive(Debug, thiserror::Error)]
pub enum ExperimentError {
    /// A call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The input is not valid.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The function returned an error.
    #[error("{0}")]
    Function(String),
    /// The log of an invocation has no report.
    #[error(
        "the log of an invocation at {0} MB has no report: with the JSON log format, set the system log level to INFO or DEBUG"
    )]
    NoReport(u32),
    /// No size could be measured.
    #[error("no size could be measured: {0}")]
    NothingMeasured(String),
}

/// An experiment on one function.
#[derive(Debug)]
pub struct Experiment {
    /// The calls for the function.
    pub calls: FunctionCalls,
    /// The function that is invoked before each invocation.
    pub before: Option<FunctionCalls>,
    /// The function that is invoked after each invocation.
    pub after: Option<FunctionCalls>,
    /// The input.
    pub input: Input,
    /// Its plan.
    pub plan: Plan,
    /// The prices.
    pub rates: Rates,
    /// The function before.
    pub configuration: Configuration,
    /// The alias that gets the best size, before; `None` when there is none or it did not exist.
    pub alias: Option<Alias>,
    /// What is changed.
    pub record: Record,
    /// Whether all sizes get all invocations.
    pub is_exhaustive: bool,
}

/// The invocations at one size.
#[derive(Debug)]
struct Series {
    memory: Megabytes,
    /// The versions; with cold starts only, one per invocation.
    versions: Vec<String>,
    measured: Vec<Measured>,
    /// Number of invocations, also failed ones.
    invocations: usize,
    billed_ms: u64,
    /// Why the size is not usable.
    failure: Option<String>,
}

impl Series {
    const fn new(memory: Megabytes) -> Self {
        Self {
            memory,
            versions: Vec::new(),
            measured: Vec::new(),
            invocations: 0,
            billed_ms: 0,
            failure: None,
        }
    }
}

impl Experiment {
    /// Measures, and returns the result. The caller then calls [`clean_up`], also after an error.
    ///
    /// # Errors
    /// [`ExperimentError`].
    pub async fn measure(&self, progress: impl Fn(&str)) -> Result<Outcome, ExperimentError> {
        let payloads: Vec<Vec<u8>> =
            self.input.payloads()?.iter().map(|payload| payload.to_string().into_bytes()).collect();
        let mut series = self.publish(&self.plan, &[], &progress).await?;
        self.rounds(&self.plan, &mut series, &payloads, &progress).await?;
        if self.is_contradicted(&series) {
            progress("the measurements contradict the prediction: all sizes are measured");
            let plan = self.plan.without_prediction(self.input.invocations() as usize);
            let known: Vec<_> = series.iter().map(|series| series.memory).collect();
            series.extend(self.publish(&plan, &known, &progress).await?);
            series.sort_by_key(|series| series.memory);
            self.rounds(&plan, &mut series, &payloads, &progress).await?;
        }
        self.outcome(&series)
    }

    /// Publishes the versions of the sizes that are not `known`, and restores `$LATEST`.
    async fn publish(
        &self,
        plan: &Plan,
        known: &[Megabytes],
        progress: &impl Fn(&str),
    ) -> Result<Vec<Series>, ExperimentError> {
        let mut all = Vec::new();
        let mut latest = self.calls.ready(None).await?;
        let copies = if self.input.only_cold_starts { plan.invocations } else { 1 };
        for memory in plan.measured.iter().filter(|memory| !known.contains(memory)) {
            progress(&format!("publishing a version with {} MB", memory.0));
            let mut series = Series::new(*memory);
            for copy in 0..copies {
                // Another description makes another version.
                let description = format!("{} {} MB {copy}", self.record.marker, memory.0);
                latest = self.calls.update(*memory, &description, &latest.revision_id).await?;
                let version = self.publish_one(&latest).await?;
                if series.versions.contains(&version) {
                    return Err(CallError::NotReady(format!("version {version} was not made anew")).into());
                }
                series.versions.push(version);
                latest = self.calls.ready(None).await?;
            }
            all.push(series);
        }
        restore(&self.calls, &self.record).await?;
        for version in all.iter().flat_map(|series| &series.versions) {
            self.calls.ready(Some(version)).await?;
        }
        Ok(all)
    }

    /// Publishes `$LATEST` if it is as it was read and has the code of the experiment.
    async fn publish_one(&self, latest: &Configuration) -> Result<String, CallError> {
        self.calls.publish(&self.configuration.code_sha256, &latest.revision_id).await
    }

    /// Invokes in rounds until the choice is settled or every size has its number of invocations.
    async fn rounds(
        &self,
        plan: &Plan,
        series: &mut [Series],
        payloads: &[Vec<u8>],
        progress: &impl Fn(&str),
    ) -> Result<(), ExperimentError> {
        let weight = self.input.balanced_weight.unwrap_or(0.5);
        let mut target =
            if self.is_exhaustive { plan.invocations } else { FIRST_ROUND.min(plan.invocations) };
        loop {
            let still_open = open(&self.averages(series), self.input.strategy, weight);
            let has_all = |series: &Series| self.is_exhaustive || series.measured.len() < FIRST_ROUND;
            for series in series.iter_mut().filter(|series| series.failure.is_none()) {
                if has_all(series) || still_open.contains(&series.memory) {
                    self.invoke_to(series, target, payloads).await?;
                    progress(&format!("{} MB: {} invocations", series.memory.0, series.invocations));
                }
            }
            let settled = open(&self.averages(series), self.input.strategy, weight).len() <= 1;
            if target >= plan.invocations || (settled && !self.is_exhaustive) {
                return Ok(());
            }
            target = (target + NEXT_ROUND).min(plan.invocations);
        }
    }

    /// Invokes until the size has `target` invocations or fails.
    async fn invoke_to(
        &self,
        series: &mut Series,
        target: usize,
        payloads: &[Vec<u8>],
    ) -> Result<(), ExperimentError> {
        let mut running: JoinSet<Result<Response, ExperimentError>> = JoinSet::new();
        let mut next = series.invocations;
        while series.invocations < target && series.failure.is_none() {
            let most = if self.input.parallel_invocation { usize::MAX } else { 1 };
            while next < target && running.len() < most {
                let version = series.versions[next.min(series.versions.len() - 1)].clone();
                let payload = payloads[next % payloads.len()].clone();
                let calls = (self.calls.clone(), self.before.clone(), self.after.clone());
                running.spawn(async move { invoke(calls, &version, payload).await });
                next += 1;
            }
            let Some(finished) = running.join_next().await else { break };
            let response = finished.map_err(|error| ExperimentError::Function(error.to_string()))??;
            self.record(series, &response)?;
            if self.input.sleep_between_runs_ms > 0 && !self.input.parallel_invocation {
                tokio::time::sleep(std::time::Duration::from_millis(self.input.sleep_between_runs_ms)).await;
            }
        }
        // What still runs is billed, so it is waited for and counted.
        while let Some(finished) = running.join_next().await {
            if let Ok(Ok(response)) = finished {
                self.record(series, &response)?;
            }
        }
        Ok(())
    }

    fn record(&self, series: &mut Series, response: &Response) -> Result<(), ExperimentError> {
        let measured = Measured::of_log(&response.log);
        series.invocations += 1;
        series.billed_ms += measured.map_or(0, |measured| measured.billed_ms);
        if response.is_error {
            let payload: Value = serde_json::from_slice(&response.payload).unwrap_or_default();
            let text = |name: &str| payload.get(name).and_then(Value::as_str).unwrap_or_default();
            let (kind, message) = (text("errorType"), text("errorMessage"));
            if !self.input.allowed_exceptions.iter().any(|allowed| allowed == kind) {
                let failure = format!("at {} MB the function failed: {kind}: {message}", series.memory.0);
                // A size can be too small. Another error would be the same at every size.
                let is_size = kind == "Runtime.OutOfMemory"
                    || kind == "Sandbox.Timedout"
                    || message.contains("Task timed out")
                    || message.contains("signal: killed");
                if !is_size {
                    return Err(ExperimentError::Function(failure));
                }
                series.failure = Some(failure);
                return Ok(());
            }
        }
        series.measured.push(measured.ok_or(ExperimentError::NoReport(series.memory.0))?);
        Ok(())
    }

    /// The averages of the sizes that were measured.
    fn averages(&self, all: &[Series]) -> Vec<Average> {
        let usable = all.iter().filter(|series| series.failure.is_none() && !series.measured.is_empty());
        usable.map(|series| self.average(series)).collect()
    }

    fn average(&self, series: &Series) -> Average {
        let is_cold = self.input.only_cold_starts;
        let warm: Vec<_> = series.measured.iter().filter(|measured| measured.start_ms.is_none()).collect();
        // Parallel invocations can all be cold.
        let used = if is_cold || warm.len() * 2 < series.measured.len() {
            series.measured.iter().collect()
        } else {
            warm
        };
        let duration = |measured: &&Measured| {
            measured.duration_ms + if is_cold { measured.start_ms.unwrap_or(0.0) } else { 0.0 }
        };
        let durations: Vec<f64> = used.iter().map(duration).collect();
        let billed: Vec<f64> = used.iter().map(|measured| measured.billed_ms as f64).collect();
        let (duration_ms, error) = trimmed(&durations, self.input.discarded());
        let (billed_ms, _) = trimmed(&billed, self.input.discarded());
        Average {
            memory: series.memory,
            duration_ms,
            cost_pico: self.rates.expected_pico(series.memory, billed_ms, self.configuration.ephemeral_mb),
            half_width: if duration_ms > 0.0 { error / duration_ms } else { 0.0 },
            count: used.len(),
        }
    }

    fn is_contradicted(&self, series: &[Series]) -> bool {
        if self.is_exhaustive
            || self.plan.measured.len() == self.plan.sizes.len()
            || self.input.only_cold_starts
        {
            return false;
        }
        let averages = self.averages(series);
        let is_far = |average: &Average| {
            let prediction = self.plan.predicted.iter().find(|p| p.memory == average.memory);
            prediction.is_some_and(|p| {
                let ratio = average.duration_ms / p.duration_ms.max(f64::MIN_POSITIVE);
                !(1.0 / CONTRADICTION..=CONTRADICTION).contains(&ratio)
            })
        };
        averages.is_empty() || averages.iter().all(is_far)
    }

    fn outcome(&self, all: &[Series]) -> Result<Outcome, ExperimentError> {
        let averages = self.averages(all);
        let weight = self.input.balanced_weight.unwrap_or(0.5);
        let Some(best) = best(&averages, self.input.strategy, weight).map(|index| &averages[index]) else {
            let failures: Vec<_> = all.iter().filter_map(|series| series.failure.clone()).collect();
            return Err(ExperimentError::NothingMeasured(failures.join("; ")));
        };
        let dollars = |pico: f64| pico / 1e12;
        let stats: Vec<_> = averages
            .iter()
            .map(|average| Stat {
                value: average.memory.0,
                average_price: dollars(average.cost_pico),
                average_duration: average.duration_ms,
            })
            .collect();
        // One sum per size, so that each is rounded once. Init is in the billed time, once.
        let costs = all.iter().map(|series| {
            let count = series.invocations as u64;
            self.rates.cost(series.memory, series.billed_ms, count, self.configuration.ephemeral_mb)
        });
        let visualization = visualization::link(&stats);
        Ok(Outcome {
            power: best.memory.0,
            cost: dollars(best.cost_pico),
            duration: best.duration_ms,
            execution: Execution {
                execution_cost: 0.0,
                lambda_cost: costs.sum::<PicoDollars>().to_dollars(),
                visualization,
            },
            invocations: all.iter().map(|series| series.invocations as u64).sum(),
            stats,
        })
    }

    /// Sets the best size, and the alias to a version with it, if function and alias are as they were before.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn optimize(&self, memory: Megabytes) -> Result<(), CallError> {
        let mut latest = self.calls.ready(None).await?;
        self.check_unchanged(&latest, "the size is not set")?;
        let alias = self.input.auto_optimize_alias.as_deref();
        if let Some(name) = alias
            && self.calls.alias(name).await? != self.alias
        {
            let text = format!("alias `{name}` was changed in the meantime: the size is not set");
            return Err(CallError::NotReady(text));
        }
        if latest.memory != memory {
            latest = self.calls.update(memory, &latest.description, &latest.revision_id).await?;
        }
        let Some(name) = alias else { return Ok(()) };
        // Others may have changed it since the update. The version has exactly this revision.
        self.check_unchanged(&latest, "the size is set, the alias is not")?;
        let version = self.publish_one(&latest).await?;
        self.calls.ready(Some(&version)).await?;
        let set = self.calls.set_alias(name, &version, self.alias.as_ref()).await;
        set.map_err(|error| {
            let size = memory.0;
            CallError::NotReady(format!(
                "version {version} has {size} MB, and alias `{name}` is not set to it: {error}"
            ))
        })
    }

    /// Whether the code and the settings of `$LATEST` are those that were read before the experiment. `otherwise` is what
    /// is true if they are not.
    fn check_unchanged(&self, latest: &Configuration, otherwise: &str) -> Result<(), CallError> {
        let before = &self.configuration;
        if (&latest.code_sha256, &latest.settings) == (&before.code_sha256, &before.settings) {
            return Ok(());
        }
        let text = format!("the code or the settings of the function changed in the meantime: {otherwise}");
        Err(CallError::NotReady(text))
    }
}

/// Invokes the processors and a version.
async fn invoke(
    (calls, before, after): (FunctionCalls, Option<FunctionCalls>, Option<FunctionCalls>),
    version: &str,
    mut payload: Vec<u8>,
) -> Result<Response, ExperimentError> {
    if let Some(before) = &before {
        let output = processor(before, payload.clone(), "pre-processor").await?;
        if !output.is_empty() && output != b"null" {
            payload = output;
        }
    }
    let response = calls.invoke(Some(version), payload).await?;
    if let Some(after) = &after {
        processor(after, response.payload.clone(), "post-processor").await?;
    }
    Ok(response)
}

async fn processor(calls: &FunctionCalls, payload: Vec<u8>, name: &str) -> Result<Vec<u8>, ExperimentError> {
    let response = calls.invoke(None, payload).await?;
    if response.is_error {
        let text = String::from_utf8_lossy(&response.payload).chars().take(500).collect::<String>();
        return Err(ExperimentError::Function(format!("the {name} failed: {text}")));
    }
    Ok(response.payload)
}

/// Restores memory and description of `$LATEST`, unless it was changed by others.
async fn restore(calls: &FunctionCalls, record: &Record) -> Result<(), CallError> {
    let latest = calls.ready(None).await?;
    if latest.description.starts_with(&record.marker) {
        calls.update(Megabytes(record.memory_mb), &record.description, &latest.revision_id).await?;
    }
    Ok(())
}

/// Restores `$LATEST` and deletes every version of the experiment. Returns their number.
///
/// # Errors
/// [`CallError`]. It can be called again.
pub async fn clean_up(calls: &FunctionCalls, record: &Record) -> Result<usize, CallError> {
    restore(calls, record).await?;
    let mut deleted = 0;
    for (version, description) in calls.versions().await? {
        if version != LATEST && description.starts_with(&record.marker) {
            calls.delete(&version).await?;
            deleted += 1;
        }
    }
    Ok(deleted)
}
