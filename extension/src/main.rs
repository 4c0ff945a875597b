//! The binary: reads the settings, sets up the log and runs the event loop on one thread.

use std::process::ExitCode;

use tailor_extension::lifecycle;
use tailor_extension::settings::{ProcessVariables, Settings};

fn main() -> ExitCode {
    let (settings, warnings) = Settings::read(&ProcessVariables);
    tracing_subscriber::fmt()
        .with_max_level(settings.log_level)
        .with_ansi(false)
        // Lambda adds a timestamp to each line.
        .without_time()
        .with_writer(std::io::stderr)
        .init();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot create the async runtime: the extension ends");
            return ExitCode::FAILURE;
        }
    };
    let tasks = tokio::task::LocalSet::new();
    let outcome = tasks.block_on(&runtime, lifecycle::run(settings, warnings, &ProcessVariables));
    drop(tasks);
    // A pending DNS lookup blocks a thread and would delay the exit until Lambda kills the process.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
