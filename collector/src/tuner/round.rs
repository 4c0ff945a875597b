//! One round of the tuner: read, decide, log, write, in this order.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Tuner;
use super::candidates::{Candidate, candidates};
use super::execute::execute_requests;
use super::fleet_state::{fleet_state, full, open_changes};
use super::guards::{self, Approved, Facts, Refusal};
use super::known;
use super::lambda::{LambdaError, Live};
use super::latest_round::RoundResult;
use super::mode::Mode;
use super::permission::Permission;
use super::plan::{Plan, PlannedFunction};
use super::resume::{resume, resume_all};
use super::served::served;
use crate::changes::comparison::Measurements;
use crate::changes::fleet;
use crate::changes::{self, Change, Intent, State, StepDetail, audit};
use crate::report::{self, Evaluation};
use crate::store::{ChangeEvent, FunctionKey, StoreError};

/// The code of a function that Lambda does not return.
const LAMBDA: &str = "lambda";

/// Time in a round after which open changes are continued again, microseconds.
const RESUME_US: u64 = 30_000_000;

/// The change log at the start of the round, with the events of this round.
pub(super) struct Log {
    pub(super) events: Vec<ChangeEvent>,
    pub(super) histories: BTreeMap<FunctionKey, Vec<Change>>,
    pub(super) frozen: Option<String>,
    /// A function that only the cost of open changes keeps from its change, the first one of this round.
    pub(super) waiting: Option<String>,
    /// Tuned functions, as far as they are known.
    pub(super) tuned: usize,
}

pub(super) async fn round(tuner: &Tuner) -> Result<(), StoreError> {
    let mut log = read_log(tuner).await?;
    execute_requests(tuner, &mut log).await?;
    resume_all(tuner, &mut log).await;
    if tuner.settings.mode < Mode::Recommend {
        return Ok(());
    }
    let mut resumed_us = tuner.clock.now_us();
    let (mut functions, mut refused, mut reads) = (Vec::new(), Vec::new(), 0);
    let mut left = candidates(tuner).await?.into_iter();
    // A request is executed in the next round, which then begins at once.
    while tuner.pending_requests().await.is_empty()
        && let Some(candidate) = left.next()
    {
        // A large fleet takes long, and a canary that became worse must not wait for it.
        if tuner.clock.now_us().saturating_sub(resumed_us) > RESUME_US {
            resume_all(tuner, &mut log).await;
            resumed_us = tuner.clock.now_us();
        }
        let may_start = log.frozen.is_none() && tuner.settings.mode.may_write();
        let result = consider(tuner, &mut log, &candidate, may_start, &mut reads).await;
        match &result {
            Err(TunerError::Refused(refusals)) => tuner.count_refusals(refusals),
            Err(TunerError::Lambda(LambdaError::Refused(reason))) => refused.push(reason.clone()),
            _ => {}
        }
        let mut planned = planned(candidate.evaluation.key, result)?;
        if may_start && planned.intent.is_some() {
            let waiting = guards::refuse("not-approved", "the change waits for an approval");
            planned.refusals.push((waiting.code.to_owned(), waiting.reason));
        }
        functions.push(planned);
    }
    if let Some(reason) = refused.first() {
        tracing::warn!(functions = refused.len(), reason, "Lambda refuses to return functions");
    }
    functions.extend(previous(tuner, left));
    tuner.queue.set_waiting(&functions, tuner.clock.now_us());
    tuner.latest_round.set(latest_round(tuner, &log, functions));
    Ok(())
}

/// The change of a candidate: started, or only planned when none may start or it needs an approval.
async fn consider(
    tuner: &Tuner,
    log: &mut Log,
    candidate: &Candidate,
    may_start: bool,
    reads: &mut usize,
) -> Result<Option<Intent>, TunerError> {
    if !may_start {
        return intent_of(tuner, log, candidate).await.map(|(intent, _)| Some(intent));
    }
    match full(tuner, log, candidate) {
        // Without a read of the function, which takes several requests.
        Some(refusal) => {
            known::learn(tuner, &candidate.evaluation.key, reads).await;
            Err(TunerError::Refused(vec![refusal]))
        }
        None => start(tuner, log, candidate, None).await,
    }
}

/// What the round before decided on functions that this round did not reach.
fn previous(tuner: &Tuner, left: impl Iterator<Item = Candidate>) -> Vec<PlannedFunction> {
    let before = tuner.latest_round.get();
    let of = |key: &FunctionKey| before.functions.iter().find(|planned| planned.function == *key).cloned();
    left.filter_map(|candidate| of(&candidate.evaluation.key)).collect()
}

