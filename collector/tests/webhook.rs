//! Events of the webhook, received and verified by a program with the library of Standard Webhooks.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
#[path = "push/receiver.rs"]
mod receiver;

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::fleet::{KINDS, batch};
use common::places::{AnyStore, Place};
use common::process::CollectorProcess;
use common::{history, send_batch};
use receiver::{Receiver, SECRET, python};
use serde_json::{Value, json};
use tailor_collector::changes::fleet::{FleetAction, key, next_event};
use tailor_collector::clock::now_us;
use tailor_collector::store::Tenant;
use tailor_collector::store::sqlite::SqliteStore;
use tokio::runtime::Runtime;

/// Starts the binary with events sent to an address. It searches for events once a second.
fn start(data: &Path, url: &str, arguments: &[&str]) -> CollectorProcess {
    let mut common = vec!["--webhook", url, "--webhook-interval", "1", "--webhook-min-saving", "0"];
    common.extend(arguments);
    CollectorProcess::start_as(Command::new(env!("CARGO_BIN_EXE_tailor")), data, &common)
}

fn secret_file(folder: &Path) -> PathBuf {
    let file = folder.join("secret");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    file
}

fn stop(mut collector: CollectorProcess) {
    let id = collector.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert!(collector.child.wait().unwrap().success());
}

/// Waits until the first search has taken what exists as known.
fn wait_for_baseline(data: &Path) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let file = data.join("webhook-queue.json");
    while !std::fs::read_to_string(&file).is_ok_and(|text| text.contains("\"has_baseline\":true")) {
        assert!(Instant::now() < deadline, "no search for events");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends a batch of an environment that has lost invocations.
fn lose(collector: &CollectorProcess, data: &Path, invocations: u64) {
    let key = std::fs::read_to_string(data.join("ingest-key")).unwrap();
    let mut sent = batch(&KINDS[0], 7_000, 1, 5, now_us());
    sent.header.lost.invocations = invocations;
    assert_eq!(send_batch(&collector.address, key.trim(), &sent.encode().unwrap()), Some(200));
}

fn ids(requests: &[Value]) -> Vec<String> {
    requests.iter().map(|request| request["headers"]["webhook-id"].as_str().unwrap().to_owned()).collect()
}

fn events<'a>(requests: &'a [Value], kind: &str) -> Vec<&'a Value> {
    requests.iter().map(|request| &request["event"]).filter(|event| event["type"] == kind).collect()
}

/// A fleet with recommendations, changes and a freeze, written while no collector runs.
fn write_history(data: &Path) {
    let store = Arc::new(AnyStore::Sqlite(Arc::new(SqliteStore::open(data).unwrap())));
    let runtime = Runtime::new().unwrap();
    // A function in each step of twelve was changed.
    runtime.block_on(history::write(&store, 15, 3, 30, now_us()));
    let freeze = next_event(&[], FleetAction::Freeze, "<!channel> a *deployment*", now_us());
    runtime.block_on(store.log_change(&Tenant::default(), &freeze)).unwrap();
}

#[test]
fn events_are_signed_and_sent_once() {
    let Some(python) = python() else { return };
    let receiver = Receiver::start(&python, "webhook", "");
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let secret = secret_file(folder.path());
    let arguments = ["--webhook-secret-file", secret.to_str().unwrap()];
    let first = start(&data, &receiver.url, &arguments);
    wait_for_baseline(&data);
    stop(first);
    write_history(&data);
    let collector = start(&data, &receiver.url, &arguments);
    lose(&collector, &data, 3);
    let requests = receiver.wait("all kinds of events", |receiver| {
        let requests = receiver.requests();
        let kinds = ["advice.new", "data.lost", "tuner.change", "tuner.freeze"];
        kinds.iter().all(|kind| !events(&requests, kind).is_empty()).then_some(requests)
    });
    assert!(requests.iter().all(|request| request["verified"] == true), "{requests:#?}");
    let lost = events(&requests, "data.lost");
    assert_eq!(lost[0]["data"]["invocations"], 3);
    let freeze = events(&requests, "tuner.freeze");
    assert_eq!(freeze[0]["data"]["reason"], "<!channel> a *deployment*");
    let states: BTreeSet<_> =
        events(&requests, "tuner.change").iter().map(|event| event["data"]["state"].to_string()).collect();
    assert!(states.contains("\"settled\"") && states.contains("\"planned\""), "{states:?}");
    check_advice(&collector, &requests);
    // Nothing is sent again, also not after a restart.
    stop(collector);
    let collector = start(&data, &receiver.url, &arguments);
    std::thread::sleep(Duration::from_secs(3));
    stop(collector);
    let requests = receiver.requests();
    let ids = ids(&requests);
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
    assert!(requests.iter().all(|request| request["event"]["id"] == request["headers"]["webhook-id"]));
    assert!(events(&requests, "data.lost").len() == 1, "one an hour");
}

