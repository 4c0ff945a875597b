//! The constants of [`EmbeddedRates`] are the prices of `data/prices.json`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write;
use std::fs;
use std::path::Path;

use tailor_sizing::pricing::embedded_rates::EmbeddedRates;
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::pricing::prices::{PriceTable, RateTable, Rates};
use tailor_sizing::units::Architecture;

const ARCHITECTURES: [Architecture; 2] = [Architecture::X86_64, Architecture::Arm64];

/// The file with the constants.
const FILE: &str = "src/pricing/embedded_rates/constants.rs";

/// `UPDATE=1` overwrites the file in place of the comparison.
const UPDATE: &str = "UPDATE";

#[test]
fn the_constants_are_the_prices_of_the_table() {
    let table = PriceTable::embedded();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let constants = constants(&table);
    if std::env::var_os(UPDATE).is_some() {
        fs::write(file, constants).unwrap();
        return;
    }
    assert!(
        fs::read_to_string(file).unwrap() == constants,
        "{FILE} does not have the prices of data/prices.json: run the test with {UPDATE}=1"
    );
    for region in table.regions().chain(["mars-north-1", ""]) {
        for architecture in ARCHITECTURES {
            assert_eq!(
                EmbeddedRates.rates(region, architecture),
                table.rates(region, architecture),
                "{region} {architecture}"
            );
        }
    }
}

/// The text of the file.
fn constants(table: &PriceTable) -> String {
    let regions: Vec<&str> = table.regions().collect();
    let mut text = format!(
        "//! The constants, which the test `the_constants_are_the_prices_of_the_table` writes. Do not change them by hand.\n\n\
         use super::{{Compute, Provisioned, Region, SnapStart}};\n\n\
         /// The date of the table.\n\
         pub(super) const COMPILED: &str = {:?};\n\n\
         /// The prices by region, in alphabetical order.\n\
         #[rustfmt::skip]\n\
         pub(super) static REGIONS: [Region; {}] = [\n",
        table.compiled(),
        regions.len()
    );
    for region in regions {
        let [x86_64, arm64] = ARCHITECTURES.map(|architecture| table.rates(region, architecture).ok());
        let Some(rates) = x86_64.as_ref().or(arm64.as_ref()) else { continue };
        let snap_start = rates.snap_start.map(|rates| {
            format!(
                "SnapStart {{ cache: {}, restore: {} }}",
                number(rates.cache_gb_second),
                number(rates.restore_gb)
            )
        });
        writeln!(
            text,
            "    Region {{\n        name: {region:?},\n        x86_64: {},\n        arm64: {},\n        request: {},\n        \
             storage_gb_second: {},\n        snap_start: {},\n        source: ({:?}, {:?}),\n    }},",
            option(x86_64.as_ref().map(compute)),
            option(arm64.as_ref().map(compute)),
            number(rates.request),
            option(rates.storage_gb_second.map(number)),
            option(snap_start),
            rates.source.name,
            rates.source.date,
        )
        .unwrap();
    }
    text + "];\n"
}

fn compute(rates: &Rates) -> String {
    let tiers: Vec<String> = rates
        .tiers()
        .iter()
        .map(|tier| format!("({}, {})", grouped(tier.from_gb_seconds), number(tier.gb_second)))
        .collect();
    let provisioned = rates.provisioned.map(|rates| {
        format!(
            "Provisioned {{ idle: {}, duration: {} }}",
            number(rates.idle_gb_second),
            number(rates.duration_gb_second)
        )
    });
    format!(
        "Compute {{ tiers: &[{}], provisioned: {}, derived: {} }}",
        tiers.join(", "),
        option(provisioned),
        rates.derived
    )
}

fn option(value: Option<String>) -> String {
    value.map_or_else(|| "None".to_owned(), |value| format!("Some({value})"))
}

fn number(price: PicoDollars) -> String {
    grouped(u64::try_from(price.0).unwrap())
}

/// A number with separators of thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('_');
        }
        text.push(digit);
    }
    text
}
