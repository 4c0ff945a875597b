//! Many invocations written to an archive while the collector is killed, and read back by DuckDB.

use std::process::ExitCode;

use anyhow::{Context, Result};
use tailor_test_kit::workspace;

/// Options of `cargo xtask bench archive`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Number of invocations.
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(20_000..))]
    invocations: u64,
    /// How often the collector is killed on the way.
    #[arg(long, default_value_t = 10)]
    kills: u64,
}

pub(super) fn run(options: &Options) -> Result<ExitCode> {
    let mut command = workspace::cargo_command()?;
    command.args(["bench", "--quiet", "-p", "tailor-collector", "--bench", "archive", "--"]);
    command.args(["--invocations", &options.invocations.to_string(), "--kills", &options.kills.to_string()]);
    workspace::run_cargo(&mut command).context("the benchmark failed")?;
    Ok(ExitCode::SUCCESS)
}
