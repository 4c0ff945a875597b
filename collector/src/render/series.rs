//! Time series, for people and for programs.

use serde::Serialize;

use super::csv;
use super::output::{Output, Rows};
use super::table::{lines, one_or_more, plain_table};
use super::units::{count, counted, duration, duration_of, instant, shorten};
use crate::query::TableStyle;
use crate::report::SeriesReport;
use crate::report::series::{SeriesPoint, SeriesTotal};

const HEADER: [&str; 9] = ["TIME (UTC)", "CALLS", "ERR", "COLD", "P50", "P95", "P99", "BILLED", "COST $"];

/// The columns of a function on managed instances, after the others.
const UTILIZATION_HEADER: [&str; 4] = ["VCPU", "VCPU P99", "CONCURRENT", "MB"];

/// The time series of the fleet, or of the functions of one name.
pub struct TimeSeries<'a>(pub &'a [SeriesReport]);

impl Output for TimeSeries<'_> {
    fn value(&self) -> impl Serialize {
        one_or_more(self.0)
    }

    fn table(&self, style: TableStyle) -> String {
        self.0.iter().map(|report| table(report, style)).collect()
    }

    // Points without invocations are left out where people read.
    fn markdown(&self) -> Rows {
        let has_utilization = self.0.iter().any(has_utilization);
        let points = self.0.iter().flat_map(used);
        if has_utilization {
            Rows::new(&wide_header(), points.map(wide_row))
        } else {
            Rows::new(&HEADER, points.map(row))
        }
    }

    fn csv(&self) -> Rows {
        csv::series(self.0)
    }
}

fn used(report: &SeriesReport) -> impl Iterator<Item = &SeriesPoint> {
    report.points.iter().filter(|point| point.invocations > 0)
}

fn table(report: &SeriesReport, style: TableStyle) -> String {
    if report.total.invocations == 0 {
        return "no invocations in this window\n".to_owned();
    }
    let is_wide = has_utilization(report);
    let mut table = if is_wide { plain_table(&wide_header(), style) } else { plain_table(&HEADER, style) };
    for point in used(report) {
        if is_wide {
            table.add_row(wide_row(point))
        } else {
            table.add_row(row(point))
        };
    }
    let mut text = lines(&table) + "\n" + &total("Total", &report.total);
    if let Some(previous) = &report.previous {
        text.push_str(&total("Before", previous));
    }
    for group in report.groups.iter().flatten() {
        let name = match group.value.as_str() {
            "" if group.is_rest => "all others".to_owned(),
            "" => "unknown".to_owned(),
            value => shorten(value, 40),
        };
        text.push_str(&total(&name, &group.total));
    }
    for change in &report.changes {
        text.push_str(&format!(
            "{} {}: {} MB → {} MB, {}\n",
            instant(change.at_us),
            shorten(&change.function.name, 40),
            change.from_mb,
            change.to_mb,
            change.state.code()
        ));
    }
    text
}

fn has_utilization(report: &SeriesReport) -> bool {
    report.points.iter().any(|point| point.utilization.is_some())
}

fn wide_header() -> [&'static str; 13] {
    std::array::from_fn(|column| match column.checked_sub(HEADER.len()) {
        Some(column) => UTILIZATION_HEADER[column],
        None => HEADER[column],
    })
}

fn wide_row(point: &SeriesPoint) -> [String; 13] {
    let none = || "-".to_owned();
    let used = point.utilization;
    let mut cells = row(point).to_vec();
    cells.extend([
        used.map_or_else(none, |used| format!("{:.2}", used.mean_vcpus)),
        used.map_or_else(none, |used| format!("{:.2}", used.p99_vcpus)),
        used.map_or_else(none, |used| format!("{:.1}/{}", used.mean_concurrency, used.max_concurrency)),
        used.map_or_else(none, |used| used.peak_memory_mb.to_string()),
    ]);
    cells.try_into().unwrap_or_default()
}

fn row(point: &SeriesPoint) -> [String; 9] {
    let at = |quantile: fn(&crate::report::Quantiles) -> f64| {
        point.duration_ms.as_ref().map_or_else(|| "-".to_owned(), |quantiles| duration(quantile(quantiles)))
    };
    // Points begin at a full minute.
    let time = instant(point.at_us);
    [
        time.get(..16).unwrap_or(&time).to_owned(),
        count(point.invocations),
        count(point.errors),
        count(point.cold_starts),
        at(|quantiles| quantiles.p50),
        at(|quantiles| quantiles.p95),
        at(|quantiles| quantiles.p99),
        duration_of(point.billed_ms),
        format!("{:.4}", point.cost_pico_usd.to_dollars()),
    ]
}

fn total(name: &str, total: &SeriesTotal) -> String {
    format!(
        "{name}: {} in {:.0} h, {}, {}, billed {}, {} (compute {}, Init {}, requests {}, storage {})\n",
        counted(total.invocations, "invocation"),
        total.hours,
        counted(total.errors, "error"),
        counted(total.cold_starts, "cold start"),
        duration_of(total.billed_ms),
        total.cost_pico_usd,
        total.cost_parts.compute_pico_usd,
        total.cost_parts.init_pico_usd,
        total.cost_parts.requests_pico_usd,
        total.cost_parts.storage_pico_usd,
    )
}
