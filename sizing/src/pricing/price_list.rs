//! Reads AWS's public price list.
//!
//! `https://pricing.us-east-1.amazonaws.com/offers/v1.0/aws/OFFER/current/index.json` has all regions of an offer;
//! `.../current/REGION/index.json` has one. The offers `AWSLambda`, `AmazonCloudWatch` (prices of logs) and `AWSDataTransfer`
//! are read. Products are distinguished by their usage type, whose prefix names the region everywhere but in us-east-1
//! (`EUC1-Lambda-GB-Second`). Products of other services in these offers, such as Lambda@Edge, are skipped.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::pricing::managed_instances::MANAGEMENT_FEE_PERCENT;
use crate::pricing::meters::{Meter, MeterPrice, MeterTier};
use crate::pricing::money::PicoDollars;
use crate::pricing::prices::{
    ArchitecturePrices, FreeTier, Place, PriceError, PriceSource, PriceTable, ProvisionedRates, RegionPrices,
    SnapStartRates, Tier, parse_dollars,
};

/// The offers that are read.
const OFFER_CODES: [&str; 3] = ["AWSLambda", "AmazonCloudWatch", "AWSDataTransfer"];

/// The field that distinguishes AWS's price list from a table of this crate.
#[derive(Deserialize)]
struct OfferCode {
    #[serde(rename = "offerCode")]
    code: Option<String>,
}

#[derive(Deserialize)]
struct Offer {
    #[serde(default, rename = "offerCode")]
    code: String,
    #[serde(rename = "publicationDate")]
    published: String,
    products: BTreeMap<String, Product>,
    terms: Terms,
}

#[derive(Deserialize)]
struct Product {
    #[serde(default)]
    attributes: Attributes,
}

#[derive(Deserialize, Default)]
struct Attributes {
    #[serde(default, rename = "usagetype")]
    usage_type: String,
    #[serde(default, rename = "regionCode")]
    region: String,
    /// Where data comes from, in the offer of data transfer.
    #[serde(default, rename = "fromRegionCode")]
    from_region: String,
}

#[derive(Deserialize)]
struct Terms {
    #[serde(rename = "OnDemand")]
    on_demand: BTreeMap<String, BTreeMap<String, Term>>,
}

#[derive(Deserialize)]
struct Term {
    /// When it begins. A list can have the terms of earlier prices, too.
    #[serde(default, rename = "effectiveDate")]
    since: String,
    #[serde(rename = "priceDimensions")]
    dimensions: BTreeMap<String, Dimension>,
}

#[derive(Deserialize)]
struct Dimension {
    #[serde(default, rename = "beginRange")]
    begin: String,
    #[serde(rename = "pricePerUnit")]
    price: BTreeMap<String, String>,
}

/// The prices of one region while the products are read. Their order in the file is not defined.
#[derive(Default)]
struct Collected {
    x86_64: Side,
    arm64: Side,
    request: Option<PicoDollars>,
    storage: Option<PicoDollars>,
    cache: Option<PicoDollars>,
    restore: Option<PicoDollars>,
    meters: BTreeMap<Meter, Vec<MeterTier>>,
    instances: BTreeMap<String, PicoDollars>,
}

#[derive(Default)]
struct Side {
    tiers: Vec<Tier>,
    idle: Option<PicoDollars>,
    duration: Option<PicoDollars>,
}

impl PriceTable {
    /// Reads a table in either form: AWS's price list, or this crate's (see [`PriceTable::from_json`]).
    ///
    /// AWS's price list does not contain the free tier, so the caller gives it as `free`.
    ///
    /// # Errors
    /// As [`PriceTable::from_price_list`] and [`PriceTable::from_json`]; [`PriceError::Malformed`] for another offer.
    pub fn from_either(text: &str, free: FreeTier) -> Result<Self, PriceError> {
        let offer: OfferCode =
            serde_json::from_str(text).map_err(|error| PriceError::Malformed(error.to_string()))?;
        match offer.code.as_deref() {
            None => Self::from_json(text),
            Some(code) if OFFER_CODES.contains(&code) => Self::from_price_list(text, free),
            Some(other) => Err(PriceError::Malformed(format!(
                "it is AWS's price list of `{other}`, and not of {}",
                OFFER_CODES.join(", ")
            ))),
        }
    }

