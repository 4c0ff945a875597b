//! Runs the benchmark of the collector with a large fleet, which is a benchmark of its crate.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use tailor_test_kit::workspace;

/// Size and duration.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Write the results to this file as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Number of functions.
    #[arg(long, default_value_t = 10_000)]
    functions: u64,
    /// Seconds of load.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Batches per second; by default, one a minute of each environment.
    #[arg(long)]
    rate: Option<u64>,
    /// Another build of `tailor` to measure.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Measure one collector and three that share this database instead.
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// The same with a PostgreSQL server that is started for it.
    #[arg(long, conflicts_with = "database")]
    postgresql: bool,
}

pub(super) fn run(options: &Options) -> Result<ExitCode> {
    let mut command = workspace::cargo_command()?;
    let is_shared = options.postgresql || options.database.is_some();
    let bench = if is_shared { "database" } else { "collector" };
    command.args(["bench", "--quiet", "-p", "tailor-collector", "--bench", bench, "--"]);
    if let Some(url) = &options.database {
        command.args(["--database", url]);
    } else if !is_shared {
        command.args(["--functions", &options.functions.to_string()]);
        command.args(["--seconds", &options.seconds.to_string()]);
        if let Some(rate) = options.rate {
            command.args(["--rate", &rate.to_string()]);
        }
    }
    if let (Some(binary), false) = (&options.binary, is_shared) {
        command
            .arg("--binary")
            .arg(std::path::absolute(binary).context("cannot find the working directory")?);
    }
    if let Some(json) = &options.json {
        let json = std::path::absolute(json).context("cannot find the working directory")?;
        command.arg("--json").arg(json);
    }
    workspace::run_cargo(&mut command).context("the benchmark failed")?;
    Ok(ExitCode::SUCCESS)
}
