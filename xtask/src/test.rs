//! Preparing and running every test.

use std::process::ExitCode;

use anyhow::Result;
use tailor_test_kit::build;
use tailor_test_kit::functions::Language;
use tailor_test_kit::process::is_root;
use tailor_test_kit::release::Architecture;
use tailor_test_kit::workspace;

/// What `cargo xtask test` can be asked.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Arguments for `cargo test`, for example the name of one test.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Builds what the end-to-end tests start, says what is left out and why, and runs the tests.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    build::programs()?;
    for language in [Language::Python, Language::Node, Language::Java, Language::Go] {
        if let Some(command) = language.missing_command() {
            println!("skipped: functions in {} (no `{command}` on this machine)", language.name());
        }
    }
    if !is_root() {
        println!("skipped: CPU and memory limits of the sandbox (not root)");
    }
    for architecture in Architecture::ALL {
        if let Some(missing) = architecture.missing() {
            println!("skipped: the layer for {} (this machine lacks {missing})", architecture.name());
        }
    }
    let mut arguments = vec!["test", "--workspace"];
    arguments.extend(options.arguments.iter().map(String::as_str));
    workspace::cargo(&arguments)?;
    Ok(ExitCode::SUCCESS)
}
