//! The full bill: command line, API and page, the usage file, discounts, and tables of prices.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::process::{Command, Output};

use agent_proto::batch::InitializationType;
use common::Collector;
use common::fleet::{KINDS, batch};
use serde_json::{Value, json};
use tailor_collector::clock::now_us;
use tailor_collector::store::HOUR_US;
use tailor_sizing::telemetry::utilization::Interval;

/// A collector with one function, in the region with all prices.
fn collector() -> Collector {
    let collector = Collector::start();
    for hour in 0..4_u64 {
        let end_us = now_us() / HOUR_US * HOUR_US - hour * HOUR_US - HOUR_US / 2;
        let mut batch = batch(&KINDS[0], 1, hour + 1, 20, end_us);
        batch.header.environment.region = "us-east-1".to_owned();
        assert_eq!(collector.post_batch(&batch.encode().unwrap()).status, 200);
    }
    collector
}

fn tailor(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tailor")).args(arguments).output().unwrap()
}

fn bill_of(folder: &str, arguments: &[&str]) -> Value {
    let all: Vec<&str> = ["bill", KINDS[0].name, "--data", folder, "--format", "json"]
        .iter()
        .chain(arguments)
        .copied()
        .collect();
    let output = tailor(&all);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn lines<'a>(bill: &'a Value, meter: &str) -> Vec<&'a Value> {
    bill["lines"].as_array().unwrap().iter().filter(|line| line["meter"] == meter).collect()
}

fn pico(value: &Value) -> i64 {
    value.as_i64().unwrap()
}

#[test]
fn the_bill_has_the_cost_of_the_report_and_lists_what_is_not_known() {
    let collector = collector();
    let path = format!("/v1/functions/{}", KINDS[0].name);
    let report = collector.get(&path).json();
    let bill = collector.get(&format!("{path}/bill")).json();
    // What is measured costs the same everywhere, up to the rounding of one line more.
    assert!((pico(&bill["total_pico_usd"]) - pico(&report["cost_pico_usd"])).abs() <= 2);
    assert_eq!(bill["hours"], 5);
    let sum: i64 =
        bill["lines"].as_array().unwrap().iter().filter_map(|line| line["cost_pico_usd"].as_i64()).sum();
    assert_eq!(sum, pico(&bill["total_pico_usd"]));
    for line in bill["lines"].as_array().unwrap() {
        assert_eq!(line["status"] == "unknown", line["cost_pico_usd"].is_null(), "{line}");
        let has_source =
            !line["source"].as_str().unwrap().is_empty() && !line["date"].as_str().unwrap().is_empty();
        assert_eq!(has_source, !line["unit_price_pico_usd"].is_null(), "{line}");
    }
    assert!(bill["unknown"].as_array().unwrap().contains(&json!("log-ingestion")), "{bill}");

    // The command line reads the same from the folder and from the collector, and the fleet is its functions.
    let folder = collector.folder.path().to_str().unwrap().to_owned();
    let mut local = bill_of(&folder, &[]);
    // The clock is later, and nothing else depends on it.
    local["hours"] = bill["hours"].clone();
    assert_eq!(local, bill);
    let fleet = collector.get("/v1/bill").json();
    assert_eq!(fleet["total_pico_usd"], bill["total_pico_usd"]);
    assert_eq!(fleet["functions"][0]["unknown"], bill["unknown"]);
    assert_eq!(collector.get("/v1/bill?region=eu-west-1").json()["functions"], json!([]));
    assert_eq!(collector.get("/v1/bill?discount_factor=2").status, 400);

    // Every text format has the lines, and the page too.
    for format in ["table", "markdown", "csv"] {
        let text = collector.get(&format!("{path}/bill?format={format}")).text();
        assert!(text.contains("requests") && text.contains("log-ingestion"), "{text}");
        let text = collector.get(&format!("/v1/bill?format={format}")).text();
        assert!(text.contains(if format == "csv" { KINDS[0].name } else { "compute" }), "{text}");
    }
    let page = collector.get(&format!("/functions/{}", KINDS[0].name)).text();
    assert!(page.contains("Full bill") && page.contains("log-ingestion"));
}

