//! The export of AWS Compute Optimizer for Lambda functions: a CSV file with the columns that its user selected.
//!
//! The names of the columns are from "Exported files" in the user guide of AWS Compute Optimizer; `tests/data/compute-optimizer.csv`
//! has all of them, in the order of a whole export. Only the first of the ranked
//! options is read, which is the recommended one. Other columns are ignored.

use std::io::Read;

use anyhow::{Context, bail};
use tailor_sizing::units::Megabytes;

use super::{Entry, Recommendation, Tool, dollars};
use crate::store::{FunctionKey, Tenant};
use crate::tags::file::key_of;

/// The columns that are read.
#[derive(Debug, Clone, Copy)]
enum Column {
    Arn,
    Version,
    Finding,
    Current,
    Memory,
    Duration,
    Saving,
    Currency,
    MadeAt,
    ErrorCode,
}

/// All of them with their names in the file.
const COLUMNS: [(Column, &str); 10] = [
    (Column::Arn, "functionArn"),
    (Column::Version, "functionVersion"),
    (Column::Finding, "finding"),
    (Column::Current, "currentConfiguration_memorySize"),
    (Column::Memory, "recommendationOptions_1_configuration_memorySize"),
    (Column::Duration, "recommendationOptions_1_projectedUtilizationMetrics_durationExpected"),
    (Column::Saving, "recommendationOptions_1_estimatedMonthlySavings_value"),
    (Column::Currency, "recommendationOptions_1_estimatedMonthlySavings_currency"),
    (Column::MadeAt, "lastRefreshTimestamp_UTC"),
    (Column::ErrorCode, "errorCode"),
];

/// What an export has.
#[derive(Debug, Default)]
pub struct Export {
    /// Its recommendations.
    pub entries: Vec<Entry>,
    /// Rows of functions without a recommendation, because Compute Optimizer wrote an error.
    pub without_recommendation: u64,
    /// Rows that cannot be read, and why the first of them cannot.
    pub malformed: (u64, String),
}

/// Reads an export.
///
/// # Errors
/// When the file cannot be read or is not an export for Lambda functions.
pub fn read(input: impl Read, tenant: &Tenant, imported_at_us: u64) -> anyhow::Result<Export> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(input);
    let headers = reader.headers().context("cannot read the header")?.clone();
    // The first name can follow a byte order mark.
    let is_named =
        |header: &str, name: &str| header.trim_start_matches('\u{feff}').eq_ignore_ascii_case(name);
    let positions = COLUMNS.map(|(_, name)| headers.iter().position(|header| is_named(header, name)));
    for needed in [Column::Arn, Column::Memory] {
        if positions[needed as usize].is_none() {
            bail!(
                "this is not an export of AWS Compute Optimizer for Lambda functions: it has no column `{}`. Select the \
                 columns of the function and of the recommendation options when you export",
                COLUMNS[needed as usize].1
            );
        }
    }
    let mut export = Export::default();
    for (index, record) in reader.records().enumerate() {
        let record = match record {
            Ok(record) => record,
            Err(error) if error.is_io_error() => return Err(error).context("cannot read the file"),
            Err(error) => {
                export.add_malformed(format!("row {}: {error}", index + 1));
                continue;
            }
        };
        let cell = |column: Column| {
            positions[column as usize].and_then(|at| record.get(at)).unwrap_or_default().trim()
        };
        // Too few invocations, or an error of Compute Optimizer.
        let is_unavailable = cell(Column::Finding).eq_ignore_ascii_case("unavailable");
        if is_unavailable || !cell(Column::ErrorCode).is_empty() {
            export.without_recommendation += 1;
            continue;
        }
        match entry(&cell, tenant, imported_at_us) {
            Ok(entry) => export.entries.push(entry),
            Err(error) => export.add_malformed(format!("row {}: {error}", index + 1)),
        }
    }
    Ok(export)
}

impl Export {
    fn add_malformed(&mut self, reason: String) {
        if self.malformed.0 == 0 {
            self.malformed.1 = reason;
        }
        self.malformed.0 += 1;
    }
}

fn entry<'a>(
    cell: &impl Fn(Column) -> &'a str,
    tenant: &Tenant,
    imported_at_us: u64,
) -> Result<Entry, String> {
    let arn = cell(Column::Arn);
    let function: FunctionKey = key_of(arn).ok_or_else(|| format!("`{arn}` is not the ARN of a function"))?;
    let version = match cell(Column::Version) {
        "" => arn.split(':').nth(7).unwrap_or_default(),
        version => version,
    };
    let saving = match cell(Column::Currency) {
        "" | "USD" => number(cell(Column::Saving))?.and_then(|saving| dollars(saving, 1.0)),
        _ => None,
    };
    let recommendation = Recommendation {
        tool: Tool::ComputeOptimizer,
        version: version.to_owned(),
        memory: memory(cell(Column::Memory))?,
        current: memory(cell(Column::Current))?,
        duration_ms: number(cell(Column::Duration))?,
        cost_per_million_pico_usd: None,
        monthly_saving_pico_usd: saving,
        finding: cell(Column::Finding).to_owned(),
        made_at: cell(Column::MadeAt).to_owned(),
        imported_at_us,
        sizes: Vec::new(),
    };
    Ok(Entry { tenant: tenant.0.clone(), function, recommendation })
}

