//! `tailor export`: measured usage in the formats that others read.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use tailor_billing::table::Encoding;

use super::arguments::WindowArgs;
use super::database::{Opened, ReadArgs, TagArgs};
use super::runtime;
use super::streams::is_closed_pipe;
use crate::clock::now_us;
use crate::export::{self, Granularity, Source};
use crate::query;
use crate::store::{HOUR_US, Window};

#[derive(Debug, Subcommand)]
pub(super) enum ExportCommand {
    /// FOCUS 1.2 rows with the column names of AWS's export, per function, meter and day or hour.
    Focus {
        /// Write Parquet in place of CSV.
        #[arg(long)]
        parquet: bool,
        #[command(flatten)]
        args: ExportArgs,
    },
    /// A usage file of Infracost (YAML): requests and billed duration of each function in a month. The tag `terraform_resource`
    /// of a function is its name in Terraform.
    Infracost(ExportArgs),
    /// All measurements as CSV: one row per function, version, memory size and day or hour.
    Csv(ExportArgs),
    /// All measurements as Parquet: one row per function, version, memory size and day or hour.
    Parquet(ExportArgs),
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// File to write; standard output when absent.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    window: WindowArgs,
    /// Length of the time that one row covers.
    #[arg(long, value_enum, default_value_t)]
    granularity: Granularity,
    #[command(flatten)]
    tags: TagArgs,
    #[command(flatten)]
    read: ReadArgs,
}

impl ExportArgs {
    fn open(&self, is_binary: bool) -> anyhow::Result<Box<dyn Write + Send>> {
        match &self.output {
            Some(path) => {
                let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
                Ok(Box::new(io::BufWriter::new(file)))
            }
            None if is_binary && io::stdout().is_terminal() => {
                bail!("Parquet is not text: name a file with --output, or redirect the output")
            }
            None => Ok(Box::new(io::BufWriter::new(io::stdout()))),
        }
    }
}

impl ExportCommand {
    fn args(&self) -> &ExportArgs {
        match self {
            Self::Focus { args, .. } | Self::Infracost(args) | Self::Csv(args) | Self::Parquet(args) => args,
        }
    }
}

pub(super) fn run(command: &ExportCommand) -> anyhow::Result<ExitCode> {
    match export(command) {
        Err(error) if command.args().output.is_none() && is_closed_pipe(&error) => Ok(ExitCode::SUCCESS),
        other => other,
    }
}

fn export(command: &ExportCommand) -> anyhow::Result<ExitCode> {
    let args = command.args();
    let Opened { store, tenant, prices } = args.read.open()?;
    let tags = args.tags.read()?.unwrap_or_default();
    let now_us = now_us();
    let from = query::last_hours(now_us, args.window.hours());
    let window = Window { until_hour: now_us.div_ceil(HOUR_US), ..from };
    let source = Source { store: store.as_ref(), tenant: &tenant, window, prices: &prices, tags: &tags };
    let runtime = runtime::single_threaded()?;
    match command {
        ExportCommand::Focus { parquet, .. } => {
            let encoding = if *parquet { Encoding::Parquet } else { Encoding::Csv };
            let output = args.open(*parquet)?;
            let without_price =
                runtime.block_on(export::focus(source, args.granularity, encoding, output))?;
            if without_price > 0 {
                tracing::warn!(
                    "{without_price} functions are left out, because no price is known: use --prices FILE"
                );
            }
        }
        ExportCommand::Infracost(_) => {
            let text = runtime.block_on(export::infracost(source))?;
            let mut output = args.open(false)?;
            output
                .write_all(text.as_bytes())
                .and_then(|()| output.flush())
                .context("cannot write the output")?;
        }
        ExportCommand::Csv(_) => {
            let output = args.open(false)?;
            runtime.block_on(export::rollups(source, args.granularity, Encoding::Csv, output))?;
        }
        ExportCommand::Parquet(_) => {
            let output = args.open(true)?;
            runtime.block_on(export::rollups(source, args.granularity, Encoding::Parquet, output))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
