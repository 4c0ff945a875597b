//! Coverage-guided fuzzing of every decoder that reads bytes from outside.
//!
//! The targets are those of `fuzz/Cargo.toml`. They are built with libFuzzer, AddressSanitizer and overflow checks,
//! which need the nightly compiler. Each starts from its kept corpus in `fuzz/corpus/TARGET`; new inputs go to the
//! target folder. `cargo fuzz run TARGET` works on the same files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, bail, ensure};

use tailor_test_kit::workspace::{project, target_folder};

/// The compiler that has the sanitizer flags.
const TOOLCHAIN: &str = "nightly";

/// libFuzzer's coverage (counters, comparisons), AddressSanitizer, and `cfg(fuzzing)`: the flags of cargo-fuzz.
const RUST_FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Zsanitizer=address --cfg fuzzing";

/// Longest input, bytes: longer ones find nothing more and slow every step.
const MAX_INPUT_BYTES: u32 = 16_384;

/// Options of `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How long each target runs, seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Fuzz only these targets.
    targets: Vec<String>,
}

/// Builds the targets and runs each for the given time, as many at once as the machine has cores.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let folder = project()?.join("fuzz");
    let all = names_of_targets(&folder)?;
    if let Some(unknown) = options.targets.iter().find(|name| !all.contains(name)) {
        bail!("there is no fuzz target {unknown}; there are {}", all.join(", "));
    }
    let selected = if options.targets.is_empty() { all } else { options.targets.clone() };
    let built = build(&folder, &selected)?;

    let queue = Mutex::new(selected.iter());
    let failed = Mutex::new(vec![]);
    let next = || queue.lock().ok().and_then(|mut queue| queue.next());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(name) = next() {
                    if let Err(error) = fuzz(&folder, &built.join(name), name, options.seconds) {
                        eprintln!("error: {name}: {error:#}");
                        failed.lock().map(|mut failed| failed.push(name.clone())).ok();
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_default();
    ensure!(failed.is_empty(), "fuzzing failed: {}", failed.join(", "));
    println!("fuzzing found nothing in {} targets of {} s each", selected.len(), options.seconds);
    Ok(ExitCode::SUCCESS)
}

/// The names in `[[bin]]` tables: one target a source file.
fn names_of_targets(folder: &Path) -> Result<Vec<String>> {
    let sources = folder.join("targets");
    let mut names = vec![];
    for entry in fs::read_dir(&sources).with_context(|| format!("cannot read {}", sources.display()))? {
        names.extend(entry?.path().file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// Builds the targets; the folder of the results.
fn build(folder: &Path, targets: &[String]) -> Result<PathBuf> {
    let compiler = Command::new("rustup")
        .args(["run", TOOLCHAIN, "rustc", "-vV"])
        .stderr(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())
        .with_context(|| {
            format!("fuzzing needs the {TOOLCHAIN} compiler: rustup toolchain install {TOOLCHAIN} --profile minimal")
        })?;
    let version = String::from_utf8_lossy(&compiler.stdout).into_owned();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    let results = target_folder()?.join("fuzz");
    let mut command = Command::new("rustup");
    command
        .args(["run", TOOLCHAIN, "cargo", "build", "--quiet", "--locked", "--release", "--target", host])
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", &results)
        .env("RUSTFLAGS", RUST_FLAGS)
        // Those of the cargo that runs this.
        .env_remove("CARGO")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTUP_TOOLCHAIN");
    for name in targets {
        command.args(["--bin", name]);
    }
    ensure!(command.status().context("cannot start rustup")?.success(), "the fuzz targets do not compile");
    Ok(results.join(host).join("release"))
}

/// Runs one target from its kept corpus; an error when it finds a crash, a leak or an input that takes too long.
fn fuzz(folder: &Path, program: &Path, name: &str, seconds: u32) -> Result<()> {
    let kept = folder.join("corpus").join(name);
    let inputs = fs::read_dir(&kept).map_or(0, Iterator::count);
    ensure!(inputs > 0, "the kept corpus {} is empty", kept.display());
    let [found, artifacts] = ["found", "artifacts"].map(|kind| program.with_file_name(kind).join(name));
    for created in [&found, &artifacts] {
        fs::create_dir_all(created).with_context(|| format!("cannot create {}", created.display()))?;
    }
    println!("fuzzing {name} for {seconds} s from {inputs} kept inputs");
    let output = Command::new(program)
        // New inputs go to the first folder.
        .args([&found, &kept])
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={MAX_INPUT_BYTES}"))
        .args(["-timeout=10", "-print_final_stats=1"])
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let log = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{}\nthe input is in {}", last_lines(&log, 60), artifacts.display());
    }
    let runs = log.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    println!("fuzzed {name}: {} inputs tried", runs.context("libFuzzer reported no statistics")?.trim());
    Ok(())
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
