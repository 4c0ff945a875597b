//! Metrics as OTLP, received by a program with OpenTelemetry's own package.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
#[path = "push/receiver.rs"]
mod receiver;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use common::fleet::{KINDS, Kind, batch};
use common::process::CollectorProcess;
use common::send_batch;
use receiver::{Receiver, python};
use serde_json::Value;
use tailor_collector::clock::now_us;
use tailor_test_kit::workspace;

/// Starts the binary with metrics sent to a receiver once a second.
fn start(folder: &Path, receiver: &Receiver, variables: &[(&str, &str)]) -> CollectorProcess {
    let mut program = Command::new(env!("CARGO_BIN_EXE_tailor"));
    program.envs(variables.iter().copied());
    let arguments = ["--otlp-endpoint", &receiver.url, "--otlp-interval", "1", "--metrics-functions", "3"];
    CollectorProcess::start_as(program, folder, &arguments)
}

/// Sends an ordered batch of a function.
fn send(collector: &CollectorProcess, folder: &Path, kind: &Kind, id: u64, sequence: u64) {
    let key = std::fs::read_to_string(folder.join("ingest-key")).unwrap();
    let body = batch(kind, id, sequence, 20, now_us()).encode().unwrap();
    assert_eq!(send_batch(&collector.address, key.trim(), &body), Some(200));
}

/// Ends the process in order, and waits for it.
fn stop(mut collector: CollectorProcess) {
    let id = collector.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert!(collector.child.wait().unwrap().success());
}

/// The metrics in a request, by resource.
fn resources(request: &Value) -> &Vec<Value> {
    request["resources"].as_array().unwrap()
}

fn attribute<'a>(resource: &'a Value, name: &str) -> &'a str {
    resource["resource"][name].as_str().unwrap_or_default()
}

/// The only value of a metric: of a histogram, its count.
fn value(resource: &Value, metric: &str) -> Option<f64> {
    let metrics = resource["metrics"].as_array().unwrap();
    let point = &metrics.iter().find(|found| found["name"] == metric)?["points"][0];
    point["value"].as_f64().or_else(|| point["count"].as_f64())
}

/// The latest resource of each writer.
fn latest(requests: &[Value]) -> BTreeMap<String, Value> {
    let accepted = requests.iter().filter(|request| request["answer"] == "200");
    let all = accepted.flat_map(resources);
    all.map(|resource| (attribute(resource, "service.instance.id").to_owned(), resource.clone())).collect()
}

fn sum<'a>(resources: impl IntoIterator<Item = &'a Value>, metric: &str) -> f64 {
    resources.into_iter().filter_map(|resource| value(resource, metric)).sum()
}

/// The table of the documentation: name, kind and unit.
fn documented() -> BTreeSet<[String; 3]> {
    let page = std::fs::read_to_string(workspace::project().unwrap().join("docs/otlp.md")).unwrap();
    // The table of metrics has four columns.
    let rows = page.lines().filter(|line| {
        (line.starts_with("| `faas.") || line.starts_with("| `tailor.")) && line.matches('|').count() == 5
    });
    let cells =
        |row: &str| row.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect::<Vec<_>>();
    rows.map(cells).map(|cells| [cells[1].clone(), cells[2].clone(), cells[3].clone()]).collect()
}

