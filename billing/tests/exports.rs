//! Exports in every format, written by another program, damaged ones, and the sample data of the FinOps Foundation.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::{PYARROW, data, python};
use proptest::prelude::*;
use serde_json::Value;
use tailor_billing::bill::Bill;
use tailor_billing::read::Export;
use tailor_billing::{BillRow, ExportFormat, MeterKind, Problem, decimal, time};
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::pricing::prices::PriceTable;

fn read(path: &Path) -> (Export, Vec<BillRow>) {
    let (mut export, mut rows) = (Export::default(), vec![]);
    export.read(&[path], &mut |row| rows.push(row));
    (export, rows)
}

#[test]
fn every_format_of_another_program_gives_the_same_sums() {
    let Some(mut python) = python(PYARROW) else { return };
    let folder = tempfile::tempdir().unwrap();
    let output = python.arg(data().join("exports.py")).arg(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut sums = BTreeMap::new();
    for (key, value) in expected["sums"].as_object().unwrap() {
        let number = |index: usize| decimal::parse(value[index].as_str().unwrap()).unwrap();
        sums.insert(key.replace("EU-", ""), (number(0), number(1)));
    }
    let mut paths: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert_eq!(paths.len(), 10);
    for path in &paths {
        let (export, rows) = read(path);
        assert_eq!(export.problems, Default::default(), "{path:?}");
        let name = path.file_name().unwrap().to_str().unwrap();
        let format = match &name[..5] {
            "focus" if name.contains("12") => ExportFormat::Focus12,
            "focus" => ExportFormat::Focus10,
            _ => ExportFormat::Cur,
        };
        assert_eq!(export.counts.formats, [format], "{name}");
        assert_eq!(export.counts.rows, expected["rows"].as_u64().unwrap() + 1, "{name}");
        assert_eq!(rows.len() as u64, expected["rows"].as_u64().unwrap(), "{name}");
        let mut found: BTreeMap<String, (i128, i128)> = BTreeMap::new();
        for row in &rows {
            let usage = match row.what.meter.to_string().as_str() {
                "compute-x86_64" => "Lambda-GB-Second",
                "compute-arm64" => "Lambda-GB-Second-ARM",
                "requests" => "Request",
                _ => "Lambda-Storage-GB-Second",
            };
            let function = row.function.as_ref().unwrap();
            assert_eq!((function.account.as_str(), row.region.as_str()), ("123456789012", "eu-west-1"));
            let sum = found
                .entry(format!("{} {} {usage}", function.name, time::format_day(row.from_s)))
                .or_default();
            *sum = (sum.0 + row.quantity_pico, sum.1 + row.cost.0);
        }
        assert_eq!(found, sums, "{name}");
    }
    // The folder as a whole: each row counts once.
    let (mut export, mut bill) = (Export::default(), Bill::default());
    export.read(&[folder.path()], &mut |row| bill.add(&row));
    let rows = expected["rows"].as_u64().unwrap();
    assert_eq!((export.counts.lambda_rows, export.counts.repeated_rows), (10 * rows, 9 * rows));
    let billed: PicoDollars =
        bill.functions.values().flat_map(BTreeMap::values).map(|billed| billed.cost).sum();
    assert_eq!(billed.0, sums.values().map(|(_, cost)| cost).sum::<i128>());
}

/// The cost of each row is its quantity at our price, rounded to AWS's ten decimals.
#[test]
fn the_sample_data_of_the_finops_foundation_is_reproduced() {
    let (export, rows) = read(&data().join("focus-sample-lambda.csv"));
    assert_eq!(export.problems, Default::default());
    assert_eq!((export.counts.rows, rows.len()), (12, 9));
    assert_eq!(export.counts.formats, [ExportFormat::Focus10]);
    let prices = PriceTable::embedded();
    let mut reproduced = 0;
    for row in &rows {
        let architecture = row.what.meter.architecture.unwrap_or(tailor_sizing::units::Architecture::X86_64);
        let rates = prices.rates(&row.region, architecture).unwrap();
        let price = match row.what.meter.kind {
            MeterKind::Compute if row.what.is_provisioned => rates.provisioned.unwrap().duration_gb_second,
            MeterKind::Compute => rates.gb_second(),
            MeterKind::Requests => rates.request,
            MeterKind::DataTransfer => continue,
            other => panic!("{other:?}"),
        };
        let exact = row.quantity_pico * price.0 / decimal::PICO;
        assert_eq!((exact + 50) / 100 * 100, row.cost.0, "{row:?}");
        assert_eq!(row.list_cost, Some(row.cost));
        reproduced += 1;
    }
    assert_eq!(reproduced, 6, "four rows of compute and two of requests, three of data transfer");
    // The ARNs are anonymized: no function is invented from them.
    assert!(rows.iter().all(|row| row.function.is_none()));
}

fn one(text: &[u8]) -> (Export, Vec<BillRow>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("export.csv");
    fs::write(&path, text).unwrap();
    read(&path)
}

const HEADER: &str = "line_item_product_code,line_item_line_item_type,line_item_usage_start_date,line_item_usage_end_date,\
    line_item_resource_id,line_item_usage_type,line_item_usage_amount,line_item_unblended_cost,line_item_currency_code,\
    line_item_net_unblended_cost,savings_plan_savings_plan_effective_cost";

#[test]
fn rows_that_cannot_be_read_are_counted_by_kind_and_the_rest_is_read() {
    let day = "2026-11-03T00:00:00Z,2026-11-03T01:00:00Z";
    let text = format!(
        "\u{feff}{HEADER}\n\
         AWSLambda,Usage,{day},arn:aws:lambda:eu-west-1:1:function:a,Lambda-GB-Second,1,0.5,USD,0.4,\n\
         AWSLambda,SavingsPlanCoveredUsage,{day},arn:aws:lambda:eu-west-1:1:function:a,Lambda-GB-Second,1,0.5,USD,,0.3\n\
         AWSLambda,Usage,{day},x,Lambda-GB-Second,many,0.5,USD,,\n\
         AWSLambda,Usage,{day},x,Lambda-GB-Second,1,,USD,,\n\
         AWSLambda,Usage,yesterday,2026-11-03T01:00:00Z,x,Lambda-GB-Second,1,0.5,USD,,\n\
         AWSLambda,Usage,2026-11-03T01:00:00Z,2026-11-03T01:00:00Z,x,Lambda-GB-Second,1,0.5,USD,,\n\
         AWSLambda,Usage,{day},x,Lambda-GB-Second,1,0.5,EUR,,\n\
         AWSLambda,Usage\n\
         AmazonS3,Usage,never,never,,,,,,,\n"
    );
    let (export, rows) = one(text.as_bytes());
    let counts = [
        (Problem::InvalidNumber, 2),
        (Problem::InvalidTime, 2),
        (Problem::OtherCurrency, 1),
        (Problem::MalformedRow, 1),
    ];
    for (kind, count) in counts {
        assert_eq!(export.problems.count(kind), count, "{kind:?}");
    }
    let example = export.problems.iter().find(|(kind, ..)| *kind == Problem::InvalidNumber).unwrap().2;
    assert!(example.contains("row 4: Quantity is `many`"), "{example}");
    let costs: Vec<i128> = rows.iter().map(|row| row.cost.0).collect();
    assert_eq!(costs, [4 * decimal::PICO / 10, 3 * decimal::PICO / 10]);
    for (text, kind) in [("", Problem::UnknownFormat), ("a,b\n1,2\n", Problem::UnknownFormat)] {
        assert_eq!(one(text.as_bytes()).0.problems.count(kind), 1, "{text}");
    }
    let missing = read(Path::new("/no/such/file")).0;
    assert_eq!(missing.problems.count(Problem::UnreadableFile), 1);
}

/// A quoted text without an end is refused before the whole file is in memory.
#[test]
fn a_row_without_an_end_is_refused() {
    let mut text = format!("{HEADER}\n\"").into_bytes();
    text.resize(40 << 20, b'x');
    assert_eq!(one(&text).0.problems.count(Problem::UnreadableFile), 1);
}

/// Files of each format, for damage.
fn samples() -> Vec<Vec<u8>> {
    use tailor_billing::focus::{self, FocusRow};
    use tailor_billing::table::Encoding;
    use tailor_billing::{Function, Meter};
    let row = |hour: i64| FocusRow {
        function: Function::of_arn("arn:aws:lambda:eu-west-1:123456789012:function:pay").unwrap(),
        tags: BTreeMap::new(),
        from_s: hour * time::HOUR_S,
        until_s: (hour + 1) * time::HOUR_S,
        meter: Meter { kind: MeterKind::Requests, architecture: None },
        quantity_pico: 7 * decimal::PICO,
        unit_price: PicoDollars(200_000),
    };
    let write = |encoding| {
        let mut bytes = vec![];
        focus::write((490_000..490_030).map(row), encoding, &mut bytes).unwrap();
        bytes
    };
    let csv = write(Encoding::Csv);
    let mut gzip = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &csv).unwrap();
    vec![write(Encoding::Parquet), gzip.finish().unwrap(), zstd::encode_all(csv.as_slice(), 1).unwrap(), csv]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn damaged_files_are_read_as_far_as_possible(sample in 0usize..4, cut in 0.0f64..=1.0, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6)) {
        thread_local!(static SAMPLES: Vec<Vec<u8>> = samples());
        let mut bytes = SAMPLES.with(|samples| samples[sample].clone());
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a length")]
        bytes.truncate((bytes.len() as f64 * (1.0 - cut / 4.0)) as usize);
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        let (_, rows) = one(&bytes);
        prop_assert!(rows.len() <= 30);
    }
}
