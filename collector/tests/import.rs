//! `tailor import logs`: what is stored, what is not, and what is shown.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use common::fleet::{KINDS, batch};
use common::places::Place;
use common::process::CollectorProcess;
use common::received;
use serde_json::Value;
use tailor_collector::clock::now_us;
use tailor_collector::import::ledger::{self, Ledger, Waiting};
use tailor_collector::import::{Importer, Settings};
use tailor_collector::store::sqlite::SqliteStore;
use tailor_collector::store::{FunctionKey, Store, Tenant, Window};
use tailor_logs::ImportedInvocation;
use tailor_sizing::telemetry::invocation::{Invocation, RequestId};
use tailor_sizing::units::{Architecture, Megabytes};

fn import(data: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tailor"))
        .args(["import", "logs", "--data"])
        .arg(data)
        .args(["--format", "json", "--region", "eu-west-1"])
        .args(arguments)
        .env_remove("AWS_REGION")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that reads files does not read its standard input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// The size of the log that imports have counted of a function.
fn log_bytes(data: &Path, account: &str, name: &str) -> Option<u64> {
    let [account, region, name] = [account, "eu-west-1", name].map(str::to_owned);
    let function = FunctionKey { account, region, name };
    ledger::log_bytes(data, &Tenant::default(), &function, Window::ALL).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The log of `count` invocations of 100.25 ms at 512 MB. The first waits for an Init of 80 ms.
fn log(count: u32) -> String {
    let mut log = String::new();
    for index in 0..count {
        let id = format!("{index:08x}-2222-4333-8444-555555555555");
        let time = format!("2026-01-02T03:{:02}:{:02}.000Z", index / 60 % 60, index % 60);
        let (billed, init) = if index == 0 { (181, "Init Duration: 80.00 ms\t") } else { (101, "") };
        writeln!(
            log,
            "{time} START RequestId: {id} Version: 7\n{time} INFO paid\n{time} END RequestId: {id}"
        )
        .unwrap();
        writeln!(
            log,
            "{time} REPORT RequestId: {id}\tDuration: 100.25 ms\tBilled Duration: {billed} ms\tMemory Size: 512 MB\tMax Memory Used: 70 MB\t{init}"
        )
        .unwrap();
    }
    log
}

#[test]
fn repeated_and_overlapping_imports_count_once() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let logs = folder.path().join("logs/aws/lambda/pay");
    std::fs::create_dir_all(&logs).unwrap();
    std::fs::write(logs.join("a.log"), log(200)).unwrap();
    let folder_of_logs = folder.path().join("logs");
    let folder_of_logs = folder_of_logs.to_str().unwrap();

    let first = json(&import(&data, &[folder_of_logs], ""));
    let function = &first["functions"][0];
    assert_eq!((&function["name"], &function["region"]), (&"pay".into(), &"eu-west-1".into()));
    assert_eq!((&function["versions"][0], &function["measured_by"]), (&"7".into(), &"logs".into()));
    assert_eq!((&function["invocations"], &function["cold_starts"]), (&200.into(), &1.into()));
    let billed_ms = 181 + 199 * 101_u64;
    assert_eq!(function["billed_ms"], billed_ms);
    // Half a GB, at 0.0000166667 $ for each GB and second, and 0.20 $ for a million requests.
    assert_eq!(function["cost_pico_usd"], (billed_ms * 16_666_700 / 2).div_ceil(1_000) + 200 * 200_000);

    // The same file, a longer one that is compressed, and a part of it on standard input.
    let text = log(250);
    let mut gzip = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    std::fs::write(logs.join("b.log.gz"), gzip.finish().unwrap()).unwrap();
    let again = import(&data, &[folder_of_logs], "");
    assert!(
        stderr(&again).contains("50 invocations of 1 function imported, 200 imported before"),
        "{again:?}"
    );
    assert_eq!(json(&again)["total"]["invocations"], 250);
    let part: String = text.lines().skip(100).take(400).map(|line| format!("{line}\n")).collect();
    let input = import(&data, &["--function", "pay", "-"], &part);
    assert!(
        stderr(&input).contains("0 invocations of 1 function imported, 100 imported before"),
        "{input:?}"
    );
    assert_eq!(json(&input)["total"]["invocations"], 250);
}

#[test]
fn unreadable_lines_are_counted_and_stop_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let broken = format!(
        "REPORT RequestId: none\tDuration: 1 ms\n{}INFO got \"REPORT RequestId: 1\"\n{{\"type\":\"platform.report\",\n",
        log(3)
    );
    let output = import(&data, &["--function", "pay", "-", "/nowhere/at/all.log"], &broken);
    assert!(output.status.success());
    assert_eq!(json(&output)["total"]["invocations"], 3);
    let text = stderr(&output);
    for expected in [
        "lines of the platform that cannot be read: 1, such as: REPORT RequestId: none Duration: 1 ms",
        "REPORT lines inside other messages, which are not imported: 1",
        "JSON documents that cannot be read: 1",
        "files that cannot be read: 1, such as: /nowhere/at/all.log",
        "the invocations are of 2026-01-02: other commands show the last 30 days, unless --since names an earlier start: --since 2026-01-02",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    // Without the name of the function nothing is stored, and the text says what to do.
    let unknown = import(&data, &["-"], &log(3).replace("-2222-", "-3333-"));
    assert_eq!(unknown.status.code(), Some(3), "{unknown:?}");
    assert!(stderr(&unknown).contains("--function"), "{unknown:?}");
    assert!(stderr(&unknown).contains(", 100.25 ms, 512 MB"), "{unknown:?}");
    // What a log says is not stored.
    for entry in std::fs::read_dir(&data).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(9).any(|window| window == b"INFO paid"));
    }
}

