//! `GET /metrics`: what it has for whom, that its cardinality is bounded, and that Prometheus's own tools accept it, the
//! alert rules, and the dashboard.
//!
//! Some tests need `promtool` (Debian's package `prometheus`) or Python.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::fleet::{KINDS, batch};
use common::{Collector, KEY, OTHER_KEY, history};
use serde_json::Value;
use tailor_collector::clock::now_us;
use tailor_collector::http::metrics::fleet::REST;
use tailor_collector::keys::{Key, Scope, SecretDigest};
use tailor_collector::push::metrics::{OtlpMetrics, WebhookMetrics};
use tailor_collector::store::Tenant;
use tailor_test_kit::{python, skip, workspace};
use tokio::runtime::Runtime;

const READ_KEY: &str = "read-key-0123456789abcdef";

/// A collector with a fleet, changes and refusals. Two functions have metrics of their own.
fn collector(functions: usize) -> Collector {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let collector = Collector::start_in(folder, |app| {
        app.metrics_functions = 2;
        app.data_folder = Some(path);
        app.metrics.register(|registry| OtlpMetrics::default().register(registry));
        app.metrics.register(|registry| WebhookMetrics::default().register(registry));
        let mut ring = (*app.keys.get()).clone();
        let mut key = Key::without_scopes(SecretDigest::of(READ_KEY), Tenant::default());
        key.scopes = vec![Scope::Read];
        ring.insert(key);
        app.keys.replace(ring);
    });
    Runtime::new().unwrap().block_on(history::write(&collector.store, functions, 3, 30, now_us()));
    collector.app.refusals.count(&Tenant::default(), "too-few-invocations");
    collector
}

fn scrape(collector: &Collector, key: &str, headers: &str) -> String {
    let response = collector.get_with("/metrics", &format!("Authorization: Bearer {key}\r\n{headers}"));
    assert_eq!(response.status, 200, "{}", response.text());
    response.text()
}

/// The samples: name, labels and value.
fn samples(text: &str) -> Vec<(String, BTreeMap<String, String>, f64)> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = name.split_once('{').unwrap_or((name, "}"));
        let labels = labels.trim_end_matches('}').split("\",").filter(|label| !label.is_empty());
        let labels = labels.map(|label| {
            let (name, value) = label.split_once("=\"").unwrap();
            (name.to_owned(), value.trim_end_matches('"').to_owned())
        });
        (name.to_owned(), labels.collect(), value.parse().unwrap())
    };
    lines.map(sample).collect()
}

/// Sum of a metric, and the functions that it has.
fn of_functions(text: &str, metric: &str) -> (f64, BTreeSet<String>) {
    let found: Vec<_> = samples(text).into_iter().filter(|(name, ..)| name == metric).collect();
    let functions = found.iter().map(|(_, labels, _)| labels["function"].clone()).collect();
    (found.iter().map(|(.., value)| value).sum(), functions)
}

#[test]
fn the_number_of_functions_is_bounded_and_their_sum_is_exact() {
    let collector = collector(0);
    let send = |sequence: u64| {
        for (number, kind) in KINDS.iter().enumerate() {
            let sent = batch(kind, number as u64 + 1, sequence, 10 + number as u64, now_us());
            assert_eq!(collector.post_batch(&sent.encode().unwrap()).status, 200);
            // The same batch again does not count.
            assert_eq!(collector.post_batch(&sent.encode().unwrap()).status, 200);
        }
    };
    // The first scrape lists the functions with the highest cost.
    send(1);
    scrape(&collector, KEY, "");
    send(2);
    let text = scrape(&collector, KEY, "");
    let each: u64 = (10..16).sum();
    let (sum, functions) = of_functions(&text, "tailor_function_invocations_total");
    assert_eq!(sum, 2.0 * each as f64);
    assert_eq!(functions.len(), 3, "{functions:?}");
    assert!(functions.contains(REST) && functions.contains("ledger-rollup-nightly"), "{functions:?}");
    let (durations, _) = of_functions(&text, "tailor_function_duration_seconds_count");
    assert_eq!(durations, sum);
    let (billed, _) = of_functions(&text, "tailor_function_billed_seconds_total");
    let (cost, _) = of_functions(&text, "tailor_function_cost_dollars_total");
    let total = &collector.get("/v1/functions").json()["total"];
    assert!((billed - total["billed_ms"].as_f64().unwrap() / 1e3).abs() < 1e-6);
    // The report rounds the cost of each function once, and the rest is rounded once for all of its functions.
    assert!((cost - total["cost_pico_usd"].as_f64().unwrap() / 1e12).abs() < 1e-11, "{cost}");
    for metric in ["tailor_function_memory_size_bytes", "tailor_function_potential_savings_dollars"] {
        assert!(of_functions(&text, metric).1.is_subset(&functions), "{metric}");
    }
}

