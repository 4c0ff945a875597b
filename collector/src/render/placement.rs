//! Where a function should run, as text: a table for people, Markdown, CSV, and JSON for programs.

use serde::Serialize;

use tailor_sizing::placement::{ConcurrencyLimit, PlaceReport, PlaceVerdict};

use super::output::{Field, Output, Rows, write};
use super::table::{lines, plain_table};
use super::units::{change, instant, shorten};
use crate::query::{Format, TableStyle};
use crate::report::placement::PlacementReport;
use crate::report::placement::fleet::{FleetPlacement, PlaceSum};

const HEADER: [&str; 5] = ["PLACE", "MONTH", "80 % INTERVAL", "CHANGE", "VERDICT"];

const CSV_HEADER: [&str; 7] =
    ["name", "place", "low_pico_usd", "expected_pico_usd", "high_pico_usd", "change_percent", "verdict"];

/// The report of one function, written in `format`.
#[must_use]
pub fn function(report: &PlacementReport, format: Format, style: TableStyle) -> String {
    write(report, format, style)
}

impl Output for PlacementReport {
    fn value(&self) -> impl Serialize {
        self
    }

    fn table(&self, style: TableStyle) -> String {
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
        text.push_str(&managed(self));
        text.push_str(&details(self, style));
        text
    }

    fn markdown(&self) -> Rows {
        Rows::new(&HEADER, places(self).iter().map(row))
    }

    fn csv(&self) -> Rows {
        Rows::new(&CSV_HEADER, places(self).iter().map(|place| csv_row(self, place)))
    }
}

/// What its environments use on managed instances, and their settings.
fn managed(report: &PlacementReport) -> String {
    let mut text = String::new();
    if let Some(used) = &report.utilization {
        text.push_str(&format!(
            "an environment uses {:.2} vCPUs on average and {:.2} at p99, at most {} MB, and runs {:.1} invocations at the same \
             time on average and at most {}; an invocation uses {:.3} vCPUs while it runs\n",
            used.mean_vcpus,
            used.p99_vcpus,
            used.peak_memory_mb,
            used.mean_concurrency,
            used.max_concurrency,
            used.vcpus_per_invocation
        ));
    }
    if let Some(settings) = &report.settings {
        let [low, high] = settings.max_concurrency_interval;
        let [few, many] = settings.gib_per_vcpu_interval;
        text.push_str(&format!(
            "settings: ExecutionEnvironmentMemoryGiBPerVCpu {} ({few} to {many}), PerExecutionEnvironmentMaxConcurrency {} ({low} \
             to {high}), which {} limits\n",
            settings.gib_per_vcpu,
            settings.max_concurrency,
            limit(settings.limited_by)
        ));
        for assumption in &settings.assumptions {
            text.push_str(&format!("  assumed: {assumption}\n"));
        }
    }
    if let Some(reason) = &report.no_settings {
        text.push_str(&format!("no settings: {reason}\n"));
    }
    text
}

/// What limits the concurrency of an environment, in words.
#[must_use]
pub const fn limit(limit: ConcurrencyLimit) -> &'static str {
    match limit {
        ConcurrencyLimit::Cpu => "CPU time",
        ConcurrencyLimit::Memory => "memory",
        ConcurrencyLimit::Runtime => "the runtime",
    }
}

const FLEET_HEADER: [&str; 8] =
    ["FUNCTION", "REGION", "NOW", "PLACE", "MONTH", "80 % INTERVAL", "SAVES", "VERDICT"];

/// The places of the fleet, written in `format`.
#[must_use]
pub fn fleet(report: &FleetPlacement, format: Format, style: TableStyle) -> String {
    write(report, format, style)
}

impl Output for FleetPlacement {
    fn value(&self) -> impl Serialize {
        self
    }

    fn table(&self, style: TableStyle) -> String {
        let mut text = String::new();
        if !self.functions.is_empty() {
            let mut table = plain_table(&FLEET_HEADER, style);
            self.functions.iter().filter_map(fleet_row).for_each(|row| {
                table.add_row(row);
            });
            text.push_str(&(lines(&table) + "\n"));
        }
        text.push_str(&format!(
            "{}\n`tailor where FUNCTION` shows every place with its assumptions.\n",
            summary(self)
        ));
        text
    }

    fn markdown(&self) -> Rows {
        Rows::new(&FLEET_HEADER, self.functions.iter().filter_map(fleet_row))
    }

    fn csv(&self) -> Rows {
        const HEADER: [&str; 10] = [
            "name",
            "account",
            "region",
            "now_pico_usd",
            "place",
            "low_pico_usd",
            "expected_pico_usd",
            "high_pico_usd",
            "saving_pico_usd",
            "verdict",
        ];
        Rows::new(&HEADER, self.functions.iter().filter_map(fleet_csv_row))
    }
}

/// What the whole table shows, in sentences.
#[must_use]
pub fn summary(report: &FleetPlacement) -> String {
    let mut text = format!(
        "{} of {} compared functions may be cheaper in another place. Those that are cheaper in the whole interval save {} a month.",
        report.matching_functions, report.compared_functions, report.saving_pico_usd
    );
    if report.matching_functions > report.functions.len() as u64 {
        text.push_str(&format!(" Shown: {}.", report.functions.len()));
    }
    if let Some(at_us) = report.computed_at_us {
        text.push_str(&format!(" From stored comparisons; the oldest is of {}.", instant(at_us)));
    }
    text
}

fn fleet_row(sum: &PlaceSum) -> Option<[String; 8]> {
    let best = sum.best.as_ref()?;
    let [place, month, interval, _, verdict] = row(best);
    Some([
        shorten(&sum.name, 40),
        sum.region.clone(),
        sum.now.map_or_else(|| "-".to_owned(), |month| month.expected_pico_usd.to_string()),
        place,
        month,
        interval,
        sum.saving_pico_usd.to_string(),
        verdict,
    ])
}

fn fleet_csv_row(sum: &PlaceSum) -> Option<[Field; 10]> {
    let best = sum.best.as_ref()?;
    Some([
        Field::from(&sum.name),
        Field::from(&sum.account),
        Field::from(&sum.region),
        Field::number(sum.now.map(|month| month.expected_pico_usd.0)),
        Field::from(best.place.code()),
        Field::number(best.month.map(|month| month.low_pico_usd.0)),
        Field::number(best.month.map(|month| month.expected_pico_usd.0)),
        Field::number(best.month.map(|month| month.high_pico_usd.0)),
        Field::from(sum.saving_pico_usd.0),
        Field::from(verdict(best.verdict)),
    ])
}

fn places(report: &PlacementReport) -> &[PlaceReport] {
    report.placement.as_ref().map_or(&[], |placement| &placement.places)
}

fn details(report: &PlacementReport, style: TableStyle) -> String {
    let Some(placement) = &report.placement else { return String::new() };
    let mut table = plain_table(&HEADER, style);
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

pub(crate) const fn verdict(verdict: PlaceVerdict) -> &'static str {
    match verdict {
        PlaceVerdict::Present => "present",
        PlaceVerdict::Cheaper => "cheaper",
        PlaceVerdict::NotCheaper => "not cheaper",
        PlaceVerdict::Depends => "depends",
        PlaceVerdict::Unknown => "unknown",
    }
}

pub(crate) fn row(place: &PlaceReport) -> [String; 5] {
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