/// The pages show nothing as zero that logs do not have.
#[test]
fn the_pages_of_an_imported_function_have_no_zeros_for_what_is_not_measured() {
    let folder = tempfile::tempdir().unwrap();
    assert!(import(folder.path(), &["--function", "pay", "-"], &log(30)).status.success());
    let collector = common::Collector::start_in(folder, |_| {});
    let page = collector.get("/functions/pay?hours=876000").text();
    assert!(page.contains("Measured at each size") && page.contains("not measured"), "{page}");
    for wrong in ["The extension used", "- %, 0 ms", "0 MB</td>", "<p class=\"sub\"> · "] {
        let at = page.find(wrong).map(|at| &page[at.saturating_sub(200)..at + wrong.len()]);
        assert!(!page.contains(wrong), "{wrong}: {at:?}");
    }
    let fleet = collector.get("/?hours=876000").text();
    assert!(fleet.contains("1 caveat<"), "{fleet}");
}

/// A large fleet is read from summaries, which only a collector keeps.
#[test]
fn every_command_has_all_functions_where_no_collector_runs() {
    const FUNCTIONS: usize = 60;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let logs = folder.path().join("logs/aws/lambda");
    let time = tailor_billing::time::format(i64::try_from(now_us() / 1_000_000 - 7_200).unwrap());
    for number in 0..FUNCTIONS {
        let of_function = logs.join(format!("pay-{number}"));
        std::fs::create_dir_all(&of_function).unwrap();
        let line = format!(
            "{time} REPORT RequestId: {number:08x}-2222-4333-8444-555555555555\tDuration: 100.25 ms\tBilled Duration: 101 ms\tMemory Size: 512 MB\tMax Memory Used: 70 MB\n"
        );
        std::fs::write(of_function.join("a.log"), line).unwrap();
    }
    let imported = import(&data, &[logs.to_str().unwrap()], "");
    assert_eq!(json(&imported)["matching_functions"], FUNCTIONS);
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailor"));
        let output = command.args(arguments).arg("--data").arg(&data).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        output
    };
    let list = json(&run(&["functions", "--format", "json"]));
    assert_eq!((&list["matching_functions"], &list["summaries"]), (&FUNCTIONS.into(), &Value::Null));
    assert_eq!(list["total"], json(&imported)["total"]);
    assert_eq!(json(&run(&["series", "--format", "json"]))["total"]["invocations"], FUNCTIONS);
    assert_eq!(json(&run(&["bill", "--format", "json"]))["matching_functions"], FUNCTIONS);
    for (arguments, expected) in
        [(&["report"][..], "60 functions. "), (&["report", "--by", "region"], "| eu-west-1 | 60 | 60 |")]
    {
        let text = String::from_utf8(run(arguments).stdout).unwrap();
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn functions_of_the_layer_are_not_imported() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).unwrap();
    let batch = batch(&KINDS[0], 1, 1, 20, now_us());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(store.append(received(Tenant::default(), &batch, now_us()))).unwrap();
    drop(store);
    // The layer does not measure the log. The log lacks the account, and an invocation counts once.
    for (count, more) in [(5, "; its log of "), (5, "\n"), (6, "; its log of ")] {
        let output = import(folder.path(), &["--function", KINDS[0].name, "-"], &log(count));
        assert!(output.status.success(), "{output:?}");
        let expected = format!("{count} invocations not imported, because its layer measures them{more}");
        assert!(stderr(&output).contains(&expected), "{output:?}");
        // Without the time before each message.
        let bytes: usize = log(count).lines().map(|line| line.len() - 25 + 26).sum();
        assert_eq!(log_bytes(folder.path(), "123456789012", KINDS[0].name), Some(bytes as u64));
    }
    // The same name in another region is another function.
    let other =
        import(folder.path(), &["--function", KINDS[1].name, "-"], &log(5).replace("-2222-", "-3333-"));
    assert_eq!(json(&other)["total"]["invocations"], 5);
}

