//! The list of a large fleet: order, filters, pages and sums come from summaries.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;

use common::Collector;
use common::fleet::{KINDS, batch};
use common::places::{Place, test_each_place};
use serde_json::Value;
use tailor_collector::clock::now_us;
use tailor_collector::report::summaries::Summarizer;
use tailor_collector::store::{ChangedFunction, Summary, SummaryKind, Tenant};
use tailor_sizing::advice::Verdict;
use tokio::runtime::Runtime;

/// More functions than are computed when they are read.
const FUNCTIONS: usize = 90;

/// A collector with a fleet in three regions, and the task of the summaries.
fn fleet(place: Place) -> (Collector, Summarizer) {
    let collector = Collector::start_at(place);
    for number in 0..FUNCTIONS {
        send(&collector, number, 1);
    }
    let summarizer = Summarizer {
        store: Arc::clone(&collector.app.store),
        prices: collector.app.prices.clone(),
        clock: collector.app.clock.clone(),
        enforcements: Arc::default(),
        fleet_sums: Arc::clone(&collector.app.fleet_sums),
    };
    (collector, summarizer)
}

fn send(collector: &Collector, number: usize, sequence: u64) {
    let kind = &KINDS[number % KINDS.len()];
    let mut batch = batch(kind, number as u64 + 1, sequence, 1 + number as u64, now_us());
    batch.header.environment.function = format!("{}-{number}", kind.name);
    batch.header.environment.region = ["eu-west-1", "us-east-1", "eu-central-1"][number % 3].to_owned();
    assert_eq!(collector.post_batch(&batch.encode().unwrap()).status, 200);
}

fn summarize(summarizer: &Summarizer) {
    let runtime = Runtime::new().unwrap();
    while runtime.block_on(summarizer.step()).unwrap() > 0 {}
}

fn names(list: &Value) -> Vec<String> {
    let functions = list["functions"].as_array().unwrap().iter();
    functions.map(|function| function["name"].as_str().unwrap().to_owned()).collect()
}

test_each_place!(
    pages_of_a_large_fleet_list_each_function_once,
    filters_and_sums_cover_the_whole_fleet,
    a_summary_follows_its_function,
    the_page_and_the_command_line_have_the_same_list,
);

fn pages_of_a_large_fleet_list_each_function_once(place: Place) {
    let (collector, summarizer) = fleet(place);
    let get = |query: &str| {
        let response = collector.get(&format!("/v1/functions?{query}"));
        assert_eq!(response.status, 200, "{}", response.text());
        response.json()
    };
    assert_eq!(get("")["matching_functions"], 0, "nothing is summarized yet");
    summarize(&summarizer);
    let all = FUNCTIONS as u64;
    for (sort, field) in [("invocations", "invocations"), ("name", "name"), ("cost", "cost_pico_usd")] {
        for reverse in [false, true] {
            let (mut seen, mut values, mut cursor) = (BTreeSet::new(), vec![], String::new());
            loop {
                let page = get(&format!("sort={sort}&reverse={reverse}&limit=40&cursor={cursor}"));
                assert_eq!(
                    (&page["matching_functions"], &page["total"]["invocations"]),
                    (&all.into(), &(all * (all + 1) / 2).into())
                );
                assert!(names(&page).into_iter().all(|name| seen.insert(name)), "a function is listed twice");
                values.extend(page["functions"].as_array().unwrap().iter().map(|one| one[field].clone()));
                match page["next"].as_str() {
                    Some(next) => next.clone_into(&mut cursor),
                    None => break,
                }
            }
            assert_eq!(seen.len(), FUNCTIONS);
            let rises = (sort == "name") != reverse;
            let is_before = |a: &Value, b: &Value| match (a.as_u64(), b.as_u64()) {
                (Some(a), Some(b)) => a <= b,
                _ => a.as_str() <= b.as_str(),
            };
            assert!(
                values.is_sorted_by(|a, b| if rises { is_before(a, b) } else { is_before(b, a) }),
                "{sort}"
            );
        }
    }
    // The default page has 50 functions.
    assert_eq!(names(&get("")).len(), 50);
}

