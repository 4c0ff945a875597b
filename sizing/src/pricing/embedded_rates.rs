//! The prices of compute, requests and ephemeral storage of the embedded table, as constants.
//!
//! A program that needs no other prices, such as the extension, uses [`EmbeddedRates`] in place of
//! [`PriceTable::embedded`](crate::pricing::prices::PriceTable::embedded). It then has neither the JSON of the table nor its
//! reader, and looks up a price without reading the table.
//!
//! `data/prices.json` is the source of both. The test `the_constants_are_the_prices_of_the_table` writes the constants.

use crate::pricing::money::PicoDollars;
use crate::pricing::prices::{
    PriceError, PriceSource, ProvisionedRates, RateTable, Rates, SnapStartRates, Tier,
};
use crate::units::Architecture;

mod constants;

use constants::{COMPILED, REGIONS};

/// The embedded prices by region and architecture.
#[derive(Debug, Clone, Copy, Default)]
pub struct EmbeddedRates;

/// The prices of one region, pico-dollars.
struct Region {
    name: &'static str,
    x86_64: Option<Compute>,
    arm64: Option<Compute>,
    request: u64,
    storage_gb_second: Option<u64>,
    snap_start: Option<SnapStart>,
    /// Name and day of the source.
    source: (&'static str, &'static str),
}

/// The prices that depend on the architecture, pico-dollars.
struct Compute {
    /// GB-seconds of the month at which a tier begins, and its price of a GB-second.
    tiers: &'static [(u64, u64)],
    provisioned: Option<Provisioned>,
    derived: bool,
}

struct Provisioned {
    idle: u64,
    duration: u64,
}

struct SnapStart {
    cache: u64,
    restore: u64,
}

impl RateTable for EmbeddedRates {
    fn rates(&self, region: &str, architecture: Architecture) -> Result<Rates, PriceError> {
        let prices =
            REGIONS.iter().find(|prices| prices.name == region).ok_or_else(|| PriceError::UnknownRegion {
                region: region.to_owned(),
                compiled: COMPILED.to_owned(),
                known: REGIONS.iter().map(|prices| prices.name).collect::<Vec<_>>().join(", "),
            })?;
        let (here, other, other_name) = match architecture {
            Architecture::X86_64 => (&prices.x86_64, &prices.arm64, Architecture::Arm64),
            Architecture::Arm64 => (&prices.arm64, &prices.x86_64, Architecture::X86_64),
        };
        let compute = here.as_ref().ok_or_else(|| PriceError::UnknownArchitecture {
            region: region.to_owned(),
            architecture,
            compiled: COMPILED.to_owned(),
            known: other.as_ref().map_or_else(String::new, |_| other_name.to_string()),
        })?;
        Ok(prices.rates(compute))
    }
}

impl Region {
    fn rates(&self, compute: &Compute) -> Rates {
        let tiers = compute
            .tiers
            .iter()
            .map(|&(from_gb_seconds, price)| Tier { from_gb_seconds, gb_second: pico(price) });
        Rates {
            tiers: tiers.collect(),
            request: pico(self.request),
            storage_gb_second: self.storage_gb_second.map(pico),
            provisioned: compute.provisioned.as_ref().map(|rates| ProvisionedRates {
                idle_gb_second: pico(rates.idle),
                duration_gb_second: pico(rates.duration),
            }),
            snap_start: self.snap_start.as_ref().map(|rates| SnapStartRates {
                cache_gb_second: pico(rates.cache),
                restore_gb: pico(rates.restore),
            }),
            derived: compute.derived,
            source: PriceSource { name: self.source.0.to_owned(), date: self.source.1.to_owned() },
        }
    }
}

fn pico(price: u64) -> PicoDollars {
    PicoDollars(price.into())
}
