//! The meters of a function's bill that are not part of [`Rates`](crate::pricing::prices::Rates), and their prices.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::pricing::money::PicoDollars;
use crate::pricing::prices::PriceSource;

/// Something that AWS measures and charges for. The codes are stable: scripts rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Meter {
    /// Memory × duration of handlers.
    Compute,
    /// Memory × duration of Init, where it is billed.
    Init,
    /// Requests.
    Requests,
    /// `/tmp` above 512 MB × duration.
    EphemeralStorage,
    /// Provisioned capacity that served invocations.
    ProvisionedConcurrencyUsed,
    /// Provisioned capacity that waited for invocations.
    ProvisionedConcurrencyIdle,
    /// Memory × duration on provisioned capacity.
    ProvisionedDuration,
    /// Cached snapshots of published versions.
    SnapStartCache,
    /// Restores of snapshots.
    SnapStartRestore,
    /// Bytes of streamed responses beyond the first 6 MB of each.
    ResponseStreaming,
    /// Operations of durable functions.
    DurableOperations,
    /// Bytes that durable functions wrote.
    DurableWritten,
    /// Bytes that durable functions keep.
    DurableRetained,
    /// Environments that were created for one tenant, x86_64.
    TenantEnvironments,
    /// The same on arm64.
    #[serde(rename = "tenant-environments-arm64")]
    TenantEnvironmentsArm64,
    /// Log bytes that CloudWatch Logs took in.
    LogIngestion,
    /// Log bytes that CloudWatch Logs keeps.
    LogStorage,
    /// Log bytes that were delivered to S3.
    LogDeliveryS3,
    /// Log bytes that were delivered to Firehose.
    LogDeliveryFirehose,
    /// Bytes that were sent out of the region.
    DataTransferOut,
    /// Event pollers of a provisioned event source mapping of Kafka.
    EventPollersKafka,
    /// Event pollers of a provisioned event source mapping of SQS.
    EventPollersSqs,
    /// EC2 instances of managed instances.
    ManagedInstances,
    /// The management fee for them.
    ManagedInstancesFee,
}

impl Meter {
    /// Every meter.
    pub const ALL: [Self; 24] = [
        Self::Compute,
        Self::Init,
        Self::Requests,
        Self::EphemeralStorage,
        Self::ProvisionedConcurrencyUsed,
        Self::ProvisionedConcurrencyIdle,
        Self::ProvisionedDuration,
        Self::SnapStartCache,
        Self::SnapStartRestore,
        Self::ResponseStreaming,
        Self::DurableOperations,
        Self::DurableWritten,
        Self::DurableRetained,
        Self::TenantEnvironments,
        Self::TenantEnvironmentsArm64,
        Self::LogIngestion,
        Self::LogStorage,
        Self::LogDeliveryS3,
        Self::LogDeliveryFirehose,
        Self::DataTransferOut,
        Self::EventPollersKafka,
        Self::EventPollersSqs,
        Self::ManagedInstances,
        Self::ManagedInstancesFee,
    ];