    /// Reads an offer file of AWS's price list. Regions without any price that is known here are left out.
    ///
    /// The file does not contain the free tier, so the caller gives it as `free`.
    ///
    /// # Errors
    /// [`PriceError::Malformed`] when it is not such a file or has no known prices in dollars,
    /// [`PriceError::BadPrice`] naming the usage type.
    pub fn from_price_list(text: &str, free: FreeTier) -> Result<Self, PriceError> {
        let offer: Offer =
            serde_json::from_str(text).map_err(|error| PriceError::Malformed(error.to_string()))?;
        let mut regions: BTreeMap<String, Collected> = BTreeMap::new();
        for (sku, product) in &offer.products {
            let Attributes { usage_type, region, from_region } = &product.attributes;
            let region = if region.is_empty() { from_region } else { region };
            let Some(terms) = offer.terms.on_demand.get(sku) else { continue };
            // Times of this form are in the order of their texts.
            let newest = terms.values().max_by(|a, b| a.since.cmp(&b.since));
            for dimension in newest.into_iter().flat_map(|term| term.dimensions.values()) {
                let Some(text) = dimension.price.get("USD") else { continue };
                let price = parse_dollars(text, Place { region, field: usage_type })?;
                // Some products also list the free tier, with a price of zero.
                if price > PicoDollars::ZERO && !region.is_empty() {
                    let from = dimension.begin.parse().unwrap_or(0);
                    regions.entry(region.clone()).or_default().take(usage_type, from, price);
                }
            }
        }
        let day = offer.published.split('T').next().unwrap_or_default().to_owned();
        let source = PriceSource { name: format!("AWS price list {}", offer.code), date: day.clone() };
        let regions: BTreeMap<String, RegionPrices> = regions
            .into_iter()
            .filter_map(|(region, collected)| Some((region, collected.finish(&source)?)))
            .collect();
        if regions.is_empty() {
            return Err(PriceError::Malformed("it has no known prices in US dollars".to_owned()));
        }
        Ok(Self::from_regions(day, free, regions))
    }
}

/// What a usage type without the prefix of its region is the price of.
fn meter_of(name: &str) -> Option<Meter> {
    let has = |word: &str| name.contains(word);
    Some(match name {
        "Lambda-Streaming-Response-Processed-Bytes" => Meter::ResponseStreaming,
        "VendedLog-Bytes" => Meter::LogIngestion,
        "TimedStorage-ByteHrs" => Meter::LogStorage,
        "S3-Egress-Bytes" => Meter::LogDeliveryS3,
        "FH-Egress-Bytes" => Meter::LogDeliveryFirehose,
        "DataTransfer-Out-Bytes" => Meter::DataTransferOut,
        _ if has("Durable") && has("Operation") => Meter::DurableOperations,
        _ if has("Durable") && has("Writ") => Meter::DurableWritten,
        _ if has("Durable") && (has("Retain") || has("Retention") || has("Stor")) => Meter::DurableRetained,
        _ if has("Tenant") && has("ARM") => Meter::TenantEnvironmentsArm64,
        _ if has("Tenant") => Meter::TenantEnvironments,
        _ if (has("Event-Poller") || has("EventPoller")) && has("SQS") => Meter::EventPollersSqs,
        _ if has("Event-Poller") || has("EventPoller") => Meter::EventPollersKafka,
        _ => return None,
    })
}

/// Usage types of logs and data transfer. What stands before them is the prefix of the region.
const OTHER_USAGE_TYPES: [&str; 5] = [
    "VendedLog-Bytes",
    "TimedStorage-ByteHrs",
    "S3-Egress-Bytes",
    "FH-Egress-Bytes",
    "DataTransfer-Out-Bytes",
];

