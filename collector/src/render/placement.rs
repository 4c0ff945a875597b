//! Where a function should run, as text: a table for people, Markdown, CSV, and JSON for programs.

use serde::Serialize;

use tailor_sizing::placement::{PlaceReport, PlaceVerdict};

use super::output::{Field, Output, Rows, write};
use super::table::{lines, plain_table};
use super::units::{change, shorten};
use crate::query::{Format, Look};
use crate::report::placement::PlacementReport;

const HEADER: [&str; 5] = ["PLACE", "MONTH", "80 % INTERVAL", "CHANGE", "VERDICT"];

const CSV_HEADER: [&str; 7] =
    ["name", "place", "low_pico_usd", "expected_pico_usd", "high_pico_usd", "change_percent", "verdict"];

/// The report of one function, written as `format` asks.
#[must_use]
pub fn function(report: &PlacementReport, format: Format, look: Look) -> String {
    write(report, format, look)
}

impl Output for PlacementReport {
    fn value(&self) -> impl Serialize {
        self
    }

    fn table(&self, look: Look) -> String {
        let mut text = format!(
            "{} in {}: {:.3} invocations at the same time on average, {:.3} in the busiest hour\n\n",
            shorten(&self.name, 60),
            self.region,
            self.mean_concurrency,
            self.busiest_concurrency
        );
        if let Some(reason) = &self.reason {
            text.push_str(&format!("{reason}\n"));
        }
        text.push_str(&details(self, look));
        text
    }

    fn markdown(&self) -> Rows {
        Rows::new(&HEADER, places(self).iter().map(row))
    }

    fn csv(&self) -> Rows {
        Rows::new(&CSV_HEADER, places(self).iter().map(|place| csv_row(self, place)))
    }
}

fn places(report: &PlacementReport) -> &[PlaceReport] {
    report.placement.as_ref().map_or(&[], |placement| &placement.places)
}

fn details(report: &PlacementReport, look: Look) -> String {
    let Some(placement) = &report.placement else { return String::new() };
    let mut table = plain_table(&HEADER, look);
    for place in &placement.places {
        table.add_row(row(place));
    }
    let mut text = lines(&table) + "\n";
    for place in &placement.places {
        text.push_str(&format!("{}: {}\n", place.place.code(), place.summary));
        for assumption in &place.assumptions {
            text.push_str(&format!("  assumed: {assumption}\n"));
        }
    }
    let worth: Vec<String> = placement
        .provisioned_hours
        .iter()
        .filter(|hour| hour.concurrency > 0)
        .map(|hour| format!("{:02}:00 {} (saves {})", hour.hour, hour.concurrency, hour.saving_pico_usd))
        .collect();
    if !worth.is_empty() {
        text.push_str(&format!("provisioned concurrency by hour (UTC): {}\n", worth.join(", ")));
    }
    if let Some(plan) = &placement.managed {
        text.push_str(&format!(
            "settings for managed instances: ExecutionEnvironmentMemoryGiBPerVCpu {}, PerExecutionEnvironmentMaxConcurrency {}, \
             memory {} MB\n",
            plan.gib_per_vcpu, plan.max_concurrency, plan.capacity.environment_mb
        ));
    }
    for remark in &placement.remarks {
        text.push_str(&format!("{remark}\n"));
    }
    text
}

const fn verdict(verdict: PlaceVerdict) -> &'static str {
    match verdict {
        PlaceVerdict::Present => "present",
        PlaceVerdict::Cheaper => "cheaper",
        PlaceVerdict::NotCheaper => "not cheaper",
        PlaceVerdict::Depends => "depends",
        PlaceVerdict::Unknown => "unknown",
    }
}

fn row(place: &PlaceReport) -> [String; 5] {
    let none = || "-".to_owned();
    [
        place.place.code().to_owned(),
        place.month.map_or_else(none, |month| month.expected_pico_usd.to_string()),
        place.month.map_or_else(none, |month| format!("{} to {}", month.low_pico_usd, month.high_pico_usd)),
        place.change_percent.map_or_else(none, change),
        verdict(place.verdict).to_owned(),
    ]
}

fn csv_row(report: &PlacementReport, place: &PlaceReport) -> [Field; 7] {
    [
        Field::from(&report.name),
        Field::from(place.place.code()),
        Field::number(place.month.map(|month| month.low_pico_usd.0)),
        Field::number(place.month.map(|month| month.expected_pico_usd.0)),
        Field::number(place.month.map(|month| month.high_pico_usd.0)),
        Field::number(place.change_percent),
        Field::from(verdict(place.verdict)),
    ]
}
