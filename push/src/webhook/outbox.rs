//! The queue of events and what is known of earlier ones, as one document: an event and the knowledge that it was made are
//! written together, so that a crash neither loses nor repeats it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Event, KnownAdvice, LossState};

/// Most events that wait. With more, the oldest are dropped and counted.
pub const MAX_QUEUED: usize = 500;

/// How long an event is tried, microseconds.
pub const MAX_EVENT_AGE_US: u64 = 24 * 3_600_000_000;

/// Events about recommendations in an hour.
const ADVICE_PER_HOUR: u32 = 20;

/// How long ids of events about changes are kept, microseconds: the clocks of collectors may differ.
const OVERLAP_US: u64 = 3_600_000_000;

const HOUR_US: u64 = 3_600_000_000;

/// The version of the document.
const VERSION: u32 = 1;

/// An event that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    /// Its id.
    pub id: String,
    /// When it was put into the queue, microseconds since the Unix epoch: what it is about can be much older.
    pub queued_at_us: u64,
    /// Its JSON.
    pub json: String,
    /// The message for Slack.
    pub slack: String,
    /// Attempts that failed.
    #[serde(default)]
    pub failures: u32,
    /// When it may be tried, microseconds since the Unix epoch.
    #[serde(default)]
    pub not_before_us: u64,
}

/// The document.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Outbox {
    version: u32,
    /// Whether what existed when the webhook was set is known.
    pub has_baseline: bool,
    /// The recommendations that were sent, by function.
    pub advice: BTreeMap<String, KnownAdvice>,
    /// Losses.
    pub losses: LossState,
    /// The comparison with the bill that is known, microseconds since the Unix epoch.
    pub bill_at_us: u64,
    /// The latest change that is known, microseconds since the Unix epoch.
    changes_at_us: u64,
    /// The latest steps, with their times.
    recent_changes: BTreeSet<(u64, String)>,
    /// The hour of the latest event about a recommendation, and their number in it.
    advice_hour: (u64, u32),
    queue: VecDeque<Queued>,
}

/// Why a document cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutboxError {
    /// A newer program wrote it.
    #[error("it has version {0}, and this program reads version {VERSION}: use a newer `tailor`")]
    Newer(u32),
    /// It is damaged.
    #[error("it cannot be read: {0}")]
    Damaged(String),
}

/// What the response to an event means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// The receiver has the event.
    Accepted,
    /// The receiver cannot take events now: all wait.
    ReceiverFailed {
        /// The pause that it requests.
        after: Option<Duration>,
    },
    /// The receiver does not take this event: only this one waits.
    EventRejected,
}

/// Reads the response of a receiver; `None` without a response.
#[must_use]
pub fn attempt(status: Option<u16>, retry_after: Option<&str>) -> Attempt {
    match status {
        Some(200..=299) => Attempt::Accepted,
        None | Some(408 | 425 | 429 | 500..=599) => {
            Attempt::ReceiverFailed { after: retry_after.and_then(crate::backoff::retry_after) }
        }
        Some(_) => Attempt::EventRejected,
    }
}

