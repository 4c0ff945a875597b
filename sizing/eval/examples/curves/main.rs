//! Scores predictions on published measurements of real AWS Lambda functions.
//!
//! `curves DIR`, where DIR is `sizing/eval/data/aws-curves`. Prints the errors of predictions from the durations of two and
//! three sizes, beside straight lines in the logarithms and `a + b/m`; the errors of predictions of functions that only
//! compute from one size; and which timer tick explains the throttling.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use tailor_sizing::model::cfs_simulation::Kernel;
use tailor_sizing::units::Megabytes;
use tailor_sizing_eval::curves::{self, Set, blind, replay};
use tailor_sizing_eval::throttling::Iterations;

/// Choices of the observed sizes that are scored for each curve.
const CHOICES: usize = 28;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("curves: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let folder = std::env::args().nth(1).context("usage: curves DIR")?;
    let folder: &Path = folder.as_ref();
    let sets = curves::read(folder)?;
    report_computing(&sets);
    println!("\nlogarithm of the likelihood of measured throttling");
    let iterations = Iterations::read(folder)?;
    println!("high-resolution {:.0}", iterations.log_likelihood(Kernel::HighResolution, 1.0));
    for tick_ms in [1.0, 2.0, 3.0, 4.0, 6.0, 10.0] {
        println!("tick of {tick_ms} ms {:.0}", iterations.log_likelihood(Kernel::TickBased, tick_ms));
    }
    println!("\nmean absolute error in percent from durations only; each curve counts once\n");
    println!("| set | curves | observed | model | lines | a + b/m |\n|---|---|---|---|---|---|");
    for set in &sets {
        for observed in [2, 3] {
            let score = blind(set, observed, CHOICES);
            println!(
                "| {} | {} | {observed} | {:.1} | {:.1} | {:.1} |",
                set.name,
                set.curves.len(),
                score.model,
                score.lines,
                score.hyperbola
            );
        }
    }
    Ok(())
}

fn report_computing(sets: &[Set]) {
    println!("mean absolute error in percent of functions that only compute, from one size\n");
    println!("| set | curves | 128 MB | 256 MB | 512 MB | 1,024 MB |\n|---|---|---|---|---|---|");
    for set in sets.iter().filter(|set| set.only_computes()) {
        let errors = [128, 256, 512, 1_024].map(|base| {
            replay(&set.curves, Megabytes(base)).map_or_else(|| "-".to_owned(), |error| format!("{error:.1}"))
        });
        println!("| {} | {} | {} |", set.name, set.curves.len(), errors.join(" | "));
    }
}
