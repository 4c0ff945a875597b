//! Reports as CSV, for spreadsheets.

use ::csv::Writer;

use super::output::{Field, Rows};
use crate::changes::Change;
use crate::report::hints::FleetHint;
use crate::report::{FunctionReport, Quantiles, SeriesReport};

const FUNCTION_HEADER: [&str; 20] = [
    "name",
    "account",
    "region",
    "runtime",
    "architecture",
    "memory_mb",
    "invocations",
    "errors",
    "cold_starts",
    "p50_ms",
    "p95_ms",
    "billed_ms",
    "cost_pico_usd",
    "peak_memory_mb",
    "busy_ms",
    "starved_ms",
    "idle_ms",
    "advised_memory_mb",
    "cost_change_percent",
    "duration_change_percent",
];

/// One line per function.
pub(super) fn functions(functions: &[FunctionReport]) -> Rows {
    let rows = functions.iter().map(|function| {
        [
            Field::from(&function.name),
            Field::from(&function.account),
            Field::from(&function.region),
            Field::from(&function.runtime),
            Field::from(function.architecture.as_str()),
            Field::from(function.memory.0),
            Field::from(function.invocations),
            Field::from(function.errors),
            Field::from(function.cold_starts),
            Field::from(function.duration_ms.p50),
            Field::from(function.duration_ms.p95),
            Field::from(function.billed_ms),
            Field::number(function.cost_pico_usd.map(|cost| cost.0)),
            Field::from(function.peak_memory_mb),
            Field::from(function.busy_ms),
            Field::from(function.starved_ms),
            Field::from(function.idle_ms),
            Field::from(function.advice.memory.0),
            Field::from(function.advice.cost_change_percent),
            Field::from(function.advice.duration_change_percent),
        ]
    });
    Rows::new(&FUNCTION_HEADER, rows)
}

/// One line per change.
pub(super) fn changes(changes: &[Change]) -> Rows {
    let rows = changes.iter().map(|change| {
        [
            Field::from(change.planned_at_us),
            Field::from(&change.function.name),
            Field::from(change.from.0),
            Field::from(change.to.0),
            Field::from(change.state.code()),
            Field::from(&change.reason),
        ]
    });
    Rows::new(&["planned_at_us", "function", "from_mb", "to_mb", "state", "reason"], rows)
}

/// One line per point; with groups, one per group and point.
pub(super) fn series(reports: &[SeriesReport]) -> Rows {
    const HEADER: [&str; 13] = [
        "group",
        "at_us",
        "invocations",
        "errors",
        "cold_starts",
        "billed_ms",
        "cost_pico_usd",
        "p50_ms",
        "p95_ms",
        "p99_ms",
        "mean_vcpus",
        "max_concurrency",
        "environment_peak_memory_mb",
    ];
    let parts = reports.iter().flat_map(|report| {
        let groups = report.groups.iter().flatten().map(|group| (group.value.as_str(), &group.points));
        let whole = report.groups.is_none().then_some(("", &report.points));
        whole.into_iter().chain(groups)
    });
    let rows = parts.flat_map(|(group, points)| {
        points.iter().map(move |point| {
            let quantile = |of: fn(&Quantiles) -> f64| Field::number(point.duration_ms.as_ref().map(of));
            [
                Field::from(group),
                Field::from(point.at_us),
                Field::from(point.invocations),
                Field::from(point.errors),
                Field::from(point.cold_starts),
                Field::from(point.billed_ms),
                Field::from(point.cost_pico_usd.0),
                quantile(|quantiles| quantiles.p50),
                quantile(|quantiles| quantiles.p95),
                quantile(|quantiles| quantiles.p99),
                Field::number(point.utilization.map(|used| used.mean_vcpus)),
                Field::number(point.utilization.map(|used| used.max_concurrency)),
                Field::number(point.utilization.map(|used| used.peak_memory_mb)),
            ]
        })
    });
    Rows::new(&HEADER, rows)
}

/// One line per hint.
pub(super) fn hints(hints: &[FleetHint]) -> Rows {
    let rows = hints.iter().map(|hint| {
        let names: Vec<&str> = hint.examples.iter().map(|example| example.function.name.as_str()).collect();
        [
            Field::from(&hint.code),
            Field::from(hint.functions),
            Field::from(hint.saving_pico_usd.0),
            Field::from(names.join(" ")),
        ]
    });
    Rows::new(&["code", "functions", "saving_pico_usd", "examples"], rows)
}

/// The rows as a CSV file.
pub(super) fn csv(rows: &Rows) -> String {
    let mut writer = Writer::from_writer(Vec::new());
    // Writing to memory does not fail, and every row has the header's length.
    let written = writer.write_record(&rows.header).and_then(|()| {
        for row in &rows.rows {
            writer.write_record(row.iter().map(Field::for_csv))?;
        }
        Ok(())
    });
    if let Err(error) = written {
        tracing::error!(%error, "cannot write CSV");
    }
    writer.into_inner().ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}