#[test]
fn a_tenant_sees_its_own_fleet_and_only_an_admin_the_collector() {
    let collector = collector(3);
    let of = |key| samples(&scrape(&collector, key, ""));
    let names = |key| of(key).into_iter().map(|(name, ..)| name).collect::<BTreeSet<_>>();
    assert!(names(KEY).contains("process_cpu_seconds_total"));
    for key in [READ_KEY, OTHER_KEY] {
        let names = names(key);
        assert!(names.contains("tailor_functions"), "{names:?}");
        assert!(names.iter().all(|name| {
            ["tailor_function", "tailor_hint", "tailor_changes", "tailor_tuner", "tailor_fleet"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
        }));
    }
    let functions = |key| {
        let samples = of(key);
        let value = samples.iter().find(|(name, ..)| name == "tailor_functions").unwrap().2;
        let refusals = samples.iter().filter(|(name, ..)| name == "tailor_tuner_refusals_total").count();
        (value, refusals)
    };
    assert_eq!(functions(READ_KEY), (3.0, 1));
    assert_eq!(functions(OTHER_KEY), (0.0, 0));
}

#[test]
fn failed_authentication_and_requests_are_counted() {
    let collector = collector(1);
    for key in ["", "Authorization: Bearer unknown\r\n"] {
        assert_eq!(collector.get_with("/v1/functions", key).status, 401);
    }
    assert_eq!(collector.post_batch_with(READ_KEY, "", b"").status, 403);
    let text = scrape(&collector, KEY, "");
    let value = |metric: &str, label: &str, expected: &str| {
        let found = samples(&text).into_iter();
        let mut found = found.filter(|(name, labels, _)| name == metric && labels[label] == expected);
        found.next().map(|(.., value)| value)
    };
    for (reason, count) in [("missing", 1.0), ("unknown", 1.0), ("scope", 1.0), ("expired", 0.0)] {
        assert_eq!(value("tailor_auth_failures_total", "reason", reason), Some(count), "{reason}");
    }
    let count = "tailor_http_request_duration_seconds_count";
    assert_eq!(value(count, "route", "/v1/functions"), Some(2.0));
    assert_eq!(value(count, "status", "403"), Some(1.0));
    // A client cannot make labels: paths without a route have one together.
    for path in ["/nowhere", "/v1/other"] {
        assert_eq!(collector.get(path).status, 404);
    }
    assert!(!scrape(&collector, KEY, "").contains("nowhere"));
}

fn promtool() -> Option<PathBuf> {
    let path = PathBuf::from("/usr/bin/promtool");
    path.exists().then_some(path)
}

fn folder() -> PathBuf {
    workspace::project().unwrap().join("docs/monitoring")
}

#[test]
fn promtool_accepts_the_metrics() {
    let Some(promtool) = promtool() else { return skip("needs promtool (package `prometheus`)") };
    let collector = collector(4);
    for key in [KEY, READ_KEY] {
        let text = scrape(&collector, key, "");
        let mut check = Command::new(&promtool);
        check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut check = check.spawn().unwrap();
        check.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = check.wait_with_output().unwrap();
        let messages = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success() && messages.trim().is_empty(), "{messages}\n{text}");
    }
    // Both formats have the same samples.
    let names = |text: &str| samples(text).into_iter().map(|(name, ..)| name).collect::<BTreeSet<_>>();
    let open =
        scrape(&collector, KEY, "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n");
    assert!(open.ends_with("# EOF\n") && open.contains("# UNIT tailor_function_duration_seconds seconds"));
    assert_eq!(names(&open), names(&scrape(&collector, KEY, "")));
}

#[test]
fn promtool_accepts_the_alert_rules_and_their_tests() {
    let Some(promtool) = promtool() else { return skip("needs promtool (package `prometheus`)") };
    for arguments in [
        "check rules alerts.yaml",
        "test rules alerts.test.yaml",
        "check config --syntax-only prometheus.yaml",
    ] {
        let output =
            Command::new(&promtool).args(arguments.split(' ')).current_dir(folder()).output().unwrap();
        let messages = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success(), "{arguments}: {messages}");
    }
    // Each rule has a test that fires it.
    let rules = fs::read_to_string(folder().join("alerts.yaml")).unwrap();
    let tests = fs::read_to_string(folder().join("alerts.test.yaml")).unwrap();
    let names = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let untested: Vec<_> = names.filter(|name| !tests.contains(&format!("alertname: {name}\n"))).collect();
    assert!(untested.is_empty(), "{untested:?}");
}

/// The names of metrics in a text.
fn metric_names(text: &str) -> BTreeSet<String> {
    let words = text.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    let is_metric = |word: &&str| word.starts_with("tailor_") || word.starts_with("process_");
    words.filter(is_metric).map(ToOwned::to_owned).collect()
}

