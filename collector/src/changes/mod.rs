//! Changes of functions' memory sizes, and the log from which they are read.
//!
//! The log is append-only. The state of a change is computed from its events, so the same log always gives
//! the same state. This module does no I/O.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use tailor_sizing::units::Megabytes;

use comparison::Measurements;

use crate::store::{ChangeEvent, FunctionKey};

pub mod comparison;

/// The state of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The intent is on disk; the write may or may not have reached Lambda.
    Planned,
    /// The function has the new size, and its invocations are being measured.
    Applied,
    /// The measurements are as predicted or better. The new size stays.
    Settled,
    /// The function got worse. The intent to roll back is on disk.
    RollingBack,
    /// The function has its previous size again.
    RolledBack,
    /// The write was refused or did not happen. The function is unchanged.
    Abandoned,
    /// Someone else changed the function. The tuner does not touch it.
    ExternalChange,
}

impl State {
    /// Whether the change is not finished.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Planned | Self::Applied | Self::RollingBack)
    }

    /// The stable code of the event that sets this state.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Applied => "applied",
            Self::Settled => "settled",
            Self::RollingBack => "rolling-back",
            Self::RolledBack => "rolled-back",
            Self::Abandoned => "abandoned",
            Self::ExternalChange => "external-change",
        }
    }

    fn from_code(code: &str) -> Option<Self> {
        [
            Self::Planned,
            Self::Applied,
            Self::Settled,
            Self::RollingBack,
            Self::RolledBack,
            Self::Abandoned,
            Self::ExternalChange,
        ]
        .into_iter()
        .find(|state| state.code() == code)
    }
}

/// The planned change and its reasons: the content of a `planned` event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Intent {
    /// Memory size before, MB.
    pub from_mb: u32,
    /// Memory size after, MB.
    pub to_mb: u32,
    /// Lambda's revision id on which the decision was made.
    pub revision_id: String,
    /// SHA-256 of the code at that time: measurements of other code cannot be compared.
    pub code_sha256: String,
    /// Measurements at the size before.
    pub before: Measurements,
    /// Predicted change of the cost of an invocation, percent.
    pub cost_change_percent: f64,
    /// Predicted change of mean duration, percent.
    pub duration_change_percent: f64,
    /// 80 % interval of the predicted mean duration at the new size, ms.
    pub duration_interval_ms: [f64; 2],
    /// Reasons, as sentences.
    pub reasons: Vec<String>,
}

/// The content of every event after `planned`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct StepDetail {
    /// The reason, as text.
    pub reason: String,
    /// Measurements at the new size at that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Measurements>,
    /// Lambda's revision id after a write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision_id: Option<String>,
}

/// One entry of a change's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Time, microseconds since the Unix epoch.
    pub at_us: u64,
    /// State of the change from this time.
    pub state: State,
    /// The reason.
    pub reason: String,
}

/// A change, as computed from its log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The function.
    pub function: FunctionKey,
    /// Its id within the function.
    pub id: String,
    /// Its state.
    pub state: State,
    /// Memory size before.
    #[serde(rename = "from_mb")]
    pub from: Megabytes,
    /// Memory size after.
    #[serde(rename = "to_mb")]
    pub to: Megabytes,
    /// When it was planned, microseconds since the Unix epoch.
    pub planned_at_us: u64,
    /// When the new size took effect, microseconds since the Unix epoch.
    pub applied_at_us: Option<u64>,
    /// When its state last changed, microseconds since the Unix epoch.
    pub moved_at_us: u64,
    /// The plan.
    pub intent: Intent,
    /// Measurements at the new size: current while the change is applied, final when it is closed.
    pub after: Option<Measurements>,
    /// The reason for its state.
    pub reason: String,
    /// Its whole log, oldest first.
    pub steps: Vec<Step>,
    /// Number of the next step of its log.
    pub next_step: u64,
}

impl Change {
    /// Whether its result is still being measured.
    #[must_use]
    pub fn is_being_compared(&self) -> bool {
        self.state == State::Applied
    }

    /// Sets the measurements at the new size.
    pub fn compare(&mut self, after: Measurements) {
        self.after = (after.invocations > 0).then_some(after);
    }

    /// Applies the next step of its log.
    pub(crate) fn apply_step(&mut self, state: State, detail: StepDetail, at_us: u64) {
        self.state = state;
        self.moved_at_us = at_us;
        self.reason = detail.reason;
        self.steps.push(Step { at_us, state, reason: self.reason.clone() });
        self.next_step += 1;
        if state == State::Applied {
            self.applied_at_us = Some(at_us);
        }
        if detail.after.is_some() {
            self.after = detail.after;
        }
    }

    /// Mean duration predicted for the new size, ms.
    #[must_use]
    pub fn predicted_mean_ms(&self) -> f64 {
        self.intent.before.mean_ms * (1.0 + self.intent.duration_change_percent / 100.0)
    }

    /// Measured change of mean duration, percent; `None` until there are measurements.
    #[must_use]
    pub fn measured_duration_change_percent(&self) -> Option<f64> {
        let after = self.after.filter(|after| after.warm > 0)?;
        ratio_percent(after.mean_ms, self.intent.before.mean_ms)
    }

    /// Measured change of the cost of a warm invocation, percent; `None` until there are measurements and prices.
    #[must_use]
    pub fn measured_cost_change_percent(&self) -> Option<f64> {
        let new = self.after?.cost_per_million_pico_usd?;
        let old = self.intent.before.cost_per_million_pico_usd?;
        ratio_percent(new.to_dollars(), old.to_dollars())
    }
}

fn ratio_percent(new: f64, old: f64) -> Option<f64> {
    (old > 0.0).then(|| 100.0 * (new / old - 1.0))
}

/// Computes the changes from a log, oldest first. Events that cannot be decoded are skipped, so that an event
/// of a newer program does not hide other changes.
#[must_use]
pub fn fold(events: Vec<ChangeEvent>) -> Vec<Change> {
    let mut changes: BTreeMap<(FunctionKey, String), Change> = BTreeMap::new();
    for event in events {
        let Some(state) = State::from_code(&event.kind) else { continue };
        let key = (event.function.clone(), event.change_id.clone());
        if state == State::Planned {
            if let Ok(intent) = serde_json::from_value::<Intent>(event.detail) {
                changes.insert(key, planned_change(event.function, event.change_id, event.at_us, intent));
            }
            continue;
        }
        let Some(change) = changes.get_mut(&key) else { continue };
        let detail: StepDetail = serde_json::from_value(event.detail).unwrap_or_default();
        change.next_step = event.step;
        change.apply_step(state, detail, event.at_us);
    }
    let mut changes: Vec<_> = changes.into_values().collect();
    changes.sort_by_key(|change| change.planned_at_us);
    changes
}

fn planned_change(function: FunctionKey, id: String, at_us: u64, intent: Intent) -> Change {
    let reason = intent.reasons.first().cloned().unwrap_or_default();
    Change {
        function,
        id,
        state: State::Planned,
        from: Megabytes(intent.from_mb),
        to: Megabytes(intent.to_mb),
        planned_at_us: at_us,
        applied_at_us: None,
        moved_at_us: at_us,
        steps: vec![Step { at_us, state: State::Planned, reason: reason.clone() }],
        reason,
        intent,
        after: None,
        next_step: 1,
    }
}
