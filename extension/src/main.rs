//! The binary: reads the settings, sets up the log and runs the event loop on one thread.

use std::cell::Cell;
use std::process::ExitCode;
use std::rc::Rc;

use tailor_extension::lifecycle;
use tailor_extension::settings::{ProcessVariables, Settings};
use tailor_extension::task::spawn;

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
    let outcome = tasks.block_on(&runtime, async {
        // As a task, because each wake of the outermost future costs one more poll of the kernel's event queue.
        let outcome = Rc::new(Cell::new(None));
        let ended = Rc::clone(&outcome);
        let run = spawn(async move {
            ended.set(Some(lifecycle::run(settings, warnings, &ProcessVariables).await));
        });
        // A panic leaves no outcome.
        let _ = run.await;
        outcome.take()
    });
    drop(tasks);
    // A pending DNS lookup blocks a thread and would delay the exit until Lambda kills the process.
    runtime.shutdown_background();
    match outcome {
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(error)) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
        None => ExitCode::FAILURE,
    }
}
