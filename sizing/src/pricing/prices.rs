//! Lambda's prices by region and architecture, as exact integers.
//!
//! A table with its date is embedded in this crate; [`crate::pricing::embedded_rates`] has a part of it as constants. Another table can be read in this crate's form
//! ([`PriceTable::from_json`]) or from AWS's price list ([`crate::pricing::price_list`]). A region that is not in the table
//! is an error. [`crate::pricing::bill`] computes costs from the prices.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::pricing::meters::{Meter, MeterPrice};
use crate::pricing::money::PicoDollars;
use crate::units::Architecture;

/// Decimals of a dollar in one pico-dollar.
const PICO_DECIMALS: usize = 12;

/// Maximum price, dollars. It is higher than every price of Lambda, and low enough that no bill overflows.
const MAX_PRICE_DOLLARS: u64 = 1_000_000;

/// The prices of many regions, with the date on which they were compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceTable {
    pub(crate) compiled: String,
    pub(crate) free_tier: FreeTier,
    pub(crate) regions: BTreeMap<String, RegionPrices>,
}

/// The monthly free tier of one account: on-demand only, both architectures together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub struct FreeTier {
    /// Requests.
    pub requests: u64,
    /// GB-seconds of compute.
    pub gb_seconds: u64,
}

/// Prices of one region.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct RegionPrices {
    pub(crate) x86_64: Option<ArchitecturePrices>,
    pub(crate) arm64: Option<ArchitecturePrices>,
    pub(crate) request: PicoDollars,
    pub(crate) storage_gb_second: Option<PicoDollars>,
    pub(crate) snap_start: Option<SnapStartRates>,
    /// Where the prices above are from.
    pub(crate) source: PriceSource,
    /// The prices of the other meters.
    pub(crate) meters: BTreeMap<Meter, MeterPrice>,
    /// The on-demand prices of an hour of the instance types that can run managed instances.
    pub(crate) instances: BTreeMap<String, PicoDollars>,
    /// Where the prices of instances are from.
    pub(crate) instances_source: PriceSource,
}

impl RegionPrices {
    /// Adds the prices of `other` and replaces those that both have.
    fn merge(&mut self, other: Self) {
        // Every field is named, so that a new one cannot be left out.
        let Self {
            x86_64,
            arm64,
            request,
            storage_gb_second,
            snap_start,
            source,
            meters,
            instances,
            instances_source,
        } = other;
        if x86_64.is_some() || arm64.is_some() {
            self.x86_64 = x86_64.or_else(|| self.x86_64.take());
            self.arm64 = arm64.or_else(|| self.arm64.take());
            self.request = request;
            self.storage_gb_second = storage_gb_second.or(self.storage_gb_second);
            self.source = source;
        }
        self.snap_start = snap_start.or(self.snap_start);
        self.meters.extend(meters);
        if !instances.is_empty() {
            self.instances = instances;
            self.instances_source = instances_source;
        }
    }
}

/// Where a price is from, and of which day.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PriceSource {
    /// The page or file.
    pub name: String,
    /// Its day, such as `2026-09-19`.
    pub date: String,
}

/// The prices that depend on the architecture.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ArchitecturePrices {
    pub(crate) tiers: Vec<Tier>,
    pub(crate) provisioned: Option<ProvisionedRates>,
    pub(crate) derived: bool,
}

/// One monthly volume tier of compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    /// GB-seconds of the month below which an earlier tier applies.
    pub from_gb_seconds: u64,
    /// Price of a GB-second within the tier.
    pub gb_second: PicoDollars,
}

/// Prices of provisioned concurrency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProvisionedRates {
    /// A GB-second of provisioned capacity, whether it is used or not.
    pub idle_gb_second: PicoDollars,
    /// A GB-second of duration on that capacity. It replaces the on-demand price.
    pub duration_gb_second: PicoDollars,
}

/// Prices of SnapStart. It is free for Java runtimes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapStartRates {
    /// A GB-second of the cached snapshot of a published version.
    pub cache_gb_second: PicoDollars,
    /// A restore, per GB of memory.
    pub restore_gb: PicoDollars,
}

/// Prices of one region and architecture, as exact integers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rates {
    /// Tiers of compute in rising order; the first begins at zero. Never empty.
    pub(crate) tiers: Vec<Tier>,
    /// One request.
    pub request: PicoDollars,
    /// A GB-second of `/tmp` above 512 MB; `None` where no price is known.
    pub storage_gb_second: Option<PicoDollars>,
    /// Provisioned concurrency; `None` where no price is known.
    pub provisioned: Option<ProvisionedRates>,
    /// SnapStart; `None` where no price is known.
    pub snap_start: Option<SnapStartRates>,
    /// Whether the compute price was inferred from another region or architecture when the table was compiled.
    pub derived: bool,
    /// Where the prices are from.
    pub source: PriceSource,
}