/// A usage type without the prefix of its region, which does not contain `Lambda`. `Request` has a prefix or none.
fn without_region(usage_type: &str) -> &str {
    let is_region = |prefix: &str| {
        prefix.is_empty() || (prefix.ends_with('-') && !prefix.trim_end_matches('-').contains('-'))
    };
    if let Some(at) = usage_type.find("Lambda-") {
        return &usage_type[at..];
    }
    let other =
        OTHER_USAGE_TYPES.into_iter().find(|name| usage_type.strip_suffix(name).is_some_and(is_region));
    other.unwrap_or_else(|| match usage_type.strip_suffix("Request") {
        Some(prefix) if is_region(prefix) => "Request",
        _ => usage_type,
    })
}

impl Collected {
    fn take(&mut self, usage_type: &str, from: u64, price: PicoDollars) {
        let whole = without_region(usage_type);
        if let Some(meter) = meter_of(whole) {
            self.meters.entry(meter).or_default().push(MeterTier { from_units: from, price });
            return;
        }
        if let Some(name) = whole
            .strip_prefix("Lambda-Managed-Instances-")
            .and_then(|rest| rest.strip_suffix("-Management-Hours"))
        {
            // The fee is 15 % of the price of the instance.
            let hour = price.scaled(100, MANAGEMENT_FEE_PERCENT);
            self.instances.extend(hour.map(|hour| (name.to_owned(), hour)));
            return;
        }
        let (name, side) = match usage_type.strip_suffix("-ARM") {
            Some(_) => (whole.strip_suffix("-ARM").unwrap_or(whole), &mut self.arm64),
            None => (whole, &mut self.x86_64),
        };
        match name {
            "Lambda-GB-Second" => side.tiers.push(Tier { from_gb_seconds: from, gb_second: price }),
            "Lambda-Provisioned-Concurrency" => side.idle = Some(price),
            "Lambda-Provisioned-GB-Second" => side.duration = Some(price),
            "Lambda-Storage-GB-Second" => self.storage = Some(price),
            "Lambda-SnapStart-Cached-GB-S" => self.cache = Some(price),
            "Lambda-SnapStart-Restored-GB" => self.restore = Some(price),
            "Request" => self.request = Some(price),
            _ => {}
        }
    }

    fn finish(self, source: &PriceSource) -> Option<RegionPrices> {
        let (x86_64, arm64) = match self.request {
            Some(_) => (self.x86_64.finish(), self.arm64.finish()),
            None => (None, None),
        };
        let meters: BTreeMap<Meter, MeterPrice> = self
            .meters
            .into_iter()
            .map(|(meter, tiers)| {
                (meter, MeterPrice { tiers: tiers_from_zero(tiers), source: source.clone() })
            })
            .collect();
        let is_known = x86_64.is_some() || arm64.is_some() || !meters.is_empty();
        let snap_start = self.cache.zip(self.restore);
        is_known.then(|| RegionPrices {
            x86_64,
            arm64,
            request: self.request.unwrap_or_default(),
            storage_gb_second: self.storage,
            snap_start: snap_start
                .map(|(cache_gb_second, restore_gb)| SnapStartRates { cache_gb_second, restore_gb }),
            source: source.clone(),
            meters,
            instances_source: if self.instances.is_empty() { PriceSource::default() } else { source.clone() },
            instances: self.instances,
        })
    }
}

/// The tiers in order. Where the first units of a month are free, the first price applies from zero: the free units belong to
/// the account, and not to a function.
fn tiers_from_zero(mut tiers: Vec<MeterTier>) -> Vec<MeterTier> {
    tiers.sort_by_key(|tier| tier.from_units);
    tiers.dedup_by_key(|tier| tier.from_units);
    if let Some(first) = tiers.first_mut() {
        first.from_units = 0;
    }
    tiers
}

