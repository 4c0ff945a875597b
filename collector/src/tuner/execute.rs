//! Executes the requests of people at the start of a round.

use super::Tuner;
use super::candidates::candidates;
use super::guards::Refusal;
use super::plan::Plan;
use super::requests::TunerRequest;
use super::round::{Log, TunerError, append, log_step, start};
use crate::changes::fleet::{self, FleetAction};
use crate::changes::named::NamedFunction;
use crate::changes::{Cause, Change, State, StepDetail};
use crate::store::StoreError;

/// Executes the requests of people. A request to revert all changes stays until each change has ended or is being rolled back.
pub(super) async fn execute_requests(tuner: &Tuner, log: &mut Log) -> Result<(), StoreError> {
    let mut reverts = Vec::new();
    for (name, request) in tuner.pending_requests().await {
        match request {
            TunerRequest::Freeze { reason } => set_frozen(tuner, log, FleetAction::Freeze, &reason).await?,
            TunerRequest::Unfreeze { reason } => {
                set_frozen(tuner, log, FleetAction::Unfreeze, &reason).await?;
                // It would freeze the tuner again.
                for revert in reverts.drain(..) {
                    tracing::warn!("the tuner is unfrozen before all changes were reverted: the rest stays");
                    remove(tuner, revert).await;
                }
            }
            TunerRequest::Rollback { function, account, region, change_id } => {
                let named = NamedFunction::new(&function, account.as_deref(), region.as_deref());
                roll_back_one(tuner, log, &named, change_id.as_deref()).await?;
            }
            TunerRequest::RevertAll { reason } => {
                set_frozen(tuner, log, FleetAction::Freeze, &reason).await?;
                roll_back(tuner, log, |_| true).await?;
                // One change of each function at a time.
                if is_any_in_force(log) {
                    reverts.push(name);
                    continue;
                }
            }
            TunerRequest::Apply { plan } => apply(tuner, log, &plan).await?,
        }
        remove(tuner, name).await;
    }
    Ok(())
}

/// Removes a request that was executed. One that cannot be removed is not executed again.
async fn remove(tuner: &Tuner, name: String) {
    if let Some(requests) = &tuner.settings.requests
        && !requests.remove(&name).await
    {
        tuner.executed.insert(name);
    }
}

/// Whether a change is neither at its end nor on the way back.
fn is_any_in_force(log: &Log) -> bool {
    let is_in_force = |change: &Change| match change.state {
        State::RollingBack => false,
        state => state.is_open() || state == State::Settled,
    };
    log.histories.values().flatten().any(is_in_force)
}

async fn set_frozen(
    tuner: &Tuner,
    log: &mut Log,
    action: FleetAction,
    reason: &str,
) -> Result<(), StoreError> {
    if log.frozen.is_some() == (action == FleetAction::Freeze) {
        return Ok(());
    }
    tracing::warn!(action = action.code(), reason, "a person requested to freeze or unfreeze the tuner");
    let event = fleet::next_event(&log.events, action, reason, tuner.clock.now_us());
    append(tuner, log, event).await
}

/// Starts the rollback of the latest change in force of one function. A name that several functions have changes nothing.
async fn roll_back_one(
    tuner: &Tuner,
    log: &mut Log,
    named: &NamedFunction<'_>,
    change_id: Option<&str>,
) -> Result<(), StoreError> {
    let found = match named.find(log.histories.keys()) {
        Ok(found) => found.cloned(),
        Err(error) => {
            tracing::warn!(%error, "no rollback: it is not known which function is meant");
            return Ok(());
        }
    };
    let is_meant = |change: &Change| {
        found.as_ref() == Some(&change.function) && change_id.is_none_or(|id| id == change.id)
    };
    if !roll_back(tuner, log, is_meant).await? {
        tracing::warn!(
            function = named.name(),
            change_id,
            "no rollback: this is not the latest change in force of the function"
        );
    }
    Ok(())
}

/// Starts the rollback of the latest change in force of each function that `is_meant`. Returns whether any was started.
async fn roll_back(
    tuner: &Tuner,
    log: &mut Log,
    is_meant: impl Fn(&Change) -> bool,
) -> Result<bool, StoreError> {
    let in_force = |change: &&Change| change.state.is_open() || change.state == State::Settled;
    let latest = |history: &Vec<Change>| {
        history.iter().rev().find(in_force).filter(|change| is_meant(change)).cloned()
    };
    let changes: Vec<Change> = log.histories.values().filter_map(latest).collect();
    for change in &changes {
        if change.state == State::RollingBack {
            continue;
        }
        let detail = StepDetail {
            reason: "a rollback was requested".to_owned(),
            cause: Some(Cause::Operator),
            ..StepDetail::default()
        };
        match log_step(tuner, log, change, State::RollingBack, detail).await {
            Ok(()) => {}
            Err(TunerError::Store(error)) => return Err(error),
            Err(error) => tracing::warn!(%error, "cannot roll back"),
        }
    }
    Ok(!changes.is_empty())
}

/// Makes the changes of a plan.
async fn apply(tuner: &Tuner, log: &mut Log, plan: &Plan) -> Result<(), StoreError> {
    if !plan.is_intact() {
        tracing::error!("the plan was altered after it was made: nothing is changed");
        return Ok(());
    }
    let candidates = candidates(tuner).await?;
    for planned in &plan.functions {
        let Some(intent) = &planned.intent else { continue };
        let candidate = candidates.iter().find(|candidate| candidate.evaluation.key == planned.function);
        let result = match candidate {
            Some(candidate) => start(tuner, log, candidate, Some(intent)).await,
            None => Err(TunerError::Refused(vec![Refusal {
                code: "plan-outdated",
                reason: "no change is advised any more".to_owned(),
            }])),
        };
        match result {
            Ok(_) => {}
            Err(TunerError::Store(error)) => return Err(error),
            Err(error) => {
                tracing::warn!(function = planned.function.name, %error, "a planned change was not made");
            }
        }
    }
    Ok(())
}