/// A table with the prices of compute, requests and ephemeral storage.
pub trait RateTable {
    /// The prices of one region and architecture.
    ///
    /// # Errors
    /// [`PriceError::UnknownRegion`] or [`PriceError::UnknownArchitecture`]; both name what is known.
    fn rates(&self, region: &str, architecture: Architecture) -> Result<Rates, PriceError>;
}

impl RateTable for PriceTable {
    fn rates(&self, region: &str, architecture: Architecture) -> Result<Rates, PriceError> {
        Self::rates(self, region, architecture)
    }
}

impl Rates {
    /// A GB-second of compute in the first volume tier.
    #[must_use]
    pub fn gb_second(&self) -> PicoDollars {
        self.tiers.first().map_or(PicoDollars::ZERO, |tier| tier.gb_second)
    }

    /// All volume tiers of compute, cheapest last.
    #[must_use]
    pub fn tiers(&self) -> &[Tier] {
        &self.tiers
    }
}

/// Why no price was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    /// The region is not in the table.
    #[error("no prices for region `{region}` in the table of {compiled}: it has {known}; use a newer table")]
    UnknownRegion {
        /// The requested region.
        region: String,
        /// The table's date.
        compiled: String,
        /// The regions it has, separated by commas.
        known: String,
    },
    /// The region is known, but not for this architecture.
    #[error(
        "no {architecture} price for region `{region}` in the table of {compiled}: it has {known}; use a newer table"
    )]
    UnknownArchitecture {
        /// The requested region.
        region: String,
        /// What is missing.
        architecture: Architecture,
        /// The table's date.
        compiled: String,
        /// The architectures it has there.
        known: String,
    },
    /// The table's text is not JSON of the expected shape.
    #[error("cannot read price table: {0}")]
    Malformed(String),
    /// A price is not a plain decimal number of dollars with at most twelve decimals.
    #[error("cannot read price table: `{text}` ({place}) is not a price in dollars with at most 12 decimals")]
    BadPrice {
        /// The text found.
        text: String,
        /// Region and field.
        place: String,
    },
}

impl PriceTable {
    /// The table that is embedded in this crate. Its date is [`PriceTable::compiled`].
    #[must_use]
    pub fn embedded() -> Self {
        // A test reads the embedded text, so the empty table is never used.
        Self::from_json(include_str!("../../data/prices.json")).unwrap_or_else(|_| Self {
            compiled: String::new(),
            free_tier: FreeTier { requests: 0, gb_seconds: 0 },
            regions: BTreeMap::new(),
        })
    }

    pub(crate) const fn from_regions(
        compiled: String,
        free_tier: FreeTier,
        regions: BTreeMap<String, RegionPrices>,
    ) -> Self {
        Self { compiled, free_tier, regions }
    }

    /// The date on which the prices were compiled, as in the table (`2026-11-21`).
    #[must_use]
    pub fn compiled(&self) -> &str {
        &self.compiled
    }

    /// The monthly free tier.
    #[must_use]
    pub const fn free_tier(&self) -> FreeTier {
        self.free_tier
    }

    /// The regions with prices, in alphabetical order.
    pub fn regions(&self) -> impl Iterator<Item = &str> {
        self.regions.keys().map(String::as_str)
    }

    /// The price of a meter in a region; `None` when the table does not have it. Compute, requests, ephemeral storage and
    /// provisioned concurrency depend on the architecture: see [`PriceTable::rates`].
    #[must_use]
    pub fn meter(&self, region: &str, meter: Meter) -> Option<&MeterPrice> {
        self.regions.get(region)?.meters.get(&meter)
    }

    /// The on-demand prices of an hour of each instance type of a region, and where they are from.
    #[must_use]
    pub fn instances(&self, region: &str) -> Option<(&BTreeMap<String, PicoDollars>, &PriceSource)> {
        let region = self.regions.get(region)?;
        (!region.instances.is_empty()).then_some((&region.instances, &region.instances_source))
    }

    /// Adds the prices of `other` to this table and replaces those that both have. The date becomes the later one.
    pub fn merge(&mut self, other: Self) {
        self.compiled = std::mem::take(&mut self.compiled).max(other.compiled);
        for (name, region) in other.regions {
            self.regions.entry(name).or_default().merge(region);
        }
    }

    /// The prices of one region and architecture.
    ///
    /// # Errors
    /// [`PriceError::UnknownRegion`] or [`PriceError::UnknownArchitecture`]; both name what is known.
    pub fn rates(&self, region: &str, architecture: Architecture) -> Result<Rates, PriceError> {
        let prices = self.regions.get(region).ok_or_else(|| PriceError::UnknownRegion {
            region: region.to_owned(),
            compiled: self.compiled.clone(),
            known: self.regions().collect::<Vec<_>>().join(", "),
        })?;
        let chosen = match architecture {
            Architecture::X86_64 => &prices.x86_64,
            Architecture::Arm64 => &prices.arm64,
        };
        let chosen = chosen.as_ref().ok_or_else(|| PriceError::UnknownArchitecture {
            region: region.to_owned(),
            architecture,
            compiled: self.compiled.clone(),
            known: [(&prices.x86_64, "x86_64"), (&prices.arm64, "arm64")]
                .into_iter()
                .filter_map(|(prices, name)| prices.as_ref().map(|_| name))
                .collect::<Vec<_>>()
                .join(", "),
        })?;
        Ok(Rates {
            tiers: chosen.tiers.clone(),
            request: prices.request,
            storage_gb_second: prices.storage_gb_second,
            provisioned: chosen.provisioned,
            snap_start: prices.snap_start,
            derived: chosen.derived,
            source: prices.source.clone(),
        })
    }
}

