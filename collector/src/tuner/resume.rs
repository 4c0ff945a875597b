//! Continues open changes: reads the function, decides the next step, logs it, and makes its write.

use super::Tuner;
use super::canary::{self, Comparison, Sample};
use super::guards::{pace, trust};
use super::lambda::{LambdaError, Live, Update};
use super::machine::{self, Decision, Observation, Verdict};
use super::mode::Mode;
use super::refusals;
use super::requests::TunerRequest;
use super::round::{Log, TunerError, log_step, permission};
use crate::changes::{Change, Route, State, Write};
use crate::store::{FunctionKey, StoreError};

/// Steps of one change in one round. More are made in the next round.
const MAX_STEPS: usize = 24;

/// Attempts of one write in one round.
const MAX_ATTEMPTS: usize = 3;

/// Reads of a function that is being updated, in one round.
const MAX_POLLS: usize = 60;

/// Continues all open changes.
pub(super) async fn resume_all(tuner: &Tuner, log: &mut Log) {
    let keys: Vec<FunctionKey> = log.histories.keys().cloned().collect();
    for key in keys {
        if let Err(error) = resume(tuner, log, &key).await {
            tracing::warn!(function = key.name, %error, "cannot resume a change; trying again in the next round");
        }
    }
}

/// Continues the open change of a function, if it has one.
pub(super) async fn resume(tuner: &Tuner, log: &mut Log, key: &FunctionKey) -> Result<(), TunerError> {
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
        tracing::warn!(function = change.function.name, %error, "cannot change the function; the next round continues");
    }
    error
}

async fn is_freeze_requested(tuner: &Tuner) -> bool {
    let is_freeze = |request: &TunerRequest| {
        matches!(request, TunerRequest::Freeze { .. } | TunerRequest::RevertAll { .. })
    };
    tuner.pending_requests().await.iter().any(|(_, request)| is_freeze(request))
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
    let permission = live.map(|live| permission(tuner, &change.function, live));
    let mode = permission.as_ref().map_or(Mode::Off, |permission| permission.mode);
    // An increase for memory does not wait for its window.
    let times = permission.as_ref().filter(|_| !change.intent.for_memory);
    let closed =
        times.and_then(|times| times.closed(now_us)).map(|(code, reason)| format!("{code}: {reason}"));
    let history = log.histories.get(&change.function).map(Vec::as_slice).unwrap_or_default();
    let seen = Observation {
        now_us,
        live,
        write_error,
        frozen: log.frozen.is_some(),
        may_write: mode.may_write(),
        may_continue: mode == Mode::Apply || change.to > change.from,
        closed: closed.as_deref(),
        rollback_requested: false,
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
    let unhealthy = trust::telemetry_within_limits(&health, &tuner.settings.limits)
        .err()
        .map(|refusal| refusal.to_string());
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
