//! What goes wrong on request.
//!
//! Real Lambda may deliver telemetry twice, late, out of order or not at all, may add event types, and may end an
//! environment without a word. Subscribers that cannot stand that should fail here first.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use crate::telemetry::event::{Category, Event, Record, Schema};

/// Faults to make. None by default.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Faults")]
pub struct Faults {
    /// Deliver every Nth telemetry batch twice.
    #[arg(long = "fault-duplicate-telemetry", value_name = "N")]
    pub duplicate_telemetry: Option<u64>,
    /// Deliver every telemetry batch this many milliseconds late.
    #[arg(long = "fault-delay-telemetry-ms", value_name = "MS")]
    pub delay_telemetry_ms: Option<u64>,
    /// Reverse the events of every telemetry batch.
    #[arg(long = "fault-reorder-telemetry")]
    pub reorder_telemetry: bool,
    /// Lose every telemetry event of this type, for example platform.report; may be repeated.
    #[arg(long = "fault-lose-telemetry", value_name = "TYPE")]
    pub lose_telemetry: Vec<String>,
    /// Add an event of an unknown type to every telemetry batch.
    #[arg(long = "fault-unknown-telemetry")]
    pub unknown_telemetry: bool,
    /// Answer telemetry subscriptions with this status: 202 as AWS's emulator does, 400, 403 or 500.
    #[arg(long = "fault-refuse-subscription", value_name = "STATUS")]
    pub refuse_subscription: Option<u16>,
    /// Release SHUTDOWN this many milliseconds late; the deadline stays.
    #[arg(long = "fault-shutdown-delay-ms", value_name = "MS")]
    pub shutdown_delay_ms: Option<u64>,
    /// Never release SHUTDOWN: extensions are killed at the deadline.
    #[arg(long = "fault-lose-shutdown")]
    pub lose_shutdown: bool,
    /// Busy threads that compete with functions for CPU.
    #[arg(long = "fault-cpu-contention", value_name = "THREADS", default_value_t = 0)]
    pub cpu_contention: usize,
    #[arg(skip)]
    batches: AtomicU64,
}

impl Faults {
    /// Starts what runs in the background, for as long as the process lives.
    pub fn start(&self) {
        for _ in 0..self.cpu_contention {
            std::thread::spawn(|| {
                loop {
                    std::hint::black_box(0);
                }
            });
        }
    }

    /// A batch as it is to be delivered.
    pub async fn spoil(&self, mut batch: Vec<String>) -> Vec<String> {
        if let Some(delay_ms) = self.delay_telemetry_ms {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        }
        if !self.lose_telemetry.is_empty() {
            batch.retain(|event| !self.loses(event));
        }
        if self.unknown_telemetry && !batch.is_empty() {
            let record = Record::Platform(serde_json::json!({"x": [1, 2, 3]}));
            let event = Event { record, ..Event::platform("platform.somethingNew", Value::Null) };
            debug_assert_eq!(event.category, Category::Platform);
            batch.push(event.to_json(Schema::V2025_01_29, crate::config::LogFormat::Text).to_string());
        }
        if self.reorder_telemetry {
            batch.reverse();
        }
        batch
    }

    fn loses(&self, event: &str) -> bool {
        let event: Value = serde_json::from_str(event).unwrap_or_default();
        self.lose_telemetry.iter().any(|kind| event["type"] == kind.as_str())
    }

    /// Whether the batch just delivered is to be delivered again.
    pub fn repeats_batch(&self) -> bool {
        let Some(every) = self.duplicate_telemetry else { return false };
        (self.batches.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(every.max(1))
    }
}
