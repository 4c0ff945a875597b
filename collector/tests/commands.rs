//! The commands that show data, on a data folder and on a server: names, formats, windows, order, and exit codes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::process::{Command, Output};

use agent_proto::batch::Batch;
use common::fleet::{KINDS, batch};
use common::{Collector, KEY};
use serde_json::Value;
use tailor_collector::clock::now_us;
use tailor_collector::store::HOUR_US;

/// A name that is a formula for a spreadsheet, and markup in Markdown.
const HOSTILE: &str = "=cmd|' /C calc'!A0<b>[x](http://evil)";

fn tailor(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tailor"))
        .args(arguments)
        .env_remove("TAILOR_DATA")
        .env("TAILOR_API_KEY", KEY)
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn post(collector: &Collector, batch: &Batch) {
    let response = collector.post_batch(&batch.encode().unwrap());
    assert_eq!(response.status, 200, "{}", response.text());
}

/// A collector with all kinds of functions: one was invoked a day ago, the others now.
fn measured() -> Collector {
    let collector = Collector::start();
    for (kind, id) in KINDS.iter().zip(1..) {
        let age_us = if id == 1 { 24 * HOUR_US } else { 0 };
        post(&collector, &batch(kind, id, 1, 150, now_us() - age_us));
    }
    collector
}

/// The arguments of both sources.
fn sources(collector: &Collector) -> [[String; 2]; 2] {
    let folder = collector.folder.path().to_str().unwrap().to_owned();
    [["--data".to_owned(), folder], ["--server".to_owned(), format!("http://{}", collector.address)]]
}

/// Runs a command on both sources. Their output is the same.
fn run_on_both(collector: &Collector, arguments: &[&str]) -> Output {
    let [folder, server] = sources(collector)
        .map(|[option, value]| tailor(&[arguments, &[option.as_str(), value.as_str()]].concat()));
    assert_eq!(folder.status.code(), server.status.code(), "{arguments:?}: {folder:?} {server:?}");
    let text = |output: &Output| -> String {
        let text = stdout(output);
        let text = text.split("\nThe web page shows").next().unwrap();
        // The window of a time series ends now.
        let is_length = |line: &str| line.trim_start().trim_start_matches('"').starts_with("hours");
        text.lines().filter(|line| !is_length(line)).map(|line| format!("{line}\n")).collect()
    };
    assert_eq!(text(&folder), text(&server), "{arguments:?}");
    folder
}

#[test]
fn the_former_names_are_the_same_commands() {
    let collector = measured();
    let folder = collector.folder.path().to_str().unwrap();
    let pairs: [(&[&str], &[&str]); 3] = [
        (&["summary"], &["functions"]),
        (&["advise"], &["functions"]),
        (&["advise", "thumbnails"], &["function", "thumbnails"]),
    ];
    for (former, present) in pairs {
        let run = |command: &[&str]| stdout(&tailor(&[command, &["--data", folder]].concat()));
        assert!(run(present).contains("thumbnails"));
        assert_eq!(run(former), run(present), "{former:?}");
    }
}

#[test]
fn every_format_shows_the_same_on_both_sources() {
    let collector = measured();
    let commands: [&[&str]; 6] = [
        &["functions", "--by", "region"],
        &["function", "thumbnails"],
        &["hints"],
        &["series", "--since", "2d"],
        &["series", "thumbnails"],
        &["changes"],
    ];
    for command in commands {
        for format in ["table", "csv", "markdown"] {
            let output = run_on_both(&collector, &[command, &["--format", format]].concat());
            assert_eq!((code(&output), output.stdout.is_empty()), (0, false), "{command:?}: {output:?}");
        }
        let [json, yaml] = ["json", "yaml"]
            .map(|format| stdout(&run_on_both(&collector, &[command, &["--format", format]].concat())));
        let mut json: Value = serde_json::from_str(&json).unwrap();
        let mut yaml: Value = serde_saphyr::from_str(&yaml).unwrap();
        for value in [&mut json, &mut yaml] {
            value["total"]["hours"].take();
        }
        assert!(is_same(&json, &yaml), "{command:?}: {json} {yaml}");
    }
}

/// Whether two values are equal. YAML has no difference between 1 and 1.0.
fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-9,
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| is_same(a, b)))
        }
        (a, b) => a == b,
    }
}