/// As `grep REPORT` and filters of CloudWatch Logs write it.
#[test]
fn the_size_of_a_log_with_only_lines_of_the_platform_is_not_known() {
    let folder = tempfile::tempdir().unwrap();
    let all = log(4);
    let reports: String =
        all.lines().filter(|line| line.contains("REPORT")).map(|line| format!("{line}\n")).collect();
    let output = import(folder.path(), &["--function", "pay", "-"], &reports);
    assert!(stderr(&output).contains("pay: the size of its log is not counted"), "{output:?}");
    assert_eq!(log_bytes(folder.path(), "", "pay"), None);
    let output = import(folder.path(), &["--function", "ship", "-"], &all.replace("-2222-", "-3333-"));
    assert!(!stderr(&output).contains("is not counted"), "{output:?}");
    assert!(log_bytes(folder.path(), "", "ship").is_some());
}

/// Logs do not have the timeout, but the duration of an invocation that ran into it.
#[test]
fn the_timeout_is_the_longest_duration_of_an_invocation_that_ran_into_it() {
    let folder = tempfile::tempdir().unwrap();
    let timed_out = "2026-01-02T03:30:00.000Z REPORT RequestId: 11111111-2222-4333-8444-555555555555\tDuration: 3000.42 ms\t\
                     Billed Duration: 3000 ms\tMemory Size: 512 MB\tMax Memory Used: 70 MB\tStatus: timeout\n";
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // A later import without a timeout keeps it.
    for (text, expected) in [(log(2), 0), (timed_out.to_owned(), 3_000), (log(5), 3_000)] {
        let output = import(folder.path(), &["--function", "pay", "-"], &text);
        assert!(output.status.success(), "{output:?}");
        let store = SqliteStore::open(folder.path()).unwrap();
        let found = runtime.block_on(store.environments(&Tenant::default(), None, Window::ALL)).unwrap();
        assert_eq!(found.newest_header().unwrap().environment.timeout_ms, expected);
    }
}

