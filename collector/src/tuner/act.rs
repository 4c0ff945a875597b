//! One round of the tuner: reads, decides, logs, writes, in this order.
//!
//! A change that was found open is carried on from what Lambda says now, never from what was meant: whether
//! a write arrived is read back, whatever became of its answer.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;

use tailor_sizing::units::Megabytes;

use super::Tuner;
use super::change::{self, Change, Intent, Note, State};
use super::decide::{self, Judgement, Refusal};
use super::lambda::{Configuration, LambdaError, Update};
use crate::api::last_hours;
use crate::clock::now_us;
use crate::report::figures::{self, Figures};
use crate::report::{self, FunctionReport};
use crate::store::{ChangeEvent, FunctionKey, StoreError};

/// Single invocations looked at for a comparison.
const COMPARED: usize = 2_000;

/// How long a round waits for an update to be in force before it leaves that to the next.
const UPDATE_PATIENCE: Duration = Duration::from_secs(30);

/// Time between two looks at an update.
const UPDATE_POLL: Duration = Duration::from_millis(500);

pub(super) async fn round(tuner: &Tuner) -> Result<(), StoreError> {
    let settings = &tuner.settings;
    let window = last_hours(settings.hours);
    let store = tuner.store.as_ref();
    let mut histories: HashMap<FunctionKey, Vec<Change>> = HashMap::new();
    for change in change::fold(store.changes(&settings.tenant, None).await?) {
        histories.entry(change.function.clone()).or_default().push(change);
    }
    let mut open = 0;
    for change in histories.values_mut().flatten().filter(|change| change.state.is_open()) {
        if let Err(error) = carry_on(tuner, change).await {
            tracing::warn!(function = change.function.name, %error, "could not carry on a change; trying again next round");
        }
        open += usize::from(change.state.is_open());
    }
    let fleet = report::fleet(store, &settings.tenant, window, &tuner.prices, settings.strategy).await?;
    for report in fleet.functions.iter().filter(|report| report.advice.is_change()) {
        if open >= settings.most_open {
            break;
        }
        let history = histories.remove(&report.key()).unwrap_or_default();
        match consider(tuner, report, &history).await {
            Ok(()) => open += 1,
            // Nothing is wrong: functions of other accounts, or gone, are seen in every round.
            Err(reason @ (Trouble::Refused(_) | Trouble::Lambda(LambdaError::NoFunction(_)))) => {
                tracing::debug!(function = report.name, %reason, "left as it is");
            }
            Err(error) => tracing::warn!(function = report.name, %error, "could not be tuned"),
        }
    }
    Ok(())
}

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Lambda(#[from] LambdaError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Begins a change if there is reason to and nothing against it.
async fn consider(tuner: &Tuner, report: &FunctionReport, history: &[Change]) -> Result<(), Trouble> {
    let key = report.key();
    let configuration = tuner.lambda.configuration(&key).await?;
    let before = measured(tuner, &key, report.memory, 0, report).await?;
    let intent = decide::decide(report, before, &configuration, history, &tuner.settings, now_us())?;
    let mut change = begin(tuner, key, history.len(), &intent).await?;
    tracing::info!(
        function = report.name,
        from = intent.from_mb,
        to = intent.to_mb,
        "changing the memory size"
    );
    write(tuner, &mut change, Megabytes(intent.to_mb), &configuration.revision_id).await
}

/// Makes the intent durable. The next number is free only once, whoever else tries.
async fn begin(
    tuner: &Tuner,
    function: FunctionKey,
    number: usize,
    intent: &Intent,
) -> Result<Change, Trouble> {
    let event = ChangeEvent {
        function,
        change_id: format!("{:06}", number + 1),
        step: 0,
        at_us: now_us(),
        kind: State::Planned.code().to_owned(),
        detail: json(intent)?,
    };
    tuner.store.log_change(&tuner.settings.tenant, &event).await?;
    let begun = change::fold(vec![event]).pop();
    Ok(begun.ok_or_else(|| StoreError::Damaged("an intent does not read back".to_owned()))?)
}

/// Writes the size of an intent that is on disk, then finds out what became of it.
async fn write(
    tuner: &Tuner,
    change: &mut Change,
    memory: Megabytes,
    revision_id: &str,
) -> Result<(), Trouble> {
    let problem = tuner.lambda.set_memory(&change.function, memory, revision_id).await.err();
    let deadline = tokio::time::Instant::now() + UPDATE_PATIENCE;
    loop {
        let configuration = tuner.lambda.configuration(&change.function).await?;
        if configuration.update != Update::InProgress || tokio::time::Instant::now() >= deadline {
            return resolve(tuner, change, &configuration, problem.as_ref()).await;
        }
        tokio::time::sleep(UPDATE_POLL).await;
    }
}

/// Moves a change on from what Lambda says now.
async fn carry_on(tuner: &Tuner, change: &mut Change) -> Result<(), Trouble> {
    let configuration = match tuner.lambda.configuration(&change.function).await {
        Err(LambdaError::NoFunction(_)) => {
            return log(tuner, change, State::ExternalChange, Note::new("the function is gone")).await;
        }
        other => other?,
    };
    if change.state != State::Applied {
        return resolve(tuner, change, &configuration, None).await;
    }
    if configuration.memory != change.to {
        let reason = format!("its size is {} now", configuration.memory);
        return log(tuner, change, State::ExternalChange, Note::new(reason)).await;
    }
    if configuration.code_sha256 != change.intent.code_sha256 {
        let reason = "new code was deployed, so what is measured now does not compare";
        return log(tuner, change, State::ExternalChange, Note::new(reason)).await;
    }
    let window = last_hours(tuner.settings.hours);
    let store = tuner.store.as_ref();
    let settings = &tuner.settings;
    let report =
        report::function(store, &settings.tenant, &change.function, window, &tuner.prices, settings.strategy)
            .await?;
    let Some(report) = report else { return Ok(()) };
    let since_us = change.applied_at_us.unwrap_or(change.planned_at_us);
    let after = measured(tuner, &change.function, change.to, since_us, &report).await?;
    change.compare(after);
    match decide::judge(change, &after, settings) {
        Judgement::Wait => Ok(()),
        Judgement::Keep(reason) => {
            let note = Note { after: Some(after), ..Note::new(reason) };
            log(tuner, change, State::Settled, note).await
        }
        Judgement::TakeBack(reason) => {
            // The owner may have taken the tag away; then nothing is written, not even to go back.
            if let Err(refusal) = decide::is_tagged(&configuration) {
                let reason = format!("{reason}, but {refusal} any more: left at {}", change.to);
                return log(tuner, change, State::ExternalChange, Note::new(reason)).await;
            }
            tracing::warn!(function = change.function.name, reason, "taking the change back");
            let note = Note { after: Some(after), ..Note::new(reason) };
            log(tuner, change, State::RollingBack, note).await?;
            write(tuner, change, change.from, &configuration.revision_id).await
        }
    }
}

/// Finds out what became of a write: in force, never made, or overtaken by somebody else.
async fn resolve(
    tuner: &Tuner,
    change: &mut Change,
    configuration: &Configuration,
    problem: Option<&LambdaError>,
) -> Result<(), Trouble> {
    let back = change.state == State::RollingBack;
    let (wanted, other) = if back { (change.from, change.to) } else { (change.to, change.from) };
    let said = problem.map_or_else(String::new, ToString::to_string);
    if configuration.memory == wanted {
        return match (configuration.update, back) {
            (Update::InProgress, _) => Ok(()),
            (Update::Failed, false) => {
                let reason = format!("Lambda could not put {wanted} into force");
                log(tuner, change, State::ExternalChange, Note::new(reason)).await
            }
            (_, back) => {
                let state = if back { State::RolledBack } else { State::Applied };
                let revision_id = Some(configuration.revision_id.clone());
                // What was said when it was decided to go back stays the reason.
                let reason = if back { change.reason.clone() } else { format!("{wanted} is in force") };
                log(tuner, change, state, Note { revision_id, after: change.after, reason }).await
            }
        };
    }
    if configuration.memory != other {
        let reason = format!("its size is {} now, set by somebody else", configuration.memory);
        return log(tuner, change, State::ExternalChange, Note::new(reason)).await;
    }
    if !back {
        let reason = if said.is_empty() { "the write never reached Lambda".to_owned() } else { said };
        return log(tuner, change, State::Abandoned, Note::new(reason)).await;
    }
    // Going back is tried again each round, as long as that is still allowed.
    if let Err(refusal) = decide::is_tagged(configuration) {
        let reason = format!("{}, but {refusal} any more: left at {}", change.reason, change.to);
        return log(tuner, change, State::ExternalChange, Note::new(reason)).await;
    }
    if configuration.update == Update::InProgress || problem.is_some() {
        return problem.map_or(Ok(()), |problem| Err(problem.clone().into()));
    }
    tuner.lambda.set_memory(&change.function, change.from, &configuration.revision_id).await?;
    Ok(())
}

impl Note {
    fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), ..Self::default() }
    }
}