/// The numbers with more than three decimals, as paths.
fn long_numbers(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| long_numbers(value, &format!("{path}.{name}"), found));
        }
        Value::Array(items) => items.iter().for_each(|item| long_numbers(item, path, found)),
        Value::Number(number) => {
            let decimals = number.to_string().split_once('.').map_or(0, |(_, decimals)| decimals.len());
            if decimals > 3 {
                found.push(format!("{path}: {number}"));
            }
        }
        _ => {}
    }
}

/// The size of a list is what a browser waits for when a proxy removes the compression.
#[test]
fn a_list_has_nothing_twice_and_no_digits_without_meaning() {
    /// The aim is 200 KB for the 50 functions of a page.
    const PAGE_BYTES: usize = 185_000;
    let (collector, summarizer) = fleet(Place::folder());
    summarize(&summarizer);
    let page = collector.get("/v1/functions?hours=24");
    let list = page.json();
    let functions = list["functions"].as_array().unwrap();
    assert_eq!(functions.len(), 50);
    assert!(page.text().len() < PAGE_BYTES, "{} bytes", page.text().len());
    let mut found = vec![];
    long_numbers(&list, "", &mut found);
    let mut with_hints = 0;
    for listed in functions {
        let hints = listed["advice"]["full"]["hints"].as_array().cloned().unwrap_or_default();
        let region = listed["region"].as_str().unwrap();
        let path = format!("/v1/functions/{}?hours=24&region={region}", listed["name"].as_str().unwrap());
        let report = collector.get(&path).json();
        long_numbers(&report, "", &mut found);
        // The report of the function has the reasons of the list, and then the hints.
        let reasons = |report: &Value| report["advice"]["reasons"].as_array().unwrap().clone();
        let (in_list, all) = (reasons(listed), reasons(&report));
        assert!(!in_list.is_empty() && all.starts_with(&in_list), "{all:?}");
        assert_eq!(all.len() - in_list.len(), hints.len(), "{all:?}");
        with_hints += usize::from(!hints.is_empty());
    }
    assert!(with_hints > 20, "{with_hints} functions have hints");
    assert!(found.is_empty(), "{found:?}");
}

/// Stores `count` summaries of functions `copy-NUMBER`, which are to have 256 MB in place of 512 MB.
fn store_copies(collector: &Collector, count: usize) {
    let runtime = Runtime::new().unwrap();
    let (tenant, kind) = (Tenant::default(), SummaryKind { hours: 720, strategy: "cost".to_owned() });
    let row = runtime.block_on(collector.store.summaries(&tenant, &kind)).unwrap().remove(0);
    let keys = [row.function.clone()];
    let report = runtime.block_on(collector.store.summary_reports(&tenant, &keys, &kind)).unwrap().remove(0);
    let mut report: Value = serde_json::from_slice(&report.unwrap()).unwrap();
    (report["memory_mb"], report["advice"]["memory_mb"]) = (512.into(), 256.into());
    report["advice"]["full"]["verdict"] = serde_json::to_value(Verdict::Change).unwrap();
    let mut copy = |number: usize| {
        let mut row = row.clone();
        row.function.name = format!("copy-{number:04}");
        row.advice = "change".to_owned();
        report["name"] = row.function.name.clone().into();
        let function =
            ChangedFunction { tenant: tenant.clone(), function: row.function.clone(), received_at_us: 0 };
        (function, vec![Summary { kind: kind.clone(), row, report: serde_json::to_vec(&report).unwrap() }])
    };
    let copies = (0..count).map(&mut copy).collect();
    runtime.block_on(collector.store.put_summaries(copies)).unwrap();
}

/// A page of the API has at most 1,000 functions. A patch needs all of them, and so does the list of all.
#[test]
fn commands_read_every_page_of_a_list() {
    let (collector, summarizer) = fleet(Place::folder());
    summarize(&summarizer);
    store_copies(&collector, 1_010);
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailor"));
        command.args(arguments).args(["--server", &format!("http://{}", collector.address)]);
        let output = command.env("TAILOR_API_KEY", common::KEY).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let source = tempfile::tempdir().unwrap();
    let template = "Resources:\n  Last:\n    Type: AWS::Serverless::Function\n    Properties:\n      FunctionName: copy-1009\n      MemorySize: 512\n";
    std::fs::write(source.path().join("template.yaml"), template).unwrap();
    let diff = run(&["changes", "patch", "--source", source.path().to_str().unwrap()]);
    assert!(diff.contains("\n-      MemorySize: 512\n+      MemorySize: 256\n"), "{diff}");

    let rows = run(&["functions", "--all", "--format", "csv", "--sort", "name"]);
    let names: Vec<&str> = rows.lines().skip(1).map(|row| row.split(',').next().unwrap()).collect();
    assert_eq!(names.len(), FUNCTIONS + 1_010);
    assert!(names.is_sorted() && names.contains(&"copy-1009"), "{names:?}");
}

