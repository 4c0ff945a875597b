//! Builds a time series from sums per hour and day.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use tailor_sizing::pricing::bill::Usage;
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::pricing::prices::{PriceTable, Rates};
use tailor_sizing::units::Architecture;

use super::sums::{DAY_HOURS, HOURLY_HOURS, Spans, Sums, Timeline};
use super::{ChangeMark, CostParts, SeriesGroup, SeriesPoint, SeriesReport, SeriesTotal};
use crate::report::Quantiles;
use crate::store::HOUR_US;

/// Maximum number of groups of which each has its own points. The rest is one more.
const MAX_GROUPS: usize = 12;

/// Maximum number of points.
const MAX_POINTS: u64 = 400;

/// The window, its points, and the time before it that it is compared with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    now_us: u64,
    /// Length of the window, hours.
    hours: u64,
    bucket_hours: u64,
    /// The first span of the window, in spans since the Unix epoch.
    from: u64,
}

impl Range {
    /// The last `hours` hours before `now_us` (microseconds since the Unix epoch), at most 400 points.
    pub(super) fn of(now_us: u64, hours: u64) -> Self {
        let hours = hours.clamp(1, MAX_POINTS * DAY_HOURS);
        let from_hour = now_us.saturating_sub(hours.saturating_mul(HOUR_US)) / HOUR_US;
        let bucket_hours = if hours <= HOURLY_HOURS { 1 } else { DAY_HOURS };
        // The newest 400 days include today.
        let oldest = (now_us / HOUR_US / bucket_hours).saturating_sub(MAX_POINTS - 1);
        Self { now_us, hours, bucket_hours, from: (from_hour / bucket_hours).max(oldest) }
    }

    /// The first hour of the window, in hours since the Unix epoch.
    pub(super) fn first_hour(self) -> u64 {
        self.from * self.bucket_hours
    }

    /// The first hour from which measurements are read. Two days more show whether there are earlier ones.
    pub(super) fn stored_from_hour(self) -> u64 {
        (self.previous().start * self.previous_bucket_hours()).saturating_sub(2 * DAY_HOURS)
    }

    /// Hours before the window are stored for half of the hourly retention only.
    fn previous_bucket_hours(self) -> u64 {
        if self.hours <= HOURLY_HOURS / 2 { 1 } else { DAY_HOURS }
    }

    /// The spans of the same length before the window.
    fn previous(self) -> std::ops::Range<u64> {
        let bucket_hours = self.previous_bucket_hours();
        let end = self.first_hour() / bucket_hours;
        end.saturating_sub(self.hours.div_ceil(bucket_hours))..end
    }

    fn until(self) -> u64 {
        self.now_us / HOUR_US / self.bucket_hours
    }
}

/// Sums whose usage is separate for each price.
#[derive(Clone, Default)]
struct PricedSums {
    sums: Sums,
    usage: Vec<(usize, Usage)>,
}

impl PricedSums {
    fn add(&mut self, sums: &Sums, price: usize) {
        self.sums.merge_counts(sums);
        self.add_usage(price, &sums.usage);
    }

    fn add_usage(&mut self, price: usize, usage: &Usage) {
        match self.usage.iter_mut().find(|(known, _)| *known == price) {
            Some((_, known)) => known.add(usage),
            None => self.usage.push((price, *usage)),
        }
    }

    fn merge(&mut self, other: &Self) {
        self.sums.merge_counts(&other.sums);
        for (price, usage) in &other.usage {
            self.add_usage(*price, usage);
        }
    }

    /// The cost. It is rounded once for each price.
    fn cost(&self, prices: &[Option<Rates>]) -> CostParts {
        let mut parts = CostParts::default();
        for (price, usage) in &self.usage {
            if let Some(rates) = prices.get(*price).and_then(Option::as_ref) {
                parts.add(&rates.bill(usage));
            }
        }
        parts
    }
}

/// The points of the fleet or of one group.
#[derive(Clone, Default)]
struct Track {
    points: BTreeMap<u64, PricedSums>,
    previous: PricedSums,
    has_previous: bool,
}

impl Track {
    fn add(&mut self, range: Range, spans: &Spans, price: usize) {
        let of = |bucket_hours| if bucket_hours == 1 { &spans.hours } else { &spans.days };
        for (span, sums) in of(range.bucket_hours).range(range.from..) {
            // Clocks of environments may be ahead; the last point has their invocations.
            self.points.entry((*span).min(range.until())).or_default().add(sums, price);
        }
        let previous = range.previous();
        let before = of(range.previous_bucket_hours());
        for (_, sums) in before.range(previous.clone()) {
            self.previous.add(sums, price);
        }
        // One function that is measured since then is enough: others may be newer.
        self.has_previous |= before.range(..=previous.start).next_back().is_some();
    }

    fn merge(&mut self, other: &Self) {
        for (span, sums) in &other.points {
            self.points.entry(*span).or_default().merge(sums);
        }
        self.previous.merge(&other.previous);
        self.has_previous |= other.has_previous;
    }

    fn total(&self) -> PricedSums {
        let mut total = PricedSums::default();
        self.points.values().for_each(|point| total.merge(point));
        total
    }
}

