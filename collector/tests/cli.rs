//! The command line of the real binary: its output and its exit codes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::process::{Command, Output};
use tailor_collector::keys::reload::KeyFiles;
use tailor_collector::keys::sources::KeySources;
use tailor_collector::store::KeyStore;
use tailor_collector::store::sqlite::FolderKeys;

use common::fleet::{KINDS, batch};
use common::{Collector, KEY};
use serde_json::Value;
use tailor_collector::clock::now_us;

fn tailor(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tailor"))
        .args(arguments)
        .env("TAILOR_DATA", "/nowhere/at/all")
        .env("TAILOR_API_KEY", KEY)
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn measured() -> Collector {
    let collector = Collector::start();
    for (kind, id) in KINDS.iter().zip(1..) {
        assert_eq!(collector.post_batch(&batch(kind, id, 1, 150, now_us()).encode().unwrap()).status, 200);
    }
    collector
}

/// Checks the names and types of the JSON fields that other programs use.
fn assert_json_schema(summary: &Value) {
    let functions = summary["functions"].as_array().unwrap();
    assert_eq!(functions.len(), KINDS.len());
    for function in functions {
        for text in ["name", "runtime"] {
            assert!(function[text].is_string(), "{text}");
        }
        for integer in [
            "memory_mb",
            "invocations",
            "errors",
            "cold_starts",
            "billed_ms",
            "cost_pico_usd",
            "peak_memory_mb",
            "busy_ms",
            "starved_ms",
            "idle_ms",
        ] {
            assert!(function[integer].is_u64(), "{integer}: {}", function[integer]);
        }
        for number in ["p50", "p95"] {
            assert!(function["duration_ms"][number].is_number(), "{number}");
        }
        let advice = &function["advice"];
        assert!(advice["memory_mb"].is_u64());
        assert!(advice["cost_change_percent"].is_number() && advice["duration_change_percent"].is_number());
        assert!(!advice["reasons"].as_array().unwrap().is_empty());
    }
}

#[test]
fn data_folder_and_server_give_the_same_output() {
    let collector = measured();
    let folder = collector.folder.path().to_str().unwrap();
    let server = format!("http://{}", collector.address);
    for format in ["json", "csv", "markdown"] {
        for command in [&["summary"][..], &["advise", KINDS[2].name], &["changes"]] {
            let run = |place: [&str; 2]| tailor(&[command, &place, &["--format", format]].concat());
            let (from_folder, from_server) = (run(["--data", folder]), run(["--server", &server]));
            assert!(from_folder.status.success() && from_server.status.success(), "{from_server:?}");
            assert_eq!(stdout(&from_folder), stdout(&from_server), "{command:?} as {format}");
            assert!(from_folder.stderr.is_empty(), "{from_folder:?}");
        }
    }
    let summary = stdout(&tailor(&["summary", "--data", folder, "--format", "json"]));
    assert_json_schema(&serde_json::from_str(&summary).unwrap());

    let table = stdout(&tailor(&["summary", "--server", &server]));
    assert!(table.contains("$/MLN") && table.contains(&server) && !table.contains('\u{1b}'), "{table}");
    let coloured = stdout(&tailor(&["summary", "--data", folder, "--color", "always"]));
    assert!(coloured.contains('\u{1b}'));
    let advice = stdout(&tailor(&["advise", KINDS[2].name, "--data", folder]));
    assert!(advice.contains("recommended") && advice.contains("now, measured"), "{advice}");
}

/// One name can belong to functions of several regions. Their advice is one document, which a program can parse.
#[test]
fn functions_of_one_name_are_one_document() {
    let collector = measured();
    let mut elsewhere = batch(&KINDS[2], 99, 1, 150, now_us());
    elsewhere.header.environment.region = "us-east-1".to_owned();
    assert_eq!(collector.post_batch(&elsewhere.encode().unwrap()).status, 200);
    let folder = collector.folder.path().to_str().unwrap();
    let advise = |format| stdout(&tailor(&["advise", KINDS[2].name, "--data", folder, "--format", format]));

    let reports: Value = serde_json::from_str(&advise("json")).unwrap();
    let regions: Vec<_> = reports.as_array().unwrap().iter().map(|report| &report["region"]).collect();
    assert_eq!(regions, ["eu-west-1", "us-east-1"]);
    let csv = advise("csv");
    let headers = csv.lines().filter(|line| line.starts_with("name,")).count();
    assert_eq!((headers, csv.lines().count()), (1, 3), "{csv}");
}

/// Every counter that an extension sends is shown, and none is lost or mistaken for zero on the way.
#[test]
fn resources_are_reported() {
    let collector = measured();
    for kind in &KINDS {
        let report = collector.get(&format!("/v1/functions/{}", kind.name)).json();
        let resources = &report["resources"];
        for total in ["max_tmp_used_kib", "post_runtime_ms"] {
            assert!(resources[total].as_f64().unwrap() > 0.0, "{total} of {}: {resources}", kind.name);
        }
        for (name, mean) in resources["warm_means"].as_object().unwrap() {
            assert!(mean.as_f64().unwrap() > 0.0, "{name} of {}: {resources}", kind.name);
        }
        for (name, mean) in resources["thread_classes"].as_object().unwrap() {
            let busy_ms = mean.as_f64().or_else(|| mean["busy_ms"].as_f64());
            assert!(busy_ms.unwrap() > 0.0, "{name} of {}: {resources}", kind.name);
        }
        let recent = collector.get(&format!("/v1/functions/{}/invocations?limit=1", kind.name)).json();
        for (name, value) in recent["invocations"][0].as_object().unwrap() {
            let is_absent = name == "restore_ms";
            assert_eq!(value.is_null(), is_absent, "{name} of {}: {recent}", kind.name);
        }
    }
}

#[test]
fn exit_codes_are_stable() {
    let collector = measured();
    let folder = collector.folder.path().to_str().unwrap();
    let server = format!("http://{}", collector.address);
    let cases: [(&[&str], i32); 11] = [
        (&["summary", "--data", folder], 0),
        (&["advise", "no-such-function", "--data", folder], 3),
        (&["advise", "no-such-function", "--server", &server], 3),
        (&["summary", "--data", folder, "--tenant", "nobody"], 3),
        (&["summary", "--data", "/nowhere/at/all"], 1),
        (&["summary", "--server", "http://127.0.0.1:1"], 1),
        (&["summary", "--strategy", "luck"], 2),
        (&["summary", "--strategy", "p95=fast"], 2),
        (&["summary", "--strategy", "p95=300", "--data", folder], 0),
        (&["summary", "--strategy", "p99=50", "--server", &server], 0),
        (&["serve", "--listen", "0.0.0.0:0", "--local-reads", "--data", folder], 1),
    ];
    for (arguments, code) in cases {
        let output = tailor(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        assert!(!output.stderr.is_empty() || !output.stdout.is_empty(), "{arguments:?} prints nothing");
    }
    let busy = tailor(&["serve", "--listen", "127.0.0.1:0", "--data", folder]);
    assert_eq!(busy.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&busy.stderr).contains("in use by another"), "{busy:?}");
    let wrong_key = Command::new(env!("CARGO_BIN_EXE_tailor"))
        .args(["summary", "--server", &server])
        .env("TAILOR_API_KEY", "wrong")
        .output()
        .unwrap();
    assert_eq!(wrong_key.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&wrong_key.stderr).contains("unknown API key"), "{wrong_key:?}");
}

