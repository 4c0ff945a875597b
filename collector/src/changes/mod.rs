//! One change of one function's memory size, and the log it is read from.
//!
//! The log is append-only; what a change is now follows from folding its events, so replaying the log
//! always gives the same state. Nothing here does I/O.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use tailor_sizing::units::Megabytes;

use comparison::Figures;

use crate::store::{ChangeEvent, FunctionKey};

pub mod comparison;

/// Where a change stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The intent is on disk; the write may or may not have reached Lambda.
    Planned,
    /// The function runs at the new size, and is being watched.
    Applied,
    /// It did what was predicted, or better: the change stays.
    Settled,
    /// It got worse: the intent to go back is on disk.
    RollingBack,
    /// The function runs at its old size again.
    RolledBack,
    /// The write was refused or never happened; the function is as it was.
    Abandoned,
    /// Somebody else changed the function meanwhile; theirs stays.
    ExternalChange,
}

impl State {
    /// Whether the tuner still has something to do for it.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Planned | Self::Applied | Self::RollingBack)
    }

    /// The stable code of the event that leads here.
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

/// What was to be done and why: the content of a `planned` event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Intent {
    /// Size before.
    pub from_mb: u32,
    /// Size after.
    pub to_mb: u32,
    /// Lambda's revision the decision was made on.
    pub revision_id: String,
    /// The code that ran then: figures of other code do not compare.
    pub code_sha256: String,
    /// Measured at the size before.
    pub before: Figures,
    /// Predicted change of the cost of an invocation, percent.
    pub cost_change_percent: f64,
    /// Predicted change of mean duration, percent.
    pub duration_change_percent: f64,
    /// Where mean duration at the new size lies with 80 % probability, ms.
    pub duration_interval_ms: [f64; 2],
    /// Why, in sentences.
    pub reasons: Vec<String>,
}

/// What is noted when a change moves on.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Note {
    /// Why, for people.
    pub reason: String,
    /// Measured at the new size by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Figures>,
    /// Lambda's revision after a write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision_id: Option<String>,
}

/// One line of a change's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// When, microseconds since the epoch.
    pub at_us: u64,
    /// Where the change stood from then on.
    pub state: State,
    /// Why.
    pub reason: String,
}

/// A change as its log tells it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// The function.
    pub function: FunctionKey,
    /// Its id within the function.
    pub id: String,
    /// Where it stands.
    pub state: State,
    /// Size before.
    #[serde(rename = "from_mb")]
    pub from: Megabytes,
    /// Size after.
    #[serde(rename = "to_mb")]
    pub to: Megabytes,
    /// When it was decided, microseconds since the epoch.
    pub planned_at_us: u64,
    /// When the new size was in force, microseconds since the epoch.
    pub applied_at_us: Option<u64>,
    /// When it last moved on, microseconds since the epoch.
    pub moved_at_us: u64,
    /// The decision.
    pub intent: Intent,
    /// Measured at the new size: live while it is watched, as judged once it is closed.
    pub after: Option<Figures>,
    /// What was said when it last moved on.
    pub reason: String,
    /// Its whole log, oldest first.
    pub steps: Vec<Step>,
    /// The next free step of its log.
    pub next_step: u64,
}

impl Change {
    /// Whether its outcome is still being measured.
    #[must_use]
    pub fn is_being_compared(&self) -> bool {
        self.state == State::Applied
    }

    /// Takes over what was measured at the new size.
    pub fn compare(&mut self, after: Figures) {
        self.after = (after.invocations > 0).then_some(after);
    }

    /// Takes the next step of its log.
    pub(crate) fn follow(&mut self, state: State, note: Note, at_us: u64) {
        self.state = state;
        self.moved_at_us = at_us;
        self.reason = note.reason;
        self.steps.push(Step { at_us, state, reason: self.reason.clone() });
        self.next_step += 1;
        if state == State::Applied {
            self.applied_at_us = Some(at_us);
        }
        if note.after.is_some() {
            self.after = note.after;
        }
    }

    /// Mean duration predicted for the new size, ms.
    #[must_use]
    pub fn predicted_mean_ms(&self) -> f64 {
        self.intent.before.mean_ms * (1.0 + self.intent.duration_change_percent / 100.0)
    }

    /// How mean duration changed, percent; `None` until something is measured.
    #[must_use]
    pub fn measured_duration_change_percent(&self) -> Option<f64> {
        let after = self.after.filter(|after| after.warm > 0)?;
        ratio_percent(after.mean_ms, self.intent.before.mean_ms)
    }

    /// How the cost of a warm invocation changed, percent; `None` until it is measured and priced.
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

/// The changes a log tells of, oldest first. Events that make no sense are passed over, so that one
/// written by a newer program hides no others.
#[must_use]
pub fn fold(events: Vec<ChangeEvent>) -> Vec<Change> {
    let mut changes: BTreeMap<(FunctionKey, String), Change> = BTreeMap::new();
    for event in events {
        let Some(state) = State::from_code(&event.kind) else { continue };
        let key = (event.function.clone(), event.change_id.clone());
        if state == State::Planned {
            if let Ok(intent) = serde_json::from_value::<Intent>(event.detail) {
                changes.insert(key, begin(event.function, event.change_id, event.at_us, intent));
            }
            continue;
        }
        let Some(change) = changes.get_mut(&key) else { continue };
        let note: Note = serde_json::from_value(event.detail).unwrap_or_default();
        change.next_step = event.step;
        change.follow(state, note, event.at_us);
    }
    let mut changes: Vec<_> = changes.into_values().collect();
    changes.sort_by_key(|change| change.planned_at_us);
    changes
}

fn begin(function: FunctionKey, id: String, at_us: u64, intent: Intent) -> Change {
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
