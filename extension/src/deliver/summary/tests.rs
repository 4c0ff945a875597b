use serde_json::Value;
use tailor_sizing::units::Megabytes;

use super::*;

fn environment() -> Environment {
    Environment {
        region: "us-east-1".into(),
        version: "7".into(),
        memory: Megabytes(1_024),
        timeout_ms: 3_000,
        ..crate::deliver::outbox::tests::environment()
    }
}

/// Mostly idle, with a memory size eight times too large.
fn invocation() -> Invocation {
    let work = Work { user_us: 2_000, idle_us: 98_000, top_busy_us: 2_000, ..Work::default() };
    Invocation {
        started_at_us: 1_790_000_000_000_000,
        outcome: Outcome::Success,
        duration_us: 100_000,
        billed_ms: 100,
        peak_kib: 60 * 1_024,
        work: Some(Work { effective_threads_milli: 1_000, ..work }),
        ..Invocation::default()
    }
}

/// The lines of `count` invocations, and the summary after them.
fn lines_of(log: &mut SummaryLog, totals: &mut Rollup, count: usize) -> (Vec<String>, Value) {
    let mut lines = vec![];
    for _ in 0..count {
        totals.record(&invocation());
        lines.extend(log.finished(&invocation(), &environment()));
    }
    let summary = log.summary(totals, &environment(), 2, 1_790_000_000_123_456);
    (lines, summary.map_or(Value::Null, |line| serde_json::from_str(&line).unwrap()))
}

#[test]
fn a_summary_has_the_cost_and_the_advice() {
    let (mut log, mut totals) = (SummaryLog::new(false, 0), Rollup::default());
    let (lines, summary) = lines_of(&mut log, &mut totals, 200);
    assert!(lines.is_empty(), "invocation lines are disabled");
    assert_eq!(
        (summary["type"].as_str(), summary["function"].as_str()),
        (Some("tailor.summary"), Some("checkout"))
    );
    assert_eq!((summary["invocations"].as_u64(), summary["lost"].as_u64()), (Some(200), Some(2)));
    // 20 s of 1 GB at 16,666.7 nano-dollars per second, and 200 requests at 200 nano-dollars.
    assert_eq!(summary["cost_pico_usd"], 20 * 16_666_700 + 200 * 200_000);
    assert_eq!(summary["idle_ms"], 200 * 98);
    assert!(summary["advice"]["memory_mb"].as_u64() < Some(1_024), "{summary}");
    assert_eq!(summary["advice"]["verdict"], "change");
    let codes: Vec<_> = summary["hints"].as_array().unwrap().iter().map(|hint| &hint["code"]).collect();
    assert!(codes.contains(&&Value::from("idle-dominated")), "{codes:?}");
    assert!(summary.get("_aws").is_none());
    assert!(summary.to_string().len() < 4_096, "a line is bounded: {}", summary.to_string().len());
    // The next one counts only newer invocations, with advice from all.
    let (_, next) = lines_of(&mut log, &mut totals, 1);
    assert_eq!((next["invocations"].as_u64(), next["billed_ms"].as_u64()), (Some(1), Some(100)));
    assert_eq!(next["advice"]["verdict"], "change");
    assert_eq!(lines_of(&mut log, &mut totals, 0).1, Value::Null, "no invocation, no summary");
    assert!(!log.is_due(), "the next one is due after five minutes");
}

#[test]
fn metrics_have_the_embedded_metric_format() {
    let (_, line) = lines_of(&mut SummaryLog::new(true, 0), &mut Rollup::default(), 3);
    assert_eq!(line["_aws"]["Timestamp"], 1_790_000_000_123u64);
    let directive = &line["_aws"]["CloudWatchMetrics"][0];
    assert_eq!(directive["Namespace"], "LambdaTailor");
    assert_eq!(directive["Dimensions"], serde_json::json!([["FunctionName"]]));
    assert_eq!(line["FunctionName"], "checkout");
    let units = ["Count", "Milliseconds", "Megabytes", "None"];
    for metric in directive["Metrics"].as_array().unwrap() {
        let name = metric["Name"].as_str().unwrap();
        assert!(line[name].is_number(), "{name} is not at the root of {line}");
        assert!(units.contains(&metric["Unit"].as_str().unwrap()), "{metric}");
    }
}

/// The peak of a killed process is unknown, which is not the same as no memory.
#[test]
fn unknown_values_are_absent() {
    let unknown = Invocation { peak_kib: 0, ..invocation() };
    let elsewhere = Environment { region: "moon-east-1".into(), ..environment() };
    let mut log = SummaryLog::new(true, 5);
    let line: Value = serde_json::from_str(&log.finished(&unknown, &elsewhere).unwrap()).unwrap();
    assert!(line["busy_ms"].is_number() && line.get("peak_memory_mb").is_none(), "{line}");
    let summary = log.summary(&Rollup::default(), &elsewhere, 0, 1).unwrap();
    let summary: Value = serde_json::from_str(&summary).unwrap();
    let metrics = summary["_aws"]["CloudWatchMetrics"][0]["Metrics"].as_array().unwrap();
    for unknown in ["peak_memory_mb", "cost_pico_usd"] {
        assert!(summary.get(unknown).is_none(), "{summary}");
        assert!(metrics.iter().all(|metric| metric["Name"] != unknown), "{summary}");
    }
    assert_eq!(metrics.len(), 10);
}

#[test]
fn invocation_lines_are_limited_per_minute() {
    let (lines, _) = lines_of(&mut SummaryLog::new(false, 5), &mut Rollup::default(), 100);
    assert_eq!(lines.len(), 5);
    let line: Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!((&line["type"], &line["idle_ms"]), (&"tailor.invocation".into(), &98.0.into()));
    // 100 ms of 1 GB, and the request.
    assert_eq!(line["cost_pico_usd"], 1_666_670 + 200_000);
}

#[test]
fn managed_instances_and_unknown_prices_have_no_advice() {
    let mut totals = Rollup::default();
    (0..200).for_each(|_| totals.record(&invocation()));
    let hints = advice(&totals, &environment()).unwrap().hints;
    assert!(
        hints.iter().any(|hint| hint.code == tailor_sizing::advice::hints::HintCode::IdleDominated),
        "{hints:?}"
    );
    let managed = Environment {
        initialization_type: agent_proto::batch::InitializationType::ManagedInstances,
        ..environment()
    };
    assert!(advice(&totals, &managed).is_none(), "the memory size is the instance's");
    assert!(cost(&managed, 1_000, 1).is_none(), "instances are billed, not invocations");
    let elsewhere = Environment { region: "moon-east-1".into(), ..environment() };
    assert!(advice(&totals, &elsewhere).is_none(), "no price, no advice");
}
