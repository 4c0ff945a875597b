//! Development tasks: `cargo xtask demo`, `cargo xtask test`, `cargo xtask layer`, `cargo xtask crash`,
//! `cargo xtask bench`, `cargo xtask truth`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod crash;
mod demo;
mod fuzz;
mod layer;
mod package;
mod test;
mod truth;

/// Development tasks of Lambda Tailor.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run example functions in the sandbox with the extension, and show their cost and advice.
    Demo(demo::Options),
    /// Build what the tests need, run all tests, and list what this machine cannot test.
    Test(test::Options),
    /// Build the layer's zips for both architectures.
    Layer(layer::Options),
    /// Build the collector as a static program, with the contents of its image and its Lambda function.
    Package(package::Options),
    /// Write the licences of the packages that are linked into what is shipped.
    Licenses(layer::licenses::Options),
    /// Fuzz the decoders that read bytes from outside, each for a given time.
    Fuzz(fuzz::Options),
    /// Run the crash tests of the embedded store with many repetitions: power failures, full disks, kills and flipped bits.
    Crash(crash::Options),
    /// Measure the corpus of functions that predictions are fitted and scored on.
    Truth(truth::Options),
    /// Run a benchmark against a baseline in the same run.
    #[command(subcommand)]
    Bench(bench::Bench),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Demo(options) => demo::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Layer(options) => layer::run(&options),
        Task::Package(options) => package::run(&options),
        Task::Licenses(options) => layer::licenses::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Crash(options) => crash::run(&options),
        Task::Truth(options) => truth::run(&options),
        Task::Bench(bench) => bench.run(),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