/// An event has what the API has.
fn check_advice(collector: &CollectorProcess, requests: &[Value]) {
    let mut response = ureq::get(format!("{}/v1/functions?limit=100", collector.address)).call().unwrap();
    let report: Value = response.body_mut().read_json().unwrap();
    for event in events(requests, "advice.new") {
        let data = &event["data"];
        let is_function = |function: &&Value| function["name"] == data["function"]["name"];
        let function = report["functions"].as_array().unwrap().iter().find(is_function).unwrap();
        assert_eq!(data["memory_mb"], function["memory_mb"], "{function}");
        assert_eq!(data["recommended_memory_mb"], function["advice"]["memory_mb"], "{function}");
        assert!(!data["reasons"].as_array().unwrap().is_empty(), "{data}");
    }
}

#[test]
fn after_a_crash_an_event_is_sent_again_with_its_id() {
    let Some(python) = python() else { return };
    // The receiver has the event, and its answer is lost.
    let receiver = Receiver::start(&python, "webhook", "hang\n503 1\n400");
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let secret = secret_file(folder.path());
    let arguments = ["--webhook-secret-file", secret.to_str().unwrap()];
    let mut collector = start(&data, &receiver.url, &arguments);
    wait_for_baseline(&data);
    lose(&collector, &data, 1);
    let wait = |count: usize| {
        receiver
            .wait("requests", |receiver| Some(receiver.requests()).filter(|requests| requests.len() >= count))
    };
    wait(1);
    collector.kill();
    let collector = start(&data, &receiver.url, &arguments);
    // It is tried again after an error of the receiver, and after a refusal.
    let requests = wait(4);
    std::thread::sleep(Duration::from_secs(2));
    stop(collector);
    assert_eq!(receiver.requests().len(), 4, "an accepted event is not sent again");
    assert_eq!(ids(&requests).iter().collect::<BTreeSet<_>>().len(), 1);
    assert!(requests.iter().all(|request| request["sha256"] == requests[0]["sha256"]));
    assert!(requests.iter().all(|request| request["verified"] == true));
}

#[test]
fn a_receiver_that_is_not_reachable_delays_nothing() {
    let Some(python) = python() else { return };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let url = format!("http://127.0.0.1:{port}/secret-path");
    // Slack needs no secret.
    let collector = start(&data, &url, &["--webhook-format", "slack"]);
    wait_for_baseline(&data);
    lose(&collector, &data, 2);
    let key = std::fs::read_to_string(data.join("api-key")).unwrap();
    let scrape = || {
        let request = ureq::get(format!("{}/metrics", collector.address));
        let mut response = request.header("Authorization", format!("Bearer {}", key.trim())).call().unwrap();
        response.body_mut().read_to_string().unwrap()
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    while !scrape().contains("tailor_webhook_queued_events 1") {
        assert!(Instant::now() < deadline, "{}", scrape());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!scrape().contains("tailor_webhook_attempts_total{result=\"failed\"} 0"));
    assert!(scrape().contains("tailor_webhook_dropped_events_total{reason=\"full\"} 0"));
    let receiver = Receiver::start_on(&python, "webhook", "", port);
    let requests =
        receiver.wait("the message", |receiver| Some(receiver.requests()).filter(|found| !found.is_empty()));
    let text = ":warning: *Data was lost*\n• 2 invocations lost before they were sent";
    assert_eq!(requests[0]["event"]["text"], text);
    assert_eq!(requests[0]["headers"]["webhook-signature"], Value::Null);
    stop(collector);
    let log = std::fs::read_to_string(data.with_extension("log")).unwrap();
    assert!(log.contains("cannot send events to http://127.0.0.1") && !log.contains("secret-path"), "{log}");
}

/// An event that waits is sent from the database after a migration, and what was sent before is not sent again.
#[test]
fn the_queue_is_migrated_with_the_store() {
    let (Some(python), Some(place)) = (python(), Place::database()) else { return };
    let Place::Database { url: database, .. } = &place else { panic!("not a database") };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let (data, url) = (folder.path().join("data"), format!("http://127.0.0.1:{port}"));
    let secret = secret_file(folder.path());
    let arguments = ["--webhook-secret-file", secret.to_str().unwrap()];
    let collector = start(&data, &url, &arguments);
    wait_for_baseline(&data);
    lose(&collector, &data, 2);
    let deadline = Instant::now() + Duration::from_secs(30);
    let queue = || std::fs::read_to_string(data.join("webhook-queue.json")).unwrap();
    while !queue().contains("data.lost") {
        assert!(Instant::now() < deadline, "no event in {}", queue());
        std::thread::sleep(Duration::from_millis(20));
    }
    stop(collector);
    let waiting: Value = serde_json::from_str(&queue()).unwrap();
    let id = waiting["queue"][0]["id"].as_str().unwrap();

    let migrated = Command::new(env!("CARGO_BIN_EXE_tailor"))
        .args(["migrate", "--database", database, "--data"])
        .arg(&data)
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&migrated.stdout);
    assert!(report.contains("webhook-queue: 1 rows"), "{migrated:?}");
    let receiver = Receiver::start_on(&python, "webhook", "", port);
    let arguments = [&arguments[..], &["--database", database]].concat();
    let collector = start(&folder.path().join("elsewhere"), &url, &arguments);
    receiver.wait("the event", |receiver| (!receiver.requests().is_empty()).then_some(()));
    std::thread::sleep(Duration::from_secs(2));
    stop(collector);
    let requests = receiver.requests();
    assert_eq!(ids(&requests), [id]);
    assert_eq!(requests[0]["event"]["data"]["invocations"], 2);
}

