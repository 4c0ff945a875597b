//! One round of the tuner: read, decide, log, write, in this order.
//!
//! An open change is resumed from the configuration that Lambda returns now. Whether a write took effect is
//! always read back, because the response to a write can be lost.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;

use tailor_sizing::advice::Verdict;
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::units::{Architecture, Megabytes};

use super::Tuner;
use super::aws::{Configuration, LambdaError, Update};
use super::policy::{self, Assessment, Refusal};
use crate::changes::comparison::{self, MAX_COMPARED_INVOCATIONS, Measurements};
use crate::changes::{self, Change, Intent, State, StepDetail};
use crate::query::last_hours;
use crate::report::{self, Evaluation};
use crate::store::{ChangeEvent, FunctionKey, StoreError, Window};

/// How long a round waits for an update to finish. After that, the next round continues.
const UPDATE_TIMEOUT: Duration = Duration::from_secs(30);

/// Time between two reads of the update status.
const UPDATE_POLL: Duration = Duration::from_millis(500);

pub(super) async fn round(tuner: &Tuner) -> Result<(), StoreError> {
    let settings = &tuner.settings;
    let window = last_hours(tuner.clock.now_us(), settings.hours);
    let store = tuner.store.as_ref();
    let mut histories: HashMap<FunctionKey, Vec<Change>> = HashMap::new();
    for change in changes::fold(store.changes(&settings.tenant, None).await?) {
        histories.entry(change.function.clone()).or_default().push(change);
    }
    let mut open = 0;
    for change in histories.values_mut().flatten().filter(|change| change.state.is_open()) {
        if let Err(error) = resume(tuner, change).await {
            tracing::warn!(function = change.function.name, %error, "cannot resume a change; trying again in the next round");
        }
        open += usize::from(change.state.is_open());
    }
    let mut evaluations = evaluate(tuner, None, window).await?;
    evaluations.sort_by_key(|evaluation| std::cmp::Reverse(saving(evaluation)));
    for evaluation in evaluations.iter().filter(|evaluation| is_change(evaluation)) {
        if open >= settings.max_open_changes {
            break;
        }
        let history = histories.remove(&evaluation.key).unwrap_or_default();
        match start_change(tuner, evaluation, &history).await {
            Ok(()) => open += 1,
            // These are no faults: each round sees functions of other accounts and deleted functions.
            Err(reason @ (TunerError::Refused(_) | TunerError::Lambda(LambdaError::NoFunction(_)))) => {
                tracing::debug!(function = evaluation.key.name, %reason, "not changed");
            }
            Err(error) => tracing::warn!(function = evaluation.key.name, %error, "cannot tune the function"),
        }
    }
    Ok(())
}

/// The evaluation of all functions, or of one.
async fn evaluate(
    tuner: &Tuner,
    key: Option<&FunctionKey>,
    window: Window,
) -> Result<Vec<Evaluation>, StoreError> {
    let request = report::Request {
        store: tuner.store.as_ref(),
        tenant: &tuner.settings.tenant,
        window,
        prices: &tuner.prices,
        strategy: tuner.settings.strategy,
        now_us: tuner.clock.now_us(),
        enforcements: None,
        fleet_sums: None,
    };
    report::evaluations(&request, key).await
}

fn is_change(evaluation: &Evaluation) -> bool {
    let verdict = evaluation.advice.as_ref().ok().map(|advice| advice.verdict);
    matches!(verdict, Some(Verdict::Change | Verdict::RaiseForMemory))
}

/// Savings per million invocations. Functions with the highest savings are changed first.
fn saving(evaluation: &Evaluation) -> PicoDollars {
    evaluation.advice.as_ref().map_or(PicoDollars::ZERO, |advice| advice.saving.per_million)
}

