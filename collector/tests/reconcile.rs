//! `tailor reconcile` and `tailor export` end to end: telemetry through the real server, an export with AWS's rounding.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Output};

use common::Collector;
use common::fleet::{KINDS, Kind, batch};
use serde_json::Value;
use tailor_collector::clock::now_us;
use tailor_collector::recommendations::Recommendations;
use tailor_collector::reconcile::{LastReconciliations, ReconciliationMetrics};
use tailor_collector::store::HOUR_US;
use tailor_test_kit::{python, skip};

const HOURS: u64 = 48;
const PICO: u128 = 1_000_000_000_000;

/// Memory × billed time (MB·ms) and requests of one function and hour.
type Usage = BTreeMap<(&'static str, u64), (u128, u64)>;

/// A collector with the telemetry of two functions in each of 48 hours from midnight, and what Lambda bills for it.
fn measured() -> (Collector, Usage, u64) {
    let folder = tempfile::tempdir().unwrap();
    let results = LastReconciliations::of(folder.path());
    let recommendations = Recommendations::of(folder.path());
    let collector = Collector::start_in(folder, |app| {
        app.metrics.add(ReconciliationMetrics(results.clone()));
        app.reconciliations = Some(results);
        app.recommendations = Some(recommendations);
        app.local_reads = true;
    });
    let first_hour = (now_us() / HOUR_US / 24 - 3) * 24;
    let mut usage = Usage::new();
    for (id, kind) in KINDS[..2].iter().enumerate() {
        for hour in 0..HOURS {
            let end_us = (first_hour + hour + 1) * HOUR_US;
            let batch = batch(kind, id as u64 + 1, hour + 1, 20, end_us);
            assert_eq!(collector.post_batch(&batch.encode().unwrap()).status, 200);
            let sums = usage.entry((kind.name, first_hour + hour)).or_default();
            for invocation in &batch.invocations {
                sums.0 += u128::from(kind.memory) * u128::from(invocation.billed_ms);
                sums.1 += 1;
            }
        }
    }
    (collector, usage, first_hour)
}

/// A number of 10⁻¹² as a decimal.
fn decimal(pico: u128) -> String {
    format!("{}.{:012}", pico / PICO, pico % PICO)
}

fn time(hour: u64) -> String {
    tailor_billing::time::format(i64::try_from(hour * 3_600).unwrap())
}

/// One row of the export.
#[derive(Clone)]
struct Line {
    kind: &'static str,
    function: String,
    hour: u64,
    usage_type: &'static str,
    description: &'static str,
    quantity_pico: u128,
    cost_pico: u128,
    list_pico: u128,
}

/// The rows that AWS writes: quantities with nine decimals, costs with ten.
fn lines(usage: &Usage) -> Vec<Line> {
    let mut lines = vec![];
    for ((name, hour), (mb_ms, requests)) in usage {
        let gb_seconds = mb_ms * PICO / 1_024_000;
        for (usage_type, description, quantity_pico, price) in [
            (
                "EU-Lambda-GB-Second",
                "AWS Lambda - Total Compute - EU (Ireland)-Tier-1",
                (gb_seconds + 500) / 1_000 * 1_000,
                16_666_700,
            ),
            (
                "EU-Request",
                "AWS Lambda - Total Requests - EU (Ireland)",
                u128::from(*requests) * PICO,
                200_000,
            ),
        ] {
            let cost_pico = (quantity_pico * price / PICO + 50) / 100 * 100;
            lines.push(Line {
                kind: "Usage",
                function: (*name).to_owned(),
                hour: *hour,
                usage_type,
                description,
                quantity_pico,
                cost_pico,
                list_pico: cost_pico,
            });
        }
    }
    lines
}

/// An export of CUR 2.0.
fn cur(lines: &[Line]) -> String {
    let mut text = "line_item_line_item_type,line_item_usage_start_date,line_item_usage_end_date,line_item_product_code,\
        line_item_usage_type,line_item_resource_id,line_item_usage_amount,line_item_unblended_cost,line_item_currency_code,\
        line_item_line_item_description,line_item_usage_account_id,product_region_code,pricing_public_on_demand_cost\n"
        .to_owned();
    for line in lines {
        writeln!(
            text,
            "{},{},{},AWSLambda,{},arn:aws:lambda:eu-west-1:123456789012:function:{},{},{},USD,\"{}\",123456789012,eu-west-1,{}",
            line.kind,
            time(line.hour),
            time(line.hour + 1),
            line.usage_type,
            line.function,
            decimal(line.quantity_pico),
            decimal(line.cost_pico),
            line.description,
            decimal(line.list_pico)
        )
        .unwrap();
    }
    text
}

fn tailor(arguments: &[&str], data: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tailor"));
    command.args(arguments).arg("--data").arg(data).env_remove("TAILOR_TAGS").output().unwrap()
}

fn reconcile(lines: &[Line], data: &Path, more: &[&str]) -> (Output, Value) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("export.csv");
    std::fs::write(&path, cur(lines)).unwrap();
    let arguments = [&["reconcile", path.to_str().unwrap(), "--format", "json"], more].concat();
    let output = tailor(&arguments, data);
    let result = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output, result)
}

