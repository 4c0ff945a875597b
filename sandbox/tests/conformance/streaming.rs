//! Streamed responses: from the runtime through the platform to the caller.

use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use serde_json::json;

use crate::event_stream::{EventStream, read_head};
use crate::fakes::{FakeRuntime, TestEnvironment, request_id};
use crate::sandbox::{Builder, IDLE_SCRIPT, Sandbox};

const STREAMING: (&str, &str) = ("Lambda-Runtime-Function-Response-Mode", "streaming");

/// A streamed response that the test writes bit by bit.
struct Post(TcpStream);

impl Post {
    fn open(runtime: &FakeRuntime, request_id: &str) -> Post {
        let mut stream = TcpStream::connect(&runtime.api).unwrap();
        stream.set_nodelay(true).unwrap();
        let (name, value) = STREAMING;
        let head = format!(
            "POST /2018-06-01/runtime/invocation/{request_id}/response HTTP/1.1\r\nHost: x\r\n{name}: {value}\r\n\
             Transfer-Encoding: chunked\r\nTrailer: Lambda-Runtime-Function-Error-Type\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        Post(stream)
    }

    fn chunk(&mut self, data: &[u8]) {
        let mut bytes = format!("{:x}\r\n", data.len()).into_bytes();
        bytes.extend(data);
        bytes.extend(b"\r\n");
        self.0.write_all(&bytes).unwrap();
    }

    /// Ends with `trailers`; the status line of the response.
    fn end(mut self, trailers: &str) -> String {
        self.0.write_all(format!("0\r\n{trailers}\r\n").as_bytes()).unwrap();
        read_head(&mut BufReader::new(&mut self.0)).lines().next().unwrap().to_owned()
    }
}

struct Streamed {
    sandbox: Sandbox,
    runtime: FakeRuntime,
    request_id: String,
    events: JoinHandle<EventStream>,
}

/// A function that is invoked with a response stream and has its invocation.
fn invoked(settings: &str, headers: &'static str) -> Streamed {
    let sandbox = Builder::new().function("fn", settings, IDLE_SCRIPT).start();
    let address = sandbox.address.clone();
    let events = thread::spawn(move || EventStream::open(&address, "fn", headers));
    let runtime = FakeRuntime { api: sandbox.api(1) };
    let request_id = request_id(&runtime.next());
    Streamed { sandbox, runtime, request_id, events }
}

/// Parts reach the caller while the function still produces the next ones; times and sizes are reported.
#[test]
fn parts_come_as_they_are_made() {
    let Streamed { sandbox, runtime, request_id, events } = invoked("", "X-Amz-Log-Type: Tail\r\n");
    let mut events = events.join().unwrap();
    thread::sleep(std::time::Duration::from_millis(60));
    let mut post = Post::open(&runtime, &request_id);
    post.chunk(b"one ");
    assert_eq!(events.next(), ("PayloadChunk".into(), b"one ".to_vec()));
    thread::sleep(std::time::Duration::from_millis(80));
    post.chunk(b"two");
    assert_eq!(events.next(), ("PayloadChunk".into(), b"two".to_vec()));
    assert!(post.end("").starts_with("HTTP/1.1 202"));
    let _next = runtime.next_later();
    let (rest, complete) = events.rest();
    assert!(rest.is_empty() && complete.get("ErrorCode").is_none(), "{complete}");
    assert!(complete["LogResult"].is_string());
    let done = sandbox.await_telemetry("platform.runtimeDone", 1);
    assert_eq!((&done["status"], &done["metrics"]["producedBytes"]), (&json!("success"), &json!(7)));
    let span = |name: &str| {
        let spans = done["spans"].as_array().unwrap();
        spans.iter().find(|span| span["name"] == name).unwrap()["durationMs"].as_f64().unwrap()
    };
    assert!(span("responseLatency") >= 60.0 && span("responseDuration") >= 80.0, "{done}");
    assert!(done["metrics"]["durationMs"].as_f64().unwrap() >= 140.0);
}

/// An error in the middle of a response is in the trailers: the caller keeps the parts sent before, and the last event
/// has the error.
#[test]
fn an_error_in_the_middle() {
    let Streamed { sandbox, runtime, request_id, events } = invoked("", "");
    let mut post = Post::open(&runtime, &request_id);
    post.chunk(b"half");
    // {"errorMessage":"boom"} in base64.
    let trailers = "Lambda-Runtime-Function-Error-Type: Function.Boom\r\n\
                    Lambda-Runtime-Function-Error-Body: eyJlcnJvck1lc3NhZ2UiOiJib29tIn0=\r\n";
    assert!(post.end(trailers).starts_with("HTTP/1.1 202"));
    let _next = runtime.next_later();
    let (sent, complete) = events.join().unwrap().rest();
    assert_eq!(sent, b"half");
    assert_eq!(complete, json!({"ErrorCode": "Function.Boom", "ErrorDetails": r#"{"errorMessage":"boom"}"#}));
    let report = sandbox.await_telemetry("platform.report", 1);
    assert_eq!((&report["status"], &report["errorType"]), (&json!("error"), &json!("Function.Boom")));
    assert!(sandbox.events("environment.reset").is_empty());
}

/// A runtime that stops in the middle of its response is Runtime.TruncatedResponse.
#[test]
fn a_truncated_response() {
    let Streamed { sandbox, runtime, request_id, events } = invoked("", "");
    let mut post = Post::open(&runtime, &request_id);
    post.chunk(b"half");
    drop(post);
    let (sent, complete) = events.join().unwrap().rest();
    assert_eq!((&sent[..], &complete["ErrorCode"]), (&b"half"[..], &json!("Runtime.TruncatedResponse")));
    let _next = runtime.next_later();
    assert_eq!(sandbox.await_telemetry("platform.report", 1)["errorType"], "Runtime.TruncatedResponse");
}

/// A timeout in the middle of a response ends the stream immediately with an error.
#[test]
fn a_timeout_in_the_middle() {
    let Streamed { sandbox, runtime, request_id, events } = invoked("timeout_s = 1", "");
    let mut post = Post::open(&runtime, &request_id);
    post.chunk(b"half");
    let (sent, complete) = events.join().unwrap().rest();
    assert_eq!((&sent[..], &complete["ErrorCode"]), (&b"half"[..], &json!("Sandbox.Timedout")));
    assert!(complete["ErrorDetails"].as_str().unwrap().contains("Task timed out after 1.00 seconds"));
    let done = sandbox.await_telemetry("platform.runtimeDone", 1);
    assert_eq!((&done["status"], &done["metrics"]["producedBytes"]), (&json!("timeout"), &json!(4)));
    assert_eq!(sandbox.await_telemetry("platform.report", 1)["status"], "timeout");
}

/// More than 6 MB may be streamed; beyond them at 2 MB a second.
#[test]
fn more_than_six_megabytes() {
    let Streamed { sandbox, runtime, request_id, events } = invoked("", "");
    let started = Instant::now();
    let producer = thread::spawn(move || {
        let mut post = Post::open(&runtime, &request_id);
        for _ in 0..7 {
            post.chunk(&vec![b'x'; 1024 * 1024]);
        }
        (post.end(""), runtime.next_later())
    });
    let (sent, complete) = events.join().unwrap().rest();
    assert_eq!((sent.len(), complete), (7 * 1024 * 1024, json!({})));
    assert!(started.elapsed().as_secs_f64() >= 0.45, "{:?} for 1 MB beyond 6", started.elapsed());
    let (status, _next) = producer.join().unwrap();
    assert!(status.starts_with("HTTP/1.1 202"));
    let done = sandbox.await_telemetry("platform.runtimeDone", 1);
    assert_eq!(done["metrics"]["producedBytes"], 7 * 1024 * 1024);
}

/// A function that does not stream responds to a streaming caller in one chunk; its errors end the stream.
#[test]
fn buffered_responses_to_streaming_callers() {
    let Streamed { sandbox, runtime, request_id: first, events } = invoked("", "");
    runtime.respond(&first, r#"{"a":1}"#);
    let (sent, complete) = events.join().unwrap().rest();
    assert_eq!((&sent[..], complete), (&br#"{"a":1}"#[..], json!({})));
    let next = runtime.next_later();
    sandbox.await_event("environment.freeze", 1);
    let mut events = EventStream::open(&sandbox.address, "fn", "");
    let second = request_id(&next.join().unwrap().unwrap());
    runtime.fail(&second, "Function.Boom", r#"{"errorMessage":"boom"}"#);
    let (sent, complete) = events.rest();
    assert!(sent.is_empty());
    assert_eq!(
        (&complete["ErrorCode"], &complete["ErrorDetails"]),
        (&json!("Function.Boom"), &json!(r#"{"errorMessage":"boom"}"#))
    );
}

/// A streamed response to an ordinary caller is collected, under the ordinary limit; its error is an error.
#[test]
fn streamed_responses_to_buffered_callers() {
    let environment = TestEnvironment::start(&[], "");
    let id = request_id(&environment.runtime.next());
    let mut post = Post::open(&environment.runtime, &id);
    post.chunk(b"[1,");
    post.chunk(b"2]");
    assert!(post.end("").starts_with("HTTP/1.1 202"));
    assert_eq!(environment.caller.join().unwrap().json(), json!([1, 2]));
    let next = environment.runtime.next_later();
    environment.sandbox.await_event("environment.freeze", 1);

    let caller = environment.sandbox.invoke_later("fn", "{}");
    let mut post = Post::open(&environment.runtime, &request_id(&next.join().unwrap().unwrap()));
    post.chunk(&vec![b'x'; 6 * 1024 * 1024]);
    post.chunk(&[b'x'; 101]);
    assert!(post.end("").starts_with("HTTP/1.1 413"));
    assert_eq!(caller.join().unwrap().error_type(), "Function.ResponseSizeTooLarge");
}

/// There is one response mode besides none.
#[test]
fn unknown_response_mode() {
    let environment = TestEnvironment::start(&[], "");
    let path = format!("/2018-06-01/runtime/invocation/{}/response", request_id(&environment.runtime.next()));
    let headers = [("Lambda-Runtime-Function-Response-Mode", "other")];
    let rejected = crate::http::request(&environment.api, "POST", &path, &headers, b"1");
    assert_eq!((rejected.status, rejected.error_type().as_str()), (400, "InvalidFunctionResponseMode"));
    assert_eq!(environment.caller.join().unwrap().error_type(), "Runtime.InvalidResponseModeHeader");
}

/// Rejections come as ordinary errors, before any stream.
#[test]
fn rejections_and_dry_runs() {
    let sandbox = Builder::new().function("fn", "", IDLE_SCRIPT).start();
    let call = |name: &str, kind: &str| {
        let path = format!("/2021-11-15/functions/{name}/response-streaming-invocations");
        crate::http::request(&sandbox.address, "POST", &path, &[("X-Amz-Invocation-Type", kind)], b"{}")
    };
    assert_eq!(
        call("other", "RequestResponse").header("x-amzn-errortype"),
        Some("ResourceNotFoundException")
    );
    assert_eq!(call("fn", "DryRun").status, 204);
    assert_eq!(call("fn", "Event").header("x-amzn-errortype"), Some("InvalidParameterValueException"));
}