/// Why a step of a change failed.
#[derive(Debug, thiserror::Error)]
enum TunerError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Lambda(#[from] LambdaError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Starts a change if the policy permits it.
async fn start_change(tuner: &Tuner, evaluation: &Evaluation, history: &[Change]) -> Result<(), TunerError> {
    let key = evaluation.key.clone();
    let configuration = tuner.lambda.configuration(&key).await?;
    let before = measurements(tuner, &key, evaluation.memory, 0, evaluation.architecture).await?;
    let intent =
        policy::evaluate(evaluation, before, &configuration, history, &tuner.settings, tuner.clock.now_us())?;
    let mut change = log_intent(tuner, key, history.len(), &intent).await?;
    tracing::info!(
        function = evaluation.key.name,
        from = intent.from_mb,
        to = intent.to_mb,
        "changing the memory size"
    );
    write_memory(tuner, &mut change, Megabytes(intent.to_mb), &configuration.revision_id).await
}

/// Stores the intent on disk. Of several collectors, only one can store a change with this number.
async fn log_intent(
    tuner: &Tuner,
    function: FunctionKey,
    number: usize,
    intent: &Intent,
) -> Result<Change, TunerError> {
    let event = ChangeEvent {
        function,
        change_id: format!("{:06}", number + 1),
        step: 0,
        at_us: tuner.clock.now_us(),
        kind: State::Planned.code().to_owned(),
        detail: json(intent)?,
    };
    tuner.store.log_change(&tuner.settings.tenant, &event).await?;
    let change = changes::fold(vec![event]).pop();
    Ok(change.ok_or_else(|| StoreError::Damaged("a stored intent cannot be decoded".to_owned()))?)
}

/// Sets the size of an intent that is on disk, then reads back the result.
async fn write_memory(
    tuner: &Tuner,
    change: &mut Change,
    memory: Megabytes,
    revision_id: &str,
) -> Result<(), TunerError> {
    let write_error = tuner.lambda.set_memory(&change.function, memory, revision_id).await.err();
    let deadline = tokio::time::Instant::now() + UPDATE_TIMEOUT;
    loop {
        let configuration = tuner.lambda.configuration(&change.function).await?;
        if configuration.update != Update::InProgress || tokio::time::Instant::now() >= deadline {
            return resolve_write(tuner, change, &configuration, write_error.as_ref()).await;
        }
        tokio::time::sleep(UPDATE_POLL).await;
    }
}

/// Continues a change from the configuration that Lambda returns now.
async fn resume(tuner: &Tuner, change: &mut Change) -> Result<(), TunerError> {
    let configuration = match tuner.lambda.configuration(&change.function).await {
        Err(LambdaError::NoFunction(_)) => {
            return log(tuner, change, State::ExternalChange, StepDetail::new("the function was deleted"))
                .await;
        }
        other => other?,
    };
    if change.state != State::Applied {
        return resolve_write(tuner, change, &configuration, None).await;
    }
    if configuration.memory != change.to {
        let reason = format!("its size is {} now", configuration.memory);
        return log(tuner, change, State::ExternalChange, StepDetail::new(reason)).await;
    }
    if configuration.code_sha256 != change.intent.code_sha256 {
        let reason = "new code was deployed, so the measurements cannot be compared";
        return log(tuner, change, State::ExternalChange, StepDetail::new(reason)).await;
    }
    let window = last_hours(tuner.clock.now_us(), tuner.settings.hours);
    let settings = &tuner.settings;
    let evaluation = evaluate(tuner, Some(&change.function), window).await?.pop();
    let Some(evaluation) = evaluation else { return Ok(()) };
    let since_us = change.applied_at_us.unwrap_or(change.planned_at_us);
    let after = measurements(tuner, &change.function, change.to, since_us, evaluation.architecture).await?;
    change.compare(after);
    match policy::assess(change, &after, settings) {
        Assessment::Wait => Ok(()),
        Assessment::Keep(reason) => {
            let detail = StepDetail { after: Some(after), ..StepDetail::new(reason) };
            log(tuner, change, State::Settled, detail).await
        }
        Assessment::RollBack(reason) => {
            // Without the tag nothing is written, not even a rollback.
            if let Err(refusal) = policy::is_tagged(&configuration) {
                let reason =
                    format!("{reason}; not rolled back, because {refusal}; the size stays {}", change.to);
                return log(tuner, change, State::ExternalChange, StepDetail::new(reason)).await;
            }
            tracing::warn!(function = change.function.name, reason, "rolling the change back");
            let detail = StepDetail { after: Some(after), ..StepDetail::new(reason) };
            log(tuner, change, State::RollingBack, detail).await?;
            write_memory(tuner, change, change.from, &configuration.revision_id).await
        }
    }
}

/// Determines the result of a write: it took effect, it did not, or someone else changed the function.
async fn resolve_write(
    tuner: &Tuner,
    change: &mut Change,
    configuration: &Configuration,
    write_error: Option<&LambdaError>,
) -> Result<(), TunerError> {
    let is_rollback = change.state == State::RollingBack;
    let (target, previous) = if is_rollback { (change.from, change.to) } else { (change.to, change.from) };
    let error_text = write_error.map_or_else(String::new, ToString::to_string);
    if configuration.memory == target {
        return match (configuration.update, is_rollback) {
            (Update::InProgress, _) => Ok(()),
            (Update::Failed, false) => {
                let reason = format!("Lambda could not update the function to {target}");
                log(tuner, change, State::ExternalChange, StepDetail::new(reason)).await
            }
            (_, is_rollback) => {
                let state = if is_rollback { State::RolledBack } else { State::Applied };
                let revision_id = Some(configuration.revision_id.clone());
                // The reason for the rollback stays.
                let reason =
                    if is_rollback { change.reason.clone() } else { format!("the function has {target}") };
                log(tuner, change, state, StepDetail { revision_id, after: change.after, reason }).await
            }
        };
    }
    if configuration.memory != previous {
        let reason = format!("its size is {} now, set by someone else", configuration.memory);
        return log(tuner, change, State::ExternalChange, StepDetail::new(reason)).await;
    }
    if !is_rollback {
        let reason =
            if error_text.is_empty() { "the write did not reach Lambda".to_owned() } else { error_text };
        return log(tuner, change, State::Abandoned, StepDetail::new(reason)).await;
    }
    // A rollback is tried again in each round, as long as the tag permits it.
    if let Err(refusal) = policy::is_tagged(configuration) {
        let reason =
            format!("{}; not rolled back, because {refusal}; the size stays {}", change.reason, change.to);
        return log(tuner, change, State::ExternalChange, StepDetail::new(reason)).await;
    }
    if configuration.update == Update::InProgress || write_error.is_some() {
        return write_error.map_or(Ok(()), |write_error| Err(write_error.clone().into()));
    }
    tuner.lambda.set_memory(&change.function, change.from, &configuration.revision_id).await?;
    Ok(())
}

impl StepDetail {
    fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), ..Self::default() }
    }
}