#[test]
fn metrics_have_the_names_units_and_values_of_conventions_and_api() {
    let Some(python) = python() else { return };
    let receiver = Receiver::start(&python, "otlp", "");
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let data = folders.each_ref().map(|folder| folder.path().join("data"));
    let variables =
        [("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20token"), ("OTEL_SERVICE_NAME", "x")];
    let first = start(&data[0], &receiver, &variables);
    for (id, kind) in KINDS.iter().enumerate() {
        send(&first, &data[0], kind, id as u64, 1);
    }
    // What arrives last is in the last export.
    stop(first);
    let before = latest(&receiver.requests());
    assert_eq!(sum(before.values(), "faas.invoke_duration"), 20.0 * KINDS.len() as f64);

    // After a restart the counters begin again, and the functions with the highest cost have their own.
    let again = start(&data[0], &receiver, &variables);
    let other = start(&data[1], &receiver, &variables);
    let sent_before = receiver.requests().len();
    receiver.wait("functions of their own", |receiver| {
        let now = latest(&receiver.requests()[sent_before..]);
        (now.values().filter(|found| !attribute(found, "cloud.resource_id").is_empty()).count() == 3)
            .then_some(())
    });
    for (id, kind) in KINDS.iter().enumerate() {
        send(&again, &data[0], kind, id as u64, 2);
    }
    send(&other, &data[1], &KINDS[0], 90, 1);
    let expected = 20.0 * (KINDS.len() + 1) as f64;
    let now = receiver.wait("all invocations", |receiver| {
        let now = latest(&receiver.requests()[sent_before..]);
        (sum(now.values(), "faas.invoke_duration") == expected).then_some(now)
    });
    let totals = [&again, &other].map(CollectorProcess::total);
    let of_api = |field: &str| totals.iter().map(|total| total[field].as_f64().unwrap()).sum::<f64>();
    let of_otlp = |metric: &str| sum(before.values(), metric) + sum(now.values(), metric);
    assert_eq!(of_otlp("faas.invocations") + of_otlp("faas.errors"), of_api("invocations"));
    assert_eq!(of_otlp("faas.errors"), of_api("errors"));
    assert_eq!(of_otlp("faas.coldstarts"), of_api("cold_starts"));
    assert!((of_otlp("tailor.function.billed_duration") * 1e3 - of_api("billed_ms")).abs() < 1e-3);
    assert!((of_otlp("tailor.function.cost") * 1e12 - of_api("cost_pico_usd")).abs() < 10.0);
    check_function(&now);
    check_names(&receiver.requests());
    // Two collectors are two writers: of the fleet and of the rest, too.
    assert_eq!(now.values().filter(|found| attribute(found, "faas.name") == "(rest)").count(), 2);
    assert_eq!(now.values().filter(|found| attribute(found, "service.name") == "tailor").count(), 2);
    let request = receiver.requests().pop().unwrap();
    assert_eq!(request["path"], "/v1/metrics");
    for (name, value) in [
        ("authorization", "Bearer token"),
        ("content-type", "application/x-protobuf"),
        ("content-encoding", "gzip"),
    ] {
        assert_eq!(request["headers"][name], value);
    }
}

/// One function: its attributes, and each kind of value.
fn check_function(now: &BTreeMap<String, Value>) {
    let name = "ledger-rollup-nightly";
    let function = now.values().find(|found| attribute(found, "faas.name") == name).unwrap();
    for (attribute_name, expected) in [
        ("cloud.provider", "aws"),
        ("cloud.platform", "aws_lambda"),
        ("cloud.region", "eu-west-1"),
        ("cloud.account.id", "123456789012"),
        ("cloud.resource_id", "arn:aws:lambda:eu-west-1:123456789012:function:ledger-rollup-nightly"),
        ("service.name", name),
        ("tailor.tenant", "default"),
    ] {
        assert_eq!(attribute(function, attribute_name), expected);
    }
    assert_eq!(value(function, "faas.invocations"), Some(20.0));
    assert_eq!(value(function, "tailor.function.memory_size"), Some(512.0 * 1_048_576.0));
    let metrics = function["metrics"].as_array().unwrap();
    let duration = metrics.iter().find(|found| found["name"] == "faas.invoke_duration").unwrap();
    let point = &duration["points"][0];
    assert_eq!(point["attributes"]["faas.trigger"], "other");
    let bounds = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
    let sent: Vec<f64> =
        point["bounds"].as_array().unwrap().iter().map(|bound| bound.as_f64().unwrap()).collect();
    assert_eq!(sent, bounds);
    let buckets = point["buckets"].as_array().unwrap();
    assert_eq!(buckets.iter().map(|count| count.as_u64().unwrap()).sum::<u64>(), 20);
    // Computed from the batch that was sent.
    let sent = batch(&KINDS[3], 3, 2, 20, now_us()).invocations;
    let seconds: u64 = sent.iter().map(|invocation| invocation.duration_us).sum();
    assert!((point["sum"].as_f64().unwrap() - seconds as f64 / 1e6).abs() < 1e-6);
    let (start, time) = (point["start"].as_u64().unwrap(), point["time"].as_u64().unwrap());
    assert!(0 < start && start < time && time <= now_us() * 1_000, "{start} {time}");
}

