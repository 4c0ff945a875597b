//! The full bill of a function: one line for each meter, with its price, the source of the price, and how well the amount is
//! known.
//!
//! Measurements show compute, requests and ephemeral storage. What they do not show is given by the user
//! ([`GivenUsage`]), or it is a line without a cost: an unknown amount is never estimated.

mod build;
mod given;

use serde::Serialize;

pub use build::{full_bill, full_bill_in_month};
pub use given::{GivenUsage, LogDestination, ProvisionedCapacity};

use crate::pricing::bill::Usage;
use crate::pricing::meters::{Amount, Meter};
use crate::pricing::money::PicoDollars;
use crate::telemetry::initialization::Initializations;
use crate::units::{Architecture, Megabytes};

/// How well a line is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LineStatus {
    /// The amount was measured or given, and the price is published.
    Known,
    /// Something was assumed. The line's note states what.
    Assumed,
    /// The amount or the price is not known. The line has no cost.
    Unknown,
}

/// One line of a bill.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BillLine {
    /// The meter.
    pub meter: Meter,
    /// Which part of the meter: the architecture, the tier. Empty when there is one part only.
    pub part: String,
    /// The amount; `null` when it is not known.
    pub quantity: Option<f64>,
    /// The unit of the amount and of the price.
    pub unit: &'static str,
    /// The list price of a unit; `null` when it is not known.
    pub unit_price_pico_usd: Option<PicoDollars>,
    /// The cost after discounts; `null` when it is not known.
    pub cost_pico_usd: Option<PicoDollars>,
    /// How well it is known.
    pub status: LineStatus,
    /// What is assumed or missing; empty when nothing is.
    pub note: String,
    /// Where the price is from; empty when there is none.
    pub source: String,
    /// The day of the price; empty when there is none.
    pub date: String,
}

/// The full bill.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FullBill {
    /// Its lines.
    pub lines: Vec<BillLine>,
    /// The sum of all lines with a cost.
    pub total_pico_usd: PicoDollars,
    /// The part of the sum in which something is assumed.
    pub assumed_pico_usd: PicoDollars,
    /// The meters whose cost is not known. Their cost is not part of the sum.
    pub unknown: Vec<Meter>,
    /// What applies to the whole bill, as sentences.
    pub assumptions: Vec<String>,
}

impl FullBill {
    pub(crate) fn new(lines: Vec<BillLine>, assumptions: Vec<String>) -> Self {
        let sum = |status: Option<LineStatus>| {
            let lines = lines.iter().filter(|line| status.is_none_or(|status| line.status == status));
            lines.filter_map(|line| line.cost_pico_usd).sum()
        };
        let mut unknown: Vec<Meter> =
            lines.iter().filter(|line| line.cost_pico_usd.is_none()).map(|line| line.meter).collect();
        unknown.dedup();
        let (total_pico_usd, assumed_pico_usd) = (sum(None), sum(Some(LineStatus::Assumed)));
        Self { total_pico_usd, assumed_pico_usd, unknown, assumptions, lines }
    }

    /// The cost of some meters together; zero where it is not known.
    #[must_use]
    pub fn cost_of(&self, meters: &[Meter]) -> PicoDollars {
        let lines = self.lines.iter().filter(|line| meters.contains(&line.meter));
        lines.filter_map(|line| line.cost_pico_usd).sum()
    }

    /// The amount of a meter, in its unit; `None` when it has no line or an unknown amount.
    #[must_use]
    pub fn quantity_of(&self, meter: Meter) -> Option<f64> {
        let mut lines = self.lines.iter().filter(|line| line.meter == meter).peekable();
        lines.peek()?;
        lines.map(|line| line.quantity).sum()
    }
}

/// How much of a usage was imported from logs. A log has neither the instruction set nor the size of `/tmp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ImportedPart {
    /// Nothing: the layer measured it.
    #[default]
    None,
    /// A part of it.
    Some,
    /// All of it.
    All,
}

/// What was measured of one function in the time of the bill.
#[derive(Debug, Clone, PartialEq)]
pub struct MeasuredUsage<'a> {
    /// Its region.
    pub region: &'a str,
    /// Its runtime; empty when unknown.
    pub runtime: &'a str,
    /// Its memory size now.
    pub memory: Megabytes,
    /// The usage on each architecture, Init included.
    pub usage: Vec<(Architecture, Usage)>,
    /// Its first invocations by how the environment was initialized.
    pub initializations: Initializations,
    /// Memory × restores from snapshots, MB.
    pub restored_mb: u128,
    /// Its versions that ran.
    pub versions: u64,
    /// Bytes that its processes sent to the network; `None` when not measured.
    pub sent_bytes: Option<u64>,
    /// Bytes that it logged, as CloudWatch Logs counts them; `None` when not measured.
    pub log_bytes: Option<u64>,
    /// Whether it runs on managed instances.
    pub is_managed: bool,
    /// How much of it was imported from logs.
    pub imported: ImportedPart,
    /// Length of the time of the bill, hours.
    pub hours: u64,
}