/// Collects functions.
pub(super) struct Builder<'a> {
    range: Range,
    table: &'a PriceTable,
    prices: Vec<Option<Rates>>,
    numbers: BTreeMap<(String, &'static str), usize>,
    whole: Track,
    groups: BTreeMap<String, Track>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(range: Range, table: &'a PriceTable) -> Self {
        let (prices, numbers) = (Vec::new(), BTreeMap::new());
        Self { range, table, prices, numbers, whole: Track::default(), groups: BTreeMap::new() }
    }

    /// Adds a function.
    pub(super) fn add_timeline(&mut self, region: &str, timeline: &Timeline, groups: &[String]) {
        for (architecture, spans) in &timeline.0 {
            self.add(region, *architecture, spans, groups);
        }
    }

    /// Adds sums of one region and instruction set to the whole and to some groups.
    pub(super) fn add(&mut self, region: &str, architecture: Architecture, spans: &Spans, groups: &[String]) {
        let price = self.price(region, architecture);
        self.whole.add(self.range, spans, price);
        for group in groups {
            self.groups.entry(group.clone()).or_default().add(self.range, spans, price);
        }
    }

    /// The number of a price.
    fn price(&mut self, region: &str, architecture: Architecture) -> usize {
        let key = (region.to_owned(), architecture.as_str());
        if let Some(known) = self.numbers.get(&key) {
            return *known;
        }
        self.prices.push(self.table.rates(region, architecture).ok());
        self.numbers.insert(key, self.prices.len() - 1);
        self.prices.len() - 1
    }

    /// The time series.
    pub(super) fn finish(
        mut self,
        has_groups: bool,
        changes: Vec<ChangeMark>,
        computed_at_us: Option<u64>,
    ) -> SeriesReport {
        let range = self.range;
        let groups = std::mem::take(&mut self.groups);
        // Where nothing was measured before the window, the time begins with the first invocations.
        let measured = self.whole.points.keys().next().filter(|_| !self.whole.has_previous);
        let first_hour = measured.map_or_else(|| range.first_hour(), |span| span * range.bucket_hours);
        let elapsed_us = range.now_us.saturating_sub(first_hour * HOUR_US);
        let previous = range.previous();
        let previous_hours = (previous.end - previous.start) * range.previous_bucket_hours();
        let compared = self.whole.has_previous && previous_hours > 0;
        SeriesReport {
            bucket_hours: range.bucket_hours,
            from_us: range.first_hour() * HOUR_US,
            points: self.points(&self.whole),
            total: self.sum(&self.whole.total(), elapsed_us as f64 / HOUR_US as f64),
            previous: compared.then(|| self.sum(&self.whole.previous, previous_hours as f64)),
            groups: has_groups.then(|| self.group_reports(groups, elapsed_us)),
            changes,
            computed_at_us,
        }
    }

    fn points(&self, track: &Track) -> Vec<SeriesPoint> {
        let nothing = PricedSums::default();
        let point = |span: u64| {
            let sums = track.points.get(&span).unwrap_or(&nothing);
            let PricedSums {
                sums: Sums { invocations, errors, cold_starts, billed_ms, durations, .. }, ..
            } = sums;
            SeriesPoint {
                at_us: span * self.range.bucket_hours * HOUR_US,
                invocations: *invocations,
                errors: *errors,
                cold_starts: *cold_starts,
                billed_ms: *billed_ms,
                cost_pico_usd: sums.cost(&self.prices).total(),
                duration_ms: (!durations.is_empty()).then(|| Quantiles::of(durations)),
                utilization: None,
            }
        };
        (self.range.from..=self.range.until()).map(point).collect()
    }

    fn sum(&self, sums: &PricedSums, hours: f64) -> SeriesTotal {
        let cost_parts = sums.cost(&self.prices);
        SeriesTotal {
            hours,
            invocations: sums.sums.invocations,
            errors: sums.sums.errors,
            cold_starts: sums.sums.cold_starts,
            billed_ms: sums.sums.billed_ms,
            cost_pico_usd: cost_parts.total(),
            cost_parts,
        }
    }

    /// The groups with the highest cost, and the sum of the others.
    fn group_reports(&self, groups: BTreeMap<String, Track>, elapsed_us: u64) -> Vec<SeriesGroup> {
        let mut groups: Vec<(PicoDollars, String, Track)> = groups
            .into_iter()
            .map(|(value, track)| (track.total().cost(&self.prices).total(), value, track))
            .collect();
        groups.sort_by(|a, b| (Reverse(a.0), &a.1).cmp(&(Reverse(b.0), &b.1)));
        let others = groups.split_off(groups.len().min(MAX_GROUPS));
        let mut listed: Vec<(String, bool, Track)> =
            groups.into_iter().map(|(_, value, track)| (value, false, track)).collect();
        if !others.is_empty() {
            let mut rest = Track::default();
            others.iter().for_each(|(_, _, track)| rest.merge(track));
            listed.push((String::new(), true, rest));
        }
        let hours = elapsed_us as f64 / HOUR_US as f64;
        listed
            .into_iter()
            .map(|(value, is_rest, track)| SeriesGroup {
                value,
                is_rest,
                total: self.sum(&track.total(), hours),
                points: self.points(&track),
            })
            .collect()
    }
}