#[test]
fn the_ledger_counts_once_within_an_import_and_beside_another() {
    let folder = tempfile::tempdir().unwrap();
    let tenant = Tenant::default();
    // Both begin with an empty file.
    let [mut first, mut second] = [(); 2].map(|()| Ledger::open(folder.path()).unwrap());
    let found = |request: u128, second: u64| ImportedInvocation {
        origin: Arc::default(),
        version: "1".to_owned(),
        region: "eu-west-1".to_owned(),
        memory: Megabytes(128),
        runtime: String::new(),
        log_bytes: None,
        has_time: true,
        invocation: Invocation {
            request_id: RequestId(request),
            started_at_us: second * 1_000_000,
            ..Invocation::default()
        },
    };
    // Each request has a line of another tool with a different time, and is invoked again after a minute.
    let all: Vec<_> =
        (0..100).flat_map(|request| [1_000, 1_010, 1_060].map(|second| found(request, second))).collect();
    let expected: Vec<bool> = (0..300).map(|index| index % 3 != 1).collect();
    let mut round = first.begin().unwrap();
    assert_eq!(round.add(&tenant, &all).unwrap(), expected);
    assert_eq!(round.add(&tenant, &all[..30]).unwrap(), [false; 30]);
    round.commit().unwrap();
    let mut round = second.begin().unwrap();
    assert_eq!(round.add(&tenant, &all).unwrap(), [false; 300]);
    assert_eq!(round.add(&tenant, &[found(7, 1_200)]).unwrap(), [true]);
    drop(round);
    // What was undone is new.
    assert_eq!(second.begin().unwrap().add(&tenant, &[found(7, 1_200)]).unwrap(), [true]);
}

#[test]
fn an_interrupted_import_is_completed() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut batch = batch(&KINDS[0], 1, 1, 20, now_us());
    batch.header.environment.extension_version = agent_proto::batch::Environment::imported_by("0.1.0");
    // The ledger has the batch on disk, and the process ends before the store has it, or before the ledger knows that.
    let mut ledger = Ledger::open(folder.path()).unwrap();
    let round = ledger.begin().unwrap();
    round
        .keep(&Waiting {
            tenant: Tenant::default(),
            received_at_us: now_us(),
            body: batch.encode().unwrap().into(),
            batch,
        })
        .unwrap();
    round.commit().unwrap();
    drop(ledger);
    let settings = Settings { tenant: Tenant::default(), architecture: Architecture::X86_64 };
    for attempt in 0..2 {
        let store = SqliteStore::open(folder.path()).unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        runtime.block_on(Importer::start(&store, ledger, settings.clone())).map(drop).unwrap();
        let series = runtime.block_on(store.series(&Tenant::default(), None, Window::ALL)).unwrap();
        let invocations: u64 = series.iter().map(|series| series.rollup.invocations).sum();
        assert_eq!(invocations, 20, "attempt {attempt}");
        assert!(Ledger::open(folder.path()).unwrap().waiting().unwrap().is_empty());
        drop(store);
        if attempt == 0 {
            // The batch waits again, as before a crash.
            let mut ledger = Ledger::open(folder.path()).unwrap();
            let again = common::fleet::batch(&KINDS[0], 1, 1, 20, now_us());
            let round = ledger.begin().unwrap();
            round
                .keep(&Waiting {
                    tenant: Tenant::default(),
                    received_at_us: now_us(),
                    body: again.encode().unwrap().into(),
                    batch: again,
                })
                .unwrap();
            round.commit().unwrap();
        }
    }
}