/// What the prices of a bill depend on besides the function.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    /// The part of the list price that a Savings Plan leaves, for the meters that it covers. 0 to 1.
    pub savings_plan_factor: f64,
    /// The part of all prices that a private agreement leaves. 0 to 1.
    pub discount_factor: f64,
    /// GB-seconds that the account used on each architecture in this month before: they select the tier.
    pub used_gb_seconds: u64,
    /// Whether the whole free tier of the account is subtracted from this function.
    pub free_tier: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self { savings_plan_factor: 1.0, discount_factor: 1.0, used_gb_seconds: 0, free_tier: false }
    }
}

impl Terms {
    /// The part of the list price of a meter that is paid, as a fraction: numerator and denominator.
    #[must_use]
    pub fn paid(&self, meter: Meter) -> (u128, u128) {
        /// Factors are used to nine decimals, so that money stays an integer.
        const DENOMINATOR: f64 = 1e9;
        let plan = if meter.is_covered_by_savings_plan() { self.savings_plan_factor } else { 1.0 };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1e9")]
        let numerator =
            (plan.clamp(0.0, 1.0) * self.discount_factor.clamp(0.0, 1.0) * DENOMINATOR).round() as u128;
        (numerator, 1_000_000_000)
    }
}

impl Terms {
    /// What is paid of a list price.
    fn pay(&self, meter: Meter, list: PicoDollars) -> PicoDollars {
        let (numerator, denominator) = self.paid(meter);
        list.scaled(numerator, denominator).unwrap_or_else(|| {
            // The product exceeds the range. Such a cost has more digits than the rounding can change.
            let [numerator, denominator] =
                [numerator, denominator].map(|part| i128::try_from(part).unwrap_or(1));
            PicoDollars((list.0 / denominator).saturating_mul(numerator))
        })
    }
}

/// The price of a line that is known.
pub(crate) struct Priced<'a> {
    pub(crate) price: PicoDollars,
    pub(crate) source: &'a crate::pricing::prices::PriceSource,
    /// Whether the price was inferred.
    pub(crate) derived: bool,
}

impl BillLine {
    /// A line with a known amount. It has a cost when it has a price.
    pub(crate) fn of(
        meter: Meter,
        part: &str,
        amount: Amount,
        priced: Option<Priced<'_>>,
        terms: &Terms,
    ) -> Self {
        let cost = priced.as_ref().map(|priced| terms.pay(meter, amount.at(priced.price)));
        let (status, note) = match &priced {
            None => (LineStatus::Unknown, "no price for this region: see `tailor prices import`".to_owned()),
            Some(priced) if priced.derived => {
                (LineStatus::Assumed, "the price is inferred from another region or architecture".to_owned())
            }
            Some(_) => (LineStatus::Known, String::new()),
        };
        // Nothing costs nothing at any price.
        let (status, note) =
            if amount.is_zero() { (LineStatus::Known, String::new()) } else { (status, note) };
        let source = priced.as_ref().map(|priced| priced.source);
        Self {
            meter,
            part: part.to_owned(),
            quantity: Some(amount.to_units()),
            unit: meter.unit(),
            unit_price_pico_usd: priced.as_ref().map(|priced| priced.price),
            cost_pico_usd: if amount.is_zero() { Some(PicoDollars::ZERO) } else { cost },
            status,
            note,
            source: source.map(|source| source.name.clone()).unwrap_or_default(),
            date: source.map(|source| source.date.clone()).unwrap_or_default(),
        }
    }

    /// A line whose amount is not known.
    pub(crate) fn unknown(meter: Meter, note: &str) -> Self {
        Self {
            meter,
            part: String::new(),
            quantity: None,
            unit: meter.unit(),
            unit_price_pico_usd: None,
            cost_pico_usd: None,
            status: LineStatus::Unknown,
            note: note.to_owned(),
            source: String::new(),
            date: String::new(),
        }
    }

    /// The same line, with something assumed.
    pub(crate) fn assuming(mut self, note: &str) -> Self {
        if self.status == LineStatus::Unknown {
            return self;
        }
        self.status = LineStatus::Assumed;
        if !self.note.is_empty() {
            self.note.push_str("; ");
        }
        self.note.push_str(note);
        self
    }
}