fn number(text: &str) -> Result<Option<f64>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse::<f64>() {
        // What Compute Optimizer could not compute.
        Ok(number) => Ok(Some(number).filter(|number| number.is_finite())),
        Err(_) => Err(format!("`{text}` is not a number")),
    }
}

fn memory(text: &str) -> Result<Option<Megabytes>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    // Programs that join exports write whole numbers as `128.0`.
    let whole = text.split_once('.').filter(|(_, rest)| rest.bytes().all(|digit| digit == b'0'));
    whole
        .map_or(text, |(whole, _)| whole)
        .parse()
        .map(|memory| Some(Megabytes(memory)))
        .map_err(|_| format!("`{text}` is not a memory size in MB"))
}

#[cfg(test)]
mod tests {
    use tailor_sizing::pricing::money::PicoDollars;

    use super::*;

    #[test]
    fn a_whole_export_is_read() {
        let file = include_bytes!("../../tests/data/compute-optimizer.csv");
        let export = read(&file[..], &Tenant::default(), 9).unwrap();
        assert_eq!((export.without_recommendation, export.malformed.0), (1, 0), "{}", export.malformed.1);
        let [pay, version, slow] = export.entries.as_slice() else { panic!("{export:?}") };
        let [pay, slow] = [pay, slow].map(|entry| &entry.recommendation);
        assert_eq!((pay.memory, pay.current), (Some(Megabytes(848)), Some(Megabytes(1024))));
        assert_eq!(pay.duration_ms, Some(655.125));
        assert_eq!(pay.monthly_saving_pico_usd, Some(PicoDollars(4_350_000_000_000)));
        assert_eq!((version.function.name.as_str(), version.recommendation.version.as_str()), ("pay", "7"));
        assert_eq!((version.recommendation.memory, slow.memory), (None, Some(Megabytes(256))));
        // Neither a duration that is not a number nor a saving in another currency is used.
        assert_eq!((slow.duration_ms, slow.monthly_saving_pico_usd), (None, None));
    }

    #[test]
    fn rows_of_every_kind_are_read_or_counted() {
        let export = "\u{feff}accountId,functionArn,functionVersion,finding,currentConfiguration_memorySize,recommendations_count,\
            recommendationOptions_1_configuration_memorySize,recommendationOptions_1_estimatedMonthlySavings_value,\
            recommendationOptions_1_estimatedMonthlySavings_currency,errorCode,lastRefreshTimestamp_UTC\n\
            123456789012,arn:aws:lambda:eu-west-1:123456789012:function:pay:$LATEST,$LATEST,NotOptimized,1024,1,848,\
            2.988E-04,USD,,2026-11-02 10:00:00\n\
            123456789012,arn:aws:lambda:eu-west-1:123456789012:function:auth:7,,Optimized,128,0,,,,,\n\
            123456789012,arn:aws:lambda:eu-west-1:123456789012:function:new:$LATEST,,,,0,,,,INSUFFICIENT_DATA,\n\
            123456789012,arn:aws:ec2:eu-west-1:123456789012:instance/i-1,,,,0,,,,,\n\
            123456789012,arn:aws:lambda:eu-west-1:123456789012:function:odd,,,,1,many,,,,\n";
        let export = read(export.as_bytes(), &Tenant::default(), 9).unwrap();
        assert_eq!(export.without_recommendation, 1);
        assert_eq!(export.malformed.0, 2);
        assert!(export.malformed.1.starts_with("row 4: "), "{}", export.malformed.1);
        let [pay, auth] = export.entries.as_slice() else { panic!("{export:?}") };
        assert_eq!((pay.function.name.as_str(), pay.function.region.as_str()), ("pay", "eu-west-1"));
        let pay = &pay.recommendation;
        assert_eq!((pay.memory, pay.current), (Some(Megabytes(848)), Some(Megabytes(1024))));
        assert_eq!(pay.monthly_saving_pico_usd, Some(PicoDollars(298_800_000)));
        assert_eq!(
            pay.sentence(),
            "AWS Compute Optimizer recommends 1024 MB → 848 MB for version $LATEST (estimated saving $0.000299 a month, \
             finding NotOptimized, made at 2026-11-02 10:00:00)"
        );
        assert_eq!((auth.recommendation.memory, auth.recommendation.version.as_str()), (None, "7"));
        assert!(read("a,b\n1,2\n".as_bytes(), &Tenant::default(), 0).is_err());
    }
}
