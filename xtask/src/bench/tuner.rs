//! Runs the tuner against simulated functions in simulated time. The simulator is a program of its own, because it contains
//! the collector.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use tailor_test_kit::workspace;

/// Options of `cargo xtask bench tuner`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Number of functions.
    #[arg(long, default_value_t = 1_000)]
    functions: usize,
    /// Days.
    #[arg(long, default_value_t = 90)]
    days: u64,
    /// Seed of all random numbers.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Also write the report as JSON to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs the simulation.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let mut command = workspace::cargo_command()?;
    command.args(["run", "--release", "--quiet", "-p", "tailor-simulator", "--"]);
    for (name, value) in [
        ("--functions", options.functions.to_string()),
        ("--days", options.days.to_string()),
        ("--seed", options.seed.to_string()),
    ] {
        command.args([name, &value]);
    }
    if let Some(file) = &options.json {
        let file = std::path::absolute(file).context("cannot find the working directory")?;
        command.arg("--json").arg(file);
    }
    workspace::run_cargo(&mut command).context("the benchmark failed")?;
    Ok(ExitCode::SUCCESS)
}
