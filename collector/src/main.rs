//! The `tailor` binary: the collector and its command line, which are in the library.

use std::io::Write;
use std::process::ExitCode;

use tailor_collector::cli::Cli;
use tailor_collector::logging;

fn main() -> ExitCode {
    Cli::answer_shell();
    let cli = match Cli::from_arguments(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    cli.start_log();
    match cli.run() {
        Ok(code) => code,
        Err(error) => {
            if logging::is_json() {
                tracing::error!("{error:#}");
            } else {
                // Without standard error it cannot be shown.
                let _ = writeln!(std::io::stderr(), "tailor: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}