#[test]
fn keys_are_created_listed_and_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let load = || {
        let keys = runtime.block_on(FolderKeys::of(folder.path()).keys()).unwrap();
        let files = KeyFiles { folder: None, operator_file: None, lines: None };
        KeySources { store: None, files }.ring(&keys).unwrap()
    };
    let old = tailor(&["key", "--data", path, "--tenant", "acme"]);
    assert!(old.status.success());
    assert_eq!(load().find(stdout(&old).trim()).unwrap().key.tenant.0, "acme");
    assert!(!tailor(&["key", "--data", path, "--tenant", "two words"]).status.success());

    let create = [
        "keys",
        "create",
        "--data",
        path,
        "--name",
        "ci",
        "--functions",
        "ci-*,auth",
        "--expires",
        "2999-01-01",
    ];
    let created = tailor(&create);
    assert!(created.status.success(), "{created:?}");
    let secret = stdout(&created).trim().to_owned();
    let key = load().find(&secret).unwrap().key.clone();
    assert_eq!(key.scopes, [tailor_collector::keys::Scope::Ingest], "the default is the least");
    assert!(key.permits_function("ci-1") && !key.permits_function("other"));

    let listed = stdout(&tailor(&["keys", "list", "--data", path]));
    let line = listed.lines().find(|line| line.contains("ci-*,auth")).unwrap();
    assert!(line.contains(&key.id()) && line.contains("2999-01-01") && line.contains("never"), "{listed}");
    assert!(!listed.contains(&secret));

    assert_eq!(tailor(&["keys", "revoke", "--data", path, "no-such-key"]).status.code(), Some(1));
    assert!(tailor(&["keys", "revoke", "--data", path, "ci"]).status.success());
    assert!(load().find(&secret).is_none());
    for wrong in
        [["--scopes", "write"], ["--functions", "a b"], ["--expires", "soon"], ["--name", "a\u{202e}b"]]
    {
        assert_eq!(
            tailor(&[&["keys", "create", "--data", path], &wrong[..]].concat()).status.code(),
            Some(2),
            "{wrong:?}"
        );
    }
}

/// AWS's price list with one region, whose prices are ten times the real ones.
fn price_list() -> String {
    let product = |usage_type: &str| serde_json::json!({"attributes": {"usagetype": usage_type, "regionCode": "eu-west-1"}});
    let term = |usd: &str| {
        let dimension = serde_json::json!({"beginRange": "0", "pricePerUnit": {"USD": usd}});
        serde_json::json!({"TERM": {"priceDimensions": {"DIMENSION": dimension}}})
    };
    serde_json::json!({
        "offerCode": "AWSLambda",
        "publicationDate": "2026-10-01T00:00:00Z",
        "products": {"A": product("EU-Lambda-GB-Second"), "B": product("EU-Request")},
        "terms": {"OnDemand": {"A": term("0.000166667"), "B": term("0.000002")}},
    })
    .to_string()
}

