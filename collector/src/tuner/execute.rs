//! Executes the requests of people at the start of a round.

use super::Tuner;
use super::candidates::candidates;
use super::guards::Refusal;
use super::orders::Order;
use super::plan::Plan;
use super::round::{Log, TunerError, append, log_step, start};
use crate::changes::fleet::{self, FleetAction};
use crate::changes::{Cause, Change, State, StepDetail};
use crate::store::StoreError;

/// Executes the requests of people. A request that needs Lambda stays until Lambda answers.
pub(super) async fn execute_orders(tuner: &Tuner, log: &mut Log) -> Result<(), StoreError> {
    let Some(requests) = &tuner.settings.orders else { return Ok(()) };
    for (name, order) in requests.pending().await {
        match order {
            Order::Freeze { reason } => set_frozen(tuner, log, FleetAction::Freeze, &reason).await?,
            Order::Unfreeze { reason } => set_frozen(tuner, log, FleetAction::Unfreeze, &reason).await?,
            Order::Rollback { function, change_id } => {
                let is_meant = |change: &Change| {
                    change.function.name == function && change_id.as_ref().is_none_or(|id| *id == change.id)
                };
                if !roll_back(tuner, log, is_meant).await? {
                    tracing::warn!(
                        function,
                        change_id,
                        "no rollback: this is not the latest change in force of the function"
                    );
                }
            }
            Order::RevertAll { reason } => {
                set_frozen(tuner, log, FleetAction::Freeze, &reason).await?;
                let left = roll_back(tuner, log, |_| true).await?;
                // One change of each function at a time; the request stays until none is left.
                if left {
                    continue;
                }
            }
            Order::Apply { plan } => apply(tuner, log, &plan).await?,
        }
        requests.remove(&name).await;
    }
    Ok(())
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
