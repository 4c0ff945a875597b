//! FOCUS 1.2 rows: measured usage in the form of a bill.
//!
//! The columns have the names, types and order of AWS's own export of FOCUS 1.2, so that rows can be joined by `ResourceId`,
//! `ChargePeriodStart` and `SkuMeter`. Costs are at public prices in the first volume tier. What only AWS can state is absent, or
//! has a value that states this: see `docs/billing.md`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::units::Architecture;

use crate::arn::Function;
use crate::meter::{Meter, MeterKind};
use crate::table::{self, Column, Encoding, Kind, Value};
use crate::{regions, time};

const AMAZON: &str = "Amazon Web Services, Inc.";

/// Usage of one function and meter in one period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FocusRow {
    /// The function. Its account may be empty.
    pub function: Function,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Start of the period, seconds since the Unix epoch.
    pub from_s: i64,
    /// End of the period, seconds since the Unix epoch. It is in the same month as the start.
    pub until_s: i64,
    /// The meter; its architecture is known.
    pub meter: Meter,
    /// Quantity in the unit of the meter, 10⁻¹².
    pub quantity_pico: i128,
    /// Price of one unit.
    pub unit_price: PicoDollars,
}

type Columns = &'static [(&'static str, Kind, bool)];

/// Names, types and nullability of the columns.
const COLUMNS: Columns = &[
    ("AvailabilityZone", Kind::Text, true),
    ("BilledCost", Kind::Decimal, false),
    ("BillingAccountId", Kind::Text, false),
    ("BillingAccountName", Kind::Text, true),
    ("BillingAccountType", Kind::Text, false),
    ("BillingCurrency", Kind::Text, false),
    ("BillingPeriodEnd", Kind::Time, false),
    ("BillingPeriodStart", Kind::Time, false),
    ("CapacityReservationId", Kind::Text, true),
    ("CapacityReservationStatus", Kind::Text, true),
    ("ChargeCategory", Kind::Text, false),
    ("ChargeClass", Kind::Text, true),
    ("ChargeDescription", Kind::Text, true),
    ("ChargeFrequency", Kind::Text, false),
    ("ChargePeriodEnd", Kind::Time, false),
    ("ChargePeriodStart", Kind::Time, false),
    ("CommitmentDiscountCategory", Kind::Text, true),
    ("CommitmentDiscountId", Kind::Text, true),
    ("CommitmentDiscountName", Kind::Text, true),
    ("CommitmentDiscountQuantity", Kind::Decimal, true),
    ("CommitmentDiscountStatus", Kind::Text, true),
    ("CommitmentDiscountType", Kind::Text, true),
    ("CommitmentDiscountUnit", Kind::Text, true),
    ("ConsumedQuantity", Kind::Decimal, true),
    ("ConsumedUnit", Kind::Text, true),
    ("ContractedCost", Kind::Decimal, false),
    ("ContractedUnitPrice", Kind::Decimal, true),
    ("EffectiveCost", Kind::Decimal, false),
    ("InvoiceId", Kind::Text, true),
    ("InvoiceIssuerName", Kind::Text, false),
    ("ListCost", Kind::Decimal, false),
    ("ListUnitPrice", Kind::Decimal, true),
    ("PricingCategory", Kind::Text, true),
    ("PricingCurrency", Kind::Text, false),
    ("PricingCurrencyContractedUnitPrice", Kind::Decimal, true),
    ("PricingCurrencyEffectiveCost", Kind::Decimal, false),
    ("PricingCurrencyListUnitPrice", Kind::Decimal, true),
    ("PricingQuantity", Kind::Decimal, true),
    ("PricingUnit", Kind::Text, false),
    ("ProviderName", Kind::Text, false),
    ("PublisherName", Kind::Text, false),
    ("RegionId", Kind::Text, true),
    ("RegionName", Kind::Text, true),
    ("ResourceId", Kind::Text, true),
    ("ResourceName", Kind::Text, true),
    ("ResourceType", Kind::Text, true),
    ("ServiceCategory", Kind::Text, false),
    ("ServiceName", Kind::Text, false),
    ("ServiceSubcategory", Kind::Text, false),
    ("SkuId", Kind::Text, true),
    ("SkuMeter", Kind::Text, true),
    ("SkuPriceDetails", Kind::Text, true),
    ("SkuPriceId", Kind::Text, true),
    ("SubAccountId", Kind::Text, true),
    ("SubAccountName", Kind::Text, true),
    ("SubAccountType", Kind::Text, true),
    ("Tags", Kind::Text, true),
    ("x_Discounts", Kind::Text, true),
    ("x_Operation", Kind::Text, true),
    ("x_ServiceCode", Kind::Text, true),
];

/// The columns.
#[must_use]
pub fn columns() -> Vec<Column> {
    COLUMNS
        .iter()
        .map(|(name, kind, is_nullable)| Column { name, kind: *kind, is_nullable: *is_nullable })
        .collect()
}

/// Writes rows.
///
/// # Errors
/// When `output` cannot be written.
pub fn write<W: Write + Send>(
    rows: impl Iterator<Item = FocusRow>,
    encoding: Encoding,
    output: W,
) -> io::Result<()> {
    table::write(
        &columns(),
        rows.map(|row| COLUMNS.iter().map(|(name, ..)| row.value(name)).collect()),
        encoding,
        output,
    )
}

