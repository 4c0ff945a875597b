//! Benchmarks over the real binaries: what the extension costs, and how well sizes are predicted.

use std::process::ExitCode;

use anyhow::Result;

mod delivery;
mod extension;
mod sizing;
mod start;

/// A benchmark.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Bench {
    /// Billed duration with and without the extension, and what it uses itself.
    Extension(extension::Options),
    /// How well every size is predicted from any single one, from the extension's own telemetry.
    Sizing(sizing::Options),
}

impl Bench {
    /// Runs it.
    pub(crate) fn run(&self) -> Result<ExitCode> {
        match self {
            Self::Extension(options) => extension::run(options),
            Self::Sizing(options) => sizing::run(options),
        }
    }
}