/// Number of rows by status.
fn statuses(result: &Value) -> BTreeMap<String, u64> {
    let totals = result["by_status"].as_array().unwrap();
    totals
        .iter()
        .map(|total| (total["status"].as_str().unwrap().to_owned(), total["rows"].as_u64().unwrap()))
        .collect()
}

fn codes(result: &Value) -> Vec<&str> {
    let mut codes: Vec<&str> =
        result["reasons"].as_array().unwrap().iter().map(|reason| reason["code"].as_str().unwrap()).collect();
    codes.sort_unstable();
    codes
}

#[test]
fn a_complete_bill_is_equal_and_every_cause_of_a_difference_is_named() {
    let (collector, usage, first_hour) = measured();
    let data = collector.folder.path();
    let complete = lines(&usage);
    let (output, result) = reconcile(&complete, data, &["--threshold", "0"]);
    assert_eq!(output.status.code(), Some(0), "{result}");
    // Two functions, two days, two meters.
    assert_eq!(statuses(&result), BTreeMap::from([("equal".to_owned(), 8)]), "{result}");
    assert_eq!(result["total"]["unexplained_pico_usd"], 0);
    let billed = result["total"]["billed_pico_usd"].as_i64().unwrap();
    let difference = result["total"]["difference_pico_usd"].as_i64().unwrap();
    assert!(difference.abs() * 1_000 <= billed && billed > 0, "{result}");

    // A function without the layer, and discounted, free and covered usage.
    let mut changed = complete.clone();
    for line in complete.iter().filter(|line| line.function == KINDS[0].name) {
        changed.push(Line { function: "without-the-layer".to_owned(), ..line.clone() });
    }
    for line in changed.iter_mut().filter(|line| line.function == KINDS[1].name) {
        if line.usage_type == "EU-Request" {
            line.description = "AWS Lambda - Requests Free Tier - 1,000,000 Requests - EU (Ireland)";
            (line.cost_pico, line.list_pico) = (0, 0);
        } else {
            line.cost_pico = line.cost_pico * 9 / 10;
        }
    }
    let (_, result) = reconcile(&changed, data, &[]);
    assert_eq!(codes(&result), ["discount", "free_tier", "function_not_measured"], "{result}");
    assert!(!statuses(&result).contains_key("unexplained"), "{result}");

    // An hour that the store does not have: AWS billed the same usage in one more hour.
    let mut changed = complete.clone();
    let late = first_hour + HOURS;
    changed.extend(
        complete
            .iter()
            .filter(|line| line.hour == first_hour + 1)
            .map(|line| Line { hour: late, ..line.clone() }),
    );
    let (_, result) = reconcile(&changed, data, &[]);
    assert_eq!(codes(&result), ["no_telemetry"], "{result}");

    // Twice the usage in one hour, without any evidence.
    let mut changed = complete.clone();
    changed.extend(complete.iter().filter(|line| line.hour == first_hour + 1).cloned());
    let (output, result) = reconcile(&changed, data, &["--threshold", "1"]);
    assert_eq!(output.status.code(), Some(4), "{result}");
    assert_eq!(statuses(&result)["unexplained"], 4, "{result}");

    // The page, the API and the metrics show the last one.
    let shown = collector.get("/v1/reconciliation").json();
    assert_eq!(shown["reconciliation"]["total"], result["total"]);
    let page = collector.get("/").text();
    assert!(page.contains("Bill: ") && page.contains("is unexplained"), "{page}");
    let metrics = collector.get("/metrics").text();
    assert!(
        metrics.contains("tailor_reconciliation_rows{tenant=\"default\",status=\"unexplained\"} 4"),
        "{metrics}"
    );
    assert!(metrics.contains("# TYPE tailor_reconciliation_billed_dollars gauge"), "{metrics}");
    let other =
        collector.get_with("/v1/reconciliation", &format!("Authorization: Bearer {}\r\n", common::OTHER_KEY));
    assert_eq!(other.json()["reconciliation"], Value::Null);
}

