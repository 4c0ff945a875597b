//! The bounded buffer between the platform and one subscriber.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::Notify;

use super::event::Event;
use super::subscription::Subscription;
use crate::config::LogFormat;

/// Bytes kept for a slow subscriber, in multiples of its batch size. Lambda's limit is
/// not documented; its documentation states that a listener should accept two batches at once.
const BATCHES_KEPT: usize = 2;

/// The message of Lambda's `platform.logsDropped` events.
const DROP_REASON: &str =
    "Some logs were dropped because the downstream consumer is slower than the logs production rate";

/// Events waiting for one subscriber, already written in its schema.
pub struct Queue {
    subscription: Subscription,
    format: LogFormat,
    contents: Mutex<Contents>,
    changed: Notify,
}

#[derive(Default)]
struct Contents {
    events: VecDeque<(Instant, String)>,
    bytes: usize,
    dropped_records: u64,
    dropped_bytes: u64,
    flush: bool,
}

impl Queue {
    /// An empty queue.
    pub fn new(subscription: Subscription, format: LogFormat) -> Queue {
        Queue { subscription, format, contents: Mutex::default(), changed: Notify::new() }
    }

    /// Adds `event` if the subscription has its category; drops and counts it when the buffer is full.
    pub fn push(&self, event: &Event) {
        if !self.subscription.categories.contains(&event.category) {
            return;
        }
        let text = event.to_json(self.subscription.schema, self.format).to_string();
        let mut contents = self.lock();
        if contents.bytes + text.len() > BATCHES_KEPT * self.subscription.max_bytes {
            contents.count_dropped(1, text.len());
        } else {
            contents.bytes += text.len();
            contents.events.push_back((Instant::now(), text));
        }
        drop(contents);
        self.changed.notify_one();
    }

    /// Counts events that could not be delivered.
    pub fn count_dropped(&self, batch: &[String]) {
        self.lock().count_dropped(batch.len() as u64, batch.iter().map(String::len).sum());
    }

    /// The environment shuts down: from now on batches are sent before they are full.
    pub fn flush(&self) {
        self.lock().flush = true;
        self.changed.notify_one();
    }

    /// Whether no event waits.
    pub fn is_empty(&self) -> bool {
        self.lock().events.is_empty()
    }

    /// Waits until a batch is due by items, bytes, age or flush, and takes it. If events were dropped, the
    /// batch ends with a `platform.logsDropped`.
    pub async fn next_batch(&self) -> Vec<String> {
        loop {
            let wait = match self.lock().due(&self.subscription) {
                Ok(batch) => return batch,
                Err(wait) => wait,
            };
            match wait {
                Some(wait) => {
                    let _ = tokio::time::timeout(wait, self.changed.notified()).await;
                }
                None => self.changed.notified().await,
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contents {
    fn count_dropped(&mut self, records: u64, bytes: usize) {
        self.dropped_records += records;
        self.dropped_bytes += bytes as u64;
    }

    /// A due batch, or how long until the oldest event makes one due.
    fn due(&mut self, subscription: &Subscription) -> Result<Vec<String>, Option<Duration>> {
        let Some((oldest, _)) = self.events.front() else { return Err(None) };
        let age = oldest.elapsed();
        let full = self.events.len() >= subscription.max_items || self.bytes >= subscription.max_bytes;
        if !full && !self.flush && age < subscription.timeout {
            return Err(Some(subscription.timeout - age));
        }
        let mut batch = Vec::new();
        let mut batch_bytes = 0;
        while batch.len() < subscription.max_items {
            match self.events.front() {
                Some((_, text)) if batch.is_empty() || batch_bytes + text.len() <= subscription.max_bytes => {
                    batch_bytes += text.len();
                }
                _ => break,
            }
            batch.extend(self.events.pop_front().map(|(_, text)| text));
        }
        self.bytes -= batch_bytes;
        if self.dropped_records > 0 {
            let record = json!({"droppedBytes": self.dropped_bytes, "droppedRecords": self.dropped_records, "reason": DROP_REASON});
            let event = Event::platform("platform.logsDropped", record);
            batch.push(event.to_json(subscription.schema, LogFormat::Text).to_string());
            (self.dropped_records, self.dropped_bytes) = (0, 0);
        }
        Ok(batch)
    }
}

/// A queue shared by the platform, which fills it, and its delivery task.
pub type SharedQueue = Arc<Queue>;

#[cfg(test)]
mod tests {
    use super::super::event::{Category, Schema};
    use super::super::subscription::Destination;
    use super::*;

    fn queue(timeout: Duration) -> Queue {
        let subscription = Subscription {
            schema: Schema::V2025_01_29,
            categories: vec![Category::Function],
            max_items: 1000,
            max_bytes: 262_144,
            timeout,
            destination: Destination::Tcp { port: 1 },
        };
        Queue::new(subscription, LogFormat::Text)
    }

    #[tokio::test]
    async fn a_batch_is_due_by_items_before_its_time() {
        let queue = queue(Duration::from_secs(30));
        for number in 0..1001 {
            queue.push(&Event::line(Category::Function, number.to_string()));
        }
        assert_eq!(queue.next_batch().await.len(), 1000);
        assert!(!queue.is_empty());
    }

    #[tokio::test]
    async fn a_batch_is_due_by_age_and_by_flush() {
        let queue = queue(Duration::from_millis(25));
        queue.push(&Event::line(Category::Function, "x".into()));
        assert_eq!(queue.next_batch().await.len(), 1);
        let queue = self::queue(Duration::from_secs(30));
        queue.push(&Event::line(Category::Function, "x".into()));
        queue.flush();
        assert_eq!(queue.next_batch().await.len(), 1);
    }

    #[tokio::test]
    async fn events_beyond_the_limit_are_dropped_and_reported() {
        let queue = queue(Duration::from_secs(30));
        for _ in 0..7 {
            queue.push(&Event::line(Category::Function, "x".repeat(100_000)));
        }
        let mut events = queue.next_batch().await;
        let last: serde_json::Value = serde_json::from_str(&events.pop().unwrap()).unwrap();
        assert_eq!(last["type"], "platform.logsDropped");
        assert_eq!(last["record"]["droppedRecords"], 2);
    }

    #[tokio::test]
    async fn only_subscribed_events_are_kept() {
        let queue = queue(Duration::from_secs(30));
        queue.push(&Event::platform("platform.start", json!({})));
        assert!(queue.is_empty());
    }
}