/// Names, kinds and units are those of the documentation, and the metrics of the conventions have theirs.
fn check_names(requests: &[Value]) {
    let mut found = BTreeSet::new();
    for metric in
        requests.iter().flat_map(resources).flat_map(|resource| resource["metrics"].as_array().unwrap())
    {
        let text = |field: &str| metric[field].as_str().unwrap().to_owned();
        let kind = match text("kind").as_str() {
            "sum" => "counter".to_owned(),
            kind => kind.to_owned(),
        };
        found.insert([text("name"), kind.clone(), text("unit")]);
        let (temporality, monotonic) = (metric["temporality"].as_u64(), metric["monotonic"].as_bool());
        // 2 is cumulative.
        let expected = match kind.as_str() {
            "counter" => (Some(2), Some(true)),
            "histogram" => (Some(2), Some(false)),
            _ => (Some(0), Some(false)),
        };
        assert_eq!((temporality, monotonic), expected, "{}", text("name"));
    }
    assert_eq!(found, documented());
    let conventions = [
        ["faas.coldstarts", "counter", "{coldstart}"],
        ["faas.cpu_usage", "histogram", "s"],
        ["faas.errors", "counter", "{error}"],
        ["faas.init_duration", "histogram", "s"],
        ["faas.invocations", "counter", "{invocation}"],
        ["faas.invoke_duration", "histogram", "s"],
        ["faas.mem_usage", "histogram", "By"],
        ["faas.net_io", "histogram", "By"],
        ["faas.timeouts", "counter", "{timeout}"],
    ];
    let of_conventions: Vec<_> = found.iter().filter(|[name, ..]| name.starts_with("faas.")).collect();
    assert_eq!(of_conventions, conventions.map(|row| row.map(ToOwned::to_owned)).iter().collect::<Vec<_>>());
}

#[test]
fn deltas_are_sent_until_they_are_accepted_and_refused_ones_are_not_repeated() {
    let Some(python) = python() else { return };
    let receiver = Receiver::start(&python, "otlp", "503 1\n429\n200\n400\npartial");
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let variables = [("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta")];
    let collector = start(&data, &receiver, &variables);
    // Nothing waits for the receiver.
    send(&collector, &data, &KINDS[0], 1, 1);
    let wait = |count: usize| {
        receiver
            .wait("requests", |receiver| Some(receiver.requests()).filter(|requests| requests.len() >= count))
    };
    let first = wait(3);
    let digests: BTreeSet<_> = first[..3].iter().map(|request| request["sha256"].to_string()).collect();
    assert_eq!(digests.len(), 1, "the same request is sent again");
    wait(5);
    send(&collector, &data, &KINDS[0], 1, 2);
    let log = receiver.wait("the log", |_| {
        let log = std::fs::read_to_string(data.with_extension("log")).unwrap();
        log.contains("did not accept 3 data points: too old").then_some(log)
    });
    assert!(log.contains("refused metrics, and they are not sent again: HTTP status 400"), "{log}");
    assert!(!log.contains("/v1/metrics"), "an address may contain a key: {log}");
    let admin = std::fs::read_to_string(data.join("api-key")).unwrap();
    let scraped = ureq::get(format!("{}/metrics", collector.address))
        .header("Authorization", format!("Bearer {}", admin.trim()))
        .call();
    let scraped = scraped.unwrap().body_mut().read_to_string().unwrap();
    for line in [
        "tailor_otlp_requests_total{result=\"failed\"} 2",
        "tailor_otlp_requests_total{result=\"refused\"} 1",
        "tailor_otlp_rejected_data_points_total 3",
    ] {
        assert!(scraped.contains(line), "{line} is not in {scraped}");
    }
    stop(collector);
    let requests = receiver.requests();
    assert_ne!(requests[3]["sha256"], requests[4]["sha256"], "a refused request is not sent again");
    let accepted =
        requests.iter().filter(|request| request["answer"] == "200" || request["answer"] == "partial");
    let resources: Vec<_> = accepted.flat_map(resources).collect();
    assert_eq!(sum(resources.iter().copied(), "faas.invoke_duration"), 40.0);
    // Each delta begins where the one before ended.
    let rest = resources.iter().filter(|found| attribute(found, "faas.name") == "(rest)");
    let times: Vec<_> = rest
        .map(|found| {
            let metrics = found["metrics"].as_array().unwrap();
            let metric = metrics.iter().find(|metric| metric["name"] == "faas.invocations").unwrap();
            assert_eq!(metric["temporality"], 1);
            (metric["points"][0]["start"].as_u64().unwrap(), metric["points"][0]["time"].as_u64().unwrap())
        })
        .collect();
    assert!(times.len() > 1 && times.iter().all(|(start, end)| start < end), "{times:?}");
    let gaps = times.windows(2).filter(|pair| pair[0].1 != pair[1].0).count();
    assert_eq!(gaps, 1, "only the refused one is missing: {times:?}");
}