/// Appends the next step of a change.
async fn log(tuner: &Tuner, change: &mut Change, state: State, detail: StepDetail) -> Result<(), TunerError> {
    let event = ChangeEvent {
        function: change.function.clone(),
        change_id: change.id.clone(),
        step: change.next_step,
        at_us: tuner.clock.now_us(),
        kind: state.code().to_owned(),
        detail: json(&detail)?,
    };
    tuner.store.log_change(&tuner.settings.tenant, &event).await?;
    tracing::info!(
        function = change.function.name,
        state = state.code(),
        reason = detail.reason,
        "change has a new state"
    );
    change.apply_step(state, detail, event.at_us);
    Ok(())
}

fn json(value: &impl Serialize) -> Result<serde_json::Value, StoreError> {
    serde_json::to_value(value).map_err(|error| StoreError::Damaged(format!("cannot log a change: {error}")))
}

async fn measurements(
    tuner: &Tuner,
    function: &FunctionKey,
    memory: Megabytes,
    since_us: u64,
    architecture: Architecture,
) -> Result<Measurements, StoreError> {
    let recent = tuner.store.recent(&tuner.settings.tenant, function, MAX_COMPARED_INVOCATIONS).await?;
    let rates = tuner.prices.rates(&function.region, architecture).ok();
    Ok(comparison::since(&recent, memory, since_us, rates.as_ref()))
}
