//! FOCUS rows that are written: the requirements of FOCUS 1.2, and the validator of the FinOps Foundation.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};

use common::{VALIDATOR, data, python};
use tailor_billing::bill::Bill;
use tailor_billing::focus::{self, FocusRow};
use tailor_billing::read::Export;
use tailor_billing::table::{Encoding, Kind};
use tailor_billing::{ExportFormat, Function, Meter, MeterKind, decimal, time};
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::units::Architecture;

fn rows() -> Vec<FocusRow> {
    let day = time::parse("2026-11-03").unwrap();
    let meters = [
        (MeterKind::Compute, Some(Architecture::X86_64), 142_628 * decimal::PICO / 1_000, 16_666_700),
        (MeterKind::Compute, Some(Architecture::Arm64), 382_373_875 * decimal::PICO / 1_000_000, 13_333_400),
        (MeterKind::Requests, None, 60 * decimal::PICO, 200_000),
        (MeterKind::EphemeralStorage, None, 1_048_576 * decimal::PICO, 30_900),
    ];
    let mut rows = vec![];
    for (index, account) in (0..).zip(["123456789012", ""]) {
        for (kind, architecture, quantity_pico, price) in meters {
            rows.push(FocusRow {
                function: Function {
                    account: account.to_owned(),
                    region: "us-west-2".to_owned(),
                    name: "pay, \"live\" ü".to_owned(),
                },
                tags: BTreeMap::from([("team".to_owned(), "a \"b\"".to_owned())]),
                from_s: day + index * time::DAY_S,
                until_s: day + (index + 1) * time::DAY_S,
                meter: Meter { kind, architecture },
                quantity_pico,
                unit_price: PicoDollars(price),
            });
        }
    }
    rows
}

fn csv() -> Vec<u8> {
    let mut bytes = vec![];
    focus::write(rows().into_iter(), Encoding::Csv, &mut bytes).unwrap();
    bytes
}

/// The table of FOCUS 1.2's columns: name, feature level, whether null is allowed, data type.
#[test]
fn columns_have_the_names_types_and_nullability_of_the_specification() {
    let text = fs::read_to_string(data().join("focus-1.2-columns.csv")).unwrap();
    let written: BTreeMap<&str, _> =
        focus::columns().into_iter().map(|column| (column.name, column)).collect();
    let mut specified = BTreeSet::new();
    for line in text.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        let [name, _level, allows_null, kind] = cells.as_slice() else { panic!("{line}") };
        specified.insert(*name);
        let column = written.get(name).unwrap_or_else(|| panic!("{name} is not written"));
        let expected = match *kind {
            "Decimal" => Kind::Decimal,
            "Date/Time" => Kind::Time,
            _ => Kind::Text,
        };
        assert_eq!(column.kind, expected, "{name}");
        assert!(*allows_null == "True" || !column.is_nullable, "{name} must not be null");
    }
    let own = written.keys().filter(|name| !specified.contains(**name));
    assert!(own.clone().all(|name| name.starts_with("x_")), "{:?}", own.collect::<Vec<_>>());
}

#[test]
fn values_meet_the_requirements_of_the_specification() {
    let bytes = csv();
    let mut reader = csv::Reader::from_reader(bytes.as_slice());
    let headers = reader.headers().unwrap().clone();
    let columns = focus::columns();
    let mut count = 0;
    for record in reader.records() {
        let record = record.unwrap();
        let cell = |name: &str| &record[headers.iter().position(|header| header == name).unwrap()];
        for (column, value) in columns.iter().zip(&record) {
            assert!(column.is_nullable || !value.is_empty(), "{}", column.name);
            match column.kind {
                Kind::Decimal if !value.is_empty() => assert!(decimal::parse(value).is_some(), "{value}"),
                Kind::Time => assert_eq!(time::format(time::parse(value).unwrap()), value),
                _ => {}
            }
        }
        // Conditional nullability of a charge of usage.
        for name in [
            "ConsumedQuantity",
            "ConsumedUnit",
            "ContractedUnitPrice",
            "ListUnitPrice",
            "PricingCategory",
            "PricingCurrencyContractedUnitPrice",
            "PricingCurrencyListUnitPrice",
            "PricingQuantity",
            "PricingUnit",
            "RegionName",
            "ResourceId",
            "ResourceName",
            "ResourceType",
            "SkuId",
            "SkuMeter",
            "SkuPriceId",
            "SubAccountName",
            "SubAccountType",
        ] {
            assert!(!cell(name).is_empty(), "{name}");
        }
        let number = |name: &str| decimal::parse(cell(name)).unwrap();
        let product =
            number("PricingQuantity") / 1_000 * (number("ListUnitPrice") / 100) / (decimal::PICO / 100_000);
        assert!((product - number("ListCost")).abs() <= number("ListCost") / 100_000 + 1, "{record:?}");
        for cost in ["BilledCost", "ContractedCost", "EffectiveCost"] {
            assert_eq!(cell(cost), cell("ListCost"));
        }
        assert!(cell("BillingPeriodStart") <= cell("ChargePeriodStart"));
        assert!(cell("ChargePeriodEnd") <= cell("BillingPeriodEnd"));
        let tags: BTreeMap<String, String> = serde_json::from_str(cell("Tags")).unwrap();
        assert_eq!(tags["team"], "a \"b\"");
        count += 1;
    }
    assert_eq!(count, rows().len());
}

/// CSV and Parquet that are written are read as FOCUS 1.2 with the same quantities and costs.
#[test]
fn written_rows_are_read_with_the_same_sums() {
    let folder = tempfile::tempdir().unwrap();
    for (name, encoding) in [("focus.csv", Encoding::Csv), ("focus.parquet", Encoding::Parquet)] {
        let path = folder.path().join(name);
        focus::write(rows().into_iter(), encoding, File::create(&path).unwrap()).unwrap();
        let (mut export, mut bill) = (Export::default(), Bill::default());
        export.read(&[&path], &mut |row| bill.add(&row));
        assert_eq!(export.problems, Default::default());
        assert_eq!(export.counts.formats, [ExportFormat::Focus12]);
        let sums: Vec<_> = bill.functions.values().flat_map(BTreeMap::values).collect();
        assert_eq!(sums.len(), rows().len());
        let written: i128 = rows().iter().map(|row| row.cost().0).sum();
        assert_eq!(sums.iter().map(|sum| sum.cost.0).sum::<i128>(), written, "{name}");
        let quantity: i128 = rows().iter().map(|row| row.quantity_pico).sum();
        assert_eq!(sums.iter().map(|sum| sum.quantity_pico).sum::<i128>(), quantity, "{name}");
    }
}

/// Rules of the validator that FOCUS 1.0 and later do not have: it names columns as a draft of FOCUS did.
const RULES_OF_A_DRAFT: [&str; 5] = [
    "InvoiceIssuer_Required",
    "Provider_Required",
    "Publisher_Required",
    "ResourceID_Required",
    "SkuPriceId_Nullable",
];

#[test]
fn the_validator_of_the_finops_foundation_accepts_the_rows() {
    let Some(mut python) = python(VALIDATOR) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("focus.csv");
    fs::write(&path, csv()).unwrap();
    let output = python
        .args(["-m", "focus_validator.main", "--validate-version", "1.0", "--data-file"])
        .arg(&path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let failed: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_suffix(" failed:")).collect();
    assert!(text.contains("Validation"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(failed, RULES_OF_A_DRAFT.into_iter().collect(), "{text}");
}
