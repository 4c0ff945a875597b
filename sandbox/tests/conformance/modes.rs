//! Initialization types other than on-demand.

use std::collections::BTreeSet;

use serde_json::json;

use crate::fakes::{FakeExtension, FakeRuntime, TestEnvironment, register, request_id};
use crate::sandbox::{Builder, IDLE_SCRIPT};

const MANAGED: &str = "initialization_type = 'lambda-managed-instances'\ntimeout_s = 30";
const SNAP_START: &str = "initialization_type = 'snap-start'\ntimeout_s = 30";

/// Provisioned environments are started ahead of invocations, state it, and report no Init.
#[test]
fn provisioned_concurrency() {
    let settings = "initialization_type = 'provisioned-concurrency'\nprovisioned_concurrency = 2";
    let sandbox = Builder::new().function("fn", settings, IDLE_SCRIPT).start();
    let runtimes: Vec<_> = (1..=2)
        .map(|count| {
            let runtime = FakeRuntime { api: sandbox.api(count) };
            (runtime.next_later(), runtime)
        })
        .collect();
    sandbox.await_telemetry("platform.initReport", 2);
    let starts = sandbox.telemetry("platform.initStart");
    assert!(starts.iter().all(|start| start["initializationType"] == "provisioned-concurrency"));
    let callers = [sandbox.invoke_later("fn", "{}"), sandbox.invoke_later("fn", "{}")];
    // Both first: an environment that has responded would take the second as well.
    let invocations: Vec<_> =
        runtimes.into_iter().map(|(next, runtime)| (next.join().unwrap().unwrap(), runtime)).collect();
    for (invocation, runtime) in invocations {
        runtime.respond(&request_id(&invocation), "1");
        let _next = runtime.next_later();
    }
    callers.into_iter().for_each(|caller| assert_eq!(caller.join().unwrap().json(), json!(1)));
    let report = sandbox.await_telemetry("platform.report", 2);
    assert!(report["metrics"].get("initDurationMs").is_none());
    assert_eq!(sandbox.events("environment.start").len(), 2);
}

/// SnapStart: Init as phase snap-start, then restore with its events; hooks run between `restore/next` and `next`;
/// the bill contains their time.
#[test]
fn snap_start() {
    let environment = TestEnvironment::start(&["a"], SNAP_START);
    let extension = FakeExtension::register(&environment.api, "a", &["INVOKE", "SHUTDOWN"]);
    let event = extension.next_later();
    let restored =
        crate::http::request(&environment.api, "GET", "/2018-06-01/runtime/restore/next", &[], b"");
    assert_eq!(restored.status, 200);
    let start = environment.sandbox.await_telemetry("platform.initStart", 1);
    assert_eq!((&start["initializationType"], &start["phase"]), (&json!("snap-start"), &json!("snap-start")));
    // A hook of 60 ms.
    std::thread::sleep(std::time::Duration::from_millis(60));
    let invocation = environment.runtime.next();
    assert_eq!(event.join().unwrap().unwrap()["eventType"], "INVOKE", "no event of its own for extensions");
    environment.runtime.respond(&request_id(&invocation), "1");
    let _next = environment.runtime.next_later();
    let _idle = extension.next_later();
    let report = environment.sandbox.await_telemetry("platform.report", 1);
    let metrics = &report["metrics"];
    assert!(metrics.get("initDurationMs").is_none());
    assert!(metrics["restoreDurationMs"].as_f64().unwrap() >= 60.0);
    let billed_restore = metrics["billedRestoreDurationMs"].as_f64().unwrap();
    let billed = metrics["billedDurationMs"].as_f64().unwrap();
    let duration = metrics["durationMs"].as_f64().unwrap();
    assert!(billed_restore >= 60.0 && (billed - billed_restore - duration).abs() <= 1.001);
    let lines = environment.sandbox.events("telemetry");
    let kinds: Vec<_> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    let position = |kind: &str| kinds.iter().position(|known| *known == kind).unwrap();
    assert!(position("platform.initReport") < position("platform.restoreStart"));
    assert!(position("platform.restoreStart") < position("platform.restoreRuntimeDone"));
    assert!(position("platform.restoreReport") < position("platform.start"));
}