/// Appends the next step of a change.
async fn log(tuner: &Tuner, change: &mut Change, state: State, note: Note) -> Result<(), Trouble> {
    let event = ChangeEvent {
        function: change.function.clone(),
        change_id: change.id.clone(),
        step: change.next_step,
        at_us: now_us(),
        kind: state.code().to_owned(),
        detail: json(&note)?,
    };
    tuner.store.log_change(&tuner.settings.tenant, &event).await?;
    tracing::info!(
        function = change.function.name,
        state = state.code(),
        reason = note.reason,
        "change moved on"
    );
    change.follow(state, note, event.at_us);
    Ok(())
}

fn json(value: &impl Serialize) -> Result<serde_json::Value, StoreError> {
    serde_json::to_value(value).map_err(|error| StoreError::Damaged(format!("cannot log a change: {error}")))
}

async fn measured(
    tuner: &Tuner,
    function: &FunctionKey,
    memory: Megabytes,
    since_us: u64,
    report: &FunctionReport,
) -> Result<Figures, StoreError> {
    let recent = tuner.store.recent(&tuner.settings.tenant, function, COMPARED).await?;
    let rates = tuner.prices.rates(&report.region, report.architecture).ok();
    Ok(figures::since(&recent, memory, since_us, rates.as_ref()))
}