#[test]
fn output_is_text_for_people_and_input_without_lambda_is_an_error() {
    let (collector, usage, _) = measured();
    let data = collector.folder.path();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("export.csv");
    let mut rows = lines(&usage);
    rows[0].function = "=evil|`name`".to_owned();
    std::fs::write(&path, cur(&rows) + "broken\n").unwrap();
    let run = |format: &str| {
        let output = tailor(&["reconcile", path.to_str().unwrap(), "--format", format], data);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let table = run("table");
    for expected in
        ["AWS billed $", "STATUS", "function_not_measured", "rows that cannot be read: 1, such as "]
    {
        assert!(table.contains(expected), "{expected}: {table}");
    }
    assert!(run("markdown").contains("| =evil\\|\\`name\\` |"), "{}", run("markdown"));
    let csv = run("csv");
    assert!(csv.contains("'=evil|`name`,123456789012,eu-west-1,"), "{csv}");
    assert_eq!(csv.lines().count(), 1 + 9);
    std::fs::write(&path, "a,b\n1,2\n").unwrap();
    let output = tailor(&["reconcile", path.to_str().unwrap()], data);
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("files that are not an export of CUR 2.0 or FOCUS: 1"), "{text}");
}

/// What is exported as FOCUS rows is equal to the store when it is read again, in both encodings.
#[test]
fn exported_focus_rows_reconcile_with_the_store() {
    let (collector, usage, _) = measured();
    let data = collector.folder.path();
    let folder = tempfile::tempdir().unwrap();
    for (name, more) in [("f.csv", &["--granularity", "hour"][..]), ("f.parquet", &["--parquet"])] {
        let path = folder.path().join(name);
        let path = path.to_str().unwrap();
        let output = tailor(&[&["export", "focus", "--output", path], more].concat(), data);
        assert!(output.status.success(), "{output:?}");
        let output = tailor(&["reconcile", path, "--format", "json", "--threshold", "0"], data);
        let result: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(statuses(&result), BTreeMap::from([("equal".to_owned(), 8)]), "{result}");
        assert_eq!(result["formats"][0], "FOCUS 1.2");
    }
    let output = tailor(&["export", "csv", "--granularity", "hour"], data);
    let text = String::from_utf8(output.stdout).unwrap();
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let headers = reader.headers().unwrap().clone();
    let at = |name: &str| headers.iter().position(|header| header == name).unwrap();
    let (mut rows, mut requests) = (0, 0);
    for record in reader.records() {
        let record = record.unwrap();
        rows += 1;
        requests += record[at("invocations")].parse::<u64>().unwrap();
        assert!(record[at("cost_usd")].parse::<f64>().unwrap() > 0.0);
    }
    assert_eq!((rows, requests), (usage.len() as u64, usage.values().map(|(_, requests)| requests).sum()));

    let output = tailor(&["export", "infracost"], data);
    let text = String::from_utf8(output.stdout).unwrap();
    for Kind { name, .. } in &KINDS[..2] {
        assert!(text.contains(&format!("  aws_lambda_function.{name}:\n    monthly_requests: ")), "{text}");
    }
}

/// The rate of imported logs is that of their time, which ended before now.
#[test]
fn the_exported_usage_of_imported_logs_ends_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let (log, data) = (folder.path().join("pay.log"), folder.path().join("data"));
    let line = |minute: u32| {
        format!(
            "2026-01-02T03:{minute:02}:00.000Z REPORT RequestId: 11111111-2222-4333-8444-0000000000{minute:02}\t\
             Duration: 100.00 ms\tBilled Duration: 100 ms\tMemory Size: 128 MB\tMax Memory Used: 60 MB\n"
        )
    };
    std::fs::write(&log, (1..=30).map(line).collect::<String>()).unwrap();
    let import = ["import", "logs", log.to_str().unwrap(), "--function", "pay", "--region", "eu-west-1"];
    assert!(tailor(&import, &data).status.success());
    let output = tailor(&["export", "infracost", "--hours", "100000"], &data);
    let text = String::from_utf8(output.stdout).unwrap();
    // 30 requests in an hour.
    assert!(text.contains("  aws_lambda_function.pay:\n    monthly_requests: 21900\n"), "{text}");
}