    /// Its code, as in JSON.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::Init => "init",
            Self::Requests => "requests",
            Self::EphemeralStorage => "ephemeral-storage",
            Self::ProvisionedConcurrencyUsed => "provisioned-concurrency-used",
            Self::ProvisionedConcurrencyIdle => "provisioned-concurrency-idle",
            Self::ProvisionedDuration => "provisioned-duration",
            Self::SnapStartCache => "snap-start-cache",
            Self::SnapStartRestore => "snap-start-restore",
            Self::ResponseStreaming => "response-streaming",
            Self::DurableOperations => "durable-operations",
            Self::DurableWritten => "durable-written",
            Self::DurableRetained => "durable-retained",
            Self::TenantEnvironments => "tenant-environments",
            Self::TenantEnvironmentsArm64 => "tenant-environments-arm64",
            Self::LogIngestion => "log-ingestion",
            Self::LogStorage => "log-storage",
            Self::LogDeliveryS3 => "log-delivery-s3",
            Self::LogDeliveryFirehose => "log-delivery-firehose",
            Self::DataTransferOut => "data-transfer-out",
            Self::EventPollersKafka => "event-pollers-kafka",
            Self::EventPollersSqs => "event-pollers-sqs",
            Self::ManagedInstances => "managed-instances",
            Self::ManagedInstancesFee => "managed-instances-fee",
        }
    }

    /// The unit of its price. One GB is 1,024 MB.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Compute
            | Self::Init
            | Self::EphemeralStorage
            | Self::ProvisionedConcurrencyUsed
            | Self::ProvisionedConcurrencyIdle
            | Self::ProvisionedDuration
            | Self::SnapStartCache => "GB-s",
            Self::Requests => "requests",
            Self::SnapStartRestore
            | Self::ResponseStreaming
            | Self::DurableWritten
            | Self::TenantEnvironments
            | Self::TenantEnvironmentsArm64
            | Self::LogIngestion
            | Self::LogDeliveryS3
            | Self::LogDeliveryFirehose
            | Self::DataTransferOut => "GB",
            Self::DurableOperations => "operations",
            Self::DurableRetained | Self::LogStorage => "GB-months",
            Self::EventPollersKafka
            | Self::EventPollersSqs
            | Self::ManagedInstances
            | Self::ManagedInstancesFee => "hours",
        }
    }

    /// Whether a Compute Savings Plan lowers its price. The plan covers duration and provisioned concurrency, and the
    /// instances of managed instances, but not requests and not the management fee.
    #[must_use]
    pub const fn is_covered_by_savings_plan(self) -> bool {
        matches!(
            self,
            Self::Compute
                | Self::Init
                | Self::ProvisionedConcurrencyUsed
                | Self::ProvisionedConcurrencyIdle
                | Self::ProvisionedDuration
                | Self::ManagedInstances
        )
    }

    /// Whether its price is in the map of meters of a table. The others have prices by architecture or by instance type.
    #[must_use]
    pub const fn has_flat_price(self) -> bool {
        !matches!(
            self,
            Self::Compute
                | Self::Init
                | Self::Requests
                | Self::EphemeralStorage
                | Self::ProvisionedConcurrencyUsed
                | Self::ProvisionedConcurrencyIdle
                | Self::ProvisionedDuration
                | Self::SnapStartCache
                | Self::SnapStartRestore
                | Self::ManagedInstances
                | Self::ManagedInstancesFee
        )
    }
}

impl fmt::Display for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// The price of a meter in one region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeterPrice {
    /// Tiers in rising order. Never empty, and the first begins at zero.
    pub tiers: Vec<MeterTier>,
    /// Where the price is from.
    pub source: PriceSource,
}

/// One monthly volume tier of a meter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeterTier {
    /// Units of the month below which an earlier tier applies.
    pub from_units: u64,
    /// Price of one unit within the tier.
    pub price: PicoDollars,
}

/// An exact amount of a meter: `base / per_unit` units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount {
    base: u128,
    per_unit: u128,
}

/// Bytes in a GB, as AWS bills: 1,024 MB.
pub const BYTES_PER_GB: u128 = 1 << 30;

/// Hours in a GB-month. AWS's examples have months of 30 days.
pub const HOURS_PER_MONTH: u64 = 30 * 24;

impl Amount {
    /// A number of units.
    #[must_use]
    pub const fn units(count: u128) -> Self {
        Self { base: count, per_unit: 1 }
    }

    /// GB-seconds from MB·ms.
    #[must_use]
    pub const fn gb_seconds(mb_ms: u128) -> Self {
        Self { base: mb_ms, per_unit: crate::pricing::bill::MB_MS_PER_GB_SECOND }
    }

    /// GB from MB.
    #[must_use]
    pub const fn gb_of_mb(mb: u128) -> Self {
        Self { base: mb, per_unit: 1_024 }
    }

    /// GB from bytes.
    #[must_use]
    pub const fn gb_of_bytes(bytes: u128) -> Self {
        Self { base: bytes, per_unit: BYTES_PER_GB }
    }

    /// GB-months from bytes × hours.
    #[must_use]
    pub const fn gb_months(byte_hours: u128) -> Self {
        Self { base: byte_hours, per_unit: BYTES_PER_GB * HOURS_PER_MONTH as u128 }
    }

    /// Hours from seconds.
    #[must_use]
    pub const fn hours_of_seconds(seconds: u128) -> Self {
        Self { base: seconds, per_unit: 3_600 }
    }

    /// Nothing, in the same unit.
    const fn none(self) -> Self {
        Self { base: 0, ..self }
    }

    /// With another amount of the same meter.
    const fn plus(self, other: Self) -> Self {
        Self { base: self.base.saturating_add(other.base), ..self }
    }

    /// The units as a float, for display.
    #[must_use]
    pub fn to_units(self) -> f64 {
        self.base as f64 / self.per_unit as f64
    }