#[test]
fn of_several_collectors_with_one_database_one_sends_and_another_continues() {
    let (Some(python), Some(place)) = (python(), Place::database()) else { return };
    let Place::Database { url, .. } = &place else { panic!("not a database") };
    let receiver = Receiver::start(&python, "webhook", "");
    let folder = tempfile::tempdir().unwrap();
    let secret = secret_file(folder.path());
    let arguments = ["--webhook-secret-file", secret.to_str().unwrap(), "--database", url];
    let collectors = ["a", "b"].map(|name| start(&folder.path().join(name), &receiver.url, &arguments));
    let store = place.open_at(now_us());
    let runtime = Runtime::new().unwrap();
    let text = |name: &str| runtime.block_on(store.text(&Tenant::default(), name)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !text("webhook-queue").is_some_and(|text| text.contains("\"has_baseline\":true")) {
        assert!(Instant::now() < deadline, "no search for events");
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut log = vec![];
    let mut record = |action, reason: &str| {
        let event = next_event(&log, action, reason, now_us());
        assert_eq!(event.function, key());
        runtime.block_on(store.log_change(&Tenant::default(), &event)).unwrap();
        log.push(event);
    };
    let wait = |count: usize| {
        receiver
            .wait("requests", |receiver| Some(receiver.requests()).filter(|requests| requests.len() >= count))
    };
    record(FleetAction::Freeze, "first");
    wait(1);
    let [first, second] = collectors;
    stop(first);
    record(FleetAction::Unfreeze, "second");
    wait(2);
    std::thread::sleep(Duration::from_secs(2));
    stop(second);
    let requests = receiver.requests();
    let reasons: Vec<_> = requests.iter().map(|request| &request["event"]["data"]["reason"]).collect();
    assert_eq!(json!(reasons), json!(["first", "second"]));
    // Requests to the tuner are beside it.
    assert!(runtime.block_on(store.requests(&Tenant::default())).unwrap().is_empty());
    assert_eq!(text("another"), None);
}

#[test]
fn settings_that_cannot_be_used_are_named_without_their_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "hunter2").unwrap();
    let secret = secret.to_str().unwrap();
    let url = "https://example.com/hunter2";
    for (arguments, expected) in [
        (vec!["--webhook", url], "--webhook-secret-file"),
        (vec!["--webhook", url, "--webhook-secret-file", secret], "does not begin with `whsec_`"),
        (vec!["--webhook", url, "--webhook-secret-file", "/absent"], "cannot read the secret of the webhook"),
        (vec!["--webhook", "hunter2", "--webhook-format", "slack"], "is not an address"),
        (vec!["--webhook-secret-file", secret], "needs --webhook"),
        (vec!["--otlp-endpoint", "hunter2:4318"], "--otlp-endpoint: it is not an address"),
        (
            vec!["--otlp-endpoint", "http://a", "--otlp-headers", "hunter2"],
            "--otlp-headers: header 1 has no `=`",
        ),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailor"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(folder.path().join("data"));
        for check in [false, true] {
            let output = if check {
                command.arg("--check").output().unwrap()
            } else {
                command.args(&arguments).output().unwrap()
            };
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text);
            assert!(!output.status.success() && text.contains(expected), "{arguments:?}: {text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
    assert!(!folder.path().join("data").exists(), "nothing is created before the settings are checked");
}
