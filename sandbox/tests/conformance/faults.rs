//! Faults on request.

use crate::puppets::{Listener, PuppetExtension, PuppetRuntime, request_id};
use crate::sandbox::{Builder, PUPPET, Sandbox, wait_until};

/// A sandbox with `arguments`, its extension subscribed, one invocation served and still thawed for the extension.
fn subscribed(arguments: &[&str]) -> (Sandbox, PuppetExtension, PuppetRuntime, Listener) {
    let builder = Builder::new().function("fn", "timeout_s = 30", PUPPET).extension("a", PUPPET);
    let sandbox = builder.arguments(arguments).start();
    let _caller = sandbox.invoke_later("fn", "{}");
    let api = sandbox.api(1);
    sandbox.await_event("extension.spawn", 1);
    let extension = PuppetExtension::register(&api, "a", &["INVOKE", "SHUTDOWN"]);
    let listener = Listener::start(0);
    assert_eq!(extension.subscribe(listener.port, &["platform"], "2025-01-29").status, 200);
    let event = extension.next_later();
    let runtime = PuppetRuntime { api };
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
fn refused_subscriptions() {
    for (status, expected) in [("202", 202), ("400", 400), ("403", 403)] {
        let builder = Builder::new().function("fn", "", PUPPET).extension("a", PUPPET);
        let sandbox = builder.arguments(&["--fault-refuse-subscription", status]).start();
        let _caller = sandbox.invoke_later("fn", "{}");
        let api = sandbox.api(1);
        sandbox.await_event("extension.spawn", 1);
        let extension = PuppetExtension::register(&api, "a", &["INVOKE"]);
        let answer = extension.subscribe(1, &["platform"], "2025-01-29");
        assert_eq!((answer.status, answer.error_type().as_str()), (expected, "Telemetry.NotSupported"));
    }
}

#[test]
fn lost_shutdown() {
    let (mut sandbox, extension, _, _) = subscribed(&["--fault-lose-shutdown"]);
    let event = extension.next_later();
    sandbox.await_event("environment.freeze", 1);
    sandbox.stop();
    assert!(event.join().unwrap().is_none(), "killed without an event");
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
