//! `cargo xtask bench tuner`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use tailor_collector::tuner::limits::OpenChanges;
use tailor_simulator::{Simulation, run};

/// Runs the tuner against simulated functions in simulated time.
#[derive(Debug, Parser)]
struct Options {
    /// Number of functions.
    #[arg(long, default_value_t = 1_000)]
    functions: usize,
    /// Days.
    #[arg(long, default_value_t = 90)]
    days: u64,
    /// Seed of all random numbers.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Largest number of open changes, in place of the tuner's default.
    #[arg(long)]
    max_open: Option<usize>,
    /// Largest number of changes of one function in 30 days, in place of the tuner's default.
    #[arg(long)]
    max_changes: Option<usize>,
    /// Also write the report as JSON to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let mut simulation = Simulation::new(options.functions, options.days, options.seed);
    if let Some(most) = options.max_open {
        simulation.limits.open_changes = OpenChanges::fixed(most);
    }
    if let Some(most) = options.max_changes {
        simulation.limits.max_changes_per_month = most;
    }
    let report = run(&simulation)?;
    print!("{}", report.text());
    if let Some(file) = &options.json {
        let json = serde_json::to_string_pretty(&report)? + "\n";
        std::fs::write(file, json).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}
