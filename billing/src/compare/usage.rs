//! Reasons of a difference of the usage: telemetry that is missing, or usage in another period.

use std::collections::{BTreeMap, BTreeSet};

use tailor_sizing::pricing::money::PicoDollars;

use super::{FunctionContext, Measured, Reason, ReasonCode, is_equal, times};
use crate::bill::{Billed, Period};
use crate::decimal::{self, PICO};
use crate::meter::{Meter, MeterKind};
use crate::time::{self, HOUR_S};

/// AWS's exports can miss rows of the hours before their end.
const INCOMPLETE_HOURS: i64 = 24;

/// Hours that are listed in one reason.
const MAX_LISTED_HOURS: usize = 6;

/// What is known of a function's usage over all periods.
pub(super) struct Usage<'a> {
    measured: Option<&'a Measured>,
    hours: Option<(i64, i64)>,
    /// Billed minus measured, by meter and period.
    differences: BTreeMap<(Meter, Period), (i128, i128)>,
    /// Periods in which the counted losses explain what is missing.
    periods_with_losses: BTreeSet<Period>,
}

impl<'a> Usage<'a> {
    pub(super) fn new(
        context: &FunctionContext<'_>,
        measured: Option<&'a Measured>,
        keys: &BTreeSet<(Period, Meter)>,
    ) -> Self {
        let mut differences = BTreeMap::new();
        for (period, meter) in keys.iter().filter(|(_, meter)| meter.kind.is_measured()) {
            let billed = context.billed.get(&(*period, *meter)).map_or(0, |billed| billed.quantity_pico);
            let quantity = measured.map_or(0, |measured| measured.quantity_pico(*period, *meter));
            differences.insert((*meter, *period), (billed, quantity));
        }
        let mut usage =
            Self { measured, hours: context.hours, differences, periods_with_losses: BTreeSet::new() };
        usage.spend_losses(context);
        usage
    }

    /// Assigns the counted losses to the periods in which requests are missing, the earliest first.
    fn spend_losses(&mut self, context: &FunctionContext<'_>) {
        let Some(measured) = self.measured else { return };
        let requests = Meter { kind: MeterKind::Requests, architecture: None };
        let mut left = i128::from(measured.lost_invocations) * PICO;
        for ((meter, period), (billed, quantity)) in &self.differences {
            let gaps = context
                .billed
                .get(&(*period, *meter))
                .map_or(0, |billed| gap(billed, *period, *meter, measured).0);
            let missing = billed - quantity - gaps;
            if *meter == requests && missing > 0 && missing <= left && !is_equal(*billed, quantity + gaps) {
                left -= missing;
                self.periods_with_losses.insert(*period);
            }
        }
    }

    /// The reasons of a difference, and the quantity that they do not explain.
    pub(super) fn reasons(
        &self,
        period: Period,
        meter: Meter,
        billed: &Billed,
        quantity: i128,
        price: PicoDollars,
    ) -> (Vec<Reason>, i128) {
        let difference = billed.quantity_pico - quantity;
        let all =
            |code, detail: &str| (vec![Reason::new(code, times(difference, price), detail.to_owned())], 0);
        let Some(measured) = self.measured.filter(|measured| !measured.spans.is_empty()) else {
            return all(ReasonCode::FunctionNotMeasured, "");
        };
        if measured.has_partial_spans(period) {
            return all(ReasonCode::WholeDays, "");
        }
        if let Some(neighbour) = self.boundary(period, meter) {
            return all(ReasonCode::PeriodBoundary, &format!("with {neighbour}"));
        }
        if is_small(difference, billed.quantity_pico.max(quantity), measured.share_at_boundaries(period)) {
            return all(ReasonCode::PeriodBoundary, "requests that ran at its start or its end");
        }
        if difference < 0 {
            let ends = self.hours.is_some_and(|(_, end)| period.until_hour() > end - INCOMPLETE_HOURS);
            return if ends { all(ReasonCode::ExportIncomplete, "") } else { (vec![], difference) };
        }
        let (gap, hours) = gap(billed, period, meter, measured);
        let mut reasons = vec![];
        if gap > 0 {
            reasons.push(Reason::new(ReasonCode::NoTelemetry, times(gap, price), listed(period, &hours)));
        }
        let rest = difference - gap;
        if is_equal(billed.quantity_pico, quantity + gap) {
            return (reasons, 0);
        }
        if rest > 0 && self.periods_with_losses.contains(&period) {
            reasons.push(Reason::new(ReasonCode::Lost, times(rest, price), measured.losses.clone()));
            return (reasons, 0);
        }
        (reasons, rest)
    }

    /// The day of the neighbour with which the usage is equal, although it is not in each of both.
    fn boundary(&self, period: Period, meter: Meter) -> Option<String> {
        let (billed, quantity) = self.differences.get(&(meter, period))?;
        if *billed == 0 && *quantity == 0 {
            return None;
        }
        [-1, 1].into_iter().find_map(|step| {
            let from_hour = period.from_hour + step * period.hours;
            let other = Period { from_hour, ..period };
            let (other_billed, other_quantity) = self.differences.get(&(meter, other))?;
            let is_opposite = (billed - quantity).signum() == -(other_billed - other_quantity).signum();
            let agrees = is_equal(billed + other_billed, quantity + other_quantity);
            (is_opposite && agrees).then(|| time::format_day(from_hour * HOUR_S))
        })
    }
}

/// Whether a difference is at most this share of the whole, and less than all of it.
fn is_small(difference: i128, whole: i128, share: f64) -> bool {
    difference.abs() < whole && difference.abs() as f64 <= whole as f64 * share
}

/// The billed quantity of hours in which nothing was measured, and these hours of the period.
fn gap(billed: &Billed, period: Period, meter: Meter, measured: &Measured) -> (i128, Vec<usize>) {
    if measured.quantity_pico(period, meter) == 0 {
        return (billed.quantity_pico, vec![]);
    }
    let (Some(billed), Some(measured)) = (&billed.by_hour, measured.by_hour(period, meter)) else {
        return (0, vec![]);
    };
    let hours: Vec<usize> = (0..24).filter(|hour| billed[*hour] > 0 && measured[*hour] == 0).collect();
    (hours.iter().map(|hour| billed[*hour]).sum(), hours)
}

/// Hours of a day in words.
fn listed(period: Period, hours: &[usize]) -> String {
    if hours.is_empty() {
        return "the whole period".to_owned();
    }
    let names: Vec<String> =
        hours.iter().take(MAX_LISTED_HOURS).map(|hour| format!("{hour:02}:00")).collect();
    let more = hours.len().saturating_sub(MAX_LISTED_HOURS);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{} {}{more} UTC", time::format_day(period.from_hour * HOUR_S), names.join(", "))
}

/// A quantity for a sentence.
pub(super) fn shown(quantity_pico: i128) -> String {
    // Three decimals are enough for a person.
    decimal::format(quantity_pico / 1_000_000_000 * 1_000_000_000)
}
