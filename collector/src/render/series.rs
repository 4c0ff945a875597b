//! Time series, for people and for programs.

use serde::Serialize;

use super::csv;
use super::output::{Output, Rows};
use super::table::{lines, one_or_more, plain_table};
use super::units::{count, duration, duration_of, instant, shorten};
use crate::query::Look;
use crate::report::SeriesReport;
use crate::report::series::{SeriesPoint, SeriesTotal};

const HEADER: [&str; 9] = ["TIME (UTC)", "CALLS", "ERR", "COLD", "P50", "P95", "P99", "BILLED", "COST $"];

/// The time series of the fleet, or of the functions of one name.
pub struct TimeSeries<'a>(pub &'a [SeriesReport]);

impl Output for TimeSeries<'_> {
    fn value(&self) -> impl Serialize {
        one_or_more(self.0)
    }

    fn table(&self, look: Look) -> String {
        self.0.iter().map(|report| table(report, look)).collect()
    }

    // Points without invocations are left out where people read.
    fn markdown(&self) -> Rows {
        Rows::new(&HEADER, self.0.iter().flat_map(|report| used(report).map(row)))
    }

    fn csv(&self) -> Rows {
        csv::series(self.0)
    }
}

fn used(report: &SeriesReport) -> impl Iterator<Item = &SeriesPoint> {
    report.points.iter().filter(|point| point.invocations > 0)
}

fn table(report: &SeriesReport, look: Look) -> String {
    if report.total.invocations == 0 {
        return "no invocations in this window\n".to_owned();
    }
    let mut table = plain_table(&HEADER, look);
    for point in used(report) {
        table.add_row(row(point));
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
        "{name}: {} invocations in {:.0} h, {} errors, {} cold starts, billed {}, {} (compute {}, Init {}, requests {}, storage {})\n",
        count(total.invocations),
        total.hours,
        count(total.errors),
        count(total.cold_starts),
        duration_of(total.billed_ms),
        total.cost_pico_usd,
        total.cost_parts.compute_pico_usd,
        total.cost_parts.init_pico_usd,
        total.cost_parts.requests_pico_usd,
        total.cost_parts.storage_pico_usd,
    )
}