impl FocusRow {
    /// The cost: quantity × price, rounded half up.
    #[must_use]
    pub fn cost(&self) -> PicoDollars {
        let pico = crate::decimal::PICO;
        let (whole, rest) = (self.quantity_pico / pico, self.quantity_pico % pico);
        let part = (rest * self.unit_price.0 + pico / 2) / pico;
        PicoDollars(whole.saturating_mul(self.unit_price.0).saturating_add(part))
    }

    fn value(&self, column: &str) -> Value {
        let cost = || Value::Decimal(self.cost().0);
        let price = || Value::Decimal(self.unit_price.0);
        let (month_from, month_until) = time::month(self.from_s);
        match column {
            "BilledCost"
            | "ContractedCost"
            | "EffectiveCost"
            | "ListCost"
            | "PricingCurrencyEffectiveCost" => cost(),
            "ContractedUnitPrice"
            | "ListUnitPrice"
            | "PricingCurrencyContractedUnitPrice"
            | "PricingCurrencyListUnitPrice" => price(),
            "ConsumedQuantity" | "PricingQuantity" => Value::Decimal(self.quantity_pico),
            "ConsumedUnit" | "PricingUnit" => Value::text(unit(self.meter.kind)),
            "BillingAccountId" => Value::text(self.account()),
            "BillingAccountType" | "SubAccountType" => Value::text("AWS account"),
            "BillingCurrency" | "PricingCurrency" => Value::text("USD"),
            "BillingPeriodStart" => Value::Time(month_from),
            "BillingPeriodEnd" => Value::Time(month_until),
            "ChargeCategory" => Value::text("Usage"),
            "ChargeDescription" => Value::Text(self.description()),
            "ChargeFrequency" => Value::text("Usage-Based"),
            "ChargePeriodStart" => Value::Time(self.from_s),
            "ChargePeriodEnd" => Value::Time(self.until_s),
            "InvoiceIssuerName" | "PublisherName" => Value::text(AMAZON),
            "PricingCategory" => Value::text("Standard"),
            "ProviderName" => Value::text("AWS"),
            "RegionId" => Value::text(&self.function.region),
            "RegionName" => Value::text(regions::name(&self.function.region)),
            "ResourceId" => Value::Text(self.function.to_string()),
            "ResourceName" => Value::text(&self.function.name),
            "ResourceType" => Value::text("Function"),
            "ServiceCategory" => Value::text("Compute"),
            "ServiceName" => Value::text("AWS Lambda"),
            "ServiceSubcategory" => Value::text("Serverless Compute"),
            "SkuId" => Value::Text(self.sku()),
            "SkuMeter" => Value::text(usage_type(self.meter)),
            "SkuPriceId" => Value::Text(format!("{}.tier-1", self.sku())),
            "SubAccountId" | "SubAccountName" => Value::text(self.account()),
            "Tags" => Value::Text(serde_json::to_string(&self.tags).unwrap_or_else(|_| "{}".to_owned())),
            "x_Operation" => Value::text("Invoke"),
            "x_ServiceCode" => Value::text("AWSLambda"),
            _ => Value::Null,
        }
    }

    fn account(&self) -> &str {
        if self.function.account.is_empty() { "unknown" } else { &self.function.account }
    }

    /// An id of the price that is not AWS's, which telemetry does not have.
    fn sku(&self) -> String {
        format!("tailor.{}.{}", self.function.region, usage_type(self.meter))
    }

    fn description(&self) -> String {
        let region = regions::name(&self.function.region);
        let arm = if self.meter.architecture == Some(Architecture::Arm64) { " for ARM" } else { "" };
        match self.meter.kind {
            MeterKind::Compute => format!("AWS Lambda - Total Compute{arm} - {region}-Tier-1"),
            MeterKind::Requests => format!("AWS Lambda - Total Requests{arm} - {region}"),
            MeterKind::EphemeralStorage => format!("AWS Lambda - Ephemeral Storage{arm} - {region}"),
            other => format!("AWS Lambda - {} - {region}", other.code()),
        }
    }
}

/// The unit of a meter, in FOCUS's unit format.
const fn unit(kind: MeterKind) -> &'static str {
    match kind {
        MeterKind::Requests => "Requests",
        MeterKind::SnapStartRestore | MeterKind::ResponseStreaming | MeterKind::DataTransfer => "GB",
        MeterKind::ManagedInstances => "Hours",
        MeterKind::DurableFunctions | MeterKind::Other => "Units",
        _ => "GB-Seconds",
    }
}

/// The usage type of AWS's price list, without the prefix of a region.
const fn usage_type(meter: Meter) -> &'static str {
    match (meter.kind, meter.architecture) {
        (MeterKind::Compute, Some(Architecture::Arm64)) => "Lambda-GB-Second-ARM",
        (MeterKind::Compute, _) => "Lambda-GB-Second",
        (MeterKind::Requests, Some(Architecture::Arm64)) => "Request-ARM",
        (MeterKind::Requests, _) => "Request",
        (MeterKind::EphemeralStorage, Some(Architecture::Arm64)) => "Lambda-Storage-GB-Second-ARM",
        (MeterKind::EphemeralStorage, _) => "Lambda-Storage-GB-Second",
        (kind, _) => kind.code(),
    }
}
