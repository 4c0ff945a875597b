//! The binary: settings, log, one thread, and the event loop.

use std::process::ExitCode;

use tailor_extension::lifecycle;
use tailor_extension::settings::{ProcessVariables, Settings};

fn main() -> ExitCode {
    let (settings, complaints) = Settings::read(&ProcessVariables);
    tracing_subscriber::fmt()
        .with_max_level(settings.log_level)
        .with_ansi(false)
        // Lambda stamps each line itself.
        .without_time()
        .with_writer(std::io::stderr)
        .init();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            return ExitCode::FAILURE;
        }
    };
    let tasks = tokio::task::LocalSet::new();
    let outcome = tasks.block_on(&runtime, lifecycle::run(settings, complaints, &ProcessVariables));
    drop(tasks);
    // A name that is still being looked up would hold us until Lambda kills us.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
