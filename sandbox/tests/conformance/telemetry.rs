//! The Telemetry API: subscriptions, batches, and which event is delivered when.

use serde_json::json;

use crate::fakes::{Listener, TestEnvironment, request_id};

/// 200 `"OK"`; the subscription is reported; a subscriber gets the events since Init began.
#[test]
fn subscription_and_replay() {
    let (environment, extension) = TestEnvironment::with_extension("");
    let listener = Listener::start(0);
    let response = extension.subscribe(listener.port, &["platform"], "2025-01-29");
    assert_eq!((response.status, response.json()), (200, json!("OK")));
    listener.await_kind("platform.telemetrySubscription");
    let events = listener.events();
    assert_eq!(events[0]["type"], "platform.initStart");
    let record = json!({"name": "a", "state": "Subscribed", "types": ["platform"]});
    assert_eq!(events[1]["record"], record);
    let time = events[0]["time"].as_str().unwrap();
    assert!(time.len() == 24 && time.ends_with('Z') && time.as_bytes()[19] == b'.', "{time}");
    drop(environment);
}

/// Batches are JSON arrays posted with the documented headers to the path of the URI.
#[test]
fn posts() {
    let (environment, extension) = TestEnvironment::with_extension("");
    let listener = Listener::start(0);
    extension.subscribe(listener.port, &["platform"], "2025-01-29");
    listener.await_kind("platform.initStart");
    let head = listener.requests()[0].to_ascii_lowercase();
    assert!(head.starts_with("post /in http/1.1"), "{head}");
    assert!(head.contains("content-type: application/json"));
    assert!(head.contains("sequence-id: "));
    drop(environment);
}

/// The body selects the schema version; the version in the URL is fixed.
#[test]
fn versions() {
    let (environment, extension) = TestEnvironment::with_extension("");
    let listener = Listener::start(0);
    assert_eq!(extension.subscribe(listener.port, &["platform"], "2030-01-01").status, 400);
    assert_eq!(extension.call("PUT", "/2025-01-29/telemetry", &[], "{}").status, 404);
    for (number, schema) in ["2022-07-01", "2022-12-13", "2025-01-29"].into_iter().enumerate() {
        let response = extension.subscribe(listener.port, &["platform"], schema);
        // One subscription an extension.
        assert_eq!(response.status, if number == 0 { 200 } else { 400 }, "{schema}");
    }
    drop(environment);
}

/// 400 ValidationError with a message.
#[test]
fn invalid_subscriptions() {
    let (environment, extension) = TestEnvironment::with_extension("");
    for body in ["", "{}", r#"{"schemaVersion":"2025-01-29","types":[],"destination":{}}"#] {
        let response = extension.call("PUT", "/2022-07-01/telemetry", &[], body);
        assert_eq!((response.status, response.error_type().as_str()), (400, "ValidationError"));
        assert!(response.json()["errorMessage"].is_string());
    }
    drop(environment);
}

/// Subscriptions close with Init.
#[test]
fn subscriptions_close() {
    let (environment, extension) = TestEnvironment::with_extension("");
    let event = extension.next_later();
    let _invocation = environment.runtime.next();
    event.join().unwrap();
    let response = extension.subscribe(1234, &["platform"], "2025-01-29");
    assert_eq!((response.status, response.error_type().as_str()), (403, "Telemetry.SubscriptionClosed"));
}

/// The report of an invocation exists when the environment is frozen, and is delivered after the thaw.
#[test]
fn the_report_comes_late() {
    let (environment, extension) = TestEnvironment::with_extension("timeout_s = 30");
    let listener = Listener::start(0);
    extension.subscribe(listener.port, &["platform"], "2025-01-29");
    let event = extension.next_later();
    let invocation = environment.runtime.next();
    event.join().unwrap().unwrap();
    let first = request_id(&invocation);
    environment.runtime.respond(&first, "1");
    let next = environment.runtime.next_later();
    let event = extension.next_later();
    environment.sandbox.await_event("environment.freeze", 1);
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(!listener.has("platform.report"), "frozen: nothing is delivered");

    environment.sandbox.invoke_later("fn", "{}");
    event.join().unwrap().unwrap();
    let report = listener.await_kind("platform.report");
    assert_eq!(report["record"]["requestId"], first);
    next.join().unwrap().unwrap();
}

/// The last report is delivered during shutdown.
#[test]
fn the_last_report_comes_with_shutdown() {
    let (mut environment, extension) = TestEnvironment::with_extension("");
    let listener = Listener::start(0);
    extension.subscribe(listener.port, &["platform"], "2025-01-29");
    let event = extension.next_later();
    let invocation = environment.runtime.next();
    event.join().unwrap().unwrap();
    environment.runtime.respond(&request_id(&invocation), "1");
    let _next = environment.runtime.next_later();
    let _idle = extension.next_later();
    environment.sandbox.await_event("environment.freeze", 1);
    assert!(!listener.has("platform.report"));
    environment.sandbox.stop();
    assert!(listener.has("platform.report"));
}

/// A batch that is rejected is sent again: no event is lost or reordered.
#[test]
fn rejected_batches_are_repeated() {
    let (environment, extension) = TestEnvironment::with_extension("");
    let listener = Listener::start(2);
    extension.subscribe(listener.port, &["platform"], "2025-01-29");
    listener.await_kind("platform.telemetrySubscription");
    assert_eq!(listener.kinds()[0], "platform.initStart");
    assert!(listener.requests().len() >= 3);
    drop(environment);
}

