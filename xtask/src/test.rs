//! `cargo xtask test`: builds the programs that the tests start, and runs the tests.

use std::process::ExitCode;
use std::thread;

use anyhow::{Context, Result, anyhow};
use tailor_test_kit::functions::Language;
use tailor_test_kit::process::is_root;
use tailor_test_kit::release::{self, Architecture};
use tailor_test_kit::{PREBUILT_VARIABLE, REQUIRE_ALL_VARIABLE, build, workspace};

/// The command for all tests. Without `--tests` cargo also builds all examples, which clippy checks, and runs rustdoc for each
/// crate. A test of the source rules makes sure that there are no tests in documentation.
const ALL_TESTS: [&str; 3] = ["test", "--workspace", "--tests"];

/// Builds the same tests, and the one example that a test starts, which `cargo test --tests` does not build. In one command all
/// dependencies have the same features.
const BUILD_ALL_TESTS: [&str; 5] = ["build", "--workspace", "--tests", "--example", "handler"];

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
    let mut command = workspace::cargo_command()?;
    if options.arguments.is_empty() {
        build_all()?;
        command.args(ALL_TESTS).env(PREBUILT_VARIABLE, "1");
    } else {
        build::programs()?;
        command.args(["test", "--workspace"]);
    }
    unavailable().iter().for_each(|what| println!("skipped: {what}"));
    if options.no_skips {
        println!("--no-skips: a skipped test fails ({REQUIRE_ALL_VARIABLE}=1)");
        command.env(REQUIRE_ALL_VARIABLE, "1");
    }
    // One run shows all failures.
    command.arg("--no-fail-fast").args(&options.arguments);
    workspace::run_cargo(&mut command).context("the tests failed")?;
    Ok(ExitCode::SUCCESS)
}

/// Builds all tests and the programs that they start.
fn build_all() -> Result<()> {
    thread::scope(|scope| {
        // At the same time, because the profile of the layer has its own folder and lock, and its link steps use one core.
        let layers = scope.spawn(|| -> Result<()> {
            build::layer_and_handler()?;
            let mut buildable = Architecture::ALL.into_iter().filter(|one| one.missing().is_none());
            buildable.try_for_each(|one| release::build(&["tailor-extension"], one).map(drop))
        });
        // This also builds the collector and the sandbox. A build of these two alone enables other features of their
        // dependencies, and would compile most of them again.
        let tests = workspace::cargo(&BUILD_ALL_TESTS);
        let layers = layers.join().unwrap_or_else(|_| Err(anyhow!("the build of the layer panicked")));
        tests.and(layers)
    })
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
