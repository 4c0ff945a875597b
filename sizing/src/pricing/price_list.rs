//! Reads AWS's public price list of Lambda.
//!
//! `https://pricing.us-east-1.amazonaws.com/offers/v1.0/aws/AWSLambda/current/index.json` has all regions;
//! `.../current/REGION/index.json` has one. Products are distinguished by their usage type, whose prefix names the
//! region everywhere but in us-east-1 (`EUC1-Lambda-GB-Second`). Only prices of on-demand invocations and of provisioned
//! concurrency are read; others, such as those of SnapStart and Lambda@Edge, are skipped.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::pricing::money::PicoDollars;
use crate::pricing::prices::{
    ArchitecturePrices, FreeTier, Place, PriceError, PriceTable, ProvisionedRates, RegionPrices, Tier,
    parse_dollars,
};

/// The offer code of Lambda in AWS's price list.
const OFFER_CODE: &str = "AWSLambda";

/// The field that distinguishes AWS's price list from a table of this crate.
#[derive(Deserialize)]
struct OfferCode {
    #[serde(rename = "offerCode")]
    code: Option<String>,
}

#[derive(Deserialize)]
struct Offer {
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
}

#[derive(Deserialize)]
struct Terms {
    #[serde(rename = "OnDemand")]
    on_demand: BTreeMap<String, BTreeMap<String, Term>>,
}

#[derive(Deserialize)]
struct Term {
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
    /// As [`PriceTable::from_price_list`] and [`PriceTable::from_json`]; [`PriceError::Malformed`] for the price list of
    /// another service.
    pub fn from_either(text: &str, free: FreeTier) -> Result<Self, PriceError> {
        let offer: OfferCode =
            serde_json::from_str(text).map_err(|error| PriceError::Malformed(error.to_string()))?;
        match offer.code.as_deref() {
            None => Self::from_json(text),
            Some(OFFER_CODE) => Self::from_price_list(text, free),
            Some(other) => Err(PriceError::Malformed(format!(
                "it is AWS's price list of `{other}`, and not of `{OFFER_CODE}`"
            ))),
        }
    }

    /// Reads an offer file of AWS's price list. Regions without both compute and request prices are left out.
    ///
    /// The file does not contain the free tier, so the caller gives it as `free`.
    ///
    /// # Errors
    /// [`PriceError::Malformed`] when it is not such a file or has no Lambda prices in dollars,
    /// [`PriceError::BadPrice`] naming the usage type.
    pub fn from_price_list(text: &str, free: FreeTier) -> Result<Self, PriceError> {
        let offer: Offer =
            serde_json::from_str(text).map_err(|error| PriceError::Malformed(error.to_string()))?;
        let mut regions: BTreeMap<String, Collected> = BTreeMap::new();
        for (sku, product) in &offer.products {
            let Attributes { usage_type, region } = &product.attributes;
            let Some(terms) = offer.terms.on_demand.get(sku) else { continue };
            for dimension in terms.values().flat_map(|term| term.dimensions.values()) {
                let Some(text) = dimension.price.get("USD") else { continue };
                let price = parse_dollars(text, Place { region, field: usage_type })?;
                // Some products also list the free tier, with a price of zero.
                if price > PicoDollars::ZERO && !region.is_empty() {
                    let from = dimension.begin.parse().unwrap_or(0);
                    regions.entry(region.clone()).or_default().take(usage_type, from, price);
                }
            }
        }
        let regions: BTreeMap<String, RegionPrices> = regions
            .into_iter()
            .filter_map(|(region, collected)| Some((region, collected.finish()?)))
            .collect();
        if regions.is_empty() {
            return Err(PriceError::Malformed("it has no on-demand Lambda prices in US dollars".to_owned()));
        }
        let day = offer.published.split('T').next().unwrap_or_default().to_owned();
        Ok(Self::from_regions(day, free, regions))
    }
}

impl Collected {
    fn take(&mut self, usage_type: &str, from_gb_seconds: u64, price: PicoDollars) {
        let (name, side) = match usage_type.strip_suffix("-ARM") {
            Some(name) => (name, &mut self.arm64),
            None => (usage_type, &mut self.x86_64),
        };
        // The prefix of the region does not contain `Lambda`. `Request` has a prefix or none.
        let name = match name.find("Lambda-") {
            Some(at) => &name[at..],
            None => name.rsplit('-').next().unwrap_or(name),
        };
        match name {
            "Lambda-GB-Second" => side.tiers.push(Tier { from_gb_seconds, gb_second: price }),
            "Lambda-Provisioned-Concurrency" => side.idle = Some(price),
            "Lambda-Provisioned-GB-Second" => side.duration = Some(price),
            "Lambda-Storage-GB-Second" => self.storage = Some(price),
            "Request" => self.request = Some(price),
            _ => {}
        }
    }

    fn finish(self) -> Option<RegionPrices> {
        Some(RegionPrices {
            x86_64: self.x86_64.finish(),
            arm64: self.arm64.finish(),
            request: self.request?,
            storage_gb_second: self.storage,
            snap_start: None,
        })
        .filter(|prices| prices.x86_64.is_some() || prices.arm64.is_some())
    }
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
        assert!(error.contains("price list of `AmazonEC2`, and not of `AWSLambda`"), "{error}");
        let not_json = PriceTable::from_either("<html>", FREE).unwrap_err().to_string();
        assert!(not_json.contains("line 1 column 1"), "{not_json}");
    }

    #[test]
    fn a_file_without_lambda_prices_is_refused() {
        let error = PriceTable::from_price_list(&offer(&[]), FREE).unwrap_err().to_string();
        assert!(error.contains("no on-demand Lambda prices"), "{error}");
        let text = offer(&[("Request", "us-east-1", &[("0", "1e-7")])]);
        assert!(matches!(PriceTable::from_price_list(&text, FREE), Err(PriceError::BadPrice { .. })));
        assert!(PriceTable::from_price_list("{}", FREE).is_err());
    }
}