fn filters_and_sums_cover_the_whole_fleet(place: Place) {
    let (collector, summarizer) = fleet(place);
    summarize(&summarizer);
    let get = |query: &str| collector.get(&format!("/v1/functions?{query}")).json();
    let expect = |query: &str, matching: usize| {
        assert_eq!(get(query)["matching_functions"], matching, "{query}");
    };
    expect("name=AUTH", 15);
    expect("region=us-east-1", 30);
    expect("runtime=java25&region=us-east-1", 0);
    expect("runtime=java25", 15);
    expect("architecture=arm64", 0);
    expect("account=123456789012", FUNCTIONS);
    expect("min_cost=1000000", 0);
    let advised: u64 = ["change", "keep", "unsure", "none"]
        .iter()
        .map(|advice| get(&format!("advice={advice}"))["matching_functions"].as_u64().unwrap())
        .sum();
    assert_eq!(advised, FUNCTIONS as u64);
    let sums = get("by=region");
    let groups = sums["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 3);
    let sum = |field: &str| groups.iter().map(|group| group["total"][field].as_u64().unwrap()).sum::<u64>();
    assert_eq!(sums["total"]["cost_pico_usd"], sum("cost_pico_usd"));
    assert_eq!(sums["total"]["invocations"], sum("invocations"));
    for (query, code) in
        [("min_cost=x", "query"), ("cursor=zz", "query"), ("sort=luck", "query"), ("by=tag", "query")]
    {
        let response = collector.get(&format!("/v1/functions?{query}"));
        assert_eq!(
            (response.status, response.json()["error"]["code"].as_str()),
            (400, Some(code)),
            "{query}"
        );
    }
}

fn a_summary_follows_its_function(place: Place) {
    let (collector, summarizer) = fleet(place);
    summarize(&summarizer);
    let invocations = || {
        let list = collector.get("/v1/functions?name=auth-88&hours=24&strategy=cost").json();
        assert_eq!(list["summaries"]["hours"], 24);
        list["functions"][0]["invocations"].as_u64().unwrap()
    };
    let before = invocations();
    send(&collector, 88, 2);
    // The function's own report is never behind.
    let report = collector.get("/v1/functions/auth-88").json();
    assert_eq!(report["invocations"], before + 89);
    Runtime::new().unwrap().block_on(collector.store.maintain()).unwrap();
    summarize(&summarizer);
    assert_eq!(invocations(), before + 89);
    // Other windows and strategies are computed for the functions of the page.
    let other = collector.get("/v1/functions?name=auth-88&hours=30&strategy=p95=300").json();
    assert_eq!(other["functions"][0]["invocations"], before + 89);
    assert_eq!(other["summaries"]["hours"], 168);
}

fn the_page_and_the_command_line_have_the_same_list(place: Place) {
    let (collector, summarizer) = fleet(place);
    summarize(&summarizer);
    let page = collector.get("/?sort=invocations&region=eu-west-1&limit=10&by=runtime").text();
    for part in ["Next page", "10 of 30 functions", "name=\"runtime\"", "By runtime", "sort=cost"] {
        assert!(page.contains(part), "{part} is missing in {page}");
    }
    assert!(!page.contains("<script>"));
    let stored = collector.store_arguments();
    let server = format!("http://{}", collector.address);
    let list = ["--sort", "invocations", "--region", "eu-west-1", "--limit", "10", "--min-cost", "0.0000001"];
    let run = |place: [&str; 2]| {
        let output = Command::new(env!("CARGO_BIN_EXE_tailor"))
            .args([&["summary", "--format", "json"][..], &list, &place].concat())
            .env("TAILOR_API_KEY", common::KEY)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let (from_folder, from_server) = (run([&stored[0], &stored[1]]), run(["--server", &server]));
    assert_eq!(from_folder, from_server);
    assert_eq!((names(&from_folder).len(), &from_folder["matching_functions"]), (10, &30.into()));
}
