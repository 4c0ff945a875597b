//! Freezes the tuner when Lambda refuses a rollback.

use super::Tuner;
use super::round::{Log, append};
use crate::changes::Change;
use crate::changes::fleet::{self, FleetAction};
use crate::store::StoreError;

/// Freezes the tuner when Lambda refused the rollback of `change` several times: while a change cannot be rolled back, no other
/// one may start. The rollback itself is attempted in each round.
pub(super) async fn freeze(tuner: &Tuner, log: &mut Log, change: &Change) -> Result<(), StoreError> {
    let count = change.refusals.len();
    if log.frozen.is_some() || !change.state.is_open() || count < tuner.settings.limits.max_rollback_refusals
    {
        return Ok(());
    }
    // A person who unfroze the tuner after the last refusal has seen it.
    let fleet_events = log.events.iter().filter(|event| fleet::is_fleet(&event.function));
    if fleet_events.map(|event| event.at_us).max() >= Some(change.moved_at_us) {
        return Ok(());
    }
    let reason = format!(
        "Lambda refused the rollback of `{}` (change {}) {count} times: {}",
        change.function.name,
        change.id,
        change.refusals.last().map_or("", String::as_str),
    );
    tracing::error!(
        reason,
        "the tuner is frozen: permit the rollback or roll the change back yourself, then unfreeze the tuner"
    );
    let event = fleet::next_event(&log.events, FleetAction::Freeze, &reason, tuner.clock.now_us());
    append(tuner, log, event).await
}