/// Reads what the program exports: YAML with the keys of Infracost's example, well-formed HTML, and Parquet.
const CHECK: &str = r#"
import sys, xml.etree.ElementTree as tree
import pyarrow.parquet as parquet, yaml
usage = yaml.safe_load(open(sys.argv[1]))
assert usage["version"] == 0.1, usage
assert len(usage["resource_usage"]) == 2, usage
for name, values in usage["resource_usage"].items():
    assert name.startswith("aws_lambda_function."), name
    assert set(values) == {"monthly_requests", "request_duration_ms"}, values
    assert all(isinstance(value, int) and value > 0 for value in values.values()), values
page = open(sys.argv[2]).read()
assert page.startswith("<!DOCTYPE html>"), page[:50]
void = page.replace("<!DOCTYPE html>", "").replace('"utf-8">', '"utf-8"/>').replace('scale=1">', 'scale=1"/>')
root = tree.fromstring(void)
assert [heading.text for heading in root.iter("h2")][:4] == [
    "Cost", "What changed", "What to do first", "Changes of memory sizes"], page
table = parquet.read_table(sys.argv[3])
assert table.num_rows == 96 and sum(table.column("invocations").to_pylist()) == 1920, table
assert str(table.schema.field("from").type) == "timestamp[ms, tz=UTC]", table.schema
focus = parquet.read_table(sys.argv[4])
assert focus.num_rows == 192 and str(focus.schema.field("BilledCost").type) == "double", focus.schema
assert set(focus.column("ResourceId").to_pylist()[0].split(":")[:3]) == {"arn", "aws", "lambda"}, focus
"#;

const PACKAGES: [&str; 2] = ["pyarrow==26.0.1", "pyyaml==6.0.3"];

#[test]
fn other_parsers_accept_what_is_exported() {
    let packages = match python::install("billing-parsers", &PACKAGES) {
        Ok(packages) => packages,
        Err(error) => return skip(&format!("needs python3 and {PACKAGES:?}: {error:#}")),
    };
    let (collector, ..) = measured();
    let data = collector.folder.path();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (usage, page, table, focus) =
        (path("usage.yml"), path("report.html"), path("all.parquet"), path("f.parquet"));
    for arguments in [
        &["export", "infracost", "-o", &usage][..],
        &["export", "parquet", "--granularity", "hour", "-o", &table],
        &["export", "focus", "--parquet", "--granularity", "hour", "-o", &focus],
    ] {
        let output = tailor(arguments, data);
        assert!(output.status.success(), "{output:?}");
    }
    let output = tailor(&["report", "--format", "html"], data);
    assert!(output.status.success(), "{output:?}");
    std::fs::write(&page, &output.stdout).unwrap();
    let mut check = Command::new("python3");
    check.env("PYTHONPATH", &packages).args(["-c", CHECK, &usage, &page, &table, &focus]);
    let output = check.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let output = tailor(&["report", "--by", "account", "--by", "region"], data);
    let text = String::from_utf8(output.stdout).unwrap();
    for expected in [
        "# AWS Lambda cost from ",
        "## Cost by account",
        "| 123456789012 | 2 | 1920 | $",
        "## Cost by region",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn the_page_of_a_function_shows_recommendations_of_other_tools() {
    let (collector, ..) = measured();
    let tuned = collector.folder.path().join("tuned.json");
    std::fs::write(&tuned, r#"{"power": 384, "cost": 1e-7, "duration": 90.5, "stateMachine": {}}"#).unwrap();
    let path = format!("/functions/{}", KINDS[0].name);
    assert!(!collector.get(&path).text().contains("Recommendations of other tools"));
    let import = ["import", "power-tuning", tuned.to_str().unwrap(), "--function", KINDS[0].name];
    assert!(tailor(&import, collector.folder.path()).status.success());
    let page = collector.get(&path).text();
    assert!(page.contains("AWS Lambda Power Tuning recommends 384 MB"), "{page}");
}