    /// Whether it is nothing.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.base == 0
    }

    /// The part of it between two numbers of units; `None` is no upper limit.
    #[must_use]
    pub fn between(self, from_units: u64, to_units: Option<u64>) -> Self {
        let base = |units: u64| u128::from(units).saturating_mul(self.per_unit);
        let end = to_units.map_or(self.base, |units| self.base.min(base(units)));
        Self { base: end.saturating_sub(base(from_units)), per_unit: self.per_unit }
    }

    /// Its cost at one price, rounded half up once.
    #[must_use]
    pub fn at(self, price: PicoDollars) -> PicoDollars {
        let whole = i128::try_from(self.base / self.per_unit).unwrap_or(i128::MAX);
        // The rest is less than one unit. It and its unit lose low bits only where a product would exceed the range.
        let shift = (u128::BITS - self.per_unit.leading_zeros()).saturating_sub(60);
        let rest = price.scaled((self.base % self.per_unit) >> shift, self.per_unit >> shift);
        PicoDollars(whole.saturating_mul(price.0)) + rest.unwrap_or(PicoDollars::ZERO)
    }
}

impl MeterPrice {
    /// The parts of `amount` by tier, when `before` was used before in the month: the number of the tier from 1, the part and
    /// the price. Nothing has one part, in the first tier.
    pub fn by_tier(
        &self,
        before: Amount,
        amount: Amount,
    ) -> impl Iterator<Item = (usize, Amount, PicoDollars)> + '_ {
        let end = before.plus(amount);
        self.tiers.iter().enumerate().filter_map(move |(at, tier)| {
            let next = self.tiers.get(at + 1).map(|tier| tier.from_units);
            let within = |amount: Amount| amount.between(tier.from_units, next);
            let part = Amount { base: within(end).base - within(before).base, ..amount };
            let is_only = at == 0 && amount.is_zero();
            (is_only || !part.is_zero()).then_some((at + 1, part, tier.price))
        })
    }

    /// The cost of `amount` when it is the whole amount of the month.
    #[must_use]
    pub fn cost(&self, amount: Amount) -> PicoDollars {
        self.by_tier(amount.none(), amount).map(|(_, part, price)| part.at(price)).sum()
    }
}

/// What the functions of an account in a region used in a month, of the meters with volume tiers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UsedAmounts(BTreeMap<Meter, Amount>);

impl UsedAmounts {
    /// Adds an amount of a meter and returns what was used of it before.
    pub(crate) fn add(&mut self, meter: Meter, amount: Amount) -> Amount {
        let used = self.0.entry(meter).or_insert_with(|| amount.none());
        let before = *used;
        *used = before.plus(amount);
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn codes_are_those_of_json() {
        for meter in Meter::ALL {
            assert_eq!(serde_json::to_value(meter).unwrap(), meter.code());
        }
    }

    #[test]
    fn tiers_continue_where_the_amount_before_ended() {
        let tier = |from_units, pico| MeterTier { from_units, price: PicoDollars(pico) };
        let price = MeterPrice { tiers: vec![tier(0, 5), tier(10, 3)], source: PriceSource::default() };
        let mut used = UsedAmounts::default();
        let mut parts = |units| {
            let amount = Amount::units(units);
            let before = used.add(Meter::LogIngestion, amount);
            price
                .by_tier(before, amount)
                .map(|(tier, part, price)| (tier, part.base, price.0))
                .collect::<Vec<_>>()
        };
        assert_eq!(parts(4), [(1, 4, 5)]);
        assert_eq!(parts(8), [(1, 6, 5), (2, 2, 3)]);
        assert_eq!(parts(7), [(2, 7, 3)]);
        assert_eq!(parts(0), [(1, 0, 5)]);
        assert_eq!(price.cost(Amount::units(19)), PicoDollars(10 * 5 + 9 * 3));
    }

    proptest! {
        #[test]
        fn tiers_add_up_to_the_amount(bytes in any::<u64>(), limit in 1u64..1 << 30) {
            let amount = Amount::gb_of_bytes(bytes.into());
            let (low, high) = (amount.between(0, Some(limit)), amount.between(limit, None));
            prop_assert_eq!(low.base + high.base, amount.base);
            let apart = low.at(PicoDollars(500)) + high.at(PicoDollars(500));
            prop_assert!((apart - amount.at(PicoDollars(500))).0.abs() <= 1);
        }

        #[test]
        fn no_amount_panics(base in any::<u128>(), price in any::<i64>()) {
            for amount in [Amount::units(base), Amount::gb_months(base), Amount::gb_seconds(base)] {
                let _ = (amount.at(PicoDollars(price.into())), amount.between(1, Some(u64::MAX)), amount.to_units());
            }
        }
    }
}
