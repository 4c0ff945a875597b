//! Changes of functions' memory sizes, and the log from which they are read.
//!
//! The log is append-only. The state of a change is computed from its events, so the same log always gives
//! the same state. This module does no I/O.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::units::Megabytes;

use comparison::Measurements;

use crate::store::{ChangeEvent, FunctionKey};

pub mod audit;
pub mod comparison;
pub mod fleet;
pub mod frequency;
pub mod ledger;
pub mod named;
pub mod refusal_counts;
pub mod selection;
mod state;
pub mod unfinished;
mod write;

pub use state::State;
pub use write::{AliasPlan, Cause, Confirmed, Route, Write};

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
    /// What the invocations go through.
    #[serde(default)]
    pub route: Route,
    /// Digest of the configuration without the memory size.
    #[serde(default)]
    pub configuration_digest: String,
    /// The advised size, before the limits of the policy, MB; zero in logs of earlier versions.
    #[serde(default)]
    pub uncapped_mb: u32,
    /// Whether the memory floor requires the change. Then no saving is expected.
    #[serde(default)]
    pub for_memory: bool,
    /// Expected saving of a million invocations, pico-dollars; negative when it costs more.
    #[serde(default)]
    pub saving_per_million: PicoDollars,
    /// Limit of the 95th percentile of duration, ms; zero when there is none.
    #[serde(default)]
    pub p95_limit_ms: f64,
}

impl Intent {
    /// Whether this is the code and the configuration of the plan, whatever the memory size.
    #[must_use]
    pub fn is_of_code(&self, code_sha256: &str, configuration_digest: &str) -> bool {
        self.code_sha256 == code_sha256
            // Logs of earlier versions have no digest.
            && (self.configuration_digest.is_empty() || self.configuration_digest == configuration_digest)
    }
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
    /// The write that follows this event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write: Option<Write>,
    /// What the previous write did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<Confirmed>,
    /// What ends the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Why Lambda refused the write of a rollback. The same write is made again in the next round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// The part of the invocations that the new version gets, hundredths of a percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// End of a quarantine, microseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_us: Option<u64>,
    /// Measurements of the previous version in the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Measurements>,
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
    /// The write that was logged and not confirmed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pending: Option<Write>,
    /// The version with the new size.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub version: Option<String>,
    /// Whether the tuner published that version.
    #[serde(skip)]
    pub version_is_ours: bool,
    /// The part of the invocations that the new version gets, hundredths of a percent.
    #[serde(default)]
    pub weight: u32,
    /// What ends the change, while it is rolled back.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cause: Option<Cause>,
    /// When it got its present weight, microseconds since the Unix epoch.
    #[serde(skip)]
    pub weighted_at_us: u64,
    /// When the new version got its first invocations, microseconds since the Unix epoch.
    #[serde(skip)]
    pub canary_at_us: Option<u64>,
    /// Measurements of the previous version in the time of the canary.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub baseline: Option<Measurements>,
    /// End of the quarantine, microseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub quarantined_until_us: Option<u64>,
    /// The weights that were set, hundredths of a percent.
    #[serde(skip)]
    pub weights: Vec<u32>,
    /// Whether the new size was set for all invocations.
    #[serde(skip)]
    pub promoted: bool,
    /// Why Lambda refused the pending write of the rollback, one text for each logged attempt.
    #[serde(skip)]
    pub refusals: Vec<String>,
}

impl Change {
    /// Whether its result is still being measured.
    #[must_use]
    pub fn is_being_compared(&self) -> bool {
        matches!(self.state, State::Soaking | State::Canary | State::Hold)
    }

    /// Whether it is a repair: more memory after invocations ran out of it.
    #[must_use]
    pub const fn is_repair(&self) -> bool {
        self.intent.for_memory && self.intent.before.out_of_memory > 0
    }

    /// Whether it was an increase that was rolled back.
    #[must_use]
    pub fn is_rolled_back_increase(&self) -> bool {
        self.state.is_rolled_back() && self.to > self.from
    }

    /// Whether it was to be rolled back, and the function has not its previous size nevertheless.
    #[must_use]
    pub fn is_not_rolled_back(&self) -> bool {
        let is_for_others = matches!(self.cause, None | Some(Cause::External | Cause::Permission));
        self.state == State::ExternalChange && !is_for_others
    }

    /// Whether invocations used the new size at some time.
    #[must_use]
    pub const fn was_in_force(&self) -> bool {
        self.canary_at_us.is_some() || self.applied_at_us.is_some()
    }

    /// Sets the measurements at the new size.
    pub fn compare(&mut self, after: Measurements) {
        self.after = (after.invocations > 0).then_some(after);
    }

    /// Applies the next step of its log.
    pub(crate) fn apply_step(&mut self, state: State, detail: StepDetail, at_us: u64) {
        let entered = self.state != state;
        self.state = state;
        self.moved_at_us = at_us;
        self.reason = detail.reason;
        let reason = match &detail.refusal {
            Some(refusal) => format!("{}; Lambda refused the rollback: {refusal}", self.reason),
            None => self.reason.clone(),
        };
        self.steps.push(Step { at_us, state, reason });
        match detail.refusal {
            Some(refusal) => self.refusals.push(refusal),
            None => self.refusals.clear(),
        }
        self.next_step += 1;
        if state == State::Soaking && entered {
            self.applied_at_us = Some(at_us);
        }
        match state {
            State::Promoting | State::Soaking => self.promoted = true,
            // The write of the promotion did not take effect.
            State::Canary => self.promoted = false,
            _ => {}
        }
        if let Some(confirmed) = detail.confirmed.filter(|confirmed| confirmed.version.is_some()) {
            self.version = confirmed.version;
            self.version_is_ours = confirmed.version_is_ours;
        }
        if let Some(weight) = detail.weight {
            self.weight = weight;
            self.weighted_at_us = at_us;
            self.weights.push(weight);
            if weight > 0 {
                self.canary_at_us = self.canary_at_us.or(Some(at_us));
            }
        }
        self.pending = detail.write;
        self.cause = detail.cause.or(self.cause);
        self.after = detail.after.or(self.after);
        self.baseline = detail.baseline.or(self.baseline);
        self.quarantined_until_us = detail.until_us.or(self.quarantined_until_us);
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
        let before = self.baseline.filter(|baseline| baseline.warm > 0).unwrap_or(self.intent.before);
        let old = before.cost_per_million_pico_usd?;
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
        if fleet::is_fleet(&event.function) {
            continue;
        }
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
        pending: None,
        version: None,
        version_is_ours: false,
        weight: 0,
        cause: None,
        weighted_at_us: at_us,
        canary_at_us: None,
        baseline: None,
        quarantined_until_us: None,
        weights: Vec::new(),
        promoted: false,
        refusals: Vec::new(),
    }
}
