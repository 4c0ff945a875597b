//! Reads the recordings of the probe and the runtime, and reduces them to facts that are equal in every run: without
//! identifiers and times.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

/// Fields whose string values are the same in every run. Only these values are compared; other strings are replaced
/// by `"string"`.
const CONSTANT_FIELDS: [&str; 12] = [
    "eventType",
    "shutdownReason",
    "errorType",
    "errorMessage",
    "status",
    "phase",
    "initializationType",
    "name",
    "state",
    "reason",
    "functionName",
    "functionVersion",
];

/// The recordings of one run.
#[derive(Debug)]
pub(crate) struct Observed {
    calls: Vec<(String, Value)>,
    telemetry: Vec<Value>,
    deliveries: BTreeSet<String>,
    answers: Vec<Value>,
}

impl Observed {
    /// Reads the files in the folder `record`.
    pub(crate) fn read(record: &Path, answers: Vec<Value>) -> Observed {
        let lines = |name: &str| -> Vec<Value> {
            let text = fs::read_to_string(record.join(format!("{name}.jsonl"))).unwrap_or_default();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        let mut calls = Vec::new();
        for client in ["extension", "runtime"] {
            calls.extend(lines(client).into_iter().map(|call| (client.to_owned(), call)));
        }
        assert!(!calls.is_empty(), "nothing was recorded in {}", record.display());
        let deliveries = lines("delivery").iter().map(ToString::to_string).collect();
        Observed { calls, telemetry: lines("telemetry"), deliveries, answers }
    }

    /// The facts by name.
    pub(crate) fn facts(&self) -> BTreeMap<String, Value> {
        let mut facts = BTreeMap::new();
        let mut order: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (client, call) in &self.calls {
            let step = call["step"].as_str().unwrap();
            let steps = order.entry(client).or_default();
            // Only the first event of each type is compared.
            let kind = call["body"]["eventType"].as_str().unwrap_or_default();
            steps.push(if kind.is_empty() { step } else { kind });
            let name = format!("{client}: {step} {kind}").trim_end().to_owned();
            facts.entry(name).or_insert_with(|| {
                json!({"status": call["status"], "headers": call["headers"], "body": shape("", &call["body"])})
            });
        }
        for (client, steps) in order {
            facts.insert(format!("{client}: order"), json!(steps));
        }
        for (index, answer) in self.answers.iter().enumerate() {
            facts.insert(format!("caller: answer {}", index + 1), shape("", answer));
        }
        facts.insert("telemetry: deliveries".into(), json!(self.deliveries));
        let kinds = self.telemetry.iter().map(|event| event["type"].as_str().unwrap());
        let platform: Vec<_> = kinds.filter(|kind| kind.starts_with("platform.")).collect();
        facts.insert("telemetry: order of platform events".into(), json!(platform));
        let mut shapes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for event in &self.telemetry {
            let kind = event["type"].as_str().unwrap();
            let mut outer = event.clone();
            outer["record"] = shape("", &event["record"]);
            outer["time"] = shape("time", &event["time"]);
            shapes.entry(format!("telemetry: {kind}")).or_default().insert(outer.to_string());
        }
        for (name, shapes) in shapes {
            let shapes: Vec<Value> = shapes.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
            facts.insert(name, json!(shapes));
        }
        facts
    }
}

/// `value` with numbers and variable strings replaced by their JSON type.
fn shape(key: &str, value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| (key.clone(), shape(key, value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::Array(items) => items.iter().map(|item| shape(key, item)).collect(),
        Value::Number(_) => json!("number"),
        Value::String(text) if CONSTANT_FIELDS.contains(&key) => json!(without_ports(text)),
        // Bare strings are log lines, event kinds and error texts.
        Value::String(text) if ["", "types", "events"].contains(&key) => json!(text),
        Value::String(_) => json!("string"),
        other => other.clone(),
    }
}

/// `text` with each port number replaced by `PORT`.
fn without_ports(text: &str) -> String {
    let mut parts = text.split(':');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|letter: char| letter.is_ascii_digit());
        out.push(':');
        out.push_str(if rest.len() < part.len() { "PORT" } else { "" });
        out.push_str(rest);
    }
    out
}
