//! The trace: every event of the sandbox, one JSON object per line, for tests and benchmarks.
//!
//! Each line has `time` (wall clock, microseconds since the epoch), `uptime_us` (monotonic, since the trace was
//! opened), `event` and the fields of that event. Lines are written whole and in order.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

/// Where trace lines go; cheap to clone. A disabled trace costs one branch.
#[derive(Clone)]
pub struct Trace {
    sink: Option<Arc<Mutex<File>>>,
    opened: Instant,
}

impl Trace {
    /// A trace that writes nothing.
    pub fn disabled() -> Trace {
        Trace { sink: None, opened: Instant::now() }
    }

    /// Truncates or creates `path` and writes to it.
    pub fn to_file(path: &Path) -> io::Result<Trace> {
        Ok(Trace { sink: Some(Arc::new(Mutex::new(File::create(path)?))), opened: Instant::now() })
    }

    /// Writes one line. `fields` must be a JSON object; anything else is kept under `value`.
    pub fn event(&self, event: &str, fields: Value) {
        let Some(sink) = &self.sink else { return };
        let mut line = Map::new();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        line.insert("time".into(), micros(wall.as_micros()));
        line.insert("uptime_us".into(), micros(self.opened.elapsed().as_micros()));
        line.insert("event".into(), event.into());
        match fields {
            Value::Object(fields) => line.extend(fields),
            Value::Null => {}
            other => {
                line.insert("value".into(), other);
            }
        }
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        // A trace that cannot be written (disk full) must not stop the functions it observes.
        let _ = sink.lock().unwrap_or_else(PoisonError::into_inner).write_all(text.as_bytes());
    }
}

fn micros(value: u128) -> Value {
    u64::try_from(value).unwrap_or(u64::MAX).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_line_is_one_object_with_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trace.jsonl");
        let trace = Trace::to_file(&path).unwrap();
        trace.event("one", json!({"a": 1}));
        trace.event("two", Value::Null);
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["event"], "one");
        assert_eq!(lines[0]["a"], 1);
        assert!(lines[1]["uptime_us"].as_u64() >= lines[0]["uptime_us"].as_u64());
    }
}