#[test]
fn given_usage_is_billed_and_discounts_are_factors() {
    let collector = collector();
    let folder = collector.folder.path().to_str().unwrap().to_owned();
    let files = tempfile::tempdir().unwrap();
    let usage = files.path().join("usage.json");
    let path = usage.to_str().unwrap();
    let name = KINDS[0].name;
    fs::write(
        &usage,
        json!({ name: {"log_bytes": 720_u64 << 30, "log_stored_bytes": 0, "transfer_out_bytes": 0} })
            .to_string(),
    )
    .unwrap();
    let list = bill_of(&folder, &[]);
    let bill = bill_of(&folder, &["--usage", path]);
    // A GB in an hour, at $0.50.
    let hours = bill["hours"].as_i64().unwrap();
    assert_eq!(pico(&lines(&bill, "log-ingestion")[0]["cost_pico_usd"]), hours * 500_000_000_000);
    assert_eq!(lines(&bill, "data-transfer-out")[0]["cost_pico_usd"], 0);
    assert_eq!(bill["hints"][0]["code"], "log-cost-dominates");

    let factors = ["--usage", path, "--savings-plan-factor", "0.5", "--discount-factor", "0.5"];
    let discounted = bill_of(&folder, &factors);
    let quarter = pico(&lines(&list, "compute")[0]["cost_pico_usd"]) as f64 / 4.0;
    assert!((pico(&lines(&discounted, "compute")[0]["cost_pico_usd"]) as f64 - quarter).abs() <= 1.0);
    let half = pico(&lines(&list, "requests")[0]["cost_pico_usd"]) / 2;
    assert_eq!(pico(&lines(&discounted, "requests")[0]["cost_pico_usd"]), half);

    for (text, message) in [
        ("{\"f\": {\"log_byte\": 1}}", "unknown field `log_byte`"),
        ("[1]", "docs/bill.md"),
        ("{\"arn:aws:s3:::bucket\": {}}", "is not the ARN of a function"),
    ] {
        fs::write(&usage, text).unwrap();
        let output = tailor(&["bill", name, "--data", &folder, "--usage", path]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(message) && error.contains(path), "{error}");
    }
    let output = tailor(&["bill", "absent", "--data", &folder]);
    assert_eq!(output.status.code(), Some(3));
}

/// An offer file of AWS's price list: usage type, region and price.
fn offer(code: &str, rows: &[(&str, &str, &str)]) -> String {
    let mut products = serde_json::Map::new();
    let mut terms = serde_json::Map::new();
    for (at, (usage_type, region, price)) in rows.iter().enumerate() {
        let sku = format!("SKU{at}");
        let attributes = json!({"usagetype": usage_type, "regionCode": region});
        products.insert(sku.clone(), json!({"attributes": attributes}));
        let dimension = json!({"beginRange": "0", "pricePerUnit": {"USD": price}});
        terms.insert(sku, json!({"T": {"priceDimensions": {"D": dimension}}}));
    }
    json!({"offerCode": code, "publicationDate": "2026-11-20T00:00:00Z", "products": products,
           "terms": {"OnDemand": terms}})
    .to_string()
}

#[test]
fn price_lists_become_a_table_for_every_command() {
    let collector = collector();
    let folder = collector.folder.path().to_str().unwrap().to_owned();
    let files = tempfile::tempdir().unwrap();
    let at = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    let (lambda, logs, table) = (at("lambda.json"), at("logs.json"), at("prices.json"));
    fs::write(
        &lambda,
        offer(
            "AWSLambda",
            &[
                ("MXC1-Lambda-GB-Second", "mx-central-1", "0.00002"),
                ("MXC1-Request", "mx-central-1", "0.0000003"),
            ],
        ),
    )
    .unwrap();
    fs::write(&logs, offer("AmazonCloudWatch", &[("MXC1-VendedLog-Bytes", "mx-central-1", "0.6")])).unwrap();
    let output = tailor(&["prices", "import", &lambda, &logs, "--out", &table]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // A region that the built-in table lacks, and the built-in ones.
    let shown = tailor(&["prices", "show", "mx-central-1", "--prices", &table]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("AWS price list AmazonCloudWatch of 2026-11-20"), "{shown}");
    assert!(shown.contains("response-streaming") && shown.contains("not known"), "{shown}");
    assert!(shown.contains("0.00002 $ per GB-s"), "{shown}");
    let built_in = bill_of(&folder, &[]);
    let with_table = bill_of(&folder, &["--prices", &table]);
    assert_eq!(with_table["lines"], built_in["lines"]);

    // Only the files.
    let output = tailor(&["prices", "import", "--only", &table, "--out", &table]);
    assert!(output.status.success());
    let output = tailor(&["prices", "import", "--only", &logs, "--out", &table]);
    assert!(output.status.success());
    let regions = tailor(&["prices", "show", "--prices", &table]);
    assert_eq!(String::from_utf8_lossy(&regions.stdout), "mx-central-1\n");
    let bill = bill_of(&folder, &["--prices", &table]);
    assert_eq!(bill["total_pico_usd"], 0);
    assert_eq!(lines(&bill, "compute")[0]["status"], "unknown");

    fs::write(&logs, "{}").unwrap();
    let output = tailor(&["prices", "import", &logs, "--out", &table]);
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("logs.json"));
}

