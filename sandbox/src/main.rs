//! The `lambda-sandbox` binary.

use std::process::ExitCode;

use clap::Parser;
use lambda_sandbox::cli::Cli;

fn main() -> ExitCode {
    let filter = std::env::var("LAMBDA_SANDBOX_LOG").ok().and_then(|level| level.parse().ok());
    tracing_subscriber::fmt()
        .with_max_level(filter.unwrap_or(tracing::Level::INFO))
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
    match Cli::parse().run() {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            eprintln!("lambda-sandbox: {error:#}");
            ExitCode::FAILURE
        }
    }
}
