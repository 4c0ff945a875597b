//! Faults on request.

use serde_json::json;

use crate::fakes::{FakeExtension, FakeRuntime, Listener, TestEnvironment, request_id};
use crate::sandbox::{Builder, IDLE_SCRIPT, Sandbox, is_root, wait_until};

/// A sandbox with `arguments`, its extension subscribed, one invocation served and still thawed for the extension.
fn subscribed(arguments: &[&str]) -> (Sandbox, FakeExtension, FakeRuntime, Listener) {
    let builder = Builder::new().function("fn", "timeout_s = 30", IDLE_SCRIPT).extension("a", IDLE_SCRIPT);
    let sandbox = builder.host_network().arguments(arguments).start();
    let _caller = sandbox.invoke_later("fn", "{}");
    let api = sandbox.api(1);
    sandbox.await_event("extension.spawn", 1);
    let extension = FakeExtension::register(&api, "a", &["INVOKE", "SHUTDOWN"]);
    let listener = Listener::start(0);
    assert_eq!(extension.subscribe(listener.port, &["platform"], "2025-01-29").status, 200);
    let event = extension.next_later();
    let runtime = FakeRuntime { api };
    let invocation = runtime.next();
    event.join().unwrap().unwrap();
    runtime.respond(&request_id(&invocation), "1");
    let _next = runtime.next_later();
    sandbox.await_telemetry("platform.runtimeDone", 1);
    (sandbox, extension, runtime, listener)
}

#[test]
fn duplicates() {
    let (_sandbox, _, _, listener) = subscribed(&["--fault-duplicate-telemetry", "1"]);
    wait_until("duplicates", || {
        let kinds = listener.kinds();
        (kinds.iter().filter(|kind| *kind == "platform.runtimeDone").count() == 2).then_some(())
    });
}

#[test]
fn losses() {
    let (_sandbox, _, _, listener) = subscribed(&["--fault-lose-telemetry", "platform.start"]);
    listener.await_kind("platform.runtimeDone");
    assert!(!listener.has("platform.start"));
}

#[test]
fn unknown_events_and_disorder() {
    let faults = ["--fault-unknown-telemetry", "--fault-reorder-telemetry"];
    let (_sandbox, _, _, listener) = subscribed(&faults);
    listener.await_kind("platform.runtimeDone");
    let batches = listener.batches();
    assert!(
        batches.iter().all(|batch| batch[0]["type"] == "platform.somethingNew"),
        "reversed: last comes first"
    );
}

#[test]
fn delays() {
    let (sandbox, _, _, listener) = subscribed(&["--fault-delay-telemetry-ms", "400"]);
    let done =
        sandbox.events("telemetry").into_iter().find(|line| line["type"] == "platform.runtimeDone").unwrap();
    listener.await_kind("platform.runtimeDone");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
    assert!(now - u128::from(done["time"].as_u64().unwrap()) >= 400_000);
}

#[test]
fn rejected_subscriptions() {
    for (status, expected) in [("202", 202), ("400", 400), ("403", 403)] {
        let builder = Builder::new().function("fn", "", IDLE_SCRIPT).extension("a", IDLE_SCRIPT);
        let sandbox = builder.arguments(&["--fault-refuse-subscription", status]).start();
        let _caller = sandbox.invoke_later("fn", "{}");
        let api = sandbox.api(1);
        sandbox.await_event("extension.spawn", 1);
        let extension = FakeExtension::register(&api, "a", &["INVOKE"]);
        let response = extension.subscribe(1, &["platform"], "2025-01-29");
        assert_eq!((response.status, response.error_type().as_str()), (expected, "Telemetry.NotSupported"));
    }
}

#[test]
fn lost_shutdown() {
    let (mut sandbox, extension, _, _) = subscribed(&["--fault-lose-shutdown"]);
    let event = extension.next_later();
    sandbox.await_event("environment.freeze", 1);
    sandbox.stop();
    assert!(event.join().unwrap().is_none(), "the extension is killed without an event");
    assert_eq!(sandbox.events("shutdown.extensions")[0]["in_time"], false);
}

#[test]
fn slow_shutdown() {
    let (mut sandbox, extension, _, _) = subscribed(&["--fault-shutdown-delay-ms", "700"]);
    let event = extension.next_later();
    sandbox.await_event("environment.freeze", 1);
    sandbox.stop();
    let deadline_ms = event.join().unwrap().unwrap()["deadlineMs"].as_u64().unwrap();
    let released_ms = sandbox.events("shutdown.release")[0]["time"].as_u64().unwrap() / 1000;
    assert!(deadline_ms - released_ms < 1_350, "{} ms left", deadline_ms - released_ms);
}

