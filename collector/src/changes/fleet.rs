//! Events that concern all functions: freeze and unfreeze. They are in the same log.

use serde_json::json;

use crate::store::{ChangeEvent, FunctionKey};

/// The id of the change that these events belong to.
const CHANGE_ID: &str = "fleet";

/// The key under which the events of the fleet are logged. No function has an empty name.
#[must_use]
pub fn key() -> FunctionKey {
    FunctionKey { account: String::new(), region: String::new(), name: String::new() }
}

/// Whether the events of this key concern all functions.
#[must_use]
pub fn is_fleet(key: &FunctionKey) -> bool {
    key.name.is_empty()
}

/// What was requested for all functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FleetAction {
    /// No function is changed, and open changes are rolled back.
    Freeze,
    /// Functions may be changed again.
    Unfreeze,
}

impl FleetAction {
    /// The stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Freeze => "freeze",
            Self::Unfreeze => "unfreeze",
        }
    }
}

/// The next event of the fleet.
#[must_use]
pub fn next_event(log: &[ChangeEvent], action: FleetAction, reason: &str, at_us: u64) -> ChangeEvent {
    let steps = log.iter().filter(|event| is_fleet(&event.function)).map(|event| event.step);
    ChangeEvent {
        function: key(),
        change_id: CHANGE_ID.to_owned(),
        step: steps.max().map_or(0, |step| step + 1),
        at_us,
        kind: action.code().to_owned(),
        detail: json!({ "reason": reason }),
    }
}

/// Since when the tuner is frozen, microseconds since the Unix epoch, and why; `None` when it is not.
#[must_use]
pub fn frozen(log: &[ChangeEvent]) -> Option<(u64, String)> {
    let last = log.iter().filter(|event| is_fleet(&event.function)).max_by_key(|event| event.step)?;
    let reason = last.detail.get("reason").and_then(serde_json::Value::as_str).unwrap_or_default();
    (last.kind == FleetAction::Freeze.code()).then(|| (last.at_us, reason.to_owned()))
}
