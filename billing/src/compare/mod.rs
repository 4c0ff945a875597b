//! Compares a bill with what was measured, per function, period and meter, and finds the reasons of the difference.
//!
//! The measured side is computed at public prices of the first volume tier. The difference of one row is the sum of its reasons
//! and of what no reason explains. A difference of the usage is explained by evidence that telemetry is missing; a difference
//! of the price is explained by the parts of the bill: free tier, volume tiers, provisioned capacity, savings plans,
//! discounts, and other prices.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tailor_sizing::pricing::bill::MB_MS_PER_GB_SECOND;
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::pricing::prices::{PriceTable, Rates};
use tailor_sizing::units::Architecture;

use crate::arn::Function;
use crate::bill::{Bill, Billed, Period};
use crate::decimal::PICO;
use crate::meter::{Meter, MeterKind};

mod measured;
mod price;
mod reasons;
mod usage;

pub use measured::{Measured, Span};
pub use reasons::{Reason, ReasonCode};

/// Two values are equal when they differ by at most one part in so many: 0.1 %.
const EQUAL_PARTS: i128 = 1_000;

/// AWS rounds each row to ten decimals of a dollar: half of the last decimal, pico-dollars.
const ROW_ROUNDING_PICO: i128 = 50;

/// The result for one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Usage and cost are equal within 0.1 %.
    Equal,
    /// The reasons add up to the difference, within 0.1 %.
    Explained,
    /// A part of the difference has no reason.
    Unexplained,
}

impl Status {
    /// Its stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Explained => "explained",
            Self::Unexplained => "unexplained",
        }
    }
}

/// One function, period and meter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The function.
    pub function: Function,
    /// The period.
    pub period: Period,
    /// The meter.
    pub meter: Meter,
    /// Billed quantity, 10⁻¹².
    pub billed_quantity_pico: i128,
    /// Measured quantity, 10⁻¹²; `None` for a meter that is not measured.
    pub measured_quantity_pico: Option<i128>,
    /// What AWS billed.
    pub billed: PicoDollars,
    /// What was computed.
    pub computed: PicoDollars,
    /// Why they differ.
    pub reasons: Vec<Reason>,
    /// The part of the difference without a reason.
    pub unexplained: PicoDollars,
    /// The result.
    pub status: Status,
}

impl Row {
    /// What AWS billed minus what was computed.
    #[must_use]
    pub fn difference(&self) -> PicoDollars {
        self.billed - self.computed
    }
}

/// What the comparison needs besides the bill.
pub struct Inputs<'a> {
    /// What was measured, by function.
    pub measured: &'a BTreeMap<Function, Measured>,
    /// Lambda's prices.
    pub prices: &'a PriceTable,
}

/// Compares a bill. Rows are in order of functions, periods and meters.
#[must_use]
pub fn compare(bill: &mut Bill, inputs: &Inputs<'_>) -> Vec<Row> {
    bill.resolve_architectures(|function| inputs.measured.get(function).and_then(Measured::architecture));
    let mut rows = vec![];
    let mut functions: BTreeSet<&Function> = bill.functions.keys().collect();
    functions.extend(inputs.measured.keys());
    let none = BTreeMap::new();
    for function in functions {
        let billed = bill.functions.get(function).unwrap_or(&none);
        let hours = bill.hours_by_account.get(&function.account).copied();
        let context = FunctionContext { function, billed, hours, inputs };
        rows.extend(context.rows());
    }
    rows
}

/// One function.
struct FunctionContext<'a> {
    function: &'a Function,
    billed: &'a BTreeMap<(Period, Meter), Billed>,
    /// The hours that the bill has of the account: the first, and the one after the last.
    hours: Option<(i64, i64)>,
    inputs: &'a Inputs<'a>,
}