/// The position of a price in the table, for messages.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) region: &'a str,
    pub(crate) field: &'a str,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.field, self.region)
    }
}

/// Parses a decimal number of dollars exactly, without a float.
pub(crate) fn parse_dollars(text: &str, place: Place<'_>) -> Result<PicoDollars, PriceError> {
    let bad = || PriceError::BadPrice { text: text.to_owned(), place: place.to_string() };
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    // AWS writes some prices with trailing zeros beyond the pico-dollar.
    let decimals = decimals.trim_end_matches('0');
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(decimals) || decimals.len() > PICO_DECIMALS {
        return Err(bad());
    }
    let dollars: u64 = whole.parse().map_err(|_| bad())?;
    if dollars > MAX_PRICE_DOLLARS {
        return Err(bad());
    }
    let pico: i128 = format!("{decimals:0<PICO_DECIMALS$}").parse().map_err(|_| bad())?;
    Ok(PicoDollars(i128::from(dollars) * crate::pricing::money::PICO_PER_DOLLAR + pico))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLACE: Place<'static> = Place { region: "r", field: "f" };

    #[test]
    fn embedded_table_is_complete_and_exact() {
        let table = PriceTable::embedded();
        assert_eq!(table.compiled(), "2026-11-21");
        assert_eq!(table.regions().count(), 32);
        for region in table.regions() {
            let x86 = table.rates(region, Architecture::X86_64).unwrap();
            assert!(x86.gb_second() > PicoDollars::ZERO && x86.request > PicoDollars::ZERO, "{region}");
            assert!(
                x86.tiers()
                    .is_sorted_by(|a, b| a.from_gb_seconds < b.from_gb_seconds && a.gb_second > b.gb_second)
            );
        }
        let rates = table.rates("us-east-1", Architecture::X86_64).unwrap();
        assert_eq!(rates.gb_second(), PicoDollars(16_666_700));
        assert_eq!(rates.request, PicoDollars(200_000));
        assert_eq!(rates.storage_gb_second, Some(PicoDollars(30_900)));
        assert_eq!(
            rates.tiers()[2],
            Tier { from_gb_seconds: 15_000_000_000, gb_second: PicoDollars(13_333_400) }
        );
        assert_eq!(
            table.rates("eu-central-1", Architecture::Arm64).unwrap().gb_second(),
            PicoDollars(13_333_400)
        );
        assert!(table.rates("il-central-1", Architecture::Arm64).unwrap().derived);
    }

    #[test]
    fn unknown_region_or_architecture_names_what_is_known() {
        let table = PriceTable::embedded();
        let error = table.rates("mars-north-1", Architecture::Arm64).unwrap_err().to_string();
        assert!(error.contains("`mars-north-1`") && error.contains("eu-west-1, "), "{error}");
        let error = table.rates("us-gov-west-1", Architecture::Arm64).unwrap_err().to_string();
        assert!(error.contains("no arm64 price") && error.contains("it has x86_64"), "{error}");
    }

    #[test]
    fn a_table_is_read_or_refused_with_the_place_of_the_error() {
        let text = r#"{"compiled":"2030-01-01","currency":"USD",
            "tier_limits_gb_seconds":{"x86_64":[10],"arm64":[]},"free_tier":{"requests":1,"gb_seconds":2},
            "regions":{"here":{"x86_64":{"gb_second":["2","1.5"]},"request":"PRICE"}}}"#;
        let table = PriceTable::from_json(&text.replace("PRICE", "0.01")).unwrap();
        let rates = table.rates("here", Architecture::X86_64).unwrap();
        assert_eq!(rates.gb_second(), PicoDollars(2_000_000_000_000));
        assert_eq!(rates.tiers()[1].from_gb_seconds, 10);
        let error = PriceTable::from_json(&text.replace("PRICE", "cheap")).unwrap_err().to_string();
        assert!(error.contains("`cheap` (request of here)"), "{error}");
        assert!(matches!(PriceTable::from_json("[]"), Err(PriceError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn prices_survive_printing(pico in 0u64..u64::MAX / 20) {
            let text = format!("{}.{:012}", pico / 1_000_000_000_000, pico % 1_000_000_000_000);
            match parse_dollars(&text, PLACE) {
                Ok(read) => prop_assert_eq!(read, PicoDollars(pico.into())),
                Err(_) => prop_assert!(pico / 1_000_000_000_000 > MAX_PRICE_DOLLARS),
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            let _ = parse_dollars(&text, PLACE);
            let _ = PriceTable::from_json(&text);
        }
    }
}
