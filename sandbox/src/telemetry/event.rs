//! One telemetry event, and how each schema version writes it.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::LogFormat;
use crate::time::{iso_ms, now};

/// Kinds of events that a subscription can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Category {
    /// Events the platform makes.
    Platform,
    /// Lines the runtime and handler write.
    Function,
    /// Lines extensions write.
    Extension,
}

/// `schemaVersion` of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Schema {
    /// First version: log records are always strings.
    #[serde(rename = "2022-07-01")]
    V2022_07_01,
    /// JSON logs are delivered as objects.
    #[serde(rename = "2022-12-13")]
    V2022_12_13,
    /// The version managed instances require.
    #[serde(rename = "2025-01-29")]
    V2025_01_29,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Record {
    /// The record of a platform event.
    Platform(Value),
    /// One line of output, without its newline.
    Line(String),
}

/// An event and when the platform made it.
#[derive(Clone, Debug)]
pub struct Event {
    /// When.
    pub time: SystemTime,
    /// Decides who gets it.
    pub category: Category,
    /// `type` on the wire, for example `platform.start`.
    pub kind: String,
    /// `record` on the wire.
    pub record: Record,
}

impl Event {
    /// An event of the platform, now.
    pub fn platform(kind: &str, record: Value) -> Event {
        Event {
            time: now(),
            category: Category::Platform,
            kind: kind.to_owned(),
            record: Record::Platform(record),
        }
    }

    /// A line of output, now.
    pub fn line(category: Category, line: String) -> Event {
        let kind = if category == Category::Extension { "extension" } else { "function" };
        Event { time: now(), category, kind: kind.to_owned(), record: Record::Line(line) }
    }

    /// As a subscriber with `schema` reads it, when the function logs in `format`.
    pub fn to_json(&self, schema: Schema, format: LogFormat) -> Value {
        let record = match &self.record {
            Record::Platform(record) => record.clone(),
            Record::Line(line) if schema >= Schema::V2022_12_13 && format == LogFormat::Json => {
                // Output such as a crash message is not JSON even where JSON is configured: it stays a string, without
                // the newline that it has as text (compared with AWS's emulator).
                match serde_json::from_str::<Value>(line) {
                    Ok(object @ Value::Object(_)) => object,
                    _ => Value::String(line.clone()),
                }
            }
            Record::Line(line) => Value::String(format!("{line}\n")),
        };
        json!({"time": iso_ms(self.time), "type": self.kind, "record": record})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_lines_are_objects_from_the_second_schema_on() {
        let event = Event::line(Category::Function, r#"{"level":"INFO"}"#.into());
        let record = |schema, format| event.to_json(schema, format)["record"].clone();
        assert!(record(Schema::V2022_07_01, LogFormat::Json).is_string());
        assert!(record(Schema::V2022_12_13, LogFormat::Json).is_object());
        assert!(record(Schema::V2025_01_29, LogFormat::Text).is_string());
        let crash = Event::line(Category::Function, "Segmentation fault".into());
        assert!(crash.to_json(Schema::V2025_01_29, LogFormat::Json)["record"].is_string());
    }
}