impl FunctionContext<'_> {
    fn rows(&self) -> Vec<Row> {
        let measured = self.inputs.measured.get(self.function);
        let mut keys: BTreeSet<(Period, Meter)> = self.billed.keys().copied().collect();
        if let (Some(measured), Some(hours)) = (measured, self.hours) {
            keys.extend(measured.keys(hours, self.billed.keys().map(|(period, _)| *period)));
        }
        let usage = usage::Usage::new(self, measured, &keys);
        keys.iter().map(|(period, meter)| self.row(*period, *meter, measured, &usage)).collect()
    }

    fn rates(&self, architecture: Option<Architecture>) -> Option<Rates> {
        self.inputs.prices.rates(&self.function.region, architecture.unwrap_or(Architecture::X86_64)).ok()
    }

    fn row(&self, period: Period, meter: Meter, measured: Option<&Measured>, usage: &usage::Usage) -> Row {
        let empty = Billed::default();
        let billed = self.billed.get(&(period, meter)).unwrap_or(&empty);
        let mut row = Row {
            function: self.function.clone(),
            period,
            meter,
            billed_quantity_pico: billed.quantity_pico,
            measured_quantity_pico: None,
            billed: billed.cost,
            computed: PicoDollars::ZERO,
            reasons: vec![],
            unexplained: PicoDollars::ZERO,
            status: Status::Explained,
        };
        if !meter.kind.is_measured() {
            row.reasons.push(Reason::new(ReasonCode::MeterNotMeasured, billed.cost, String::new()));
            return finish(row, billed, 0);
        }
        let quantity = measured.map_or(0, |measured| measured.quantity_pico(period, meter));
        row.measured_quantity_pico = Some(quantity);
        let Some(price) = self.rates(meter.architecture).and_then(|rates| unit_price(&rates, meter.kind))
        else {
            let example = format!("no price of {meter} in {}", self.function.region);
            row.reasons.push(Reason::new(ReasonCode::NoPrice, billed.cost, example));
            return finish(row, billed, 0);
        };
        row.computed = times(quantity, price);
        let mut unexplained = 0;
        if !is_equal(billed.quantity_pico, quantity) {
            let (reasons, rest) = usage.reasons(period, meter, billed, quantity, price);
            row.reasons.extend(reasons);
            unexplained = rest;
        }
        row.reasons.extend(price::reasons(billed, price, meter.kind, self.inputs.prices.compiled()));
        finish(row, billed, unexplained)
    }
}

/// Computes what is not explained, and the status.
fn finish(mut row: Row, billed: &Billed, unexplained_pico: i128) -> Row {
    let explained: PicoDollars = row.reasons.iter().map(|reason| reason.amount).sum();
    let rest = row.difference() - explained;
    let largest = row.billed.0.abs().max(row.computed.0.abs());
    let rounding = ROW_ROUNDING_PICO * i128::from(billed.rows.max(1));
    let tolerance = (largest / EQUAL_PARTS).max(rounding);
    let quantities = row.measured_quantity_pico.map(|measured| is_equal(row.billed_quantity_pico, measured));
    let is_usage_explained = unexplained_pico == 0;
    row.unexplained = if rest.0.abs() <= tolerance && is_usage_explained { PicoDollars::ZERO } else { rest };
    row.status = if row.difference().0.abs() <= tolerance && quantities == Some(true) {
        row.reasons.clear();
        Status::Equal
    } else if rest.0.abs() <= tolerance && is_usage_explained {
        Status::Explained
    } else {
        Status::Unexplained
    };
    row
}

/// The price of one unit in the first volume tier.
fn unit_price(rates: &Rates, kind: MeterKind) -> Option<PicoDollars> {
    match kind {
        MeterKind::Compute => Some(rates.gb_second()),
        MeterKind::Requests => Some(rates.request),
        MeterKind::EphemeralStorage => rates.storage_gb_second,
        _ => None,
    }
}

/// Whether two quantities differ by at most 0.1 % of the larger.
fn is_equal(a: i128, b: i128) -> bool {
    (a - b).abs() <= a.abs().max(b.abs()) / EQUAL_PARTS
}

/// Quantity × price, rounded half away from zero.
fn times(quantity_pico: i128, price: PicoDollars) -> PicoDollars {
    let (whole, rest) = (quantity_pico / PICO, quantity_pico % PICO);
    let product = rest * price.0;
    let half = if product < 0 { -(PICO / 2) } else { PICO / 2 };
    PicoDollars(whole.saturating_mul(price.0).saturating_add((product + half) / PICO))
}

/// MB·ms as GB-seconds of 10⁻¹².
fn gb_seconds_pico(mb_ms: u128) -> i128 {
    let (whole, rest) = (mb_ms / MB_MS_PER_GB_SECOND, mb_ms % MB_MS_PER_GB_SECOND);
    let part = rest * PICO.unsigned_abs() / MB_MS_PER_GB_SECOND;
    let whole = i128::try_from(whole).unwrap_or(i128::MAX).saturating_mul(PICO);
    whole.saturating_add(i128::try_from(part).unwrap_or(0))
}
