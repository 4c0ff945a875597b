//! The command line of the real binary: its output and its exit codes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::process::{Command, Output};

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
        assert!(!output.stderr.is_empty() || !output.stdout.is_empty(), "{arguments:?} says nothing");
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
    let load = || tailor_collector::keys::store::load(folder.path()).unwrap();
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
        error_text.contains("cannot look into") && error_text.contains("Not a directory"),
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
