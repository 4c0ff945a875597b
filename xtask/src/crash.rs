//! `cargo xtask crash`: the crash tests of the embedded store, with many more repetitions than in `cargo test`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use tailor_test_kit::workspace;

/// How often each test fails something. 0 leaves a test out.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Power failures, each at another write or sync.
    #[arg(long, default_value_t = 2_500)]
    points: u32,
    /// I/O errors and full disks, each from another write or sync on. More than there are tries all.
    #[arg(long, default_value_t = 3_000)]
    faults: u32,
    /// Kills of the collector under load.
    #[arg(long, default_value_t = 1_000)]
    kills: u32,
    /// Flipped bits in stored rows and files.
    #[arg(long, default_value_t = 10_000)]
    flips: u32,
}

/// Runs the tests one after the other and prints what they tried.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    // The test binary, the variable that sets its number of repetitions, and a part of the names of the tests.
    let tests = [
        ("crash", "TAILOR_CRASH_POINTS", options.points, "power_failure"),
        ("crash", "TAILOR_CRASH_POINTS", options.points, "without_syncs"),
        ("crash", "TAILOR_CRASH_FAULTS", options.faults, "full_disk"),
        ("durability", "TAILOR_CRASH_KILLS", options.kills, "kills_at_any_moment"),
        ("damage", "TAILOR_CRASH_FLIPS", options.flips, "flipped_bits"),
    ];
    for (binary, variable, count, filter) in tests.into_iter().filter(|(_, _, count, _)| *count > 0) {
        let mut command = workspace::cargo_command()?;
        command.args(["test", "--quiet", "-p", "tailor-collector", "--test", binary, filter, "--"]);
        command.args(["--nocapture"]).env(variable, count.to_string());
        workspace::run_cargo(&mut command).with_context(|| format!("{filter} failed"))?;
    }
    Ok(ExitCode::SUCCESS)
}
