//! Streamed responses of AWS's own runtime interface client for Node.js.

use serde_json::Value;

use crate::event_stream::EventStream;
use crate::{prepare, start};

/// Parts come as the handler writes them; what it throws in the middle ends the stream with its error.
#[test]
fn node() {
    let prepared = match prepare::node() {
        Ok(prepared) => prepared,
        Err(reason) => {
            crate::sandbox::skip(&format!("node streaming: {reason}"));
            return;
        }
    };
    let sandbox = start(&prepared, "app.stream", "memory_mb = 512\ntimeout_s = 10");
    let (sent, complete) = EventStream::open(&sandbox.address, "fn", "").rest();
    assert_eq!(String::from_utf8_lossy(&sent), "one two three");
    assert!(complete.get("ErrorCode").is_none(), "{complete}");
    let done = sandbox.await_telemetry("platform.runtimeDone", 1);
    assert_eq!(done["metrics"]["producedBytes"], 13);
    let spans = done["spans"].as_array().unwrap();
    let responding = spans.iter().find(|span| span["name"] == "responseDuration").unwrap();
    assert!(responding["durationMs"].as_f64().unwrap() >= 40.0, "{done}");

    sandbox.await_telemetry("platform.report", 1);
    let (sent, complete) = EventStream::with_event(&sandbox.address, "fn", r#"{"do":"fail"}"#, "").rest();
    assert_eq!(String::from_utf8_lossy(&sent), "one two three");
    let details: Value = serde_json::from_str(complete["ErrorDetails"].as_str().unwrap()).unwrap();
    assert_eq!((&details["errorType"], &details["errorMessage"]), (&"RangeError".into(), &"boom".into()));
    assert_eq!(sandbox.await_telemetry("platform.report", 2)["status"], "error");
}
