//! Project chores: `cargo xtask demo`, `cargo xtask test`, `cargo xtask layer`, `cargo xtask bench`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod demo;
mod layer;
mod test;

/// Chores of the Lambda Tailor project.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Run real functions in a local Lambda with the extension installed, and show what they cost.
    Demo(demo::Options),
    /// Prepare what the tests need, run them all, and name what this machine cannot run.
    Test(test::Options),
    /// Build the layer's zips for both architectures.
    Layer(layer::Options),
    /// Measure against a baseline in the same run.
    #[command(subcommand)]
    Bench(bench::Bench),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().chore {
        Chore::Demo(options) => demo::run(&options),
        Chore::Test(options) => test::run(&options),
        Chore::Layer(options) => layer::run(&options),
        Chore::Bench(bench) => bench.run(),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