/// The decision on one function. An error of the store ends the round.
fn planned(
    function: FunctionKey,
    result: Result<Option<Intent>, TunerError>,
) -> Result<PlannedFunction, StoreError> {
    let name = &function.name;
    let (intent, refusals) = match result {
        Ok(intent) => (intent, Vec::new()),
        // These are no faults: each round sees functions of other accounts and deleted functions.
        Err(TunerError::Refused(refusals)) => {
            let reason = refusals.first().map(ToString::to_string).unwrap_or_default();
            tracing::debug!(function = name, reason, "not changed");
            (None, refusals.into_iter().map(|refusal| (refusal.code.to_owned(), refusal.reason)).collect())
        }
        Err(reason @ TunerError::Lambda(LambdaError::NoFunction(_) | LambdaError::Refused(_))) => {
            tracing::debug!(function = name, %reason, "not changed");
            (None, vec![(LAMBDA.to_owned(), reason.to_string())])
        }
        Err(TunerError::Store(error)) => return Err(error),
        Err(error) => {
            tracing::warn!(function = name, %error, "cannot tune the function");
            (None, vec![(LAMBDA.to_owned(), error.to_string())])
        }
    };
    Ok(PlannedFunction { function, intent, refusals })
}

fn latest_round(tuner: &Tuner, log: &Log, functions: Vec<PlannedFunction>) -> RoundResult {
    let (mode, frozen) = (tuner.settings.mode, log.frozen.clone());
    RoundResult { at_us: tuner.clock.now_us(), mode, frozen, functions }
}

/// What a round would do, without a write.
pub(super) async fn plan(tuner: &Tuner) -> Result<Plan, StoreError> {
    let mut log = read_log(tuner).await?;
    let candidates = candidates(tuner).await?;
    if open_changes(&log) >= tuner.settings.limits.open_changes.min {
        // A command knows no tuned functions yet, and the number of open changes is limited by their number.
        known::learn_all(tuner, candidates.iter().map(|candidate| &candidate.evaluation.key)).await;
        log.tuned = tuner.known.tuned(tuner.clock.now_us());
    }
    let mut functions = Vec::new();
    for candidate in candidates {
        let result = intent_of(tuner, &mut log, &candidate).await.map(|(intent, _)| Some(intent));
        functions.push(planned(candidate.evaluation.key, result)?);
    }
    Ok(Plan::new(tuner.clock.now_us(), functions))
}

async fn read_log(tuner: &Tuner) -> Result<Log, StoreError> {
    let events = tuner.telemetry.log().await?;
    let frozen = fleet::frozen(&events).map(|(_, reason)| reason);
    let mut histories: BTreeMap<FunctionKey, Vec<Change>> = BTreeMap::new();
    for change in changes::fold(events.clone()) {
        histories.entry(change.function.clone()).or_default().push(change);
    }
    let tuned = tuner.known.tuned(tuner.clock.now_us());
    Ok(Log { events, histories, frozen, waiting: None, tuned })
}

/// Why a step of a change failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum TunerError {
    #[error("{}", .0.first().map(ToString::to_string).unwrap_or_default())]
    Refused(Vec<Refusal>),
    #[error(transparent)]
    Lambda(#[from] LambdaError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub(super) fn permission(tuner: &Tuner, key: &FunctionKey, live: &Live) -> Permission {
    let settings = &tuner.settings;
    Permission::of(
        &key.name,
        &live.tags,
        settings.mode,
        settings.limits.max_memory,
        settings.strategy,
        &settings.policy,
    )
}

/// The change of a candidate, if all guard-rails permit it.
async fn intent_of(
    tuner: &Tuner,
    log: &mut Log,
    candidate: &Candidate,
) -> Result<(Intent, Live), TunerError> {
    let key = &candidate.evaluation.key;
    let mut live = match tuner.lambda.read(key).await {
        Err(error @ LambdaError::OtherAccount { .. }) => {
            return Err(TunerError::Refused(vec![guards::refuse("other-account", error.to_string())]));
        }
        live => live?,
    };
    if guards::needs_list(&candidate.evaluation, &live) {
        tuner.lambda.list_versions(key, &mut live).await?;
    }
    tuner.keep_tags(key, &live);
    let permission = permission(tuner, key, &live);
    tuner.known.set_permission(key, &permission, tuner.clock.now_us());
    let mut evaluation = candidate.evaluation.clone();
    if permission.strategy != tuner.settings.strategy {
        let own = tuner.telemetry.evaluations(Some(key), permission.strategy).await?;
        evaluation = own.into_iter().next().unwrap_or(evaluation);
    }
    let history = log.histories.get(key).map(Vec::as_slice).unwrap_or_default();
    let health = tuner.telemetry.health(key).await?;
    let (served, recent_kills) = served(tuner, key, &live, evaluation.memory, history).await?;
    let now_us = tuner.clock.now_us();
    let fleet = fleet_state(log, candidate, &tuner.settings.limits, now_us);
    let facts = Facts {
        now_us,
        live: &live,
        evaluation: &evaluation,
        evidence: &candidate.evidence,
        served: &served,
        recent_kills,
        health: &health,
        history,
        fleet: &fleet,
        permission: &permission,
        limits: &tuner.settings.limits,
    };
    let checked = guards::check(&facts);
    if checked.as_ref().is_err_and(|refusals| guards::waits_for_spend(&facts, refusals)) {
        log.waiting.get_or_insert_with(|| key.name.clone());
    }
    let approved = checked.map_err(TunerError::Refused)?;
    let rates = tuner.telemetry.rates(key, evaluation.architecture);
    let before = candidate.sample.measurements(evaluation.memory, rates.as_ref());
    Ok((intent(&approved, &evaluation, &live, before, &permission), live))
}

