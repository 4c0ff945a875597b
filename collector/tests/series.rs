//! Time series of one function and of the fleet, computed from rollups and from stored sums.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;

use agent_proto::batch::Environment;
use common::Collector;
use common::fleet::{KINDS, batch};
use common::places::{Place, test_each_place};
use serde_json::Value;
use tailor_collector::clock::{Clock, now_us};
use tailor_collector::monthly::{Inputs, monthly};
use tailor_collector::query::{ListQuery, last_hours};
use tailor_collector::report::summaries::Summarizer;
use tailor_collector::report::{self, Request};
use tailor_collector::store::{HOUR_US, Tenant};
use tailor_sizing::advice::strategy::Strategy;
use tailor_sizing::pricing::prices::PriceTable;
use tailor_sizing::telemetry::invocation::Initialization;
use tailor_sizing::units::Architecture;
use tokio::runtime::Runtime;

/// The collector with `functions` functions, each with 20 invocations in each of the last `hours` hours.
fn fleet(place: Place, functions: usize, hours: u64) -> Collector {
    let collector = Collector::start_at(place);
    for number in 0..functions {
        let kind = &KINDS[number % KINDS.len()];
        for hour in 0..hours {
            // In the middle of an hour, so that no batch is in two.
            let end_us = now_us() / HOUR_US * HOUR_US - hour * HOUR_US - HOUR_US / 2;
            let mut batch = batch(kind, number as u64 + 1, hour + 1, 20, end_us);
            batch.header.environment.function = format!("{}-{number}", kind.name);
            batch.header.environment.region = ["eu-west-1", "us-east-1"][number % 2].to_owned();
            assert_eq!(collector.post_batch(&batch.encode().unwrap()).status, 200);
        }
    }
    collector
}

fn summarize(collector: &Collector) {
    let summarizer = Summarizer {
        store: Arc::clone(&collector.app.store),
        prices: collector.app.prices.clone(),
        clock: Clock::system(),
        enforcements: Arc::default(),
        fleet_sums: Arc::clone(&collector.app.fleet_sums),
    };
    let runtime = Runtime::new().unwrap();
    runtime.block_on(collector.store.maintain()).unwrap();
    while runtime.block_on(summarizer.step()).unwrap() > 0 {}
}

fn get(collector: &Collector, path: &str) -> Value {
    let response = collector.get(path);
    assert_eq!(response.status, 200, "{path}: {}", response.text());
    response.json()
}

fn sum(points: &Value, field: &str) -> u64 {
    points.as_array().unwrap().iter().map(|point| point[field].as_u64().unwrap()).sum()
}

test_each_place!(
    stored_bills_and_places_equal_computed_ones,
    a_bill_of_any_window_is_the_sum_of_its_measurements,
    a_function_has_a_point_for_each_hour_and_day,
    a_small_fleet_is_the_sum_of_its_functions,
    a_large_fleet_is_the_sum_of_its_functions,
    the_command_line_shows_the_same_time_series,
);

fn a_function_has_a_point_for_each_hour_and_day(place: Place) {
    let collector = fleet(place, 1, 30);
    let name = format!("{}-0", KINDS[0].name);
    let report = get(&collector, &format!("/v1/functions/{name}?hours=20"));
    let series = get(&collector, &format!("/v1/functions/{name}/series?hours=20"));
    assert_eq!((&series["bucket_hours"], series["points"].as_array().unwrap().len()), (&1.into(), 21));
    // The newest hour has nothing yet.
    assert_eq!((&series["total"]["invocations"], sum(&series["points"], "invocations")), (&400.into(), 400));
    for (total, one) in
        [("errors", "errors"), ("cold_starts", "cold_starts"), ("cost_pico_usd", "cost_pico_usd")]
    {
        assert_eq!(series["total"][total], report[one], "{total}");
    }
    let parts = series["total"]["cost_parts"].as_object().unwrap();
    let cost: u64 = parts.values().map(|part| part.as_u64().unwrap()).sum();
    assert_eq!(series["total"]["cost_pico_usd"], cost);
    let measured = series["points"][3]["duration_ms"].as_object().unwrap();
    assert!(measured["p50"].as_f64().unwrap() <= measured["p99"].as_f64().unwrap());
    assert_eq!(series["points"][20]["duration_ms"], Value::Null);
    // The measurements do not begin before the 20 hours before the window, so there is nothing to compare with.
    assert_eq!(series["previous"], Value::Null);
    let shorter = get(&collector, &format!("/v1/functions/{name}/series?hours=10"));
    assert_eq!(
        (&shorter["previous"]["invocations"], &shorter["previous"]["hours"]),
        (&200.into(), &10.0.into())
    );
    let days = get(&collector, &format!("/v1/functions/{name}/series?hours=720"));
    assert_eq!((&days["bucket_hours"], &days["total"]["invocations"]), (&24.into(), &600.into()));
    assert_eq!(days["points"].as_array().unwrap().len(), 31);
    assert_eq!(collector.get("/v1/functions/nothing/series").status, 404);
    let longest = get(&collector, &format!("/v1/functions/{name}/series?hours=876000"));
    assert_eq!(longest["points"].as_array().unwrap().len(), 400);
}

