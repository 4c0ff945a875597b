//! One round of the tuner: reads, decides, logs, writes, in this order.
//!
//! A change that was found open is carried on from what Lambda says now, never from what was meant: whether
//! a write arrived is read back, whatever became of its answer.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;

use tailor_sizing::advice::Verdict;
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::units::{Architecture, Megabytes};

use super::Tuner;
use super::aws::{Configuration, LambdaError, Update};
use super::policy::{self, Judgement, Refusal};
use crate::changes::comparison::{self, Figures};
use crate::changes::{self, Change, Intent, Note, State};
use crate::query::last_hours;
use crate::report::{self, Evaluation};
use crate::store::{ChangeEvent, FunctionKey, StoreError, Window};

/// Single invocations looked at for a comparison.
const COMPARED: usize = 2_000;

/// How long a round waits for an update to be in force before it leaves that to the next.
const UPDATE_TIMEOUT: Duration = Duration::from_secs(30);

/// Time between two looks at an update.
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
            tracing::warn!(function = change.function.name, %error, "could not carry on a change; trying again next round");
        }
        open += usize::from(change.state.is_open());
    }
    let mut evaluations = evaluate(tuner, None, window).await?;
    evaluations.sort_by_key(|evaluation| std::cmp::Reverse(saving(evaluation)));
    for evaluation in evaluations.iter().filter(|evaluation| is_change(evaluation)) {
        if open >= settings.most_open {
            break;
        }
        let history = histories.remove(&evaluation.key).unwrap_or_default();
        match consider(tuner, evaluation, &history).await {
            Ok(()) => open += 1,
            // Nothing is wrong: functions of other accounts, or gone, are seen in every round.
            Err(reason @ (TunerError::Refused(_) | TunerError::Lambda(LambdaError::NoFunction(_)))) => {
                tracing::debug!(function = evaluation.key.name, %reason, "left as it is");
            }
            Err(error) => tracing::warn!(function = evaluation.key.name, %error, "could not be tuned"),
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
    let (store, settings) = (tuner.store.as_ref(), &tuner.settings);
    let now_us = tuner.clock.now_us();
    report::evaluations(store, &settings.tenant, key, window, &tuner.prices, settings.strategy, now_us).await
}

fn is_change(evaluation: &Evaluation) -> bool {
    let verdict = evaluation.advice.as_ref().ok().map(|advice| advice.verdict);
    matches!(verdict, Some(Verdict::Change | Verdict::RaiseForMemory))
}

/// What the advice saves per million invocations; functions with most to save are changed first.
fn saving(evaluation: &Evaluation) -> PicoDollars {
    evaluation.advice.as_ref().map_or(PicoDollars::ZERO, |advice| advice.saving.per_million)
}

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
enum TunerError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Lambda(#[from] LambdaError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Begins a change if there is reason to and nothing against it.
async fn consider(tuner: &Tuner, evaluation: &Evaluation, history: &[Change]) -> Result<(), TunerError> {
    let key = evaluation.key.clone();
    let configuration = tuner.lambda.configuration(&key).await?;
    let before = measured(tuner, &key, evaluation.memory, 0, evaluation.architecture).await?;
    let intent =
        policy::evaluate(evaluation, before, &configuration, history, &tuner.settings, tuner.clock.now_us())?;
    let mut change = begin(tuner, key, history.len(), &intent).await?;
    tracing::info!(
        function = evaluation.key.name,
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
    let begun = changes::fold(vec![event]).pop();
    Ok(begun.ok_or_else(|| StoreError::Damaged("an intent does not read back".to_owned()))?)
}

/// Writes the size of an intent that is on disk, then finds out what became of it.
async fn write(
    tuner: &Tuner,
    change: &mut Change,
    memory: Megabytes,
    revision_id: &str,
) -> Result<(), TunerError> {
    let problem = tuner.lambda.set_memory(&change.function, memory, revision_id).await.err();
    let deadline = tokio::time::Instant::now() + UPDATE_TIMEOUT;
    loop {
        let configuration = tuner.lambda.configuration(&change.function).await?;
        if configuration.update != Update::InProgress || tokio::time::Instant::now() >= deadline {
            return resolve(tuner, change, &configuration, problem.as_ref()).await;
        }
        tokio::time::sleep(UPDATE_POLL).await;
    }
}

/// Moves a change on from what Lambda says now.
async fn resume(tuner: &Tuner, change: &mut Change) -> Result<(), TunerError> {
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
    let window = last_hours(tuner.clock.now_us(), tuner.settings.hours);
    let settings = &tuner.settings;
    let evaluation = evaluate(tuner, Some(&change.function), window).await?.pop();
    let Some(evaluation) = evaluation else { return Ok(()) };
    let since_us = change.applied_at_us.unwrap_or(change.planned_at_us);
    let after = measured(tuner, &change.function, change.to, since_us, evaluation.architecture).await?;
    change.compare(after);
    match policy::judge(change, &after, settings) {
        Judgement::Wait => Ok(()),
        Judgement::Keep(reason) => {
            let note = Note { after: Some(after), ..Note::new(reason) };
            log(tuner, change, State::Settled, note).await
        }
        Judgement::RollBack(reason) => {
            // The owner may have taken the tag away; then nothing is written, not even to go back.
            if let Err(refusal) = policy::is_tagged(&configuration) {
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
) -> Result<(), TunerError> {
    let back = change.state == State::RollingBack;
    let (query, other) = if back { (change.from, change.to) } else { (change.to, change.from) };
    let said = problem.map_or_else(String::new, ToString::to_string);
    if configuration.memory == query {
        return match (configuration.update, back) {
            (Update::InProgress, _) => Ok(()),
            (Update::Failed, false) => {
                let reason = format!("Lambda could not put {query} into force");
                log(tuner, change, State::ExternalChange, Note::new(reason)).await
            }
            (_, back) => {
                let state = if back { State::RolledBack } else { State::Applied };
                let revision_id = Some(configuration.revision_id.clone());
                // What was said when it was decided to go back stays the reason.
                let reason = if back { change.reason.clone() } else { format!("{query} is in force") };
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
    if let Err(refusal) = policy::is_tagged(configuration) {
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
async fn log(tuner: &Tuner, change: &mut Change, state: State, note: Note) -> Result<(), TunerError> {
    let event = ChangeEvent {
        function: change.function.clone(),
        change_id: change.id.clone(),
        step: change.next_step,
        at_us: tuner.clock.now_us(),
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
    architecture: Architecture,
) -> Result<Figures, StoreError> {
    let recent = tuner.store.recent(&tuner.settings.tenant, function, COMPARED).await?;
    let rates = tuner.prices.rates(&function.region, architecture).ok();
    Ok(comparison::since(&recent, memory, since_us, rates.as_ref()))
}