/// SnapStart environments have no keys in their variables, but an endpoint that hands them out.
#[test]
fn snap_start_credentials() {
    let builder = Builder::new().host_network();
    let out = builder.path().join("out").display().to_string();
    let script = format!("#!/bin/sh\nenv > {out}.tmp; mv {out}.tmp {out}\nexec sleep 1000\n");
    let sandbox = builder.function("fn", SNAP_START, &script).start();
    let _caller = sandbox.invoke_later("fn", "{}");
    let text = crate::sandbox::wait_until("variables", || sandbox.read("out"));
    assert!(!text.contains("AWS_ACCESS_KEY_ID"));
    let value =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap();
    let token = value("AWS_CONTAINER_AUTHORIZATION_TOKEN");
    let uri = value("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    let path = uri.strip_prefix(&format!("http://{}", sandbox.api(1))).unwrap();
    let response = crate::http::request(&sandbox.api(1), "GET", path, &[("Authorization", token)], b"");
    assert!(response.json()["AccessKeyId"].is_string());
    assert_eq!(crate::http::request(&sandbox.api(1), "GET", path, &[], b"").status, 401);
}

/// Managed instances reject INVOKE, run several invocations at once, never freeze, send no runtimeDone and
/// report nothing but the duration.
#[test]
fn managed_instances() {
    let mut environment = TestEnvironment::start(&["a"], MANAGED);
    let rejected = register(&environment.api, "a", &["INVOKE", "SHUTDOWN"]);
    assert_eq!((rejected.status, rejected.error_type().as_str()), (403, "Extension.InvalidEventType"));
    let extension = FakeExtension::register(&environment.api, "a", &["SHUTDOWN"]);
    let event = extension.next_later();
    let second = environment.sandbox.invoke_later("fn", r#"{"n":2}"#);
    let one = environment.runtime.next();
    let two = environment.runtime.next();
    let numbers: BTreeSet<_> = [&one, &two].map(|invocation| invocation.json()["n"].to_string()).into();
    assert_eq!(numbers.len(), 2, "both at once, in one environment");
    for invocation in [&two, &one] {
        environment.runtime.respond(&request_id(invocation), "0");
    }
    second.join().unwrap();
    let report = environment.sandbox.await_telemetry("platform.report", 2);
    let metrics = report["metrics"].as_object().unwrap();
    assert_eq!(metrics.keys().collect::<Vec<_>>(), ["durationMs"]);
    let start = environment.sandbox.await_telemetry("platform.initStart", 1);
    assert_eq!(start["initializationType"], "lambda-managed-instances");
    assert_eq!(start["instanceMaxMemory"], 128 * 1024 * 1024);
    assert!(environment.sandbox.await_telemetry("platform.start", 1)["functionArn"].is_string());
    assert!(environment.sandbox.telemetry("platform.runtimeDone").is_empty());
    assert!(environment.sandbox.events("environment.freeze").is_empty());
    assert_eq!(environment.sandbox.events("environment.start").len(), 1);
    environment.sandbox.stop();
    assert_eq!(event.join().unwrap().unwrap()["shutdownReason"], "spindown");
}

/// A timeout on managed instances responds to the caller and leaves the code running.
#[test]
fn managed_timeout() {
    let settings = MANAGED.replace("30", "1");
    let environment = TestEnvironment::start(&[], &settings);
    let invocation = environment.runtime.next();
    let response = environment.caller.join().unwrap();
    assert_eq!(response.error_type(), "Sandbox.Timedout");
    assert!(environment.sandbox.events("environment.reset").is_empty());
    assert_eq!(environment.runtime.respond(&request_id(&invocation), "1").status, 400, "too late");
    let again = environment.sandbox.invoke_later("fn", "2");
    let invocation = environment.runtime.next();
    environment.runtime.respond(&request_id(&invocation), "3");
    assert_eq!(again.join().unwrap().json(), json!(3));
}

/// `restore/error` fails the restore; the invocation then runs in fresh processes.
#[test]
fn restore_error() {
    let environment = TestEnvironment::start(&[], SNAP_START);
    let restored =
        crate::http::request(&environment.api, "GET", "/2018-06-01/runtime/restore/next", &[], b"");
    assert_eq!(restored.status, 200);
    let headers = [("Lambda-Runtime-Function-Error-Type", "Runtime.HookFailed")];
    let path = "/2018-06-01/runtime/restore/error";
    let accepted = crate::http::request(&environment.api, "POST", path, &headers, b"{}");
    assert_eq!((accepted.status, accepted.json()), (202, json!({"status": "OK"})));
    let report = environment.sandbox.await_telemetry("platform.restoreReport", 1);
    assert_eq!((&report["status"], &report["errorType"]), (&json!("error"), &json!("Runtime.HookFailed")));
    let done = environment.sandbox.await_telemetry("platform.restoreRuntimeDone", 1);
    assert_eq!(done["errorType"], "Runtime.HookFailed");
    assert_eq!(environment.sandbox.await_event("environment.reset", 1)["error_type"], "Runtime.HookFailed");
    environment.sandbox.await_event("runtime.spawn", 2);
    let invocation = environment.runtime.next();
    environment.runtime.respond(&request_id(&invocation), "1");
    let _next = environment.runtime.next_later();
    assert_eq!(environment.caller.join().unwrap().json(), json!(1));
}

/// The metadata endpoint returns the availability zone to processes with the token; extensions have it too.
#[test]
fn metadata() {
    let builder = Builder::new().host_network();
    let out = builder.path().join("out").display().to_string();
    let script = format!("#!/bin/sh\nenv > {out}.tmp; mv {out}.tmp {out}\nexec sleep 1000\n");
    let sandbox = builder.function("fn", "", IDLE_SCRIPT).extension("a", &script).start();
    let _caller = sandbox.invoke_later("fn", "{}");
    let text = crate::sandbox::wait_until("variables", || sandbox.read("out"));
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    let (api, token) = (value("AWS_LAMBDA_METADATA_API="), value("AWS_LAMBDA_METADATA_TOKEN="));
    let path = "/2026-01-15/metadata/execution-environment";
    let bearer = format!("Bearer {token}");
    let response = crate::http::request(&api, "GET", path, &[("Authorization", &bearer)], b"");
    assert_eq!((response.status, response.json()), (200, json!({"AvailabilityZoneID": "use1-az1"})));
    assert_eq!(crate::http::request(&api, "GET", path, &[("Authorization", "Bearer x")], b"").status, 401);
}
