//! The `tailor` binary: the collector and its command line, which are in the library.

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::filter::LevelFilter;

use tailor_collector::cli::Cli;

fn main() -> ExitCode {
    let level = std::env::var("TAILOR_LOG_LEVEL").ok().and_then(|level| level.parse().ok());
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(level.unwrap_or(LevelFilter::INFO))
        .with_target(false)
        .with_ansi(false)
        .init();
    match Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("tailor: {error:#}");
            ExitCode::FAILURE
        }
    }
}
