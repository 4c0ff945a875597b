//! The Extensions API: registration, identifiers, states and their error bodies.

use serde_json::json;

use crate::fakes::{FakeExtension, TestEnvironment, register, request_id};
use crate::http::request;

/// `register` responds with the function's name, version and handler, and an identifier.
#[test]
fn registration_returns_the_function() {
    let environment = TestEnvironment::start(&["a"], "handler = 'app.main'");
    let response = register(&environment.api, "a", &["INVOKE", "SHUTDOWN"]);
    assert_eq!(response.status, 200);
    let id = response.header("Lambda-Extension-Identifier").unwrap();
    assert!(uuid::Uuid::parse_str(id).is_ok());
    let expected = json!({"functionName": "fn", "functionVersion": "$LATEST", "handler": "app.main"});
    assert_eq!(response.json(), expected);
}

/// The account number is returned to extensions that accept the feature.
#[test]
fn registration_returns_the_account_on_request() {
    let environment = TestEnvironment::start(&["a"], "");
    let headers = [("Lambda-Extension-Name", "a"), ("Lambda-Extension-Accept-Feature", "accountId")];
    let path = "/2020-01-01/extension/register";
    let response = request(&environment.api, "POST", path, &headers, br#"{"events":[]}"#);
    assert_eq!(response.json()["accountId"], "123456789012");
}

/// `events` may be absent.
#[test]
fn events_are_optional() {
    let environment = TestEnvironment::start(&["a"], "");
    let headers = [("Lambda-Extension-Name", "a")];
    let response = request(&environment.api, "POST", "/2020-01-01/extension/register", &headers, b"{}");
    assert_eq!(response.status, 200);
}

/// Every misuse of `register` is 403 with its own `errorType`.
#[test]
fn misuse_of_register() {
    let environment = TestEnvironment::start(&["a"], "");
    let path = "/2020-01-01/extension/register";
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str);
    let cases: [Case; 5] = [
        (&[], r#"{"events":[]}"#, "Extension.InvalidExtensionName"),
        (&[("Lambda-Extension-Name", "a")], "no json", "InvalidRequestFormat"),
        (&[("Lambda-Extension-Name", "a")], r#"{"events":["OTHER"]}"#, "Extension.InvalidEventType"),
        (
            &[("Lambda-Extension-Name", "inside")],
            r#"{"events":["SHUTDOWN"]}"#,
            "ShutdownEventNotSupportedForInternalExtension",
        ),
        (&[("Lambda-Extension-Name", "")], "{}", "Extension.InvalidExtensionName"),
    ];
    for (headers, body, error_type) in cases {
        let response = request(&environment.api, "POST", path, headers, body.as_bytes());
        assert_eq!((response.status, response.error_type().as_str()), (403, error_type), "{body}");
        assert!(response.json()["errorMessage"].is_string());
    }
}

/// An extension registers once.
#[test]
fn second_registration() {
    let (environment, _) = TestEnvironment::with_extension("");
    let response = register(&environment.api, "a", &["INVOKE"]);
    assert_eq!((response.status, response.error_type().as_str()), (403, "Extension.InvalidExtensionState"));
}

/// At most ten extensions, internal ones included.
#[test]
fn eleventh_extension() {
    let (environment, _) = TestEnvironment::with_extension("");
    for number in 0..9 {
        assert_eq!(register(&environment.api, &format!("inside-{number}"), &["INVOKE"]).status, 200);
    }
    let response = register(&environment.api, "inside-9", &["INVOKE"]);
    assert_eq!((response.status, response.error_type().as_str()), (403, "Extension.TooManyExtensions"));
}

/// Registration closes when the runtime first requests an invocation.
#[test]
fn registration_closes() {
    let (environment, extension) = TestEnvironment::with_extension("");
    environment.sandbox.await_event("runtime.spawn", 1);
    let _next = environment.runtime.next_later();
    environment.sandbox.await_event("runtime.ready", 1);
    let response = register(&environment.api, "late", &["INVOKE"]);
    assert_eq!((response.status, response.error_type().as_str()), (403, "Extension.RegistrationClosed"));
    drop(extension);
}

/// The identifier must be there, be a UUID and be known: for every call that takes one.
#[test]
fn identifiers() {
    let (environment, _) = TestEnvironment::with_extension("");
    let unknown = uuid::Uuid::new_v4().to_string();
    let error = ("Lambda-Extension-Function-Error-Type", "Extension.X");
    let calls = [
        ("GET", "/2020-01-01/extension/event/next"),
        ("POST", "/2020-01-01/extension/init/error"),
        ("POST", "/2020-01-01/extension/exit/error"),
        ("PUT", "/2022-07-01/telemetry"),
    ];
    for (method, path) in calls {
        let none = request(&environment.api, method, path, &[error], b"{}");
        assert_eq!((none.status, none.error_type().as_str()), (403, "Extension.MissingExtensionIdentifier"));
        let bad = [error, ("Lambda-Extension-Identifier", "nonsense")];
        let bad = request(&environment.api, method, path, &bad, b"{}");
        assert_eq!((bad.status, bad.error_type().as_str()), (403, "Extension.InvalidExtensionIdentifier"));
        let other = [error, ("Lambda-Extension-Identifier", unknown.as_str())];
        let other = request(&environment.api, method, path, &other, b"{}");
        assert_eq!(
            (other.status, other.error_type().as_str()),
            (403, "Extension.UnknownExtensionIdentifier")
        );
    }
}

/// A second `next` while one is pending is rejected.
#[test]
fn double_next() {
    let (environment, extension) = TestEnvironment::with_extension("");
    let _first = extension.next_later();
    environment.sandbox.await_event("extension.next", 1);
    let second = extension.next();
    assert_eq!((second.status, second.error_type().as_str()), (403, "Extension.InvalidExtensionState"));
}

/// `init/error` and `exit/error` need an error type, respond with 202 and fail the environment.
#[test]
fn reported_init_error() {
    let (environment, extension) = TestEnvironment::with_extension("");
    let path = "/2020-01-01/extension/init/error";
    let missing = extension.call("POST", path, &[], "");
    assert_eq!((missing.status, missing.error_type().as_str()), (403, "Extension.MissingHeader"));
    let headers = [("Lambda-Extension-Function-Error-Type", "Extension.NoConfiguration")];
    let body = r#"{"errorMessage":"m","errorType":"t","stackTrace":[]}"#;
    let accepted = extension.call("POST", path, &headers, body);
    assert_eq!((accepted.status, accepted.json()), (202, json!({"status": "OK"})));
    let report = environment.sandbox.await_telemetry("platform.initReport", 1);
    assert_eq!((&report["status"], &report["errorType"]), (&json!("error"), &json!("Extension.InitError")));
}

/// `init/error` is only for before the first `next`.
#[test]
fn init_error_after_next() {
    let (environment, extension) = TestEnvironment::with_extension("");
    let _next = extension.next_later();
    environment.sandbox.await_event("extension.next", 1);
    let headers = [("Lambda-Extension-Function-Error-Type", "Extension.X")];
    let rejected = extension.call("POST", "/2020-01-01/extension/init/error", &headers, "");
    assert_eq!((rejected.status, rejected.error_type().as_str()), (403, "Extension.InvalidExtensionState"));
}

/// `exit/error` during an invocation fails it.
#[test]
fn reported_exit_error() {
    let (environment, extension) = TestEnvironment::with_extension("");
    let event = extension.next_later();
    let invocation = environment.runtime.next();
    event.join().unwrap().expect("INVOKE");
    let headers = [("Lambda-Extension-Function-Error-Type", "Extension.Broken")];
    let accepted = extension.call("POST", "/2020-01-01/extension/exit/error", &headers, "");
    assert_eq!(accepted.status, 202);
    let response = environment.caller.join().unwrap();
    assert_eq!(response.header("x-amz-function-error"), Some("Unhandled"));
    assert_eq!(response.error_type(), "Extension.ExitError");
    drop(invocation);
}

/// INVOKE has the documented fields; every event has an identifier of its own.
#[test]
fn invoke_event() {
    let (environment, extension) = TestEnvironment::with_extension("timeout_s = 30");
    let event = extension.next_later();
    let invocation = environment.runtime.next();
    let event = event.join().unwrap().unwrap();
    assert_eq!(event["eventType"], "INVOKE");
    assert_eq!(event["requestId"], request_id(&invocation));
    let deadline = invocation.header("Lambda-Runtime-Deadline-Ms").unwrap();
    assert_eq!(event["deadlineMs"].to_string(), deadline);
    assert_eq!(event["invokedFunctionArn"], "arn:aws:lambda:us-east-1:123456789012:function:fn");
    assert_eq!(event["tracing"]["type"], "X-Amzn-Trace-Id");
    // Not even the size of the payload is sent.
    assert!(event.get("payload").is_none() && event.get("body").is_none());
    let now = u64::try_from(
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis(),
    )
    .unwrap();
    let left = event["deadlineMs"].as_u64().unwrap().saturating_sub(now);
    assert!((1..=30_000).contains(&left), "{left} ms left");
}

/// An internal extension registers from inside the runtime, gets INVOKE and is awaited.
#[test]
fn internal_extension() {
    let environment = TestEnvironment::start(&[], "");
    let inside = FakeExtension::register(&environment.api, "inside", &["INVOKE"]);
    let event = inside.next_later();
    let invocation = environment.runtime.next();
    assert_eq!(event.join().unwrap().unwrap()["eventType"], "INVOKE");
    environment.runtime.respond(&request_id(&invocation), "1");
    let _next = environment.runtime.next_later();
    environment.sandbox.await_telemetry("platform.runtimeDone", 1);
    assert!(environment.sandbox.telemetry("platform.report").is_empty());
    let _done = inside.next_later();
    environment.sandbox.await_telemetry("platform.report", 1);
}
