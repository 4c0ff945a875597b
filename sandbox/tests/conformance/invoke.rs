//! One invocation: who gets it, what it waits for, its result, and its failures.

use serde_json::json;

use crate::fakes::{FakeExtension, TestEnvironment, request_id};
use crate::sandbox::Builder;

/// The runtime gets the event and the documented headers.
#[test]
fn runtime_headers() {
    let environment = TestEnvironment::start(&[], "timeout_s = 5");
    let invocation = environment.runtime.next();
    assert_eq!(invocation.status, 200);
    assert_eq!(invocation.json(), json!({"n": 1}));
    assert!(uuid::Uuid::parse_str(&request_id(&invocation)).is_ok());
    let arn = invocation.header("Lambda-Runtime-Invoked-Function-Arn").unwrap();
    assert_eq!(arn, "arn:aws:lambda:us-east-1:123456789012:function:fn");
    assert!(invocation.header("Lambda-Runtime-Trace-Id").unwrap().starts_with("Root=1-"));
    assert!(invocation.header("Lambda-Runtime-Deadline-Ms").unwrap().parse::<u64>().is_ok());
}

/// The caller gets the response immediately; runtimeDone comes with the runtime's next call; the report and the freeze
/// only when every INVOKE extension has requested its next event.
#[test]
fn an_extension_delays_the_report_but_not_the_response() {
    let (environment, extension) = TestEnvironment::with_extension("timeout_s = 30");
    let event = extension.next_later();
    let invocation = environment.runtime.next();
    event.join().unwrap().unwrap();
    let accepted = environment.runtime.respond(&request_id(&invocation), r#"{"answer":42}"#);
    assert_eq!((accepted.status, accepted.json()), (202, json!({"status": "OK"})));
    let response = environment.caller.join().unwrap();
    assert_eq!(response.json(), json!({"answer": 42}));
    assert_eq!(response.header("x-amz-executed-version"), Some("$LATEST"));
    assert!(response.header("x-amz-function-error").is_none());
    assert!(environment.sandbox.telemetry("platform.runtimeDone").is_empty());

    let _next = environment.runtime.next_later();
    let done = environment.sandbox.await_telemetry("platform.runtimeDone", 1);
    assert_eq!(done["status"], "success");
    assert_eq!(done["metrics"]["producedBytes"], 13);
    let spans: Vec<_> = done["spans"].as_array().unwrap().iter().map(|span| span["name"].clone()).collect();
    assert_eq!(spans, ["responseLatency", "responseDuration", "runtimeOverhead"]);
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(environment.sandbox.telemetry("platform.report").is_empty());
    assert!(environment.sandbox.events("environment.freeze").is_empty());

    let _idle = extension.next_later();
    let report = environment.sandbox.await_telemetry("platform.report", 1);
    let metrics = &report["metrics"];
    let duration = metrics["durationMs"].as_f64().unwrap();
    let init = metrics["initDurationMs"].as_f64().unwrap();
    assert!(duration >= done["metrics"]["durationMs"].as_f64().unwrap() + 50.0);
    assert_eq!(report["spans"][0]["name"], "extensionOverhead");
    assert!(report["spans"][0]["durationMs"].as_f64().unwrap() >= 50.0);
    // Both are rounded to the microsecond, so the bill may differ from their sum's by one.
    let billed = metrics["billedDurationMs"].as_u64().unwrap();
    let expected = (duration + init).ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive milliseconds")]
    let expected = expected as u64;
    assert!(billed.abs_diff(expected) <= 1, "{billed} billed for {duration} + {init}");
    assert_eq!(metrics["memorySizeMB"], 128);
    environment.sandbox.await_event("environment.freeze", 1);
}

/// Extensions that are not registered for INVOKE are not awaited.
#[test]
fn shutdown_only_extensions_are_not_awaited() {
    let environment = TestEnvironment::start(&["a"], "");
    let extension = FakeExtension::register(&environment.api, "a", &["SHUTDOWN"]);
    let _event = extension.next_later();
    let invocation = environment.runtime.next();
    environment.runtime.respond(&request_id(&invocation), "1");
    let _next = environment.runtime.next_later();
    let report = environment.sandbox.await_telemetry("platform.report", 1);
    assert!(report.get("spans").is_none());
}

/// initDurationMs is in the first report only; a warm invocation is billed its duration rounded up.
#[test]
fn warm_reports() {
    let environment = TestEnvironment::start(&[], "");
    let mut invocation = environment.runtime.next();
    for number in 1..=3_usize {
        environment.runtime.respond(&request_id(&invocation), "1");
        let next = environment.runtime.next_later();
        let report = environment.sandbox.await_telemetry("platform.report", number);
        assert_eq!(report["metrics"].get("initDurationMs").is_some(), number == 1);
        if number < 3 {
            environment.sandbox.invoke_later("fn", "{}");
            invocation = next.join().unwrap().unwrap();
        }
    }
    let report = &environment.sandbox.telemetry("platform.report")[2];
    let duration = report["metrics"]["durationMs"].as_f64().unwrap();
    let billed = report["metrics"]["billedDurationMs"].as_f64().unwrap();
    assert!(billed >= duration && billed < duration + 1.001);
}

/// A handler's own error is a response: status error, environment kept.
#[test]
fn function_error() {
    let environment = TestEnvironment::start(&[], "");
    let invocation = environment.runtime.next();
    let body = r#"{"errorMessage":"boom","errorType":"ValueError"}"#;
    let accepted = environment.runtime.fail(&request_id(&invocation), "Function.Boom", body);
    assert_eq!(accepted.status, 202);
    let response = environment.caller.join().unwrap();
    assert_eq!(response.status, 200);
    assert_eq!(response.header("x-amz-function-error"), Some("Unhandled"));
    assert_eq!(response.json()["errorType"], "ValueError");
    let _next = environment.runtime.next_later();
    let report = environment.sandbox.await_telemetry("platform.report", 1);
    assert_eq!((&report["status"], &report["errorType"]), (&json!("error"), &json!("Function.Boom")));
    assert!(environment.sandbox.events("environment.reset").is_empty());
}

/// Responses for other invocations, and second responses, are rejected.
#[test]
fn wrong_request_ids() {
    let environment = TestEnvironment::start(&[], "");
    let invocation = environment.runtime.next();
    let wrong = environment.runtime.respond("no-such-id", "1");
    assert_eq!((wrong.status, wrong.error_type().as_str()), (400, "InvalidRequestID"));
    let id = request_id(&invocation);
    assert_eq!(environment.runtime.respond(&id, "1").status, 202);
    let second = environment.runtime.respond(&id, "2");
    assert_eq!((second.status, second.error_type().as_str()), (403, "InvalidStateTransition"));
    assert_eq!(environment.caller.join().unwrap().json(), json!(1));
}

/// A runtime may not request the next invocation before it has responded.
#[test]
fn next_before_response() {
    let environment = TestEnvironment::start(&[], "");
    let _invocation = environment.runtime.next();
    let early = environment.runtime.next();
    assert_eq!((early.status, early.error_type().as_str()), (403, "InvalidStateTransition"));
}

/// A response above 6 MiB and 100 bytes is rejected, and the caller gets an error.
#[test]
fn response_too_large() {
    let environment = TestEnvironment::start(&[], "");
    let invocation = environment.runtime.next();
    let body = "x".repeat(6 * 1024 * 1024 + 101);
    let rejected = environment.runtime.respond(&request_id(&invocation), &body);
    assert_eq!((rejected.status, rejected.error_type().as_str()), (413, "RequestEntityTooLarge"));
    let response = environment.caller.join().unwrap();
    assert_eq!(response.error_type(), "Function.ResponseSizeTooLarge");
}

/// The timeout responds to the caller, ends the environment's processes and is billed as configured.
#[test]
fn timeout() {
    let (environment, extension) = TestEnvironment::with_extension("timeout_s = 1");
    let event = extension.next_later();
    let _invocation = environment.runtime.next();
    event.join().unwrap().unwrap();
    let shutdown = extension.next_later();
    let response = environment.caller.join().unwrap();
    assert_eq!(response.error_type(), "Sandbox.Timedout");
    let message = response.json()["errorMessage"].as_str().unwrap().to_owned();
    assert!(message.ends_with("Error: Task timed out after 1.00 seconds"), "{message}");
    assert_eq!(shutdown.join().unwrap().unwrap()["shutdownReason"], "timeout");
    assert_eq!(environment.sandbox.await_telemetry("platform.runtimeDone", 1)["status"], "timeout");
    let report = environment.sandbox.await_telemetry("platform.report", 1);
    assert_eq!(report["status"], "timeout");
    let init = report["metrics"]["initDurationMs"].as_f64().unwrap();
    let billed = report["metrics"]["billedDurationMs"].as_f64().unwrap();
    assert_eq!(report["metrics"]["durationMs"], 1000.0);
    assert!((billed - 1000.0 - init).abs() <= 1.0);
}

/// An extension that never requests its next event turns an invocation with a response into a timeout.
#[test]
fn stuck_extension() {
    let (environment, extension) = TestEnvironment::with_extension("timeout_s = 1");
    let event = extension.next_later();
    let invocation = environment.runtime.next();
    event.join().unwrap().unwrap();
    environment.runtime.respond(&request_id(&invocation), "1");
    assert_eq!(environment.caller.join().unwrap().json(), json!(1), "the caller has its response");
    let _next = environment.runtime.next_later();
    assert_eq!(environment.sandbox.await_telemetry("platform.runtimeDone", 1)["status"], "success");
    assert_eq!(environment.sandbox.await_telemetry("platform.report", 1)["status"], "timeout");
    environment.sandbox.await_event("environment.reset", 1);
}

/// A runtime that exits fails the invocation; the next one starts fresh processes in the same environment.
#[test]
fn runtime_exit() {
    let script = "#!/bin/sh\nsleep 1\nexit 3\n";
    let sandbox = Builder::new().function("fn", "", script).start();
    let caller = sandbox.invoke_later("fn", "{}");
    let runtime = crate::fakes::FakeRuntime { api: sandbox.api(1) };
    let _invocation = runtime.next();
    let response = caller.join().unwrap();
    assert_eq!(response.error_type(), "Runtime.ExitError");
    assert!(response.json()["errorMessage"].as_str().unwrap().contains("exit status 3"));
    let done = sandbox.await_telemetry("platform.runtimeDone", 1);
    assert_eq!((&done["status"], &done["errorType"]), (&json!("error"), &json!("Runtime.ExitError")));
    sandbox.invoke_later("fn", "{}");
    sandbox.await_event("runtime.spawn", 2);
    assert_eq!(sandbox.events("environment.start").len(), 1, "same environment");
    assert_eq!(sandbox.telemetry("platform.initStart")[1]["phase"], "invoke");
}

/// An extension that exits, with whatever code, is Extension.Crash and fails the invocation.
#[test]
fn extension_exit() {
    for code in [0, 1] {
        let script = format!("#!/bin/sh\nsleep 1\nexit {code}\n");
        let sandbox =
            Builder::new().function("fn", "", crate::sandbox::IDLE_SCRIPT).extension("a", &script).start();
        let caller = sandbox.invoke_later("fn", "{}");
        let api = sandbox.api(1);
        sandbox.await_event("extension.spawn", 1);
        let extension = FakeExtension::register(&api, "a", &["INVOKE"]);
        let _next = extension.next_later();
        let _invocation = crate::fakes::FakeRuntime { api }.next();
        let response = caller.join().unwrap();
        assert_eq!(response.error_type(), "Extension.Crash");
        let done = sandbox.await_telemetry("platform.runtimeDone", 1);
        assert_eq!(done["errorType"], "Extension.Crash");
        assert_eq!(sandbox.await_event("environment.reset", 1)["reason"], "failure");
    }
}

/// Registrations do not survive a reset: old identifiers are unknown.
#[test]
fn a_reset_removes_registrations() {
    let (environment, extension) = TestEnvironment::with_extension("timeout_s = 1");
    let event = extension.next_later();
    let _invocation = environment.runtime.next();
    event.join().unwrap().unwrap();
    environment.caller.join().unwrap();
    // Until it has been reset, an invocation would get an environment of its own.
    environment.sandbox.await_event("shutdown.end", 1);
    environment.sandbox.invoke_later("fn", "{}");
    environment.sandbox.await_event("extension.spawn", 2);
    assert_eq!(extension.next().error_type(), "Extension.UnknownExtensionIdentifier");
}

/// Every attempt at a request has an id of its own, which a runtime may repeat with its response: a response to another
/// attempt is rejected.
#[test]
fn invocation_ids() {
    let environment = TestEnvironment::start(&[], "");
    let invocation = environment.runtime.next();
    let request = request_id(&invocation);
    let attempt = invocation.header("Lambda-Runtime-Invocation-Id").unwrap();
    assert!(uuid::Uuid::parse_str(attempt).is_ok() && attempt != request);
    let post = |kind: &str, attempt: &str| {
        let path = format!("/2018-06-01/runtime/invocation/{request}/{kind}");
        let headers = [("Lambda-Runtime-Invocation-Id", attempt)];
        crate::http::request(&environment.api, "POST", &path, &headers, b"1")
    };
    for kind in ["response", "error"] {
        let stale = post(kind, &uuid::Uuid::new_v4().to_string());
        assert_eq!((stale.status, stale.error_type().as_str()), (400, "InvalidInvocationId"), "{kind}");
    }
    assert_eq!(post("response", attempt).status, 202);
    assert_eq!(environment.caller.join().unwrap().json(), json!(1));
}
