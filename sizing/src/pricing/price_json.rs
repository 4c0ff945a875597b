//! The form of a price table in JSON: reads and writes `data/prices.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::pricing::meters::{Meter, MeterPrice, MeterTier};
use crate::pricing::money::PicoDollars;
use crate::pricing::prices::{
    ArchitecturePrices, FreeTier, Place, PriceError, PriceSource, PriceTable, ProvisionedRates, RegionPrices,
    SnapStartRates, Tier, parse_dollars,
};

/// Where a price without a source of its own is from: the notes of the table.
const TABLE: &str = "price table";

impl PriceTable {
    /// Reads a table in this crate's form: see `data/prices.json`.
    ///
    /// # Errors
    /// [`PriceError::Malformed`] and [`PriceError::BadPrice`], naming the place.
    pub fn from_json(text: &str) -> Result<Self, PriceError> {
        let raw: RawTable =
            serde_json::from_str(text).map_err(|error| PriceError::Malformed(error.to_string()))?;
        let mut regions = BTreeMap::new();
        for (name, region) in &raw.regions {
            regions.insert(name.clone(), region.read(name, &raw)?);
        }
        Ok(Self { compiled: raw.compiled, free_tier: raw.free_tier, regions })
    }

    /// Writes the table in the form that [`PriceTable::from_json`] reads.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut sources = Sources::default();
        let regions =
            self.regions.iter().map(|(name, region)| (name.clone(), RawRegion::of(region, &mut sources)));
        let regions = regions.collect();
        let table = RawTable {
            compiled: self.compiled.clone(),
            currency: UsDollar::Usd,
            notes: vec![],
            tier_limits_gb_seconds: RawTierLimits::default(),
            free_tier: self.free_tier,
            sources: sources.by_id,
            regions,
        };
        // Maps with text keys and numbers are always valid JSON.
        serde_json::to_string_pretty(&table).unwrap_or_default()
    }
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RawTable {
    compiled: String,
    currency: UsDollar,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    /// The limits of the tiers of a region that has none of its own.
    #[serde(default)]
    tier_limits_gb_seconds: RawTierLimits,
    free_tier: FreeTier,
    /// Sources of prices by a short id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    sources: BTreeMap<String, PriceSource>,
    regions: BTreeMap<String, RawRegion>,
}

#[derive(Deserialize, Serialize)]
enum UsDollar {
    #[serde(rename = "USD")]
    Usd,
}

