//! The rate and the memory of a reconciliation with exports of different sizes.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use super::measured::{self, Measured};

/// Functions and days of every export. They are what a reconciliation needs memory for.
const FUNCTIONS: u64 = 900;
const DAYS: u64 = 31;
const HOURS: u64 = 24;

/// Usage type, description, quantity with nine decimals, and cost with ten.
const METERS: [[&str; 4]; 3] = [
    [
        "EU-Lambda-GB-Second",
        "AWS Lambda - Total Compute - EU (Ireland)-Tier-1",
        "1234.500000000",
        "0.0205750412",
    ],
    ["EU-Request", "AWS Lambda - Total Requests - EU (Ireland)", "5000.000000000", "0.0010000000"],
    [
        "EU-Lambda-Storage-GB-Second",
        "AWS Lambda - Ephemeral Storage - EU (Ireland)",
        "800.000000000",
        "0.0000272000",
    ],
];

/// The header of CUR 2.0 with the columns that are read, and some that are not.
const HEADER: &str = "identity_line_item_id,bill_payer_account_id,line_item_line_item_type,line_item_usage_start_date,\
    line_item_usage_end_date,line_item_product_code,line_item_usage_type,line_item_operation,line_item_resource_id,\
    line_item_usage_amount,line_item_unblended_cost,line_item_currency_code,line_item_line_item_description,\
    line_item_usage_account_id,product_region_code,pricing_public_on_demand_cost";

/// A log, so that the data folder has a store.
const LOG: &str = "2026-10-01T00:00:00.000Z REPORT RequestId: 11111111-2222-4333-8444-000000000001\tDuration: 100.00 ms\t\
    Billed Duration: 100 ms\tMemory Size: 128 MB\tMax Memory Used: 60 MB\n";

/// Options of `cargo xtask bench reconcile`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Rows of each export, the smallest first.
    #[arg(long, value_delimiter = ',', default_value = "500000,2000000")]
    rows: Vec<u64>,
    /// A `tailor` that is measured in place of a release build of this source.
    #[arg(long)]
    binary: Option<PathBuf>,
}

/// Generates exports with the same functions and days, and reconciles each.
pub(super) fn run(options: &Options) -> Result<ExitCode> {
    let most = FUNCTIONS * DAYS * HOURS * METERS.len() as u64;
    ensure!(
        options.rows.iter().all(|rows| (1..=most).contains(rows)),
        "an export has 1 to {most} rows: {FUNCTIONS} functions, {DAYS} days, hourly, {} meters",
        METERS.len()
    );
    let tailor = measured::tailor(options.binary.as_deref())?;
    measured::in_folder("bench-reconcile", |folder| measure(options, &tailor, folder))?;
    Ok(ExitCode::SUCCESS)
}

fn measure(options: &Options, tailor: &Path, folder: &Path) -> Result<()> {
    let (log, data) = (folder.join("log"), folder.join("data"));
    fs::write(&log, LOG)?;
    let mut import = Command::new(tailor);
    import.args(["import", "logs", "--function", "function-0", "--region", "eu-west-1", "--data"]);
    measured::run(import.arg(&data).arg(&log))?;
    let mut first: Option<Measured> = None;
    for rows in &options.rows {
        let export = folder.join("export.csv");
        let bytes = generate(&export, *rows)?;
        let mut command = Command::new(tailor);
        command.args(["reconcile", "--format", "csv", "--data"]).arg(&data).arg(&export);
        let measured = measured::run(&mut command)?;
        let Measured { wall_s, cpu_s, peak_mb } = measured;
        let first = first.get_or_insert(measured);
        println!(
            "{rows} rows, {:.0} MB: {wall_s:.2} s, {:.0} MB/s, CPU time {cpu_s:.2} s, memory {peak_mb:.0} MB; {:.2} times \
             the memory of the first",
            bytes as f64 / 1e6,
            bytes as f64 / 1e6 / wall_s,
            peak_mb / first.peak_mb.max(1.0)
        );
    }
    Ok(())
}

/// Writes an export, and returns its size. The hours of a day come last, so that more rows have the same functions and days.
fn generate(path: &Path, rows: u64) -> Result<u64> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let mut export = BufWriter::new(file);
    writeln!(export, "{HEADER}")?;
    for (row, [usage_type, description, quantity, cost]) in (0..rows).zip(METERS.into_iter().cycle()) {
        let function = row / METERS.len() as u64 % FUNCTIONS;
        let day = row / (METERS.len() as u64 * FUNCTIONS) % DAYS;
        let hour = row / (METERS.len() as u64 * FUNCTIONS * DAYS);
        let (end_day, end_hour) = if hour + 1 == HOURS { (day + 1, 0) } else { (day, hour + 1) };
        // The 31st of October ends on the 1st of November.
        let time = |day: u64, hour: u64| match day {
            DAYS => format!("2026-11-01T{hour:02}:00:00.000Z"),
            day => format!("2026-10-{:02}T{hour:02}:00:00.000Z", day + 1),
        };
        writeln!(
            export,
            "id-{row:012},999999999999,Usage,{},{},AWSLambda,{usage_type},Invoke,\
             arn:aws:lambda:eu-west-1:123456789012:function:function-{function},{quantity},{cost},USD,\"{description}\",\
             123456789012,eu-west-1,{cost}",
            time(day, hour),
            time(end_day, end_hour)
        )?;
    }
    export.flush()?;
    Ok(fs::metadata(path)?.len())
}