#[test]
fn the_places_of_a_function_are_compared() {
    let collector = collector();
    let name = KINDS[0].name;
    let placement = collector.get(&format!("/v1/functions/{name}/placement")).json();
    let places = placement["places"].as_array().unwrap();
    let codes: Vec<&str> = places.iter().map(|place| place["place"].as_str().unwrap()).collect();
    assert_eq!(codes, ["on-demand", "arm64", "provisioned-concurrency", "snap-start", "managed-instances"]);
    for place in places {
        let pico = |end: &str| place["month"][format!("{end}_pico_usd")].as_i64();
        let (low, expected, high) = (pico("low"), pico("expected"), pico("high"));
        assert!(low <= expected && expected <= high, "{place}");
        assert_eq!(expected.is_none(), place["change_percent"].is_null(), "{place}");
    }
    // A few invocations an hour: three instances for the whole month are far more expensive.
    assert_eq!(places[4]["verdict"], "not-cheaper");
    assert_eq!(places[1]["verdict"], "cheaper");
    let hours = placement["hours_of_day"].as_array().unwrap();
    assert!(hours.iter().any(|hour| hour["invocations"].as_f64() > Some(0.0)), "{hours:?}");

    let folder = collector.folder.path().to_str().unwrap();
    for format in ["table", "markdown", "csv", "json"] {
        let output = tailor(&["where", name, "--data", folder, "--format", format]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains("managed-instances"), "{text}");
    }
    assert_eq!(tailor(&["where", "absent", "--data", folder]).status.code(), Some(3));

    // On managed instances the places are not compared: the environments are measured.
    let mut batch = batch(&KINDS[1], 9, 1, 20, now_us());
    batch.header.environment.initialization_type = InitializationType::ManagedInstances;
    assert_eq!(collector.post_batch(&batch.encode().unwrap()).status, 200);
    let managed = collector.get(&format!("/v1/functions/{}/placement", KINDS[1].name)).json();
    assert!(managed["reason"].as_str().unwrap().contains("managed instances"), "{managed}");
    assert!(managed["busiest_concurrency"].as_f64() > Some(0.0));
    let bill = collector.get(&format!("/v1/functions/{}/bill", KINDS[1].name)).json();
    assert_eq!(lines(&bill, "managed-instances")[0]["status"], "unknown");
    assert_eq!(lines(&bill, "compute").len(), 0);
    assert_eq!(managed["settings"], serde_json::Value::Null);
    assert!(managed["no_settings"].as_str().unwrap().contains("not measured"), "{managed}");

    // Ten minutes of one environment in which 0.5 vCPU and 1.2 GB are enough for five invocations at once.
    for sequence in 2..=11 {
        batch.header.sequence = sequence;
        batch.header.interval = Some(Interval {
            duration_us: 60_000_000,
            cpu_us: 30_000_000,
            max_cpu_milli: 700,
            peak_kib: 1_228_800,
            max_concurrency: 5,
        });
        batch.invocations.iter_mut().for_each(|invocation| {
            invocation.request_id.0 += 1 << 64;
            invocation.duration_us = 12_000_000;
        });
        assert_eq!(collector.post_batch(&batch.encode().unwrap()).status, 200);
    }
    let name = KINDS[1].name;
    let managed = collector.get(&format!("/v1/functions/{name}/placement")).json();
    assert_eq!(managed["utilization"]["mean_vcpus"], 0.5, "{managed}");
    assert_eq!(managed["utilization"]["max_concurrency"], 5);
    assert_eq!(managed["settings"]["limited_by"], "memory", "{managed}");
    let series = collector.get(&format!("/v1/functions/{name}/series")).json();
    let points = series["points"].as_array().unwrap().iter();
    let measured_ms: u64 = points.filter_map(|point| point["utilization"]["measured_ms"].as_u64()).sum();
    assert_eq!(measured_ms, 600_000, "{series}");
    let function = collector.get(&format!("/v1/functions/{name}")).json();
    assert_eq!(function["utilization"]["peak_memory_mb"], 1_200);
    assert_eq!(function["extension"]["not_measured"], serde_json::Value::Null);
    for (command, expected) in [("where", "PerExecutionEnvironmentMaxConcurrency"), ("series", "CONCURRENT")]
    {
        let output = tailor(&[command, name, "--data", folder]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains(expected), "{text}");
    }
    let page = collector.get(&format!("/functions/{name}")).text();
    assert!(page.contains("Environments on managed instances") && page.contains("cpu-over-time"), "{page}");

    // An interval that no environment can have.
    batch.header.sequence = 12;
    batch.header.interval.as_mut().unwrap().max_concurrency = 100_000;
    let refused = collector.post_batch(&batch.encode().unwrap());
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("interval.max_concurrency"), "{}", refused.text());
}

