//! The events and their JSON.

use serde::Serialize;
use sha2::{Digest, Sha256};
use tailor_sizing::pricing::money::PicoDollars;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::slack;

/// Longest text in an event, characters: names and reasons come from others.
const MAX_TEXT: usize = 500;

/// One event.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its id: a receiver that gets the same id again has the event already.
    pub id: String,
    /// When it happened or was found, microseconds since the Unix epoch.
    pub at_us: u64,
    /// The tenant.
    pub tenant: String,
    /// What happened.
    pub content: Content,
}

/// A function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Function {
    /// AWS account; empty when unknown.
    pub account: String,
    /// AWS region.
    pub region: String,
    /// Its name.
    pub name: String,
}

/// A recommendation that is new, or that has changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Advice {
    /// The function.
    pub function: Function,
    /// Present memory size, MB.
    pub memory_mb: u32,
    /// Recommended memory size, MB.
    pub recommended_memory_mb: u32,
    /// What the recommended size would have saved in the last 30 days; negative when it costs more.
    pub saving_pico_usd: PicoDollars,
    /// Predicted change of the cost of an invocation, percent.
    pub cost_change_percent: f64,
    /// Predicted change of mean duration, percent.
    pub duration_change_percent: f64,
    /// Why, as sentences.
    pub reasons: Vec<String>,
    /// The recommended size in the event before, MB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_recommended_memory_mb: Option<u32>,
    /// The saving in the event before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_saving_pico_usd: Option<PicoDollars>,
}

/// What was lost since the event before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, serde::Deserialize)]
pub struct Losses {
    /// Invocations dropped before they were sent.
    pub invocations: u64,
    /// Invocations that started in environments that have sent nothing for an hour.
    pub abandoned_invocations: u64,
    /// Batches that did not arrive.
    pub batches: u64,
    /// Telemetry records that the platform dropped.
    pub platform_records: u64,
    /// Telemetry records that could not be read.
    pub undecodable_records: u64,
    /// Damaged rows of the store.
    pub damaged_rows: u64,
}

/// A step of a change of a memory size.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SizeChange {
    /// The function.
    pub function: Function,
    /// The change.
    pub change_id: String,
    /// Its state from now on.
    pub state: String,
    /// Memory size before, MB.
    pub from_memory_mb: u32,
    /// Memory size after, MB.
    pub to_memory_mb: u32,
    /// Predicted change of the cost of an invocation, percent.
    pub predicted_cost_change_percent: f64,
    /// Measured change of the cost of an invocation, percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured_cost_change_percent: Option<f64>,
    /// The reason of the step.
    pub reason: String,
}

/// The tuner was frozen, or is not frozen any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Freeze {
    /// The reason.
    pub reason: String,
}

/// AWS's bill differs from what was computed, and no reason explains it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BillDifference {
    /// First day of the compared usage.
    pub from: String,
    /// Last day of the compared usage.
    pub to: String,
    /// What AWS billed.
    pub billed_pico_usd: PicoDollars,
    /// What was computed.
    pub computed_pico_usd: PicoDollars,
    /// Sum of the absolute values of what no reason explains.
    pub unexplained_pico_usd: PicoDollars,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Content {
    /// A function has a recommendation that was not sent before.
    AdviceNew(Advice),
    /// The recommended size or the saving has changed.
    AdviceChanged(Advice),
    /// Telemetry was lost, or rows of the store are damaged.
    Lost(Losses),
    /// A change of the tuner.
    Change(SizeChange),
    /// A change of the tuner is rolled back because its result was worse than predicted.
    Rollback(SizeChange),
    /// The tuner was frozen.
    Freeze(Freeze),
    /// The tuner is not frozen any more.
    Unfreeze(Freeze),
    /// The bill differs.
    BillDifference(BillDifference),
}

impl Content {
    /// The type of the event: a stable code.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::AdviceNew(_) => "advice.new",
            Self::AdviceChanged(_) => "advice.changed",
            Self::Lost(_) => "data.lost",
            Self::Change(_) => "tuner.change",
            Self::Rollback(_) => "tuner.rollback",
            Self::Freeze(_) => "tuner.freeze",
            Self::Unfreeze(_) => "tuner.unfreeze",
            Self::BillDifference(_) => "bill.difference",
        }
    }
}

/// The body of an event.
#[derive(Serialize)]
struct Body<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    timestamp: String,
    tenant: &'a str,
    data: &'a Content,
}

impl Event {
    /// An event whose id is a digest of its tenant, its type and what makes it unique.
    #[must_use]
    pub fn new(tenant: &str, at_us: u64, unique: &[&str], content: Content) -> Self {
        let mut digest = Sha256::new();
        for part in [tenant, content.kind()].iter().chain(unique) {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part.as_bytes());
        }
        let hex = hex::encode(&digest.finalize()[..16]);
        Self { id: format!("evt_{hex}"), at_us, tenant: tenant.to_owned(), content }
    }

    /// Its JSON.
    ///
    /// # Errors
    /// Never for these types; the error of the serializer.
    pub fn json(&self) -> serde_json::Result<String> {
        let timestamp = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.at_us / 1_000) * 1_000_000)
            .ok()
            .and_then(|time| time.format(&Rfc3339).ok())
            .unwrap_or_default();
        let (id, tenant, data) = (&self.id, &self.tenant, &self.content);
        serde_json::to_string(&Body { id, kind: data.kind(), timestamp, tenant, data })
    }

    /// The message for Slack, as JSON.
    #[must_use]
    pub fn slack(&self) -> String {
        slack::message(self)
    }
}

/// A text of another program with bounded length.
#[must_use]
pub(super) fn bounded(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl Function {
    /// A function, with names of bounded length.
    #[must_use]
    pub fn new(account: &str, region: &str, name: &str) -> Self {
        Self { account: bounded(account), region: bounded(region), name: bounded(name) }
    }
}

impl Content {
    /// The same with texts of bounded length.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        match &mut self {
            Self::AdviceNew(advice) | Self::AdviceChanged(advice) => {
                advice.reasons.truncate(5);
                advice.reasons.iter_mut().for_each(|reason| *reason = bounded(reason));
            }
            Self::Change(change) | Self::Rollback(change) => change.reason = bounded(&change.reason),
            Self::Freeze(freeze) | Self::Unfreeze(freeze) => freeze.reason = bounded(&freeze.reason),
            Self::Lost(_) | Self::BillDifference(_) => {}
        }
        self
    }
}