/// Faults can be read and set while the sandbox serves; missing fields are off, unknown fields are rejected.
#[test]
fn faults_at_run_time() {
    let (sandbox, extension, runtime, listener) = subscribed(&["--fault-lose-telemetry", "platform.start"]);
    let path = "/sandbox/faults";
    assert_eq!(sandbox.call("GET", path, "").json()["lose_telemetry"], json!(["platform.start"]));
    // The batch that would have had the start event must be sent before the faults change.
    listener.await_kind("platform.runtimeDone");
    let set = sandbox.call("PUT", path, r#"{"unknown_telemetry":true}"#);
    assert_eq!((set.status, &set.json()["lose_telemetry"]), (200, &json!([])));
    assert!(!listener.has("platform.start"));
    let rejected = sandbox.call("PUT", path, r#"{"unheard_of":true}"#);
    assert_eq!(rejected.status, 400);
    assert!(rejected.json()["Message"].as_str().unwrap().contains("unheard_of"));
    for body in [
        r#"{"refuse_subscription":42}"#,
        r#"{"clock_offset_ms":9223372036854775807}"#,
        r#"{"cpu_contention":999}"#,
    ] {
        assert_eq!(sandbox.call("PUT", path, body).status, 400, "{body}");
    }
    assert_eq!(sandbox.call("GET", path, "").json(), set.json(), "the faults are unchanged");
    let event = extension.next_later();
    sandbox.await_event("environment.freeze", 1);
    let _caller = sandbox.invoke_later("fn", "{}");
    event.join().unwrap().unwrap();
    listener.await_kind("platform.start");
    listener.await_kind("platform.somethingNew");
    drop(runtime);
}

/// The times sent to environments can be shifted forward and back; durations do not change.
#[test]
fn clock_jump() {
    let hour_ms = 3_600_000;
    let sandbox = Builder::new().function("fn", "timeout_s = 30", IDLE_SCRIPT).start();
    let _caller = sandbox.invoke_later("fn", "{}");
    let runtime = FakeRuntime { api: sandbox.api(1) };
    let mut invocation = runtime.next();
    for (number, offset_ms) in [0, hour_ms, -hour_ms].into_iter().enumerate() {
        if number > 0 {
            let body = json!({"clock_offset_ms": offset_ms}).to_string();
            assert_eq!(sandbox.call("PUT", "/sandbox/faults", &body).status, 200);
            let next = runtime.next_later();
            sandbox.await_event("environment.freeze", number);
            let _caller = sandbox.invoke_later("fn", "{}");
            invocation = next.join().unwrap().unwrap();
        }
        let deadline_ms: i64 = invocation.header("Lambda-Runtime-Deadline-Ms").unwrap().parse().unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        let ahead_ms = deadline_ms - i64::try_from(now).unwrap() - 30_000;
        assert!((ahead_ms - offset_ms).abs() < 10_000, "{ahead_ms} ms for an offset of {offset_ms} ms");
        runtime.respond(&request_id(&invocation), "1");
    }
    let _next = runtime.next_later();
    sandbox.await_telemetry("platform.report", 3);
    let events = sandbox.events("telemetry");
    let times: Vec<_> = events
        .iter()
        .filter(|line| line["type"] == "platform.start")
        .map(|line| line["at"].as_str().unwrap().to_owned())
        .collect();
    assert!(times[2] < times[0] && times[0] < times[1], "{times:?}");
    let reports = sandbox.telemetry("platform.report");
    assert!(reports.iter().all(|report| report["metrics"]["durationMs"].as_f64().unwrap() < 30_000.0));
}

/// Any process is killed on request: a runtime is a `Runtime.ExitError`, an extension an `Extension.Crash`.
#[test]
fn kill_on_request() {
    for (process, error_type) in [("runtime", "Runtime.ExitError"), ("extensions/a", "Extension.Crash")] {
        let (environment, extension) = TestEnvironment::with_extension("timeout_s = 30");
        let event = extension.next_later();
        let _invocation = environment.runtime.next();
        event.join().unwrap().unwrap();
        let listed =
            environment.sandbox.call("GET", "/sandbox/environments", "").json()["Environments"].clone();
        let described = &listed[0];
        assert_eq!((&described["function"], &described["api"]), (&json!("fn"), &json!(environment.api)));
        assert_eq!(described["extensions"], json!([{"name": "a", "state": "Running"}]));
        let path = format!("/sandbox/environments/{}/kill", described["environment"].as_str().unwrap());
        let body = |process: &str| json!({"process": process}).to_string();
        assert_eq!(environment.sandbox.call("POST", &path, &body("extensions/b")).status, 404);
        assert_eq!(
            environment.sandbox.call("POST", "/sandbox/environments/x/kill", &body(process)).status,
            404
        );
        assert_eq!(environment.sandbox.call("POST", &path, &body(process)).status, 204);
        let response = environment.caller.join().unwrap();
        assert_eq!(response.error_type(), error_type);
        assert!(response.json()["errorMessage"].as_str().unwrap().ends_with("signal: killed"));
        assert_eq!(environment.sandbox.await_event("environment.reset", 1)["error_type"], error_type);
        environment.sandbox.await_event("shutdown.end", 1);
        assert_eq!(
            environment.sandbox.call("POST", &path, &body(process)).status,
            404,
            "the process has ended"
        );
    }
}

/// A process killed while it is frozen fails the next invocation.
#[test]
fn killed_while_frozen() {
    let environment = TestEnvironment::start(&[], "");
    let invocation = environment.runtime.next();
    environment.runtime.respond(&request_id(&invocation), "1");
    let _next = environment.runtime.next_later();
    environment.sandbox.await_event("environment.freeze", 1);
    let listed = environment.sandbox.call("GET", "/sandbox/environments", "").json();
    let id = listed["Environments"][0]["environment"].as_str().unwrap().to_owned();
    let path = format!("/sandbox/environments/{id}/kill");
    assert_eq!(environment.sandbox.call("POST", &path, r#"{"process":"runtime"}"#).status, 204);
    assert_eq!(environment.sandbox.invoke("fn", "{}").error_type(), "Runtime.ExitError");
}

/// Neighbours take CPU from a function that has a whole CPU, and end when they are switched off.
#[test]
fn cpu_contention() {
    if !is_root("cpu_contention") {
        return;
    }
    let spin = "#!/bin/sh\nwhile :; do :; done\n";
    let sandbox = Builder::new().function("fn", "memory_mb = 1769", spin).start();
    let neighbours = 3 * std::thread::available_parallelism().unwrap().get();
    let body = json!({"cpu_contention": neighbours}).to_string();
    assert_eq!(sandbox.call("PUT", "/sandbox/faults", &body).status, 200);
    assert_eq!(busy_processes_of(&sandbox).len(), neighbours);
    let _caller = sandbox.invoke_later("fn", "{}");
    let runtime = FakeRuntime { api: sandbox.api(1) };
    sandbox.await_event("runtime.spawn", 1);
    let invocation = runtime.next();
    std::thread::sleep(std::time::Duration::from_secs(2));
    runtime.respond(&request_id(&invocation), "1");
    let _next = runtime.next_later();
    let line = sandbox.await_event("invocation", 1);
    // Alone it would get all of a CPU; among three neighbours for each CPU it is entitled to a quarter.
    let got = line["cpu"]["usage_ns"].as_f64().unwrap() / (line["duration_us"].as_f64().unwrap() * 1e3);
    println!("{got:.3} of a CPU beside {neighbours} neighbours");
    assert!(got < 0.6, "{got} of a CPU beside {neighbours} neighbours");
    assert_eq!(sandbox.call("PUT", "/sandbox/faults", "{}").status, 200);
    assert!(busy_processes_of(&sandbox).is_empty());
    // Those of a sandbox that is killed end by themselves.
    sandbox.call("PUT", "/sandbox/faults", r#"{"cpu_contention":1}"#);
    let left = busy_processes_of(&sandbox);
    assert_eq!(left.len(), 1);
    let mut sandbox = sandbox;
    sandbox.kill();
    wait_until("the neighbour's end", || left.iter().all(|pid| !is_neighbour(*pid)).then_some(()));
}

/// Neighbours of this sandbox, by process id.
fn busy_processes_of(sandbox: &Sandbox) -> Vec<u32> {
    let parent_is_sandbox = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line == format!("PPid:\t{}", sandbox.id()))
    };
    let names = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name());
    let pids = names.filter_map(|name| name.to_str().and_then(|name| name.parse().ok()));
    pids.filter(parent_is_sandbox).filter(|pid| is_neighbour(*pid)).collect()
}

fn is_neighbour(pid: u32) -> bool {
    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split('\0').nth(1) == Some("neighbour")
}