fn intent(
    approved: &Approved,
    evaluation: &Evaluation,
    live: &Live,
    before: Measurements,
    permission: &Permission,
) -> Intent {
    let proposal = &approved.proposal;
    let mut reasons = evaluation.advice.as_ref().map(report::reasons).unwrap_or_default();
    reasons.extend(proposal.limited_by.clone());
    Intent {
        from_mb: proposal.from.0,
        to_mb: proposal.to.0,
        revision_id: live.revision_id.clone(),
        code_sha256: live.latest.code_sha256.clone(),
        before,
        cost_change_percent: proposal.cost_change_percent,
        duration_change_percent: proposal.duration_change_percent,
        duration_interval_ms: proposal.duration_interval_ms,
        reasons,
        route: approved.route.clone(),
        configuration_digest: live.latest.digest.clone(),
        uncapped_mb: proposal.uncapped.0,
        for_memory: proposal.for_memory,
        saving_per_million: proposal.saving_per_million,
        p95_limit_ms: permission.p95_slo_ms.unwrap_or(proposal.p95_ms[1]),
    }
}

/// Starts a change if the guard-rails permit it, and makes its first steps. With an approved intent, only this change. A
/// change that waits for an approval is returned.
pub(super) async fn start(
    tuner: &Tuner,
    log: &mut Log,
    candidate: &Candidate,
    approved: Option<&Intent>,
) -> Result<Option<Intent>, TunerError> {
    let key = candidate.evaluation.key.clone();
    let (intent, live) = intent_of(tuner, log, candidate).await?;
    let needs_approval = permission(tuner, &key, &live).needs_approval && !intent.for_memory;
    if needs_approval && approved.is_none() {
        return Ok(Some(intent));
    }
    if let Some(approved) = approved {
        let is_same = approved.revision_id == intent.revision_id
            && approved.route == intent.route
            && (approved.from_mb, approved.to_mb) == (intent.from_mb, intent.to_mb);
        if !is_same {
            let reason =
                "the function or its measurements changed since the plan: make a new plan".to_owned();
            return Err(TunerError::Refused(vec![Refusal { code: "plan-outdated", reason }]));
        }
    }
    let number = log.histories.get(&key).map_or(0, Vec::len);
    let event = ChangeEvent {
        function: key.clone(),
        change_id: format!("{:06}", number + 1),
        step: 0,
        at_us: tuner.clock.now_us(),
        kind: State::Planned.code().to_owned(),
        detail: json(&intent)?,
    };
    append(tuner, log, event).await?;
    tracing::info!(function = key.name, from = intent.from_mb, to = intent.to_mb, "changing the memory size");
    resume(tuner, log, &key).await?;
    Ok(None)
}

/// Appends the next step of a change.
pub(super) async fn log_step(
    tuner: &Tuner,
    log: &mut Log,
    change: &Change,
    state: State,
    detail: StepDetail,
) -> Result<(), TunerError> {
    let until_us = detail.until_us;
    append(tuner, log, event_of(tuner, change, change.next_step, state, &detail)?).await?;
    tracing::info!(
        function = change.function.name,
        state = state.code(),
        reason = detail.reason,
        "change has a new state"
    );
    let ended = Change { state, cause: detail.cause.or(change.cause), ..change.clone() };
    if ended.is_not_rolled_back() {
        let (function, reason) = (&ended.function.name, &detail.reason);
        tracing::error!(function, reason, "a change was not rolled back: a person must do it");
    }
    if state == State::RolledBack && until_us.is_some() {
        let detail = StepDetail { reason: detail.reason, until_us, ..StepDetail::default() };
        let event = event_of(tuner, change, change.next_step + 1, State::Quarantined, &detail)?;
        append(tuner, log, event).await?;
    }
    Ok(())
}

fn event_of(
    tuner: &Tuner,
    change: &Change,
    step: u64,
    state: State,
    detail: &StepDetail,
) -> Result<ChangeEvent, TunerError> {
    Ok(ChangeEvent {
        function: change.function.clone(),
        change_id: change.id.clone(),
        step,
        at_us: tuner.clock.now_us(),
        kind: state.code().to_owned(),
        detail: json(detail)?,
    })
}

/// Appends an event on disk, then in memory.
pub(super) async fn append(tuner: &Tuner, log: &mut Log, mut event: ChangeEvent) -> Result<(), StoreError> {
    audit::link(&log.events, &mut event);
    tuner.telemetry.append(&event).await?;
    log.events.push(event.clone());
    let own: Vec<ChangeEvent> =
        log.events.iter().filter(|earlier| earlier.function == event.function).cloned().collect();
    if fleet::is_fleet(&event.function) {
        log.frozen = fleet::frozen(&own).map(|(_, reason)| reason);
    } else {
        log.histories.insert(event.function, changes::fold(own));
    }
    Ok(())
}

fn json(value: &impl Serialize) -> Result<serde_json::Value, StoreError> {
    serde_json::to_value(value).map_err(|error| StoreError::Damaged(format!("cannot log a change: {error}")))
}