/// Each function has the price of the tier in which the functions before it ended.
#[test]
fn volume_tiers_of_the_fleet_are_those_of_all_functions() {
    let collector = collector();
    let mut second = batch(&KINDS[1], 7, 1, 20, now_us());
    second.header.environment.region = "us-east-1".to_owned();
    assert_eq!(collector.post_batch(&second.encode().unwrap()).status, 200);
    let folder = collector.folder.path().to_str().unwrap().to_owned();
    let files = tempfile::tempdir().unwrap();
    let usage = files.path().join("usage.json");
    let names = [KINDS[0].name, KINDS[1].name];
    // Eight TB in an hour.
    let given = json!({"log_bytes": (8_u64 * 720) << 40});
    fs::write(&usage, json!({ names[0]: given, names[1]: given }).to_string()).unwrap();
    let options = ["--usage", usage.to_str().unwrap(), "--data", folder.as_str(), "--format", "json"];
    let run = |arguments: &[&str]| -> Value {
        let output = tailor(&[arguments, &options[..]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let hours: i64 = names.iter().map(|name| run(&["bill", *name])["hours"].as_i64().unwrap()).sum();
    let fleet = run(&["bill"]);
    let meters = fleet["meters"].as_array().unwrap();
    let logs = meters.iter().find(|sum| sum["meter"] == "log-ingestion").unwrap();
    // 10 TB at $0.50 for a GB, 20 TB at $0.25, 20 TB at $0.10, and the rest at $0.05. Prices are in hundredths of a dollar.
    let tb = 8 * hours;
    let hundredths: i64 = [(0, 10, 50), (10, 30, 25), (30, 50, 10), (50, i64::MAX, 5)]
        .iter()
        .map(|(from, to, price)| (tb.min(*to) - from).max(0) * 1_024 * price)
        .sum();
    assert_eq!(pico(&logs["cost_pico_usd"]), hundredths * 10_000_000_000, "{logs}");
}

#[test]
fn log_bytes_of_an_import_are_billed_once() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    let log = folder.path().join("pay.log");
    let mut text = String::new();
    for n in 0..3 {
        text.push_str(&format!(
            "2026-01-02T03:04:0{n}.000Z {}\n2026-01-02T03:04:0{n}.100Z REPORT RequestId: 11111111-2222-4333-8444-00000000000{n}\t\
             Duration: 100.00 ms\tBilled Duration: 100 ms\tMemory Size: 128 MB\tMax Memory Used: 60 MB\t\
             Init Duration: 80.00 ms\n",
            "x".repeat(1_000)
        ));
    }
    fs::write(&log, &text).unwrap();
    // Each event is counted with 26 bytes, and without the time before it (25 bytes) and its newline.
    let bytes = (text.len() + 6 * 26 - 6 * (25 + 1)) as f64;
    // The second import counts nothing again.
    for _ in 0..2 {
        let log = log.to_str().unwrap();
        let output =
            tailor(&["import", "logs", log, "--data", data, "--function", "pay", "--region", "us-east-1"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let output = tailor(&["bill", "pay", "--data", data, "--format", "json", "--hours", "100000"]);
    let bill: Value = serde_json::from_slice(&output.stdout).unwrap();
    let ingestion = lines(&bill, "log-ingestion")[0];
    let gb = ingestion["quantity"].as_f64().unwrap();
    assert!((gb * f64::from(1 << 30) - bytes).abs() < 1.0, "{ingestion}");
    assert_eq!(ingestion["status"], "assumed");
    assert_eq!(bill["measured_by"], "logs");
    assert_eq!(bill["hours"], 1);
    // A log has neither the instruction set nor the size of `/tmp`, and this Init was not billed.
    for meter in ["compute", "requests"] {
        assert_eq!(lines(&bill, meter)[0]["status"], "assumed", "{meter}");
    }
    assert_eq!(lines(&bill, "ephemeral-storage")[0]["status"], "unknown");
    assert!(lines(&bill, "init").is_empty(), "{bill:#}");
}