/// The name of a function is data of others: no format may let a spreadsheet or a renderer interpret it.
#[test]
fn cells_are_neither_formulas_nor_markup() {
    let collector = Collector::start();
    let mut hostile = batch(&KINDS[1], 1, 1, 150, now_us());
    hostile.header.environment.function = HOSTILE.to_owned();
    post(&collector, &hostile);
    let mut commands: Vec<Vec<&str>> = vec![vec!["functions"], vec!["hints"], vec!["top"], vec!["doctor"]];
    commands.push(vec!["series", "--by", "runtime"]);
    for command in commands {
        let csv = stdout(&run_on_one(&collector, &command, "csv"));
        for record in csv::Reader::from_reader(csv.as_bytes()).records() {
            for cell in &record.unwrap() {
                let is_number = cell.parse::<f64>().is_ok();
                assert!(is_number || !cell.starts_with(['=', '+', '-', '@']), "{command:?}: {cell}");
            }
        }
        let markdown = stdout(&run_on_one(&collector, &command, "markdown"));
        let columns = |line: &str| line.replace("\\|", "").matches('|').count();
        let mut lines = markdown.lines();
        let expected = columns(lines.next().unwrap());
        for line in lines {
            assert_eq!(columns(line), expected, "{command:?}: {line}");
            assert!(!line.contains("<b>") && !line.contains("http://evil"), "{line}");
        }
    }
}

fn run_on_one(collector: &Collector, command: &[&str], format: &str) -> Output {
    let folder = collector.folder.path().to_str().unwrap();
    tailor(&[command, &["--data", folder, "--format", format]].concat())
}

