//! Reports as CSV, for spreadsheets.

use ::csv::Writer;

use super::text::csv_cell;
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
pub(super) fn functions(functions: &[FunctionReport]) -> String {
    let rows = functions.iter().map(|function| {
        vec![
            csv_cell(&function.name),
            csv_cell(&function.account),
            csv_cell(&function.region),
            csv_cell(&function.runtime),
            function.architecture.to_string(),
            function.memory.0.to_string(),
            function.invocations.to_string(),
            function.errors.to_string(),
            function.cold_starts.to_string(),
            function.duration_ms.p50.to_string(),
            function.duration_ms.p95.to_string(),
            function.billed_ms.to_string(),
            function.cost_pico_usd.map(|cost| cost.0.to_string()).unwrap_or_default(),
            function.peak_memory_mb.to_string(),
            function.busy_ms.to_string(),
            function.starved_ms.to_string(),
            function.idle_ms.to_string(),
            function.advice.memory.0.to_string(),
            function.advice.cost_change_percent.to_string(),
            function.advice.duration_change_percent.to_string(),
        ]
    });
    write(&FUNCTION_HEADER, rows)
}

/// One line per change.
pub(super) fn changes(changes: &[Change]) -> String {
    let rows = changes.iter().map(|change| {
        vec![
            change.planned_at_us.to_string(),
            csv_cell(&change.function.name),
            change.from.0.to_string(),
            change.to.0.to_string(),
            change.state.code().to_owned(),
            csv_cell(&change.reason),
        ]
    });
    write(&["planned_at_us", "function", "from_mb", "to_mb", "state", "reason"], rows)
}

/// One line per point; with groups, one per group and point.
pub(super) fn series(report: &SeriesReport) -> String {
    const HEADER: [&str; 10] = [
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
    ];
    let groups = report.groups.iter().flatten().map(|group| (group.value.as_str(), &group.points));
    let whole = report.groups.is_none().then_some(("", &report.points));
    let rows = whole.into_iter().chain(groups).flat_map(|(group, points)| {
        points.iter().map(move |point| {
            let quantile = |of: fn(&Quantiles) -> f64| {
                point.duration_ms.as_ref().map(|quantiles| of(quantiles).to_string()).unwrap_or_default()
            };
            vec![
                csv_cell(group),
                point.at_us.to_string(),
                point.invocations.to_string(),
                point.errors.to_string(),
                point.cold_starts.to_string(),
                point.billed_ms.to_string(),
                point.cost_pico_usd.0.to_string(),
                quantile(|quantiles| quantiles.p50),
                quantile(|quantiles| quantiles.p95),
                quantile(|quantiles| quantiles.p99),
            ]
        })
    });
    write(&HEADER, rows)
}

/// One line per hint.
pub(super) fn hints(hints: &[FleetHint]) -> String {
    let rows = hints.iter().map(|hint| {
        let names: Vec<&str> = hint.examples.iter().map(|example| example.function.name.as_str()).collect();
        vec![
            hint.code.clone(),
            hint.functions.to_string(),
            hint.saving_pico_usd.0.to_string(),
            csv_cell(&names.join(" ")),
        ]
    });
    write(&["code", "functions", "saving_pico_usd", "examples"], rows)
}

pub(super) fn write(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut writer = Writer::from_writer(Vec::new());
    // Writing to memory does not fail, and every row has the header's length.
    let written = writer.write_record(header).and_then(|()| {
        for row in rows {
            writer.write_record(&row)?;
        }
        Ok(())
    });
    if let Err(error) = written {
        tracing::error!(%error, "cannot write CSV");
    }
    writer.into_inner().ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}
