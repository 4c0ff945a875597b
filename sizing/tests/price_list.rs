//! A price list in the exact form of AWS's bulk API ("Reading the service price list file for an AWS service"), with several
//! regions and what else such files have.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Map, Value, json};
use tailor_sizing::pricing::meters::Meter;
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::pricing::prices::{FreeTier, PriceTable};
use tailor_sizing::units::Architecture;

const FREE: FreeTier = FreeTier { requests: 0, gb_seconds: 0 };

/// The code of on-demand terms, and of the part of a rate code that names the price.
const TERM: &str = "JRTCKXETXF";

/// A list of an offer.
struct List {
    offer: &'static str,
    products: Map<String, Value>,
    terms: Map<String, Value>,
}

/// One price: where its range begins and ends, and the amount.
type Range<'a> = (&'a str, &'a str, &'a str);

impl List {
    fn new(offer: &'static str) -> Self {
        Self { offer, products: Map::new(), terms: Map::new() }
    }

    fn sku(&self) -> String {
        format!("{:0>16}", self.products.len()).replace('0', "Z")
    }

    fn add(&mut self, attributes: Value, unit: &str, currency: &str, ranges: &[Range<'_>]) {
        let sku = self.sku();
        let term = term(&sku, "2026-10-01T00:00:00Z", unit, currency, ranges);
        self.products.insert(
            sku.clone(),
            json!({"sku": sku, "productFamily": "Serverless", "attributes": attributes}),
        );
        self.terms.insert(sku.clone(), json!({ format!("{sku}.{TERM}"): term }));
    }

    fn lambda(&mut self, region: &str, prefix: &str, usage_type: &str, ranges: &[Range<'_>]) {
        let attributes = json!({
            "servicecode": "AWSLambda",
            "location": "a name",
            "locationType": "AWS Region",
            "group": "AWS-Lambda-Duration",
            "groupDescription": "Invocation duration weighted by memory assigned to function, measured in GB-s",
            "usagetype": format!("{prefix}{usage_type}"),
            "operation": "",
            "regionCode": region,
            "servicename": "AWS Lambda",
        });
        self.add(attributes, "Lambda-GB-Second", "USD", ranges);
    }

    fn text(&self) -> String {
        json!({
            "formatVersion": "v1.0",
            "disclaimer": "This pricing list is for informational purposes only.",
            "offerCode": self.offer,
            "version": "20261120173044",
            "publicationDate": "2026-11-20T17:30:44Z",
            "products": self.products,
            "terms": {"OnDemand": self.terms, "Reserved": {}},
            "attributesList": {},
        })
        .to_string()
    }
}

fn term(sku: &str, since: &str, unit: &str, currency: &str, ranges: &[Range<'_>]) -> Value {
    let dimensions: Map<String, Value> = ranges
        .iter()
        .enumerate()
        .map(|(number, (begin, end, price))| {
            let rate = format!("{sku}.{TERM}.RATE{number}");
            let dimension = json!({
                "rateCode": rate,
                "description": format!("AWS Lambda - price {price} per {unit}"),
                "beginRange": begin,
                "endRange": end,
                "unit": unit,
                "appliesTo": [],
                "pricePerUnit": {currency: price},
            });
            (rate, dimension)
        })
        .collect();
    json!({
        "offerTermCode": TERM,
        "sku": sku,
        "effectiveDate": since,
        "priceDimensions": dimensions,
        "termAttributes": {},
    })
}

const TIERS: [Range<'_>; 3] = [
    ("15000000000", "Inf", "0.0000133334"),
    ("0", "6000000000", "0.0000166667"),
    ("6000000000", "15000000000", "0.0000150000"),
];

fn lambda() -> List {
    let mut list = List::new("AWSLambda");
    for (region, prefix) in [("us-east-1", ""), ("eu-central-1", "EUC1-"), ("us-gov-west-1", "UGW1-")] {
        list.lambda(region, prefix, "Lambda-GB-Second", &TIERS);
        list.lambda(region, prefix, "Lambda-GB-Second-ARM", &[("0", "Inf", "0.0000133334")]);
        list.lambda(region, prefix, "Request", &[("0", "Inf", "0.0000002000")]);
        list.lambda(region, prefix, "Request-ARM", &[("0", "Inf", "0.0000002000")]);
        list.lambda(region, prefix, "Lambda-Provisioned-Concurrency", &[("0", "Inf", "0.0000041667")]);
        list.lambda(region, prefix, "Lambda-Provisioned-GB-Second", &[("0", "Inf", "0.0000097222")]);
        list.lambda(region, prefix, "Lambda-Edge-GB-Second", &[("0", "Inf", "0.0000500100")]);
        list.lambda(region, prefix, "Lambda-Edge-Request", &[("0", "Inf", "0.0000006000")]);
    }
    // A region without compute, the free tier, and a region whose prices are in another currency.
    list.lambda("mx-central-1", "MXC1-", "Lambda-Storage-GB-Second", &[("0", "Inf", "0.0000000309")]);
    list.lambda("", "Global-", "Request", &[("0", "1000000", "0.0000000000")]);
    let china = json!({"usagetype": "CNN1-Lambda-GB-Second", "regionCode": "cn-north-1"});
    list.add(china, "Lambda-GB-Second", "CNY", &[("0", "Inf", "0.0001134")]);
    list
}

#[test]
fn a_price_list_in_the_form_of_the_bulk_api_is_read() {
    let table = PriceTable::from_either(&lambda().text(), FREE).unwrap();
    assert_eq!(table.compiled(), "2026-11-20");
    let regions: Vec<&str> = table.regions().collect();
    assert_eq!(regions, ["eu-central-1", "us-east-1", "us-gov-west-1"]);
    for region in regions {
        let rates = table.rates(region, Architecture::X86_64).unwrap();
        let tiers: Vec<_> = rates.tiers().iter().map(|tier| (tier.from_gb_seconds, tier.gb_second)).collect();
        let expected = [(0, 16_666_700), (6_000_000_000, 15_000_000), (15_000_000_000, 13_333_400)];
        assert_eq!(tiers, expected.map(|(from, price)| (from, PicoDollars(price))), "{region}");
        // Not that of Lambda@Edge.
        assert_eq!(rates.request, PicoDollars(200_000));
        let arm64 = table.rates(region, Architecture::Arm64).unwrap();
        assert_eq!(arm64.gb_second(), PicoDollars(13_333_400));
        assert_eq!(rates.source.name, "AWS price list AWSLambda");
    }
    assert_eq!(PriceTable::from_json(&table.to_json()), Ok(table));
}

#[test]
fn the_newest_term_of_a_product_counts() {
    let mut list = lambda();
    let sku = list.sku();
    list.lambda("ap-east-2", "APE2-", "Lambda-GB-Second", &[("0", "Inf", "0.00002")]);
    list.lambda("ap-east-2", "APE2-", "Request", &[("0", "Inf", "0.0000002")]);
    // Earlier and later in the order of codes, and earlier in time.
    for code in ["AAAA", "ZZZZ"] {
        let old = term(&sku, "2025-01-01T00:00:00Z", "Lambda-GB-Second", "USD", &[("0", "Inf", "0.5")]);
        list.terms[&sku].as_object_mut().unwrap().insert(format!("{sku}.{code}"), old);
    }
    let table = PriceTable::from_either(&list.text(), FREE).unwrap();
    assert_eq!(table.rates("ap-east-2", Architecture::X86_64).unwrap().gb_second(), PicoDollars(20_000_000));
}

#[test]
fn data_transfer_names_its_region_as_where_it_comes_from() {
    let mut list = List::new("AWSDataTransfer");
    for (usage_type, from, ranges) in [
        ("DataTransfer-Out-Bytes", "us-east-1", &[("0", "10240", "0.09"), ("10240", "51200", "0.085")][..]),
        ("EUC1-DataTransfer-Out-Bytes", "eu-central-1", &[("0", "1", "0.0"), ("1", "10240", "0.09")]),
        ("EUC1-USE1-AWS-Out-Bytes", "eu-central-1", &[("0", "Inf", "0.02")]),
        ("EUC1-FRA1-DataTransfer-Out-Bytes", "eu-central-1", &[("0", "Inf", "0.7")]),
    ] {
        let attributes = json!({
            "servicecode": "AWSDataTransfer",
            "transferType": "AWS Outbound",
            "fromLocation": "a name",
            "fromLocationType": "AWS Region",
            "fromRegionCode": from,
            "toLocation": "External",
            "toLocationType": "Other",
            "usagetype": usage_type,
            "operation": "",
            "servicename": "AWS Data Transfer",
        });
        list.add(attributes, "GB", "USD", ranges);
    }
    let table = PriceTable::from_either(&list.text(), FREE).unwrap();
    for (region, tiers) in [("us-east-1", 2), ("eu-central-1", 1)] {
        let price = table.meter(region, Meter::DataTransferOut).unwrap();
        assert_eq!(
            (price.tiers.len(), price.tiers[0].price),
            (tiers, PicoDollars(90_000_000_000)),
            "{region}"
        );
        assert_eq!(price.tiers[0].from_units, 0);
    }
}