impl Outbox {
    /// Reads a document.
    ///
    /// # Errors
    /// It is damaged, or a newer program wrote it.
    pub fn parse(text: &str) -> Result<Self, OutboxError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let damaged = |error: serde_json::Error| OutboxError::Damaged(error.to_string());
        let Version { version } = serde_json::from_str(text).map_err(damaged)?;
        if version > VERSION {
            return Err(OutboxError::Newer(version));
        }
        serde_json::from_str(text).map_err(damaged)
    }

    /// The document as text.
    ///
    /// # Errors
    /// Never for these types; the error of the serializer.
    pub fn text(&mut self) -> serde_json::Result<String> {
        self.version = VERSION;
        serde_json::to_string(self)
    }

    /// Adds an event. Returns the number of events that were dropped for it.
    ///
    /// # Errors
    /// The error of the serializer.
    pub fn push(&mut self, event: &Event, now_us: u64) -> serde_json::Result<u64> {
        if self.queue.iter().any(|queued| queued.id == event.id) {
            return Ok(0);
        }
        let (json, slack) = (event.json()?, event.slack());
        let (id, queued_at_us) = (event.id.clone(), now_us);
        self.queue.push_back(Queued { id, queued_at_us, json, slack, failures: 0, not_before_us: 0 });
        let mut dropped = 0;
        while self.queue.len() > MAX_QUEUED {
            self.queue.pop_front();
            dropped += 1;
        }
        Ok(dropped)
    }

    /// Number of events that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether no event waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Removes the events that are too old to be tried again. Returns their number.
    pub fn expire(&mut self, now_us: u64) -> u64 {
        let before = self.queue.len();
        self.queue.retain(|queued| now_us < queued.queued_at_us.saturating_add(MAX_EVENT_AGE_US));
        (before - self.queue.len()) as u64
    }

    /// The oldest event that may be tried now.
    #[must_use]
    pub fn due(&self, now_us: u64) -> Option<&Queued> {
        self.queue.iter().find(|queued| queued.not_before_us <= now_us)
    }

    /// A receiver has an event.
    pub fn accepted(&mut self, id: &str) {
        self.queue.retain(|queued| queued.id != id);
    }

    /// A receiver does not take an event: it waits, longer each time.
    pub fn rejected(&mut self, id: &str, now_us: u64, random: u32) {
        if let Some(queued) = self.queue.iter_mut().find(|queued| queued.id == id) {
            queued.failures = queued.failures.saturating_add(1);
            let pause = crate::backoff::pause(queued.failures, None, random).as_micros();
            queued.not_before_us = now_us.saturating_add(u64::try_from(pause).unwrap_or(u64::MAX));
        }
    }

    /// Whether one more event about a recommendation may be made in this hour. It counts as made.
    pub fn may_advise(&mut self, now_us: u64) -> bool {
        let hour = now_us / HOUR_US;
        if self.advice_hour.0 != hour {
            self.advice_hour = (hour, 0);
        }
        let may = self.advice_hour.1 < ADVICE_PER_HOUR;
        self.advice_hour.1 += u32::from(may);
        may
    }

    /// Whether a step of the change log is new. It is known afterwards.
    pub fn is_new_change(&mut self, at_us: u64, id: &str) -> bool {
        let oldest = self.changes_at_us.saturating_sub(OVERLAP_US);
        let is_new = at_us >= oldest && self.recent_changes.insert((at_us, id.to_owned()));
        self.changes_at_us = self.changes_at_us.max(at_us);
        is_new
    }

    /// Removes the steps that are older than the overlap. It is called after the whole log was read.
    pub fn remove_old_changes(&mut self) {
        let oldest = self.changes_at_us.saturating_sub(OVERLAP_US);
        self.recent_changes.retain(|(at_us, _)| *at_us >= oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::{Content, Freeze};

    fn event(number: u64) -> Event {
        let content = Content::Freeze(Freeze { reason: "x".to_owned() });
        Event::new("default", number, &[&number.to_string()], content)
    }

    #[test]
    fn the_queue_is_bounded_and_survives_as_text() {
        let mut outbox = Outbox::default();
        let dropped: u64 = (0..510).map(|number| outbox.push(&event(number), number).unwrap()).sum();
        assert_eq!((outbox.len(), dropped), (MAX_QUEUED, 10));
        assert_eq!(outbox.push(&event(509), 509).unwrap(), 0, "the same event waits once");
        assert_eq!(outbox.due(0).unwrap().id, event(10).id);
        let text = outbox.text().unwrap();
        assert_eq!(Outbox::parse(&text).unwrap(), outbox);
        assert_eq!(
            Outbox::parse(&text.replacen("\"version\":1", "\"version\":2", 1)),
            Err(OutboxError::Newer(2))
        );
        assert!(matches!(Outbox::parse("{"), Err(OutboxError::Damaged(_))));
        outbox.accepted(&event(10).id);
        outbox.rejected(&event(11).id, 1_000, 0);
        assert_eq!(outbox.due(1_000).unwrap().id, event(12).id, "others do not wait for a rejected one");
        assert_eq!(outbox.due(1_001_000).unwrap().id, event(11).id);
        assert_eq!(outbox.expire(MAX_EVENT_AGE_US + 100), 101 - 11);
        assert_eq!(outbox.len(), 500 - 1 - 90);
    }

    #[test]
    fn each_step_of_a_change_is_new_once() {
        let mut outbox = Outbox::default();
        let hour = OVERLAP_US;
        assert!(outbox.is_new_change(5 * hour, "a") && !outbox.is_new_change(5 * hour, "a"));
        // A collector with a slow clock, and what is older than all differences of clocks.
        assert!(outbox.is_new_change(4 * hour, "b") && !outbox.is_new_change(hour, "c"));
        assert!(outbox.is_new_change(9 * hour, "d"));
        outbox.remove_old_changes();
        assert!(!outbox.is_new_change(5 * hour, "a") && !outbox.is_new_change(9 * hour, "d"));
        assert_eq!(outbox.recent_changes.len(), 1);
    }

    #[test]
    fn events_about_recommendations_are_limited() {
        let mut outbox = Outbox::default();
        assert_eq!((0..100).filter(|_| outbox.may_advise(5)).count(), 20);
        assert!(outbox.may_advise(HOUR_US));
    }

    #[test]
    fn responses_of_receivers_are_classified() {
        assert_eq!(attempt(Some(204), None), Attempt::Accepted);
        let after = Some(Duration::from_secs(9));
        assert_eq!(attempt(Some(429), Some("9")), Attempt::ReceiverFailed { after });
        for status in [None, Some(408), Some(500), Some(503)] {
            assert_eq!(attempt(status, None), Attempt::ReceiverFailed { after: None }, "{status:?}");
        }
        for status in [301, 400, 401, 404, 410] {
            assert_eq!(attempt(Some(status), None), Attempt::EventRejected, "{status}");
        }
    }
}