#[derive(Deserialize, Serialize, Default)]
#[serde(deny_unknown_fields)]
struct RawTierLimits {
    x86_64: Vec<u64>,
    arm64: Vec<u64>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RawRegion {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    x86_64: Option<RawArchitecture>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    arm64: Option<RawArchitecture>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ephemeral_gb_second: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    snap_start: Option<RawSnapStart>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    meters: BTreeMap<Meter, RawMeter>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instances: Option<RawInstances>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RawArchitecture {
    gb_second: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tier_limits_gb_seconds: Option<Vec<u64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    provisioned: Option<RawProvisioned>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    derived: bool,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RawProvisioned {
    idle: String,
    duration: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RawSnapStart {
    cache_gb_second: String,
    restore_gb: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RawMeter {
    /// The price of each tier.
    price: Vec<String>,
    /// The units of a month at which the second and later tiers begin.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    from_units: Vec<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RawInstances {
    /// The price of an hour by instance type.
    hour: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<String>,
}

impl RawTable {
    fn source(&self, id: Option<&String>) -> Result<PriceSource, PriceError> {
        match id {
            None => Ok(PriceSource { name: TABLE.to_owned(), date: self.compiled.clone() }),
            Some(id) => self
                .sources
                .get(id)
                .cloned()
                .ok_or_else(|| PriceError::Malformed(format!("`{id}` is not one of its sources"))),
        }
    }
}

impl RawRegion {
    fn read(&self, region: &str, table: &RawTable) -> Result<RegionPrices, PriceError> {
        let place = |field: &'static str| Place { region, field };
        let optional = |text: &Option<String>, field| {
            text.as_deref().map(|text| parse_dollars(text, place(field))).transpose()
        };
        let snap_start = match &self.snap_start {
            None => None,
            Some(raw) => Some(SnapStartRates {
                cache_gb_second: parse_dollars(&raw.cache_gb_second, place("cache_gb_second"))?,
                restore_gb: parse_dollars(&raw.restore_gb, place("restore_gb"))?,
            }),
        };
        let request = match (&self.request, self.x86_64.is_some() || self.arm64.is_some()) {
            (None, true) => return Err(PriceError::Malformed(format!("region `{region}` has no `request`"))),
            (text, _) => optional(text, "request")?.unwrap_or_default(),
        };
        let mut meters = BTreeMap::new();
        for (meter, raw) in &self.meters {
            meters.insert(*meter, raw.read(*meter, region, table)?);
        }
        let mut instances = BTreeMap::new();
        for (name, hour) in self.instances.iter().flat_map(|raw| &raw.hour) {
            instances.insert(name.clone(), parse_dollars(hour, Place { region, field: name })?);
        }
        let limits = &table.tier_limits_gb_seconds;
        Ok(RegionPrices {
            x86_64: self.x86_64.as_ref().map(|raw| raw.read(region, &limits.x86_64)).transpose()?,
            arm64: self.arm64.as_ref().map(|raw| raw.read(region, &limits.arm64)).transpose()?,
            request,
            storage_gb_second: optional(&self.ephemeral_gb_second, "ephemeral_gb_second")?,
            snap_start,
            source: table.source(self.source.as_ref())?,
            meters,
            instances,
            instances_source: match &self.instances {
                Some(instances) => table.source(instances.source.as_ref())?,
                None => PriceSource::default(),
            },
        })
    }

    fn of(region: &RegionPrices, sources: &mut Sources) -> Self {
        let has_rates = region.x86_64.is_some() || region.arm64.is_some();
        Self {
            x86_64: region.x86_64.as_ref().map(RawArchitecture::of),
            arm64: region.arm64.as_ref().map(RawArchitecture::of),
            request: has_rates.then(|| region.request.to_decimal()),
            ephemeral_gb_second: region.storage_gb_second.map(PicoDollars::to_decimal),
            snap_start: region.snap_start.map(|rates| RawSnapStart {
                cache_gb_second: rates.cache_gb_second.to_decimal(),
                restore_gb: rates.restore_gb.to_decimal(),
            }),
            source: sources.id(&region.source),
            meters: region
                .meters
                .iter()
                .map(|(meter, price)| (*meter, RawMeter::of(price, sources)))
                .collect(),
            instances: (!region.instances.is_empty()).then(|| RawInstances {
                hour: region.instances.iter().map(|(name, hour)| (name.clone(), hour.to_decimal())).collect(),
                source: sources.id(&region.instances_source),
            }),
        }
    }
}

impl RawMeter {
    fn read(&self, meter: Meter, region: &str, table: &RawTable) -> Result<MeterPrice, PriceError> {
        let wrong =
            |what: &str| PriceError::Malformed(format!("the meter `{meter}` of region `{region}` {what}"));
        if !meter.has_flat_price() {
            return Err(wrong("has its prices in other fields"));
        }
        if self.price.len() != self.from_units.len() + 1 || !self.from_units.is_sorted_by(|a, b| a < b) {
            return Err(wrong("needs one more price than rising limits"));
        }
        let starts = std::iter::once(0).chain(self.from_units.iter().copied());
        let tiers = starts
            .zip(&self.price)
            .map(|(from_units, text)| {
                let price = parse_dollars(text, Place { region, field: meter.code() })?;
                Ok(MeterTier { from_units, price })
            })
            .collect::<Result<_, PriceError>>()?;
        Ok(MeterPrice { tiers, source: table.source(self.source.as_ref())? })
    }

    fn of(price: &MeterPrice, sources: &mut Sources) -> Self {
        Self {
            price: price.tiers.iter().map(|tier| tier.price.to_decimal()).collect(),
            from_units: price.tiers.iter().skip(1).map(|tier| tier.from_units).collect(),
            source: sources.id(&price.source),
        }
    }
}

impl RawArchitecture {
    fn read(&self, region: &str, limits: &[u64]) -> Result<ArchitecturePrices, PriceError> {
        let place = |field: &'static str| Place { region, field };
        if self.gb_second.is_empty() {
            return Err(PriceError::Malformed(format!(
                "region `{region}` has an empty list of compute prices"
            )));
        }
        let limits = self.tier_limits_gb_seconds.as_deref().unwrap_or(limits);
        let starts = std::iter::once(0).chain(limits.iter().copied());
        let tiers = starts
            .zip(&self.gb_second)
            .map(|(from_gb_seconds, text)| {
                Ok(Tier { from_gb_seconds, gb_second: parse_dollars(text, place("gb_second"))? })
            })
            .collect::<Result<_, PriceError>>()?;
        let provisioned = match &self.provisioned {
            None => None,
            Some(raw) => Some(ProvisionedRates {
                idle_gb_second: parse_dollars(&raw.idle, place("provisioned.idle"))?,
                duration_gb_second: parse_dollars(&raw.duration, place("provisioned.duration"))?,
            }),
        };
        Ok(ArchitecturePrices { tiers, provisioned, derived: self.derived })
    }

    fn of(prices: &ArchitecturePrices) -> Self {
        Self {
            gb_second: prices.tiers.iter().map(|tier| tier.gb_second.to_decimal()).collect(),
            tier_limits_gb_seconds: Some(
                prices.tiers.iter().skip(1).map(|tier| tier.from_gb_seconds).collect(),
            ),
            provisioned: prices.provisioned.map(|rates| RawProvisioned {
                idle: rates.idle_gb_second.to_decimal(),
                duration: rates.duration_gb_second.to_decimal(),
            }),
            derived: prices.derived,
        }
    }
}

/// The sources of a table that is written, each once.
#[derive(Default)]
struct Sources {
    by_id: BTreeMap<String, PriceSource>,
}

impl Sources {
    fn id(&mut self, source: &PriceSource) -> Option<String> {
        if let Some((id, _)) = self.by_id.iter().find(|(_, known)| *known == source) {
            return Some(id.clone());
        }
        let id = format!("source-{:03}", self.by_id.len() + 1);
        self.by_id.insert(id.clone(), source.clone());
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_table_is_read_as_the_same() {
        let table = PriceTable::embedded();
        assert_eq!(PriceTable::from_json(&table.to_json()), Ok(table));
    }

    #[test]
    fn meters_are_read_or_refused() {
        let text = |meters: &str| {
            format!(
                r#"{{"compiled":"2030-01-01","currency":"USD","free_tier":{{"requests":1,"gb_seconds":2}},
                "sources":{{"a":{{"name":"page","date":"2030-02-02"}}}},"regions":{{"here":{{"meters":{{{meters}}}}}}}}}"#
            )
        };
        let table = PriceTable::from_json(&text(
            r#""log-ingestion":{"price":["0.5","0.25"],"from_units":[10],"source":"a"}"#,
        ));
        let table = table.unwrap();
        let price = table.meter("here", Meter::LogIngestion).unwrap();
        assert_eq!(price.source.date, "2030-02-02");
        assert_eq!(price.tiers[1], MeterTier { from_units: 10, price: PicoDollars(250_000_000_000) });
        for (wrong, message) in [
            (r#""log-ingestion":{"price":["0.5"],"from_units":[10]}"#, "one more price"),
            (r#""log-ingestion":{"price":["0.5"],"source":"b"}"#, "not one of its sources"),
            (r#""compute":{"price":["0.5"]}"#, "other fields"),
            (r#""wine":{"price":["0.5"]}"#, "unknown variant"),
        ] {
            let error = PriceTable::from_json(&text(wrong)).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