#[test]
fn prices_from_a_file_replace_the_built_in_prices() {
    let collector = measured();
    let data = collector.folder.path().to_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("index.json");
    let prices = file.to_str().unwrap();
    let summary = |arguments: &[&str]| -> Value {
        let output = tailor(&[&["summary", "--data", data, "--format", "json"], arguments].concat());
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    std::fs::write(&file, price_list()).unwrap();
    let (built_in, ten_times) = (summary(&[]), summary(&["--prices", prices]));
    assert_eq!(ten_times["prices_of"], "2026-10-01");
    let cost = |summary: &Value| summary["total"]["cost_pico_usd"].as_u64().unwrap();
    // Each function's cost is rounded once.
    assert!(cost(&ten_times).abs_diff(10 * cost(&built_in)) <= 10 * KINDS.len() as u64);

    for (content, message) in [
        ("{}", "missing field"),
        ("<html>", "line 1 column 1"),
        (r#"{"offerCode":"AmazonEC2"}"#, "price list of `AmazonEC2`"),
    ] {
        std::fs::write(&file, content).unwrap();
        for command in [&["summary", "--data", data][..], &["serve", "--data", data]] {
            let output = tailor(&[command, &["--prices", prices]].concat());
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            let error = stderr(&output);
            assert!(error.contains(message) && error.contains(prices), "{error}");
        }
    }
    let missing = tailor(&["summary", "--data", data, "--prices", "/no/such/file"]);
    assert!(stderr(&missing).contains("cannot read the price file /no/such/file"), "{missing:?}");
    let with_server = tailor(&["summary", "--server", "http://127.0.0.1:1", "--prices", prices]);
    assert_eq!(with_server.status.code(), Some(2), "a collector uses its own prices");
}

/// `tailor serve` as a process that is killed when dropped.
struct Served(std::process::Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_region_without_a_price_is_logged_once() {
    let folder = tempfile::tempdir().unwrap();
    let (data, keys, log) =
        (folder.path().join("data"), folder.path().join("keys"), folder.path().join("log"));
    std::fs::write(&keys, KEY).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_tailor"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()])
        .args(["--api-key-file", keys.to_str().unwrap()])
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let _served = Served(child);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let address = loop {
        let address = std::fs::read_to_string(data.join("address")).unwrap_or_default();
        if ureq::get(format!("{}/readyz", address.trim())).call().is_ok() {
            break address.trim().to_owned();
        }
        assert!(std::time::Instant::now() < deadline, "the collector did not become ready");
        std::thread::sleep(std::time::Duration::from_millis(10));
    };
    for id in 1..4 {
        let mut batch = batch(&KINDS[0], id, 1, 3, now_us());
        batch.header.environment.region = "mars-north-1".to_owned();
        let posted = ureq::post(format!("{address}/v1/batches"))
            .header("Authorization", format!("Bearer {KEY}"))
            .header("Content-Type", agent_proto::CONTENT_TYPE)
            .send(&batch.encode().unwrap());
        assert_eq!(posted.unwrap().status(), 200);
    }
    let log = std::fs::read_to_string(&log).unwrap();
    assert_eq!(log.matches("no x86_64 price is known").count(), 1, "{log}");
    assert!(log.contains("mars-north-1") && log.contains("--prices"), "{log}");
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn an_unreadable_folder_is_reported_as_unreadable() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let output = tailor(&["summary", "--data", file.path().to_str().unwrap()]);
    let error_text = stderr(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        error_text.contains("cannot read the folder") && error_text.contains("Not a directory"),
        "{error_text}"
    );
}

#[test]
fn a_used_port_creates_no_data_folder() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let parent = tempfile::tempdir().unwrap();
    let data = parent.path().join("data");
    let address = taken.local_addr().unwrap().to_string();
    let output = tailor(&["serve", "--data", data.to_str().unwrap(), "--listen", &address]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("choose another with --listen"), "{}", stderr(&output));
    assert!(!data.exists());
}

#[test]
fn a_server_url_without_scheme_is_refused_with_a_correction() {
    let output = tailor(&["summary", "--server", "127.0.0.1:8080"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("http://127.0.0.1:8080"), "{}", stderr(&output));
}

#[test]
fn column_names_are_unique() {
    let collector = measured();
    let server = format!("http://{}", collector.address);
    let text = stdout(&tailor(&["summary", "--server", &server, "--format", "markdown"]));
    let mut names: Vec<&str> = text.lines().next().unwrap().split('|').map(str::trim).collect();
    names.retain(|name| !name.is_empty());
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all, "{text}");
    assert!(!names.contains(&"COST $") || !names.contains(&"COST"), "{text}");
    assert!(!text.contains("-%"), "{text}");
}
