//! Reasons of a difference.

use serde::{Deserialize, Serialize};
use tailor_sizing::pricing::money::PicoDollars;

/// A kind of reason, with a stable code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    /// Nothing was ever measured of the function.
    FunctionNotMeasured,
    /// Nothing was measured of the function in some hours or in the whole period.
    NoTelemetry,
    /// Invocations or batches were lost, and the loss was reported.
    Lost,
    /// The usage is in the period before or after.
    PeriodBoundary,
    /// The export ends in this period: AWS adds rows later.
    ExportIncomplete,
    /// The store has only whole days, which do not fit the period.
    WholeDays,
    /// The free tier covers usage.
    FreeTier,
    /// A volume tier has a lower price.
    VolumeTier,
    /// Compute on provisioned capacity has its own price.
    ProvisionedConcurrency,
    /// A savings plan covers usage.
    SavingsPlan,
    /// A discount.
    Discount,
    /// The price of the bill is not that of the price table.
    OtherPrice,
    /// The meter is not computed from measurements.
    MeterNotMeasured,
    /// The price table has no price.
    NoPrice,
}

impl ReasonCode {
    /// Its stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::FunctionNotMeasured => "function_not_measured",
            Self::NoTelemetry => "no_telemetry",
            Self::Lost => "lost",
            Self::PeriodBoundary => "period_boundary",
            Self::ExportIncomplete => "export_incomplete",
            Self::WholeDays => "whole_days",
            Self::FreeTier => "free_tier",
            Self::VolumeTier => "volume_tier",
            Self::ProvisionedConcurrency => "provisioned_concurrency",
            Self::SavingsPlan => "savings_plan",
            Self::Discount => "discount",
            Self::OtherPrice => "other_price",
            Self::MeterNotMeasured => "meter_not_measured",
            Self::NoPrice => "no_price",
        }
    }

    /// What it means, in one sentence.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::FunctionNotMeasured => {
                "nothing was measured of the function: attach the layer, or import its logs"
            }
            Self::NoTelemetry => "nothing was measured in these hours",
            Self::Lost => "invocations or batches were lost, and the loss was counted",
            Self::PeriodBoundary => "the usage is in the period before or after",
            Self::ExportIncomplete => "the export ends here: AWS adds rows for some days",
            Self::WholeDays => "the store has only whole UTC days for this time",
            Self::FreeTier => "the free tier covers usage",
            Self::VolumeTier => "a volume tier has a lower price",
            Self::ProvisionedConcurrency => "compute on provisioned capacity has its own price",
            Self::SavingsPlan => "a savings plan covers usage",
            Self::Discount => "a discount",
            Self::OtherPrice => "the price of the bill is not that of the price table: use --prices",
            Self::MeterNotMeasured => "the meter is not computed from measurements",
            Self::NoPrice => "the price table has no price: use --prices",
        }
    }
}

/// Why a row differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The kind.
    pub code: ReasonCode,
    /// Its part of the difference between bill and computation.
    #[serde(rename = "amount_pico_usd")]
    pub amount: PicoDollars,
    /// Details, such as the hours without telemetry; empty when there are none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl Reason {
    pub(super) const fn new(code: ReasonCode, amount: PicoDollars, detail: String) -> Self {
        Self { code, amount, detail }
    }
}
