//! `cargo xtask test`: builds the programs that the tests start, and runs the tests.

use std::process::ExitCode;

use anyhow::{Context, Result};
use tailor_test_kit::functions::Language;
use tailor_test_kit::process::is_root;
use tailor_test_kit::release::Architecture;
use tailor_test_kit::{REQUIRE_ALL_VARIABLE, build, workspace};

/// Options of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Fail each test that would be skipped (sets TAILOR_REQUIRE_ALL=1).
    #[arg(long)]
    no_skips: bool,
    /// Arguments for `cargo test`, for example the name of a test.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Builds the programs of the end-to-end tests, lists what cannot be tested on this machine, and runs the tests.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    build::programs()?;
    unavailable().iter().for_each(|what| println!("skipped: {what}"));
    let mut command = workspace::cargo_command()?;
    if options.no_skips {
        println!("--no-skips: a skipped test fails ({REQUIRE_ALL_VARIABLE}=1)");
        command.env(REQUIRE_ALL_VARIABLE, "1");
    }
    // One run shows all failures.
    command.args(["test", "--workspace", "--no-fail-fast"]).args(&options.arguments);
    workspace::run_cargo(&mut command).context("the tests failed")?;
    Ok(ExitCode::SUCCESS)
}

/// What this machine cannot test, with the reasons.
fn unavailable() -> Vec<String> {
    let mut unavailable = vec![];
    for language in [Language::Python, Language::Node, Language::Java, Language::Go] {
        if let Some(command) = language.missing_command() {
            unavailable.push(format!("functions in {} (needs `{command}`)", language.name()));
        }
    }
    if !is_root() {
        unavailable.push("CPU and memory limits of the sandbox (need root)".to_owned());
    }
    for architecture in Architecture::ALL {
        if let Some(missing) = architecture.missing() {
            unavailable.push(format!("the layer for {} (needs {missing})", architecture.name()));
        }
    }
    unavailable
}