/// Lines of the function and of extensions are events of their own kinds, only for those that request them.
#[test]
fn logs() {
    let builder = crate::sandbox::Builder::new().host_network();
    let script = "#!/bin/sh\necho from the function\nexec sleep 1000\n";
    let noisy = "#!/bin/sh\necho from the extension >&2\nexec sleep 1000\n";
    let sandbox = builder.function("fn", "", script).extension("a", noisy).start();
    let caller = sandbox.invoke_later("fn", "{}");
    let api = sandbox.api(1);
    sandbox.await_event("extension.spawn", 1);
    let extension = crate::fakes::FakeExtension::register(&api, "a", &["INVOKE"]);
    let listener = Listener::start(0);
    extension.subscribe(listener.port, &["function", "extension"], "2025-01-29");
    assert_eq!(listener.await_kind("extension")["record"], "from the extension\n");
    assert_eq!(listener.await_kind("function")["record"], "from the function\n");
    assert!(!listener.kinds().iter().any(|kind| kind.starts_with("platform.")));
    drop((sandbox, caller));
}

/// JSON log format: lines that are objects are delivered as objects, others as they are.
#[test]
fn json_logs() {
    let script = "#!/bin/sh\necho '{\"level\":\"INFO\",\"message\":\"hi\"}'\necho crash\nexec sleep 1000\n";
    let builder = crate::sandbox::Builder::new().host_network();
    let sandbox = builder
        .function("fn", "log_format = 'JSON'", script)
        .extension("a", crate::sandbox::IDLE_SCRIPT)
        .start();
    let _caller = sandbox.invoke_later("fn", "{}");
    let api = sandbox.api(1);
    sandbox.await_event("extension.spawn", 1);
    let extension = crate::fakes::FakeExtension::register(&api, "a", &["INVOKE"]);
    let listener = Listener::start(0);
    extension.subscribe(listener.port, &["function"], "2025-01-29");
    let records = crate::sandbox::wait_until("two lines", || {
        let events = listener.events();
        (events.len() == 2).then(|| events.iter().map(|event| event["record"].clone()).collect::<Vec<_>>())
    });
    assert_eq!(records, [json!({"level": "INFO", "message": "hi"}), json!("crash")]);
}

/// A TCP destination gets one JSON object a line, the same events in the same order.
#[test]
fn tcp() {
    use std::io::BufRead;
    let (environment, extension) = TestEnvironment::with_extension("");
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let body = json!({
        "schemaVersion": "2025-01-29", "types": ["platform"],
        "buffering": {"maxItems": 1000, "maxBytes": 262_144, "timeoutMs": 25},
        "destination": {"protocol": "TCP", "port": socket.local_addr().unwrap().port()},
    });
    assert_eq!(extension.call("PUT", "/2022-07-01/telemetry", &[], &body.to_string()).status, 200);
    let (stream, _) = socket.accept().unwrap();
    let mut lines = std::io::BufReader::new(stream).lines();
    let mut next = || serde_json::from_str::<serde_json::Value>(&lines.next().unwrap().unwrap()).unwrap();
    let kinds: Vec<_> = (0..2).map(|_| next()["type"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds, ["platform.initStart", "platform.telemetrySubscription"]);
    // Later batches come on the same connection.
    let event = extension.next_later();
    let invocation = environment.runtime.next();
    event.join().unwrap().unwrap();
    while next()["type"] != "platform.start" {}
    environment.runtime.respond(&request_id(&invocation), "1");
    let _next = environment.runtime.next_later();
    let done = loop {
        let event = next();
        if event["type"] == "platform.runtimeDone" {
            break event;
        }
    };
    assert_eq!(done["record"]["status"], "success");
}

/// A batch that a listener rejects too often is lost, and the next batch reports how much.
#[test]
fn rejected_for_good() {
    let (environment, extension) = TestEnvironment::with_extension("");
    let listener = Listener::start(6);
    extension.subscribe(listener.port, &["platform"], "2025-01-29");
    // The only batch so far contains initStart and the subscription.
    crate::sandbox::wait_until("six rejections", || (listener.requests().len() >= 6).then_some(()));
    std::thread::sleep(std::time::Duration::from_millis(1_000));
    let _event = extension.next_later();
    let _invocation = environment.runtime.next();
    let dropped = listener.await_kind("platform.logsDropped");
    assert_eq!(dropped["record"]["droppedRecords"], 2);
    assert!(dropped["record"]["droppedBytes"].as_u64().unwrap() > 100);
    assert!(dropped["record"]["reason"].is_string());
    assert!(!listener.has("platform.initStart"), "the event is lost");
}

/// Logs beyond the size of the buffer are dropped, counted and reported.
#[test]
fn overflow() {
    // Twenty lines of 50 kB at once: the buffer has space for two batches of 256 KiB.
    let line = "head -c 50000 /dev/zero | tr '\\0' x; echo";
    let script = format!(
        "#!/bin/sh\nfor n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do {line}; done\nexec sleep 1000\n"
    );
    let sandbox = crate::sandbox::Builder::new()
        .host_network()
        .function("fn", "", &script)
        .extension("a", crate::sandbox::IDLE_SCRIPT)
        .start();
    let _caller = sandbox.invoke_later("fn", "{}");
    let api = sandbox.api(1);
    sandbox.await_event("extension.spawn", 1);
    let extension = crate::fakes::FakeExtension::register(&api, "a", &["INVOKE"]);
    // Rejects for 375 ms: long enough for all lines to be written meanwhile.
    let listener = Listener::start(4);
    extension.subscribe(listener.port, &["function"], "2025-01-29");
    let dropped = listener.await_kind("platform.logsDropped");
    let (records, bytes) = (&dropped["record"]["droppedRecords"], &dropped["record"]["droppedBytes"]);
    let records = records.as_u64().unwrap();
    assert!((1..20).contains(&records), "{records}");
    assert!(bytes.as_u64().unwrap() >= records * 50_000);
}