#[test]
fn windows_begin_at_a_time_before_now() {
    let collector = measured();
    let names = |arguments: &[&str]| -> Vec<String> {
        let output = run_on_both(&collector, &[&["functions", "--format", "json"], arguments].concat());
        let fleet: Value = serde_json::from_str(&stdout(&output)).unwrap();
        let functions = fleet["functions"].as_array().unwrap();
        functions.iter().map(|function| function["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&["--since", "2d"]).len(), KINDS.len());
    assert_eq!(names(&["--since", "6h"]).len(), KINDS.len() - 1);
    assert_eq!(names(&["--since", "2020-01-01"]), names(&["--hours", "100000"]));
    for wrong in [["--since", "yesterday"], ["--since", "2999-01-01"], ["--hours", "0"]] {
        assert_eq!(code(&tailor(&[&["functions"], &wrong[..]].concat())), 2, "{wrong:?}");
    }
    assert_eq!(code(&tailor(&["functions", "--since", "6h", "--hours", "6"])), 2);
    for wrong in ["since=yesterday", "since=2999-01-01", "since=6h&hours=6"] {
        let response = collector.get(&format!("/v1/functions?{wrong}"));
        assert_eq!((response.status, &response.json()["error"]["code"]), (400, &"query".into()), "{wrong}");
    }
    let page = collector.get("/?since=6h").text();
    assert!(!page.contains(KINDS[0].name) && page.contains(KINDS[1].name));
}

#[test]
fn every_list_is_filtered_and_sorted_with_the_same_names() {
    let collector = measured();
    let list = |arguments: &[&str], pointer: &str, field: &str| -> Vec<String> {
        let output = run_on_both(&collector, &[arguments, &["--format", "json"]].concat());
        let value: Value = serde_json::from_str(&stdout(&output)).unwrap();
        let items = value.pointer(pointer).unwrap().as_array().unwrap();
        items.iter().map(|item| item[field].to_string()).collect()
    };
    let names = list(&["functions", "--sort", "name"], "/functions", "name");
    assert!(names.is_sorted() && names.len() == KINDS.len());
    let codes = list(&["hints", "--sort", "code"], "/hints", "code");
    assert!(codes.is_sorted() && codes.len() > 2, "{codes:?}");
    let mut reversed = list(&["hints", "--sort", "code", "--reverse"], "/hints", "code");
    assert_eq!(
        list(&["hints", "--sort", "code", "--reverse", "--limit", "1"], "/hints", "code"),
        reversed[..1]
    );
    reversed.reverse();
    assert_eq!(codes, reversed);
    assert!(list(&["hints", "--name", "thumbnails"], "/hints", "code").len() < codes.len());
    let mut points = list(&["series", "--since", "6h", "--reverse"], "/points", "at_us");
    points.reverse();
    assert_eq!(points, list(&["series", "--since", "6h"], "/points", "at_us"));
    for wrong in ["functions?sort=code", "hints?sort=p95", "changes?sort=luck", "changes?state=luck"] {
        assert_eq!(collector.get(&format!("/v1/{wrong}")).status, 400, "{wrong}");
    }
}

#[test]
fn conditions_have_an_exit_code_of_their_own() {
    let collector = measured();
    let met: [&[&str]; 8] = [
        &["functions", "--fail-on", "saving"],
        &["functions", "--fail-on", "cost=0.000001"],
        &["functions", "--fail-on", "saving=1000000", "--fail-on", "advice=change"],
        &["function", "orders-webhook", "--fail-on", "advice=change"],
        &["function", "orders-webhook", "--fail-on", "hint=idle-dominated"],
        &["hints", "--fail-on", "severity=warning"],
        &["hints", "--fail-on", "hint"],
        &["advise", "orders-webhook", "--fail-on", "saving=1%"],
    ];
    for arguments in met {
        let output = run_on_both(&collector, arguments);
        assert_eq!(code(&output), 4, "{arguments:?}: {output:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains("--fail-on"), "{error}");
        assert!(!output.stdout.is_empty(), "the report is shown, too");
    }
    let not_met: [(&[&str], i32); 6] = [
        (&["functions", "--fail-on", "saving=1000000"], 0),
        (&["functions", "--name", "auth", "--fail-on", "out-of-memory"], 0),
        (&["function", "orders-webhook", "--fail-on", "timeouts=50%"], 0),
        (&["function", "no-such-function", "--fail-on", "saving"], 3),
        (&["functions", "--name", "no-such-function", "--fail-on", "saving"], 3),
        (&["functions", "--fail-on", "luck"], 2),
    ];
    for (arguments, expected) in not_met {
        let output = run_on_both(&collector, arguments);
        assert_eq!(code(&output), expected, "{arguments:?}: {output:?}");
    }
    let unreachable = tailor(&["functions", "--server", "http://127.0.0.1:1", "--fail-on", "saving"]);
    assert_eq!(code(&unreachable), 1);
}

/// The table of exit codes in the documentation is that of the program.
#[test]
fn the_exit_codes_are_documented() {
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/cli.md")).unwrap();
    for (code, meaning) in tailor_collector::cli::exit::TABLE {
        let row = format!("| {code} | {} |", meaning.replace("--fail-on", "`--fail-on`"));
        assert!(document.contains(&row), "docs/cli.md has no row {row}");
    }
    for code in tailor_sizing::advice::hints::HintCode::ALL {
        let severity = serde_json::to_value(code.severity()).unwrap();
        let code = serde_json::to_value(code).unwrap();
        let row = format!("| `{}` | {} |", code.as_str().unwrap(), severity.as_str().unwrap());
        assert!(document.contains(&row), "docs/cli.md has no row {row}");
    }
}

#[test]
fn the_doctor_finds_what_needs_attention() {
    let collector = measured();
    let folder = collector.folder.path().to_str().unwrap();
    let key = |arguments: &[&str]| {
        assert_eq!(code(&tailor(&[&["keys", "create", "--data", folder], arguments].concat())), 0);
    };
    key(&["--name", "ingest"]);
    let healthy = tailor(&["doctor", "--data", folder]);
    assert_eq!(code(&healthy), 0, "{healthy:?}");
    key(&["--name", "old", "--expires", "2020-01-01"]);

    // The clock of an environment is an hour ahead of the collector's, and its extension lost invocations.
    let mut ahead = batch(&KINDS[2], 90, 1, 10, now_us());
    ahead.header.sent_at_us = now_us() + HOUR_US;
    ahead.header.lost.invocations = 7;
    post(&collector, &ahead);
    let output = tailor(&["doctor", "--data", folder, "--format", "json"]);
    assert_eq!(code(&output), 4, "{output:?}");
    let found: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let has = |level: &str, check: &str, subject: &str, text: &str| {
        found["findings"].as_array().unwrap().iter().any(|finding| {
            let part = |name: &str, text: &str| finding[name].as_str().unwrap().contains(text);
            part("level", level) && part("check", check) && part("subject", subject) && part("finding", text)
        })
    };
    assert!(has("error", "clock", "collector", "s behind"), "{found:#}");
    assert!(has("warning", "keys", "old", "expired"), "{found:#}");
    assert!(has("warning", "losses", "orders-webhook", "7"), "{found:#}");
    assert!(has("ok", "disk", folder, "MB are free"), "{found:#}");
    assert!(has("ok", "prices", "20", "days old"), "{found:#}");
    for finding in found["findings"].as_array().unwrap() {
        let needs_action = matches!(finding["level"].as_str(), Some("warning" | "error"));
        assert!(!needs_action || !finding["action"].as_str().unwrap().is_empty(), "{finding}");
    }

    let server = format!("http://{}", collector.address);
    let output = tailor(&["doctor", "--server", &server]);
    let text = stdout(&output);
    assert!(text.contains("the collector is ready") && text.contains("7"), "{text}");
    let nobody = tailor(&["doctor", "--server", "http://127.0.0.1:1"]);
    assert_eq!(code(&nobody), 4);
    assert!(stdout(&nobody).contains("cannot be reached"), "{nobody:?}");
    let no_folder = tailor(&["doctor", "--data", "/nowhere/at/all"]);
    assert_eq!(code(&no_folder), 4);
    let no_aws = tailor(&["doctor", "--data", folder, "--lambda-endpoint", "http://127.0.0.1:1"]);
    assert!(stdout(&no_aws).contains("check the credentials"), "{no_aws:?}");
}

/// Who sets a variable for all commands can use each of them.
#[test]
fn a_variable_does_not_exclude_an_option() {
    let collector = measured();
    let server = format!("http://{}", collector.address);
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailor"));
        for variable in ["TAILOR_DATA", "TAILOR_TAGS", "TAILOR_USAGE"] {
            command.env(variable, "/nowhere/at/all");
        }
        command.args(arguments).args(["--server", &server]).env("TAILOR_API_KEY", KEY).output().unwrap()
    };
    for command in ["functions", "bill", "hints"] {
        let output = run(&[command]);
        assert_eq!(code(&output), 0, "{command}: {output:?}");
    }
    for arguments in [["functions", "--tags", "tags.csv"], ["bill", "--usage", "usage.json"]] {
        let output = run(&arguments);
        assert_eq!(code(&output), 2, "{arguments:?}: {output:?}");
    }
}

/// A named folder is read, also where a variable names a database.
#[test]
fn a_named_folder_wins_over_the_variable_of_the_database() {
    let collector = measured();
    let folder = collector.folder.path().to_str().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailor"));
        command.env("TAILOR_DATABASE", "postgres://tailor@127.0.0.1:1/tailor?sslmode=disable");
        command.args(arguments).output().unwrap()
    };
    for arguments in [
        &["functions", "--data", folder][..],
        &["function", "--data", folder, "--", KINDS[0].name],
        &["series", "--data", folder],
        &["changes", "--data", folder],
        &["changes", "log", "--data", folder],
        &["export", "csv", "--data", folder],
        &["report", "--data", folder],
        &["check", "--data", folder],
        &["archive", "status", "--data", folder],
        &["doctor", "--data", folder],
    ] {
        let output = run(arguments);
        assert_eq!(code(&output), 0, "{arguments:?}: {output:?}");
    }
    let absent = run(&["check", "--data", "/nowhere/at/all"]);
    assert!(String::from_utf8_lossy(&absent.stderr).contains("no store in /nowhere/at/all"), "{absent:?}");
    // Both are named, or neither.
    let database = "postgres://tailor@127.0.0.1:1/tailor?sslmode=disable";
    for arguments in [&["functions", "--data", folder, "--database", database][..], &["functions"]] {
        let output = run(arguments);
        assert_eq!(code(&output), 1, "{arguments:?}: {output:?}");
    }
}

/// `head` closes the pipe when it has read enough.
#[test]
fn a_closed_pipe_ends_no_command_with_a_failure() {
    let collector = measured();
    let folder = collector.folder.path().to_str().unwrap();
    for (arguments, expected) in [
        (&["functions", "--data", folder][..], 0),
        (&["functions", "--data", folder, "--fail-on", "cost"], 4),
        (&["changes", "log", "--verify", "--data", folder], 0),
        (&["archive", "status", "--data", folder], 0),
        (&["archive", "ddl", "--archive", "s3://bucket/prefix"], 0),
        (&["export", "csv", "--data", folder], 0),
        (&["export", "parquet", "--data", folder], 0),
        (&["export", "infracost", "--data", folder], 0),
        (&["keys", "create", "--data", folder], 0),
        (&["completions", "bash"], 0),
        (&["top", "--data", folder, "--iterations", "1000000"], 0),
        (&["function", "absent", "--data", folder], 3),
        (&["function", "--data", "/nowhere/at/all", "absent"], 1),
    ] {
        // A pipe whose other end is closed.
        let [out, error] = [(); 2].map(|()| std::io::pipe().unwrap().1);
        let status = Command::new(env!("CARGO_BIN_EXE_tailor"))
            .args(arguments)
            .env_remove("TAILOR_DATA")
            .stdout(out)
            .stderr(error)
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(expected), "{arguments:?}");
    }
}

#[test]
fn the_check_of_a_policy_has_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let (valid, invalid) = (folder.path().join("tailor.yaml"), folder.path().join("invalid.yaml"));
    std::fs::write(
        &valid,
        "version: 1\nmode: recommend\nfunctions:\n  - name: 'checkout-*'\n    mode: observe\n",
    )
    .unwrap();
    std::fs::write(&invalid, "version: 1\nmode: luck\n").unwrap();
    let check = |file: &std::path::Path, format: &str| {
        tailor(&["policy", "check", file.to_str().unwrap(), "--format", format])
    };
    let table = check(&valid, "table");
    assert!(code(&table) == 0 && stdout(&table).contains("valid, mode `recommend`, 1 rules"), "{table:?}");
    let json: Value = serde_json::from_slice(&check(&valid, "json").stdout).unwrap();
    assert_eq!(
        (&json["mode"], &json["rules"], &json["problem"]),
        (&"recommend".into(), &1.into(), &"".into())
    );
    let refused = check(&invalid, "json");
    let json: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert!(code(&refused) == 1 && json["problem"].as_str().unwrap().contains("luck"), "{refused:?}");
    assert!(stdout(&check(&invalid, "csv")).lines().nth(1).unwrap().contains("luck"));
    let refused = check(&invalid, "table");
    assert!(code(&refused) == 1 && String::from_utf8_lossy(&refused.stderr).contains("luck"), "{refused:?}");
}