/// Its sums come from the rollups.
fn a_small_fleet_is_the_sum_of_its_functions(place: Place) {
    the_fleet_is_the_sum_of_its_functions(place, 8);
}

/// Its sums are stored.
fn a_large_fleet_is_the_sum_of_its_functions(place: Place) {
    the_fleet_is_the_sum_of_its_functions(place, 60);
}

fn the_fleet_is_the_sum_of_its_functions(place: Place, functions: usize) {
    let collector = fleet(place, functions, 3);
    summarize(&collector);
    let all = functions as u64 * 60;
    let whole = get(&collector, "/v1/series?hours=24");
    assert_eq!(whole["computed_at_us"].is_null(), functions == 8);
    assert_eq!((&whole["total"]["invocations"], sum(&whole["points"], "invocations")), (&all.into(), all));
    let listed = get(&collector, "/v1/functions?hours=24");
    assert_eq!(whole["total"]["errors"], listed["total"]["errors"]);
    // Each function's cost is rounded in the list; here, the sum is.
    let cost = |value: &Value| value["total"]["cost_pico_usd"].as_i64().unwrap();
    assert!((cost(&whole) - cost(&listed)).unsigned_abs() <= functions as u64, "{whole}");
    let grouped = get(&collector, "/v1/series?hours=24&by=region");
    let groups = grouped["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 2);
    assert_eq!(groups.iter().map(|group| sum(&group["points"], "invocations")).sum::<u64>(), all);
    // Filters that the sums of the whole fleet do not have are applied to each function.
    for query in ["name=auth-", "region=us-east-1", "runtime=java25", "advice=change", "min_cost=0.000001"] {
        let series = get(&collector, &format!("/v1/series?hours=24&{query}"));
        let listed = get(&collector, &format!("/v1/functions?hours=24&{query}"));
        assert_eq!(series["total"]["invocations"], listed["total"]["invocations"], "{query}");
        assert_eq!(sum(&series["points"], "invocations"), series["total"]["invocations"].as_u64().unwrap());
    }
    let quantiles =
        whole["points"].as_array().unwrap().iter().find_map(|point| point["duration_ms"].as_object());
    assert!(quantiles.unwrap()["p95"].as_f64().unwrap() > 0.0);
}

fn the_command_line_shows_the_same_time_series(place: Place) {
    let collector = fleet(place, 3, 2);
    let stored = collector.store_arguments();
    let server = format!("http://{}", collector.address);
    let name = format!("{}-1", KINDS[1].name);
    for arguments in
        [vec!["series"], vec!["series", &name], vec!["series", "--by", "region", "--name", "auth"]]
    {
        let run = |place: [&str; 2], format: &str| {
            let output = Command::new(env!("CARGO_BIN_EXE_tailor"))
                .args([&arguments[..], &["--hours", "24", "--format", format], &place].concat())
                .env("TAILOR_API_KEY", common::KEY)
                .output()
                .unwrap();
            // 3: no invocations.
            assert!(matches!(output.status.code(), Some(0 | 3)), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        for format in ["table", "csv", "markdown"] {
            let text = run([&stored[0], &stored[1]], format);
            assert_eq!(text, run(["--server", &server], format), "{arguments:?}");
            assert!(!text.is_empty());
        }
    }
}

/// The bill and the places of a large fleet are from stored sums: exactly those that the measurements give.
fn stored_bills_and_places_equal_computed_ones(place: Place) {
    let collector = fleet(place, 60, 5);
    let computed = get(&collector, "/v1/bill?hours=24");
    summarize(&collector);
    let stored = get(&collector, "/v1/bill?hours=24");
    assert!(stored["computed_at_us"].is_u64() && computed["computed_at_us"].is_null());
    assert!(stored["total_pico_usd"].as_i64() > Some(0));
    for field in
        ["total_pico_usd", "assumed_pico_usd", "meters", "functions", "matching_functions", "assumptions"]
    {
        assert_eq!(stored[field], computed[field], "{field}");
    }
    assert_eq!(stored["matching_functions"], 60);
    let page = get(&collector, "/v1/bill?hours=24&limit=3");
    assert_eq!((page["functions"].as_array().unwrap().len(), &page["matching_functions"]), (3, &60.into()));
    assert_eq!((&page["total_pico_usd"], &page["meters"]), (&stored["total_pico_usd"], &stored["meters"]));
    let region = |hours: u64| get(&collector, &format!("/v1/bill?hours={hours}&region=us-east-1"));
    assert_eq!(region(24)["total_pico_usd"], region(25)["total_pico_usd"]);

    let places = get(&collector, "/v1/placement?hours=24&limit=5");
    assert!(places["computed_at_us"].is_u64() && places["compared_functions"] == 60, "{places}");
    let functions = places["functions"].as_array().unwrap();
    let saving = |sum: &Value| sum["saving_pico_usd"].as_i64().unwrap();
    assert!(
        functions.len() == 5 && functions.is_sorted_by_key(|sum| -saving(sum)) && saving(&functions[4]) > 0
    );
    for sum in functions {
        let (name, region) = (sum["name"].as_str().unwrap(), sum["region"].as_str().unwrap());
        let one = get(&collector, &format!("/v1/functions/{name}/placement?hours=24&region={region}"));
        assert!(one["places"].as_array().unwrap().contains(&sum["best"]), "{sum}");
        assert_eq!(one["places"][0]["month"], sum["now"]);
    }
    let page = collector.get("/where?hours=24").text();
    assert!(
        page.contains(functions[0]["name"].as_str().unwrap()) && page.contains("From stored comparisons")
    );
}

/// Windows that begin within days and hours whose sums are stored, and within days that are merged.
fn a_bill_of_any_window_is_the_sum_of_its_measurements(place: Place) {
    let collector = Collector::start_at(place);
    let mut state = 1u64;
    let mut random = |below: u64| {
        // Knuth's linear congruential generator; its high bits are random enough.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((state >> 33) % below).unwrap()
    };
    for number in 0..56 {
        for part in 1..=8 {
            let kind = &KINDS[number % KINDS.len()];
            let end_us = now_us() - random(700) as u64 * HOUR_US;
            let mut batch = batch(kind, number as u64 * 8 + part, 1, 5, end_us);
            let environment = &mut batch.header.environment;
            environment.function = format!("{}-{number}", ["even", "odd"][number % 2]);
            environment.region = "us-east-1".to_owned();
            environment.version = random(3).to_string();
            environment.memory.0 = [256, 512, 2_048][random(3)];
            if random(4) == 0 {
                environment.architecture = Architecture::Arm64;
            }
            if number % 9 == 0 {
                environment.extension_version = Environment::imported_by("1");
            }
            if random(2) == 0 {
                batch.invocations[0].initialization = Initialization::SnapStart;
            }
            assert_eq!(collector.post_batch(&batch.encode().unwrap()).status, 200);
        }
    }
    summarize(&collector);
    for _ in 0..20 {
        let hours = 2 + random(800);
        if ![24, 168, 720].contains(&hours) {
            check_window(&collector, hours);
        }
    }
}

/// Compares the bill of the whole fleet, which is from stored sums, with those of its halves, which are computed.
fn check_window(collector: &Collector, hours: usize) {
    let costs = |bill: &Value, list: &str, key: &str, value: &str| -> BTreeMap<String, i64> {
        let rows = bill[list].as_array().unwrap().iter();
        rows.map(|row| (row[key].as_str().unwrap().to_owned(), row[value].as_i64().unwrap_or(0))).collect()
    };
    let bill = |filter: &str| get(collector, &format!("/v1/bill?hours={hours}&limit=500{filter}"));
    loop {
        let hour = now_us() / HOUR_US;
        let (stored, even, odd) = (bill(""), bill("&name=even-"), bill("&name=odd-"));
        if now_us() / HOUR_US != hour {
            // The window moved by an hour between the requests.
            continue;
        }
        assert!(stored["computed_at_us"].is_u64(), "{stored}");
        assert!(even["computed_at_us"].is_null() && odd["computed_at_us"].is_null());
        for field in ["total_pico_usd", "assumed_pico_usd", "matching_functions"] {
            let sum = even[field].as_i64().unwrap() + odd[field].as_i64().unwrap();
            assert_eq!(stored[field], sum, "{field} of {hours} hours");
        }
        for (list, key, value) in
            [("functions", "name", "total_pico_usd"), ("meters", "meter", "cost_pico_usd")]
        {
            let mut sums = costs(&even, list, key, value);
            for (name, cost) in costs(&odd, list, key, value) {
                *sums.entry(name).or_default() += cost;
            }
            assert_eq!(costs(&stored, list, key, value), sums, "{list} of {hours} hours");
        }
        return;
    }
}

/// The monthly report and the first page state the same change of the cost of a function.
#[test]
fn the_monthly_report_has_the_changes_of_the_first_page() {
    let collector = Collector::start();
    let now_us = now_us() / HOUR_US * HOUR_US + HOUR_US / 2;
    // The first function has more invocations in the last day; the second stopped 30 hours ago.
    for (id, kind, newest) in [(1, &KINDS[0], 0), (2, &KINDS[1], 30)] {
        let hours =
            (newest..100).rev().flat_map(|hour| std::iter::repeat_n(hour, if hour < 24 { 3 } else { 1 }));
        for (sequence, hour) in (1..).zip(hours) {
            let batch = batch(kind, id, sequence, 20, now_us - (hour + 1) * HOUR_US);
            assert_eq!(collector.post_batch(&batch.encode().unwrap()).status, 200);
        }
    }
    let (tenant, prices) = (Tenant::default(), PriceTable::embedded());
    let list = ListQuery { hours: 24, movers: true, ..ListQuery::default() };
    let request = Request {
        store: collector.app.store.as_ref(),
        tenant: &tenant,
        window: last_hours(now_us, list.hours),
        prices: &prices,
        strategy: Strategy::default(),
        now_us,
        enforcements: None,
        fleet_sums: None,
        tags: None,
        computes_all: true,
    };
    let runtime = Runtime::new().unwrap();
    let page = runtime.block_on(report::fleet(&request, &list)).unwrap();
    let [row] = page.movers.as_slice() else { panic!("{:?}", page.movers) };
    let (cost, change) = (row.cost.unwrap(), row.cost_change.unwrap());
    let list = ListQuery { movers: false, ..list };
    let inputs = Inputs { request, list, allocations: vec![], reconciliation: None };
    let document = runtime.block_on(monthly(&inputs)).unwrap().unwrap();
    let changed = document.sections.iter().find(|section| section.title == "What changed").unwrap();
    let expected = [(cost - change).to_string(), cost.to_string(), format!("+{change}")];
    let of = |name: &str| changed.rows.iter().find(|row| row[0] == name).unwrap();
    assert_eq!(of(KINDS[0].name)[2..], expected, "{changed:?}");
    let stopped = of(KINDS[1].name);
    assert_eq!((&*stopped[3], &stopped[4][..1]), ("$0.00", "-"), "{changed:?}");
}
