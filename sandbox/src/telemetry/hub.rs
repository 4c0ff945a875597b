//! One environment's telemetry: its events, their history during Init, and its subscribers.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::delivery;
use super::event::{Event, Record};
use super::queue::{Queue, SharedQueue};
use super::subscription::Subscription;
use crate::config::LogFormat;
use crate::faults::Faults;
use crate::network::Loopback;
use crate::time::iso_ms;
use crate::trace::Trace;

/// Distributes the events of one environment.
pub struct Hub {
    environment: String,
    format: LogFormat,
    trace: Trace,
    faults: Arc<Faults>,
    loopback: Arc<Loopback>,
    running: watch::Sender<bool>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Events since Init began, for subscribers during Init; `None` when subscriptions are closed.
    history: Option<Vec<Event>>,
    subscribers: Vec<Subscriber>,
}

struct Subscriber {
    name: String,
    queue: SharedQueue,
    task: JoinHandle<()>,
}

impl Hub {
    /// A hub without subscribers, running.
    pub fn new(
        environment: &str,
        format: LogFormat,
        trace: Trace,
        faults: Arc<Faults>,
        loopback: Arc<Loopback>,
    ) -> Hub {
        let (running, _) = watch::channel(true);
        let environment = environment.to_owned();
        Hub { environment, format, trace, faults, loopback, running, state: Mutex::default() }
    }

    /// Init begins: removes all subscriptions, and keeps the events from now on for replay.
    pub fn open(&self) {
        let mut state = self.lock();
        for subscriber in state.subscribers.drain(..) {
            subscriber.task.abort();
        }
        state.history = Some(Vec::new());
    }

    /// No further subscriptions: Init is over.
    pub fn close(&self) {
        self.lock().history = None;
    }

    /// Adds a subscriber, which first gets everything since Init began. `false` if it has subscribed before.
    pub fn subscribe(&self, name: &str, subscription: Subscription) -> bool {
        let types = json!(subscription.categories);
        let destination = subscription.destination.clone();
        let mut state = self.lock();
        if state.subscribers.iter().any(|subscriber| subscriber.name == name) {
            return false;
        }
        let queue = Arc::new(Queue::new(subscription, self.format));
        for event in state.history.iter().flatten() {
            queue.push(event);
        }
        let task = tokio::spawn(delivery::run(
            queue.clone(),
            destination,
            self.loopback.clone(),
            self.running.subscribe(),
            self.faults.clone(),
        ));
        state.subscribers.push(Subscriber { name: name.to_owned(), queue, task });
        drop(state);
        let record = json!({"name": name, "state": "Subscribed", "types": types});
        self.platform("platform.telemetrySubscription", record);
        true
    }

    /// Emits a platform event.
    pub fn platform(&self, kind: &str, record: Value) {
        self.emit(Event::platform(kind, record));
    }

    /// Emits any event.
    pub fn emit(&self, event: Event) {
        let (kind, time) = (&event.kind, iso_ms(event.time));
        let record = match &event.record {
            Record::Platform(record) => record.clone(),
            Record::Line(line) => line.clone().into(),
        };
        let line = json!({"environment": self.environment, "type": kind, "at": time, "record": record});
        self.trace.event("telemetry", line);
        let mut state = self.lock();
        for subscriber in &state.subscribers {
            subscriber.queue.push(&event);
        }
        if let Some(history) = &mut state.history {
            history.push(event);
        }
    }

    /// Stops or resumes deliveries, with the freezer.
    pub fn set_running(&self, running: bool) {
        self.running.send_replace(running);
    }

    /// The environment shuts down: sends waiting events without waiting for a full batch.
    pub fn flush(&self) {
        for subscriber in &self.lock().subscribers {
            subscriber.queue.flush();
        }
    }

    /// Ends all deliveries.
    pub fn end(&self) {
        for subscriber in self.lock().subscribers.drain(..) {
            subscriber.task.abort();
        }
    }

    /// Waits until nothing is queued, at most `timeout`.
    pub async fn drained(&self, timeout: Duration) {
        let deadline = tokio::time::Instant::now() + timeout;
        while tokio::time::Instant::now() < deadline {
            if self.lock().subscribers.iter().all(|subscriber| subscriber.queue.is_empty()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
