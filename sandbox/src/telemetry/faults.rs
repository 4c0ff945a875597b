//! Applies the requested faults to a telemetry batch before it is sent.

use std::time::Duration;

use serde_json::{Value, json};

use super::event::{Event, Record, Schema};
use crate::config::LogFormat;
use crate::faults::Settings;

/// Returns the batch as it is sent: late, without some events, with an unknown event, or in reverse order.
pub(super) async fn apply(settings: &Settings, mut batch: Vec<String>) -> Vec<String> {
    if let Some(delay_ms) = settings.delay_telemetry_ms {
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
    }
    if !settings.lose_telemetry.is_empty() {
        batch.retain(|event| !is_lost(settings, event));
    }
    if settings.unknown_telemetry && !batch.is_empty() {
        let record = Record::Platform(json!({"x": [1, 2, 3]}));
        let event = Event { record, ..Event::platform("platform.somethingNew", Value::Null) };
        batch.push(event.to_json(Schema::V2025_01_29, LogFormat::Text).to_string());
    }
    if settings.reorder_telemetry {
        batch.reverse();
    }
    batch
}

fn is_lost(settings: &Settings, event: &str) -> bool {
    let event: Value = serde_json::from_str(event).unwrap_or_default();
    settings.lose_telemetry.iter().any(|event_type| event["type"] == event_type.as_str())
}