impl Side {
    fn finish(mut self) -> Option<ArchitecturePrices> {
        self.tiers.sort_by_key(|tier| tier.from_gb_seconds);
        self.tiers.dedup_by_key(|tier| tier.from_gb_seconds);
        let provisioned = self.idle.zip(self.duration).map(|(idle_gb_second, duration_gb_second)| {
            ProvisionedRates { idle_gb_second, duration_gb_second }
        });
        let starts_at_zero = self.tiers.first().is_some_and(|tier| tier.from_gb_seconds == 0);
        starts_at_zero.then_some(ArchitecturePrices { tiers: self.tiers, provisioned, derived: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Architecture;

    /// Usage type, region, and prices in dollars by the start of their range.
    type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);

    fn offer(products: &[Row<'_>]) -> String {
        let (mut entries, mut terms) = (serde_json::Map::new(), serde_json::Map::new());
        for (i, (usage_type, region, prices)) in products.iter().enumerate() {
            let sku = format!("SKU{i}");
            let attributes = serde_json::json!({"usagetype": usage_type, "regionCode": region});
            entries.insert(sku.clone(), serde_json::json!({"sku": sku, "attributes": attributes}));
            let dimensions: serde_json::Map<_, _> = prices
                .iter()
                .map(|(begin, usd)| {
                    let price = serde_json::json!({"beginRange": begin, "pricePerUnit": {"USD": usd}});
                    (format!("{sku}.{begin}"), price)
                })
                .collect();
            terms.insert(sku.clone(), serde_json::json!({"T": {"priceDimensions": dimensions}}));
        }
        serde_json::json!({
            "offerCode": "AWSLambda",
            "publicationDate": "2026-09-19T00:00:00Z",
            "products": entries,
            "terms": {"OnDemand": terms},
        })
        .to_string()
    }

    const FREE: FreeTier = FreeTier { requests: 0, gb_seconds: 0 };

    #[test]
    fn an_offer_file_is_read_as_a_table() {
        let text = offer(&[
            (
                "EUC1-Lambda-GB-Second",
                "eu-central-1",
                &[("6000000000", "0.0000150000"), ("0", "0.0000166667")],
            ),
            ("EUC1-Lambda-GB-Second-ARM", "eu-central-1", &[("0", "0.0000133334")]),
            ("EUC1-Request", "eu-central-1", &[("0", "0.0000002000")]),
            ("EUC1-Lambda-Storage-GB-Second", "eu-central-1", &[("0", "0.0000000367")]),
            ("EUC1-Lambda-Provisioned-Concurrency", "eu-central-1", &[("0", "0.0000050147")]),
            ("EUC1-Lambda-Provisioned-GB-Second", "eu-central-1", &[("0", "0.0000117011")]),
            ("EUC1-Lambda-Edge-GB-Second", "eu-central-1", &[("0", "0.5")]),
            ("Global-Request", "", &[("0", "0.0")]),
        ]);
        let table = PriceTable::from_price_list(&text, FREE).unwrap();
        assert_eq!(table.compiled(), "2026-09-19");
        let rates = table.rates("eu-central-1", Architecture::X86_64).unwrap();
        let embedded = PriceTable::embedded();
        let known = embedded.rates("eu-central-1", Architecture::X86_64).unwrap();
        assert_eq!(rates.gb_second(), known.gb_second());
        assert_eq!(rates.tiers().len(), 2);
        assert_eq!((rates.request, rates.storage_gb_second), (known.request, known.storage_gb_second));
        assert_eq!(rates.provisioned, known.provisioned);
        // A region that the file does not have is an error, as in every table.
        assert!(table.rates("us-east-1", Architecture::X86_64).is_err());
    }

    #[test]
    fn the_form_of_a_table_is_recognized() {
        let ours = PriceTable::from_either(include_str!("../../data/prices.json"), FREE);
        assert_eq!(ours, Ok(PriceTable::embedded()));
        let list = offer(&[
            ("Lambda-GB-Second", "us-east-1", &[("0", "0.0000166667")]),
            ("Request", "us-east-1", &[("0", "0.0000002000")]),
        ]);
        let table = PriceTable::from_either(&list, FREE).unwrap();
        assert_eq!(table, PriceTable::from_price_list(&list, FREE).unwrap());
        let other_service = list.replace("AWSLambda", "AmazonEC2");
        let error = PriceTable::from_either(&other_service, FREE).unwrap_err().to_string();
        assert!(error.contains("price list of `AmazonEC2`, and not of AWSLambda, "), "{error}");
        let not_json = PriceTable::from_either("<html>", FREE).unwrap_err().to_string();
        assert!(not_json.contains("line 1 column 1"), "{not_json}");
    }

    #[test]
    fn every_meter_is_read_and_tables_are_merged() {
        let lambda = offer(&[
            ("EUC1-Lambda-GB-Second", "eu-central-1", &[("0", "0.0000166667")]),
            ("EUC1-Request", "eu-central-1", &[("0", "0.0000002000")]),
            ("EUC1-Lambda-SnapStart-Cached-GB-S", "eu-central-1", &[("0", "0.0000018")]),
            ("EUC1-Lambda-SnapStart-Restored-GB", "eu-central-1", &[("0", "0.00016")]),
            (
                "EUC1-Lambda-Streaming-Response-Processed-Bytes",
                "eu-central-1",
                &[("0", "0.0"), ("100", "0.008")],
            ),
            (
                "EUC1-Lambda-Managed-Instances-c7g.xlarge-Management-Hours",
                "eu-central-1",
                &[("0", "0.02175")],
            ),
        ]);
        let logs = offer(&[
            (
                "EUC1-VendedLog-Bytes",
                "eu-central-1",
                &[("30720", "0.12"), ("0", "0.63"), ("10240", "0.315"), ("51200", "0.063")],
            ),
            ("EUC1-VendedLog-Bytes-WAFLogs", "eu-central-1", &[("0", "0.9")]),
            ("EUC1-TimedStorage-ByteHrs", "eu-central-1", &[("0", "0.0"), ("5", "0.0324")]),
            ("VendedLog-Bytes", "us-east-1", &[("0", "0.5")]),
        ])
        .replace("AWSLambda", "AmazonCloudWatch");
        let mut table = PriceTable::from_either(&lambda, FREE).unwrap();
        table.merge(PriceTable::from_either(&logs, FREE).unwrap());
        let tiers = |meter| table.meter("eu-central-1", meter).unwrap().tiers.clone();
        assert_eq!(
            tiers(Meter::LogIngestion).iter().map(|tier| tier.from_units).collect::<Vec<_>>(),
            [0, 10_240, 30_720, 51_200]
        );
        assert_eq!(
            tiers(Meter::LogStorage),
            [MeterTier { from_units: 0, price: PicoDollars(32_400_000_000) }]
        );
        assert_eq!(tiers(Meter::ResponseStreaming)[0].from_units, 0);
        let source = &table.meter("us-east-1", Meter::LogIngestion).unwrap().source;
        assert_eq!(source.name, "AWS price list AmazonCloudWatch");
        let (instances, _) = table.instances("eu-central-1").unwrap();
        assert_eq!(instances["c7g.xlarge"], PicoDollars(145_000_000_000));
        let rates = table.rates("eu-central-1", Architecture::X86_64).unwrap();
        assert_eq!(rates.snap_start.unwrap().restore_gb, PicoDollars(160_000_000));
        assert!(table.rates("us-east-1", Architecture::X86_64).is_err());
        assert_eq!(PriceTable::from_json(&table.to_json()), Ok(table));
    }

    #[test]
    fn a_file_without_lambda_prices_is_refused() {
        let error = PriceTable::from_price_list(&offer(&[]), FREE).unwrap_err().to_string();
        assert!(error.contains("no known prices"), "{error}");
        let text = offer(&[("Request", "us-east-1", &[("0", "1e-7")])]);
        assert!(matches!(PriceTable::from_price_list(&text, FREE), Err(PriceError::BadPrice { .. })));
        assert!(PriceTable::from_price_list("{}", FREE).is_err());
    }
}
