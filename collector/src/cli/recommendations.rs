//! `tailor import power-tuning` and `tailor import compute-optimizer`.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::import::create_folder;
use crate::clock::now_us;
use crate::files::read_text;
use crate::recommendations::{Entry, Recommendations, compute_optimizer, power_tuning};
use crate::store::{FunctionKey, Tenant};

#[derive(Debug, Args)]
pub(super) struct PowerTuningArgs {
    /// File with the output of Power Tuning or of `tailor tune`: JSON with `power`, `cost` and `duration`.
    file: PathBuf,
    /// Name of the function, which the output does not have.
    #[arg(long)]
    function: String,
    /// AWS region of the function; every region when absent.
    #[arg(long, default_value = "")]
    region: String,
    /// AWS account of the function; every account when absent.
    #[arg(long, default_value = "")]
    account: String,
    #[command(flatten)]
    to: Destination,
}

#[derive(Debug, Args)]
pub(super) struct ComputeOptimizerArgs {
    /// File with the export of Lambda recommendations (CSV).
    file: PathBuf,
    #[command(flatten)]
    to: Destination,
}

#[derive(Debug, Args)]
struct Destination {
    /// Folder for the data. It is created when it does not exist. A collector may be running with it.
    #[arg(long, env = "TAILOR_DATA", default_value = "tailor-data")]
    data: PathBuf,
    /// Tenant of the functions.
    #[arg(long, default_value = "default", value_parser = super::keys::tenant)]
    tenant: String,
}

pub(super) fn power_tuning(args: &PowerTuningArgs) -> anyhow::Result<ExitCode> {
    let text = read_text(&args.file).with_context(|| format!("cannot read {}", args.file.display()))?;
    let recommendation = power_tuning::read(&text, "", now_us())
        .with_context(|| format!("cannot import {}", args.file.display()))?;
    let function = FunctionKey {
        account: args.account.clone(),
        region: args.region.clone(),
        name: args.function.clone(),
    };
    let line = format!("{}: {}\n", function.name, recommendation.sentence());
    store(&args.to, vec![Entry { tenant: args.to.tenant.clone(), function, recommendation }], &line)
}

pub(super) fn compute_optimizer(args: &ComputeOptimizerArgs) -> anyhow::Result<ExitCode> {
    let file = File::open(&args.file).with_context(|| format!("cannot open {}", args.file.display()))?;
    let export = compute_optimizer::read(file, &Tenant(args.to.tenant.clone()), now_us())
        .with_context(|| format!("cannot import {}", args.file.display()))?;
    let mut lines = format!("{} recommendations imported\n", export.entries.len());
    if export.without_recommendation > 0 {
        lines += &format!("functions without a recommendation: {}\n", export.without_recommendation);
    }
    let (malformed, example) = &export.malformed;
    if *malformed > 0 {
        lines += &format!("rows that cannot be read: {malformed}, such as {example}\n");
    }
    store(&args.to, export.entries, &lines)
}

fn store(to: &Destination, entries: Vec<Entry>, lines: &str) -> anyhow::Result<ExitCode> {
    create_folder(&to.data)?;
    Recommendations::of(&to.data).add(entries)?;
    let text = format!("{lines}`tailor function NAME` shows them beside the advice\n");
    // Without standard error it cannot be shown.
    let _ = std::io::stderr().write_all(text.as_bytes());
    Ok(ExitCode::SUCCESS)
}