#[test]
fn recommendations_of_other_tools_are_shown_beside_the_advice() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    import(&data, &["--function", "pay", "--account", "123456789012"], &log(200));
    let tailor = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailor"));
        command.args(arguments).arg("--data").arg(&data).env_remove("AWS_REGION").output().unwrap()
    };
    let tuned = folder.path().join("tuned.json");
    let tuned = tuned.to_str().unwrap();
    let exported = folder.path().join("exported.csv");
    let exported = exported.to_str().unwrap();
    let export = |memory: u32| {
        let text = format!(
            "functionArn,functionVersion,currentConfiguration_memorySize,recommendationOptions_1_configuration_memorySize\n\
             arn:aws:lambda:eu-west-1:123456789012:function:pay:7,7,512,{memory}\n\
             arn:aws:lambda:us-east-1:123456789012:function:pay:7,7,512,3008\n"
        );
        std::fs::write(exported, text).unwrap();
        assert!(tailor(&["import", "compute-optimizer", exported]).status.success());
    };
    std::fs::write(
        tuned,
        r#"{"power": 256, "cost": 1e-7, "duration": 90.5, "stateMachine": {},
        "stats": [{"value": 256, "averagePrice": 1e-7, "averageDuration": 90.5}]}"#,
    )
    .unwrap();
    assert!(tailor(&["import", "power-tuning", tuned, "--function", "pay"]).status.success());
    export(400);
    // A new export replaces the old one.
    export(384);

    let output = tailor(&["advise", "pay", "--hours", "90000", "--format", "json"]);
    let others = json(&output)["other_recommendations"].clone();
    assert_eq!(others[0]["sizes"][0]["duration_ms"], 90.5, "{others}");
    let others: Vec<_> = others.as_array().unwrap().iter().map(|o| (&o["tool"], &o["memory_mb"])).collect();
    assert_eq!(
        format!("{others:?}"),
        r#"[(String("power_tuning"), Number(256)), (String("compute_optimizer"), Number(384))]"#
    );
    let table = String::from_utf8(tailor(&["advise", "pay", "--hours", "90000"]).stdout).unwrap();
    assert!(table.contains("others   AWS Lambda Power Tuning recommends 256 MB"), "{table}");
    assert!(table.contains("AWS Compute Optimizer recommends 512 MB → 384 MB for version 7"), "{table}");

    let wrong = tailor(&["import", "power-tuning", exported, "--function", "pay"]);
    assert_eq!(stderr(&wrong).matches("at line 1 column").count(), 1, "the cause is shown once: {wrong:?}");
    let wrong = tailor(&["import", "compute-optimizer", tuned]);
    assert!(!wrong.status.success());
    assert!(stderr(&wrong).contains("functionArn"), "{wrong:?}");
}

#[test]
fn an_import_into_a_database_counts_once() {
    let Some(place) = Place::database() else { return };
    let Place::Database { url, .. } = &place else { unreachable!("it is a database") };
    let parent = tempfile::tempdir().unwrap();
    let (folder, other) = (parent.path().join("data"), parent.path().join("other"));
    let first = import(&folder, &["--function", "pay", "-"], &log(40));
    assert_eq!(json(&first)["total"]["invocations"], 40);
    let into_database =
        |data: &Path, log: &str| import(data, &["--function", "pay", "--database", url, "-"], log);

    // The record of imports into another store does not say what is in the database.
    let refused = into_database(&folder, &log(40));
    assert!(stderr(&refused).contains("name another folder with --data"), "{refused:?}");
    let migrated = Command::new(env!("CARGO_BIN_EXE_tailor"))
        .args(["migrate", "--database", url, "--data"])
        .arg(&folder)
        .output()
        .unwrap();
    assert!(migrated.status.success(), "{migrated:?}");
    for (count, repeated) in [(40, 40), (50, 40), (50, 50)] {
        let output = into_database(&folder, &log(count));
        assert!(stderr(&output).contains(&format!("{repeated} imported before")), "{output:?}");
    }
    let refused = import(&folder, &["--function", "pay", "-"], &log(5));
    assert!(stderr(&refused).contains("name another folder with --data"), "{refused:?}");

    // Beside a collector, from another folder.
    let mut program = Command::new(env!("CARGO_BIN_EXE_tailor"));
    program.env("TAILOR_DATABASE", url);
    let collector =
        CollectorProcess::start_as(program, &parent.path().join("served"), &["--daily-days", "4000"]);
    let more = into_database(&other, &log(7).replace("-2222-", "-4444-"));
    assert!(more.status.success(), "{more:?}");
    let mut response = ureq::get(format!("{}/v1/functions?hours=876000", collector.address)).call().unwrap();
    let total = response.body_mut().read_json::<Value>().unwrap()["total"]["invocations"].clone();
    assert_eq!(total, 57);
}