#[test]
fn dashboard_and_rules_use_metrics_that_the_collector_has() {
    let collector = collector(4);
    // A request makes the times of requests visible.
    collector.get("/v1/functions");
    let samples = samples(&scrape(&collector, KEY, ""));
    let mut exposed: BTreeSet<String> = samples.into_iter().map(|(name, ..)| name).collect();
    // A text may name a histogram itself.
    let histograms: Vec<_> = exposed.iter().filter_map(|name| name.strip_suffix("_count")).collect();
    let histograms: Vec<_> = histograms.into_iter().map(ToOwned::to_owned).collect();
    exposed.extend(histograms);
    let dashboard: Value =
        serde_json::from_str(&fs::read_to_string(folder().join("dashboard.json")).unwrap()).unwrap();
    let mut queries = vec![];
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            queries.push(target["expr"].as_str().unwrap().to_owned());
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        queries.extend(variable["query"]["query"].as_str().map(ToOwned::to_owned));
    }
    assert!(queries.len() > 20);
    let rules = fs::read_to_string(folder().join("alerts.yaml")).unwrap();
    let expressions = rules.lines().filter(|line| !line.trim_start().starts_with('#'));
    let used = metric_names(&(queries.join("\n") + &expressions.collect::<Vec<_>>().join("\n")));
    let unknown: Vec<_> = used.iter().filter(|name| !exposed.contains(*name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    assert!(used.len() > 25, "{used:?}");
}

/// Python package with the schema of dashboards.
const DASHBOARD_PACKAGE: &str = "grafana-foundation-sdk==1769699998!10.1.0";

/// Grafana's own library reads the dashboard and writes the same again.
#[test]
fn grafanas_library_reads_the_dashboard() {
    let packages = match python::install("dashboard-packages", &[DASHBOARD_PACKAGE]) {
        Ok(packages) => packages,
        Err(error) => return skip(&format!("needs python3 and {DASHBOARD_PACKAGE}: {error:#}")),
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/monitoring/dashboard.py");
    let mut check = Command::new("python3");
    check.env("PYTHONPATH", &packages).arg(script).arg(folder().join("dashboard.json"));
    let output = check.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The rows of the table: metric, type, unit, labels and meaning.
fn table(text: &str) -> String {
    let mut rows = vec![];
    let all = samples(text);
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.windows(2) {
        let Some((name, help)) = pair[0].strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        let kind = pair[1].rsplit(' ').next().unwrap();
        let base = name.trim_end_matches("_total");
        let unit =
            ["seconds", "bytes", "dollars"].into_iter().find(|unit| base.ends_with(&format!("_{unit}")));
        let has_name =
            |sample: &str| sample == name || (kind == "histogram" && sample == format!("{name}_count"));
        let labels = all.iter().find(|(sample, ..)| has_name(sample)).map(|(_, labels, _)| labels);
        let labels = labels.into_iter().flat_map(BTreeMap::keys).map(|label| format!("`{label}`"));
        rows.push(format!(
            "| `{name}` | {kind} | {} | {} | {} |",
            unit.unwrap_or("-"),
            labels.collect::<Vec<_>>().join(", "),
            help.trim_end_matches('.')
        ));
    }
    rows.sort();
    rows.join("\n")
}

/// `TAILOR_UPDATE_DOCUMENTS=1` writes the tables.
#[test]
fn the_page_of_metrics_lists_every_metric() {
    let collector = collector(4);
    // A request makes the times of requests visible.
    collector.get("/v1/functions");
    let text = scrape(&collector, KEY, "");
    let (fleet, own): (Vec<_>, Vec<_>) =
        table(&text).lines().map(ToOwned::to_owned).partition(|row: &String| {
            ["tailor_function", "tailor_hint", "tailor_changes", "tailor_tuner", "tailor_fleet"]
                .iter()
                .any(|prefix| row.starts_with(&format!("| `{prefix}")))
        });
    let path = workspace::project().unwrap().join("docs/metrics.md");
    let page = fs::read_to_string(&path).unwrap();
    let mut expected = page.clone();
    for (name, rows) in [("fleet", fleet), ("collector", own)] {
        let (begin, end) = (format!("<!-- {name} -->\n"), format!("\n<!-- end of {name} -->"));
        let (before, rest) = expected.split_once(&begin).unwrap();
        let (_, after) = rest.split_once(&end).unwrap();
        let header = "| metric | type | unit | labels | meaning |\n|---|---|---|---|---|\n";
        expected = format!("{before}{begin}{header}{}{end}{after}", rows.join("\n"));
    }
    if std::env::var_os("TAILOR_UPDATE_DOCUMENTS").is_some() {
        fs::write(&path, &expected).unwrap();
        return;
    }
    assert!(
        page == expected,
        "docs/metrics.md differs: run this test with TAILOR_UPDATE_DOCUMENTS=1\n{expected}"
    );
}
