//! One row of a bill.

use tailor_sizing::pricing::money::PicoDollars;

use crate::arn::Function;
use crate::meter::Recognized;

/// Why a row has a cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Charge {
    /// Usage at the price of the meter.
    Usage,
    /// Usage that a savings plan covers. The cost is its part of the commitment.
    Covered,
    /// A discount in a row of its own: its cost is negative.
    Discount,
    /// A credit or a refund: its cost is negative.
    Credit,
    /// Tax.
    Tax,
    /// Anything else: fees, purchases of commitments, and the rows that offset covered usage.
    Other,
}

/// One row of a bill for Lambda.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BillRow {
    /// Account that used it.
    pub account: String,
    /// Region; empty when unknown.
    pub region: String,
    /// Id of the resource; empty when the row has none.
    pub resource: String,
    /// The function of the resource; `None` when the resource is not a function.
    pub function: Option<Function>,
    /// What is charged.
    pub what: Recognized,
    /// Why.
    pub charge: Charge,
    /// Start of the usage, seconds since the Unix epoch.
    pub from_s: i64,
    /// End of the usage, seconds since the Unix epoch; after the start.
    pub until_s: i64,
    /// Quantity in the unit of the meter, 10⁻¹².
    pub quantity_pico: i128,
    /// What is billed, after discounts. For covered usage, its part of the commitment.
    pub cost: PicoDollars,
    /// The cost at public prices, where the row has it.
    pub list_cost: Option<PicoDollars>,
}
