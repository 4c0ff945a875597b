//! Rates from two readings of the counters of functions.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};

use clap::ValueEnum;
use serde::Serialize;

use tailor_sizing::pricing::money::PicoDollars;

use crate::query::SortKey;
use crate::report::{FleetTotal, FunctionReport};
use crate::store::FunctionKey;

use super::super::show::Page;

/// Rates are over the latest readings of so long.
const SPAN_US: u64 = 180_000_000;

/// Shortest time over which rates are computed: an environment sends its invocations once a minute by default.
const MIN_SPAN_US: u64 = 60_000_000;

/// Invocations per second, and dollars per hour.
type Rates = (f64, f64);

/// What the functions are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum TopSort {
    /// Cost per hour; the highest first.
    #[default]
    Cost,
    /// Invocations per second; the highest first.
    Invocations,
    /// Failed invocations; the most first.
    Errors,
    /// 95th percentile of duration; the highest first.
    P95,
    /// Memory size; the highest first.
    Memory,
    /// Function name.
    Name,
}

impl TopSort {
    /// The key that selects it, and its name.
    pub(super) const KEYS: [(char, Self, &'static str); 6] = [
        ('c', Self::Cost, "cost"),
        ('i', Self::Invocations, "invocations"),
        ('e', Self::Errors, "errors"),
        ('p', Self::P95, "p95"),
        ('m', Self::Memory, "memory"),
        ('n', Self::Name, "name"),
    ];

    /// The order of the list that has the first functions in this order.
    pub(super) const fn list_order(self) -> SortKey {
        match self {
            Self::Cost => SortKey::Cost,
            Self::Invocations => SortKey::Invocations,
            Self::Errors => SortKey::Errors,
            Self::P95 => SortKey::P95,
            Self::Memory => SortKey::Memory,
            Self::Name => SortKey::Name,
        }
    }

    fn compare(self, a: &Row, b: &Row) -> Ordering {
        let by_value = match self {
            Self::Cost => b.cost_per_hour_usd.total_cmp(&a.cost_per_hour_usd),
            Self::Invocations => b.invocations_per_second.total_cmp(&a.invocations_per_second),
            Self::Errors => b.errors.cmp(&a.errors),
            Self::P95 => b.p95_ms.total_cmp(&a.p95_ms),
            Self::Memory => b.memory_mb.cmp(&a.memory_mb),
            Self::Name => Ordering::Equal,
        };
        by_value.then_with(|| (&a.name, &a.region, &a.account).cmp(&(&b.name, &b.region, &b.account)))
    }
}

/// One function at one time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Row {
    /// Function name.
    pub(super) name: String,
    /// AWS account.
    pub(super) account: String,
    /// AWS region.
    pub(super) region: String,
    /// Cost per hour, dollars; 0 where no price is known.
    pub(super) cost_per_hour_usd: f64,
    /// Invocations per second.
    pub(super) invocations_per_second: f64,
    /// Failed invocations in the window.
    pub(super) errors: u64,
    /// Failed invocations in the window, percent of all.
    pub(super) errors_percent: f64,
    /// 95th percentile of duration in the window, ms.
    pub(super) p95_ms: f64,
    /// Memory size, MB.
    pub(super) memory_mb: u32,
    /// Highest memory in use in the window, MB; 0 when unknown.
    pub(super) peak_memory_mb: u64,
}

/// All functions at one time.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub(super) struct Sums {
    /// Number of functions.
    pub(super) functions: u64,
    /// Cost per hour, dollars.
    pub(super) cost_per_hour_usd: f64,
    /// Invocations per second.
    pub(super) invocations_per_second: f64,
    /// Failed invocations in the window.
    pub(super) errors: u64,
}

/// The counters of a function, or of all.
#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    invocations: u64,
    cost: PicoDollars,
}

impl Counters {
    fn of(report: &FunctionReport) -> Self {
        Self { invocations: report.invocations, cost: report.cost_pico_usd.unwrap_or(PicoDollars::ZERO) }
    }

    const fn of_all(total: &FleetTotal) -> Self {
        Self { invocations: total.invocations, cost: total.cost_pico_usd }
    }

    /// Invocations per second and dollars per hour since an earlier reading.
    fn rates_since(self, before: Self, seconds: f64) -> Rates {
        let invocations = self.invocations.saturating_sub(before.invocations);
        let cost = PicoDollars(self.cost.0.saturating_sub(before.cost.0).max(0));
        (invocations as f64 / seconds, cost.to_dollars() / seconds * 3_600.0)
    }
}

/// One reading of all functions.
#[derive(Debug, Clone)]
struct Reading {
    at_us: u64,
    total: Counters,
    counters: BTreeMap<FunctionKey, Counters>,
}

/// The latest readings with the same start of the window.
#[derive(Debug, Default)]
pub(super) struct Readings {
    window_us: u64,
    readings: VecDeque<Reading>,
    /// The latest rates, for the time after the start of the window moved.
    latest: BTreeMap<FunctionKey, Rates>,
    latest_total: Option<Rates>,
}

