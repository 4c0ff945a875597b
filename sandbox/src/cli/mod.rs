//! The command line.

mod common;
mod curve;
mod invoke;
mod power;
mod serve;

use clap::{Parser, Subcommand};

use std::path::PathBuf;

use crate::faults;
use crate::supervisor::{launch, server};

/// A local AWS Lambda: real processes, limits, freezing, extensions and telemetry.
#[derive(Debug, Parser)]
#[command(name = "lambda-sandbox", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the Lambda API for the functions in folders, until SIGINT or SIGTERM.
    Serve(serve::Serve),
    /// Invoke one function and print its responses.
    Invoke(invoke::Invoke),
    /// Invoke one function at several memory sizes and print the measurements.
    Power(power::Power),
    #[command(name = launch::SUBCOMMAND, hide = true)]
    Launch,
    #[command(name = server::SUBCOMMAND, hide = true)]
    Supervise,
    #[command(name = faults::SUBCOMMAND, hide = true)]
    Neighbour { entrances: Vec<PathBuf> },
}

impl Cli {
    /// Runs the command and returns the exit code.
    pub fn run(self) -> anyhow::Result<i32> {
        match self.command {
            Command::Serve(serve) => runtime()?.block_on(serve.run()).map(|()| 0),
            Command::Invoke(invoke) => runtime()?.block_on(invoke.run()),
            Command::Power(power) => runtime()?.block_on(power.run()),
            Command::Launch => launch::run(),
            Command::Supervise => server::run().map(|()| 0),
            Command::Neighbour { entrances } => Ok(faults::spin(&entrances).map(|()| 0)?),
        }
    }
}

/// Two threads: enough for the work of one invocation to overlap, and most of a small machine is left for functions.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}
