//! Benchmarks of the real programs: the cost of the extension, the accuracy of the predictions, a collector with a
//! large fleet, the archive, the rate of an import and of a reconciliation, and the tuner in simulated time.

use std::process::ExitCode;

use anyhow::Result;

mod archive;
mod collector;
mod delivery;
mod extension;
mod import;
mod measured;
mod reconcile;
mod sizing;
mod start;
mod tuner;

/// A benchmark.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Bench {
    /// Write many invocations to an archive in an S3 server, kill the collector on the way, and read them with DuckDB.
    Archive(archive::Options),
    /// Measure a collector with a large fleet: lists and pages while batches arrive, memory, start and acknowledgements.
    Collector(collector::Options),
    /// Measure the billed duration with and without the extension, and the extension's own resource usage.
    Extension(extension::Options),
    /// Measure the rate of `tailor import logs` beside a search for `REPORT` with ripgrep in the same file, and its memory with
    /// two sizes of logs.
    Import(import::Options),
    /// Measure the rate and the memory of `tailor reconcile` with two sizes of exports.
    Reconcile(reconcile::Options),
    /// Run the tuner against simulated functions in simulated time, and compare it with other ways to set sizes.
    Tuner(tuner::Options),
    /// Measure how accurately each memory size is predicted from one other size, with the extension's telemetry.
    Sizing(sizing::Options),
}

impl Bench {
    /// Runs the benchmark.
    pub(crate) fn run(&self) -> Result<ExitCode> {
        match self {
            Self::Archive(options) => archive::run(options),
            Self::Collector(options) => collector::run(options),
            Self::Extension(options) => extension::run(options),
            Self::Import(options) => import::run(options),
            Self::Reconcile(options) => reconcile::run(options),
            Self::Sizing(options) => sizing::run(options),
            Self::Tuner(options) => tuner::run(options),
        }
    }
}