impl Readings {
    /// Adds a reading at `at_us` of a window that starts at `window_us` (microseconds since the Unix epoch), and returns
    /// the functions with their rates.
    pub(super) fn add(&mut self, page: &Page, window_us: u64, at_us: u64) -> (Sums, Vec<Row>) {
        let counters = page.functions.iter().map(|report| (report.key(), Counters::of(report))).collect();
        let reading = Reading { at_us, total: Counters::of_all(&page.total), counters };
        let (total, rates) = self.rates(reading, window_us);
        let rate = |report: &FunctionReport| rates.get(&report.key()).copied().unwrap_or_default();
        let rows = page.functions.iter().map(|report| row(report, rate(report))).collect();
        let sums = Sums {
            functions: page.matching_functions,
            invocations_per_second: total.0,
            cost_per_hour_usd: total.1,
            errors: page.total.errors,
        };
        (sums, rows)
    }

    /// The rates of all functions and of each: since the oldest reading that is kept. Before there is one that is old
    /// enough, they are the latest ones or, at first, those over the window.
    fn rates(&mut self, reading: Reading, window_us: u64) -> (Rates, BTreeMap<FunctionKey, Rates>) {
        if self.window_us != window_us {
            // The counters begin again.
            self.readings.clear();
            self.window_us = window_us;
        }
        let at_us = reading.at_us;
        while self.readings.front().is_some_and(|first| at_us.saturating_sub(first.at_us) > SPAN_US)
            && self.readings.len() > 1
        {
            self.readings.pop_front();
        }
        let base = self.readings.front().filter(|first| at_us.saturating_sub(first.at_us) >= MIN_SPAN_US);
        let over_window =
            |counters: &Counters| counters.rates_since(Counters::default(), seconds(window_us, at_us));
        let mut rates = BTreeMap::new();
        for (key, counters) in &reading.counters {
            let before = base.and_then(|base| Some((base.at_us, *base.counters.get(key)?)));
            let rate = match before {
                Some((before_us, before)) => counters.rates_since(before, seconds(before_us, at_us)),
                None => self.latest.get(key).copied().unwrap_or_else(|| over_window(counters)),
            };
            rates.insert(key.clone(), rate);
        }
        let total = match base {
            Some(base) => reading.total.rates_since(base.total, seconds(base.at_us, at_us)),
            None => self.latest_total.unwrap_or_else(|| over_window(&reading.total)),
        };
        self.latest.clone_from(&rates);
        self.latest_total = Some(total);
        self.readings.push_back(reading);
        (total, rates)
    }
}

fn seconds(from_us: u64, until_us: u64) -> f64 {
    (until_us.saturating_sub(from_us) as f64 / 1e6).max(0.001)
}

fn row(report: &FunctionReport, (invocations_per_second, cost_per_hour_usd): (f64, f64)) -> Row {
    Row {
        name: report.name.clone(),
        account: report.account.clone(),
        region: report.region.clone(),
        cost_per_hour_usd,
        invocations_per_second,
        errors: report.errors,
        errors_percent: 100.0 * report.errors as f64 / report.invocations.max(1) as f64,
        p95_ms: report.duration_ms.p95,
        memory_mb: report.memory.0,
        peak_memory_mb: report.peak_memory_mb,
    }
}

/// Sorts the functions.
pub(super) fn sort(rows: &mut [Row], by: TopSort, is_reversed: bool) {
    rows.sort_by(|a, b| by.compare(a, b));
    if is_reversed {
        rows.reverse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_US: u64 = 1_000_000;

    fn key() -> FunctionKey {
        FunctionKey { account: String::new(), region: String::new(), name: "checkout".to_owned() }
    }

    fn reading(at_s: u64, invocations: u64) -> Reading {
        let cost = PicoDollars(i128::from(invocations) * 1_000_000_000);
        let counters = Counters { invocations, cost };
        Reading { at_us: at_s * SECOND_US, total: counters, counters: BTreeMap::from([(key(), counters)]) }
    }

    #[test]
    fn rates_are_over_the_window_and_then_over_the_latest_minutes() {
        let mut readings = Readings::default();
        let mut rate = |at_s, invocations, window_s| {
            let (total, rates) = readings.rates(reading(at_s, invocations), window_s * SECOND_US);
            assert_eq!(rates[&key()], total);
            total
        };
        let (per_second, dollars_per_hour) = rate(1_000, 1_000, 0);
        assert!((per_second - 1.0).abs() < 1e-9 && (dollars_per_hour - 3.6).abs() < 1e-9);
        assert!((rate(1_030, 1_000, 0).0 - 1.0).abs() < 1e-9, "too early for another rate");
        assert!((rate(1_060, 1_600, 0).0 - 10.0).abs() < 1e-9);
        assert!((rate(1_120, 1_600, 0).0 - 5.0).abs() < 1e-9);
        // The window moved: the counters begin again, and the rate stays until a minute has passed.
        assert!((rate(1_130, 100, 500).0 - 5.0).abs() < 1e-9);
        assert!((rate(1_190, 100, 500).0).abs() < 1e-9);
    }
}
