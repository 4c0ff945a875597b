//! One round of the tuner: read, decide, log, write, in this order.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Tuner;
use super::canary::{self, Comparison, Sample};
use super::candidates::{Candidate, candidates};
use super::execute::execute_orders;
use super::fleet_state::{fleet_state, full, open_changes};
use super::guards::{self, Approved, Facts, Refusal, pace, trust};
use super::known;
use super::lambda::{LambdaError, Live, Update};
use super::machine::{self, Decision, Observation, Verdict};
use super::mode::Mode;
use super::orders::Order;
use super::outlook::Outlook;
use super::permission::Permission;
use super::plan::{Plan, PlannedFunction};
use super::refusals;
use crate::changes::comparison::Measurements;
use crate::changes::fleet;
use crate::changes::{self, Change, Intent, Route, State, StepDetail, Write, audit};
use crate::report::{self, Evaluation};
use crate::store::{ChangeEvent, FunctionKey, StoreError};

/// Steps of one change in one round. More are made in the next round.
const MAX_STEPS: usize = 24;

/// Attempts of one write in one round.
const MAX_ATTEMPTS: usize = 3;

/// The code of a function that Lambda does not return.
const LAMBDA: &str = "lambda";

/// Reads of a function that is being updated, in one round.
const MAX_POLLS: usize = 60;

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
    execute_orders(tuner, &mut log).await?;
    let keys: Vec<FunctionKey> = log.histories.keys().cloned().collect();
    for key in keys {
        if let Err(error) = resume(tuner, &mut log, &key).await {
            tracing::warn!(function = key.name, %error, "cannot resume a change; trying again in the next round");
        }
    }
    if tuner.settings.mode < Mode::Recommend {
        return Ok(());
    }
    let may_start = log.frozen.is_none() && tuner.settings.mode.may_write();
    let (mut functions, mut reads) = (Vec::new(), 0);
    for candidate in candidates(tuner).await? {
        let refusal = if may_start { full(tuner, &log, &candidate) } else { None };
        let result = match refusal {
            // Without a read of the function, which takes several requests.
            Some(refusal) => {
                known::learn(tuner, &candidate.evaluation.key, &mut reads).await;
                Err(TunerError::Refused(vec![refusal]))
            }
            None if may_start => start(tuner, &mut log, &candidate, None).await,
            None => intent_of(tuner, &mut log, &candidate).await.map(|(intent, _)| Some(intent)),
        };
        if let Err(TunerError::Refused(refusals)) = &result {
            tuner.count_refusals(refusals);
        }
        let mut planned = planned(candidate.evaluation.key, result)?;
        if may_start && planned.intent.is_some() {
            let waiting = guards::refuse("not-approved", "the change waits for an approval");
            planned.refusals.push((waiting.code.to_owned(), waiting.reason));
        }
        functions.push(planned);
    }
    tuner.queue.keep(&functions, tuner.clock.now_us());
    tuner.outlook.set(outlook(tuner, &log, functions));
    Ok(())
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
        Err(reason @ TunerError::Lambda(LambdaError::NoFunction(_))) => {
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

fn outlook(tuner: &Tuner, log: &Log, functions: Vec<PlannedFunction>) -> Outlook {
    let (mode, frozen) = (tuner.settings.mode, log.frozen.clone());
    Outlook { at_us: tuner.clock.now_us(), mode, frozen, functions }
}

/// What a round would do, without a write.
pub(super) async fn plan(tuner: &Tuner) -> Result<Plan, StoreError> {
    let mut log = read_log(tuner).await?;
    let candidates = candidates(tuner).await?;
    if open_changes(&log) >= tuner.settings.limits.open_changes.least {
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
        settings.limits.ceiling,
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
    let live = tuner.lambda.read(key).await?;
    tuner.keep_tags(key, &live);
    let permission = permission(tuner, key, &live);
    tuner.known.keep(key, &permission, tuner.clock.now_us());
    let mut evaluation = candidate.evaluation.clone();
    if permission.strategy != tuner.settings.strategy {
        let own = tuner.telemetry.evaluations(Some(key), permission.strategy).await?;
        evaluation = own.into_iter().next().unwrap_or(evaluation);
    }
    let history = log.histories.get(key).map(Vec::as_slice).unwrap_or_default();
    let health = tuner.telemetry.health(key).await?;
    let recent_kills = candidate.recent_kills(tuner, history).await?;
    let now_us = tuner.clock.now_us();
    let fleet = fleet_state(log, candidate, &tuner.settings.limits, now_us);
    let facts = Facts {
        now_us,
        live: &live,
        evaluation: &evaluation,
        evidence: &candidate.evidence,
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

/// Continues the open change of a function, if it has one.
async fn resume(tuner: &Tuner, log: &mut Log, key: &FunctionKey) -> Result<(), TunerError> {
    let Some(position) = open_position(log, key) else { return Ok(()) };
    let mut write_error = None;
    let (mut attempts, mut polls) = (0, 0);
    for _ in 0..MAX_STEPS {
        let Some(change) = log.histories.get(key).and_then(|history| history.get(position)) else { break };
        if !change.state.is_open() {
            break;
        }
        let change = change.clone();
        let live = match tuner.lambda.read(key).await {
            Ok(live) => Some(live),
            Err(LambdaError::NoFunction(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let verdict = judge(tuner, &change).await?;
        let decision = decide(tuner, log, &change, live.as_ref(), write_error.as_ref(), &verdict);
        match decision {
            Decision::Wait(reason) => {
                tracing::debug!(function = key.name, reason, "change waits");
                let updating = live.is_some_and(|live| live.update == Update::InProgress);
                polls += 1;
                if !updating || polls > MAX_POLLS {
                    break;
                }
                tokio::time::sleep(tuner.settings.poll).await;
            }
            Decision::Retry(write) => {
                attempts += 1;
                if attempts > MAX_ATTEMPTS {
                    break;
                }
                write_error = make(tuner, &change, &write, attempts > 1).await;
            }
            Decision::Log(state, detail) => {
                let write = detail.write.clone();
                let is_refused = detail.refusal.is_some();
                log_step(tuner, log, &change, state, *detail).await?;
                // The cause of a refusal does not go away in one round.
                if is_refused {
                    break;
                }
                write_error = None;
                attempts = 0;
                if let Some(write) = write {
                    let change = log.histories.get(key).and_then(|history| history.get(position)).cloned();
                    if let Some(change) = change {
                        write_error = make(tuner, &change, &write, false).await;
                    }
                }
            }
        }
    }
    match log.histories.get(key).and_then(|history| history.get(position)).cloned() {
        Some(change) => Ok(refusals::freeze(tuner, log, &change).await?),
        None => Ok(()),
    }
}

fn open_position(log: &Log, key: &FunctionKey) -> Option<usize> {
    log.histories.get(key)?.iter().position(|change| change.state.is_open())
}

/// Makes a write that is on disk.
async fn make(tuner: &Tuner, change: &Change, write: &Write, is_repeated: bool) -> Option<LambdaError> {
    if is_repeated {
        tokio::time::sleep(tuner.settings.poll).await;
    }
    // A freeze that was requested during this round.
    if change.state != State::RollingBack && is_freeze_requested(tuner).await {
        return Some(LambdaError::Other("the tuner is being frozen".to_owned()));
    }
    let error = tuner.lambda.write(&change.function, write).await.err();
    if let Some(error) = &error {
        tracing::warn!(function = change.function.name, %error, "a write failed");
    }
    error
}

async fn is_freeze_requested(tuner: &Tuner) -> bool {
    let Some(requests) = &tuner.settings.orders else { return false };
    let is_freeze = |order: &Order| matches!(order, Order::Freeze { .. } | Order::RevertAll { .. });
    requests.pending().await.iter().any(|(_, order)| is_freeze(order))
}

fn decide(
    tuner: &Tuner,
    log: &Log,
    change: &Change,
    live: Option<&Live>,
    write_error: Option<&LambdaError>,
    verdict: &Verdict,
) -> Decision {
    let settings = &tuner.settings;
    let now_us = tuner.clock.now_us();
    let mode = live.map_or(Mode::Off, |live| permission(tuner, &change.function, live).mode);
    let history = log.histories.get(&change.function).map(Vec::as_slice).unwrap_or_default();
    let seen = Observation {
        now_us,
        live,
        write_error,
        frozen: log.frozen.is_some(),
        may_write: mode.may_write(),
        may_continue: mode == Mode::Apply || change.to > change.from,
        rollback_asked: false,
        quarantine_until_us: pace::quarantine_until_us(history, settings.limits.quarantine_us, now_us),
        verdict,
        omitted: settings.omitted,
    };
    machine::step(change, &seen, &settings.limits)
}

/// What the measurements show of a change, in the states that depend on them.
async fn judge(tuner: &Tuner, change: &Change) -> Result<Verdict, StoreError> {
    let is_measured = matches!(change.state, State::Canary | State::Hold | State::Soaking);
    if !is_measured || change.pending.is_some() {
        return Ok(Verdict::Continue(String::new()));
    }
    let key = &change.function;
    let since_us = match change.state {
        State::Soaking => change.applied_at_us,
        _ => change.canary_at_us,
    };
    let since_us = since_us.unwrap_or(change.planned_at_us);
    let telemetry = tuner.telemetry.as_ref();
    let (evidence, new) = telemetry.sample(key, change.version.as_deref(), change.to, since_us).await?;
    let old = match (&change.intent.route, change.state) {
        (Route::Alias(plan), State::Canary | State::Hold) => {
            telemetry.sample(key, Some(&plan.stable), change.from, since_us).await?.1
        }
        _ => Sample::default(),
    };
    let health = telemetry.health(key).await?;
    let unhealthy = trust::healthy(&health, &tuner.settings.limits).err().map(|refusal| refusal.to_string());
    let rates = telemetry.rates(key, evidence.architecture);
    let comparison = Comparison {
        change,
        new: &new,
        old: &old,
        rates: rates.as_ref(),
        unhealthy: unhealthy.as_deref(),
        now_us: tuner.clock.now_us(),
    };
    Ok(canary::judge(&comparison, &tuner.settings.limits))
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
