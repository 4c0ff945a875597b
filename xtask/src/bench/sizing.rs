//! Measures how accurately each memory size is predicted from one other size, on example functions: real handlers in the
//! sandbox at seven sizes, measured by the extension.
//!
//! The first half of the warm invocations at one size is the telemetry. The mean duration of the second half at each other
//! size, as reported by the platform, is the true value. A run can be saved and scored again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use agent_proto::batch::Batch;
use anyhow::{Context, Result, ensure};
use tailor_sizing::pricing::prices::PriceTable;
use tailor_sizing::telemetry::invocation::Invocation;
use tailor_sizing::units::{Architecture, Megabytes};
use tailor_sizing_eval::dataset::{self, Measured};
use tailor_sizing_eval::score::{BaseScore, Case, Report, enforcement, errors, score};
use tailor_test_kit::build;
use tailor_test_kit::deployment::{Deployment, Plan};
use tailor_test_kit::fake::BatchRecorder;
use tailor_test_kit::functions::{Example, Language};
use tailor_test_kit::workspace;

/// Options of `cargo xtask bench sizing`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Save the measurements to this file.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Score saved measurements instead of measuring.
    #[arg(long, value_name = "FILE", conflicts_with = "save")]
    load: Option<PathBuf>,
    /// Also write the scores as JSON to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Warm invocations of each function at each size.
    #[arg(long, default_value_t = 16)]
    invocations: usize,
}

/// The sizes of AWS Lambda Power Tuning, and the size with exactly one vCPU, MB.
const SIZES: [u32; 7] = [128, 256, 512, 1_024, 1_769, 2_048, 3_008];

/// Number of first invocations at each size that are not scored, because just-in-time compilers are still active.
const WARM_UP: usize = 4;

const FUNCTIONS: [Example; 22] = [
    function("rust-cpu", Language::Rust, "cpu", r#"{"rounds":20000000}"#),
    function("rust-cpu-short", Language::Rust, "cpu", r#"{"rounds":2000000}"#),
    function("rust-waiting", Language::Rust, "io", r#"{"requests":2,"delay_ms":30}"#),
    function("rust-mixed", Language::Rust, "mixed", "{}"),
    function("rust-chatty", Language::Rust, "chatty", "{}"),
    function("rust-threads", Language::Rust, "threads", r#"{"threads":4,"rounds":6000000}"#),
    function("rust-memory", Language::Rust, "memory", r#"{"mb":60}"#),
    function("python-mixed", Language::Python, "mixed", r#"{"items":10000}"#),
    function("python-compute", Language::Python, "compute", r#"{"rounds":200000}"#),
    function("python-digest", Language::Python, "digest", "{}"),
    function("python-chat", Language::Python, "chat", "{}"),
    function("python-allocate", Language::Python, "allocate", "{}"),
    function("node-wait", Language::Node, "wait", "{}"),
    function("node-compute", Language::Node, "compute", "{}"),
    function("node-pool", Language::Node, "pool", "{}"),
    function("node-chat", Language::Node, "chat", "{}"),
    function("node-allocate", Language::Node, "allocate", r#"{"items":60000}"#),
    function("java-garbage", Language::Java, "garbage", "{}"),
    function("java-compute", Language::Java, "compute", "{}"),
    function("java-parallel", Language::Java, "parallel", "{}"),
    function("go-single", Language::Go, "single", "{}"),
    function("go-mixed", Language::Go, "mixed", "{}"),
];

const fn function(
    name: &'static str,
    language: Language,
    workload: &'static str,
    event: &'static str,
) -> Example {
    Example { name, language, memory_mb: 1_769, workload, event, invocations: 0, tunable: false }
}

/// Runs the benchmark.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    ensure!(options.invocations >= 4, "at least 4 invocations are needed");
    let measured = match &options.load {
        Some(path) => load(path)?,
        None => measure(options.invocations)?,
    };
    if let Some(path) = &options.save {
        fs::write(path, dataset::to_json(&measured).to_string())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let cases: Vec<Case> = measured.iter().filter_map(|(name, sizes)| case(name, sizes)).collect();
    ensure!(!cases.is_empty(), "no function was measured at every size");
    let rates = PriceTable::embedded().rates("us-east-1", Architecture::X86_64)?;
    let report = score(&cases, &SIZES.map(Megabytes), &rates);
    print_report(&report);
    print_kernel_probability(&cases);
    print_function_errors(&cases);
    if let Some(path) = &options.json {
        fs::write(path, serde_json::to_string_pretty(&report)? + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(invocations: usize) -> Result<Measured> {
    let recorder = BatchRecorder::start()?;
    let folder = workspace::target_folder()?.join("bench-sizing");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let functions: Vec<Example> = FUNCTIONS
        .iter()
        .filter(|function| match function.language.missing_command() {
            None => true,
            Some(command) => {
                println!("skipped: {} (no `{command}` on this machine)", function.name);
                false
            }
        })
        .cloned()
        .collect();
    let project = workspace::project()?;
    let plan = Plan::new(build::programs()?, &project, &folder, &functions);
    let mut deployment =
        Deployment::start(&Plan { flush_interval_ms: 200, endpoint: Some(recorder.endpoint()), ..plan })?;
    for function in &functions {
        for size in SIZES {
            eprintln!("measuring {} at {size} MB", function.name);
            deployment.lambda.resize(function.name, size)?;
            // One more than needed: the measurement of an invocation is complete only at the next invocation.
            for _ in 0..WARM_UP + invocations + 2 {
                let answer = deployment.lambda.invoke(function.name, function.event)?;
                if let Some(error) = answer.function_error {
                    println!("excluded: {} at {size} MB ({error}: {})", function.name, answer.payload);
                    break;
                }
            }
        }
    }
    deployment.stop_sandbox()?;
    let batches = recorder.batches();
    let warm = |function: &str, size: u32| -> Vec<Invocation> {
        let all = invocations_of(&batches, function, size);
        let warm = all
            .into_iter()
            .filter(|invocation| !invocation.initialization.is_first() && invocation.work.is_some());
        warm.skip(WARM_UP).take(invocations).collect()
    };
    let sizes = |function: &Example| SIZES.map(|size| (size, warm(function.name, size))).into();
    Ok(functions.iter().map(|function| (function.name.to_owned(), sizes(function))).collect())
}

/// The invocations of `function` at `memory_mb`, oldest first.
fn invocations_of(batches: &[Batch], function: &str, memory_mb: u32) -> Vec<Invocation> {
    let mut invocations: Vec<_> = batches
        .iter()
        .filter(|batch| {
            batch.header.environment.function == function && batch.header.environment.memory.0 == memory_mb
        })
        .flat_map(|batch| batch.invocations.iter().copied())
        .collect();
    invocations.sort_by_key(|invocation| invocation.started_at_us);
    invocations
}

/// Telemetry and true values of one function. Returns `None` and prints a note when a size is missing.
fn case(name: &str, sizes: &BTreeMap<u32, Vec<Invocation>>) -> Option<Case> {
    let case = dataset::case(name, sizes);
    if case.is_none() {
        println!("excluded: {name} (not measured at every size)");
    }
    case
}

fn print_report(report: &Report) {
    println!("{} functions; errors and shares in percent", report.functions);
    println!(
        "{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}",
        "base MB", "mean", "median", "best", "best 2", "regret", "p95", "in 80", "in 95"
    );
    for (base, score) in &report.by_base {
        row(&base.to_string(), score);
    }
    row("ceiling", &report.noise_ceiling);
}

/// Prints the probability of a high-resolution kernel, inferred from the telemetry of each size.
fn print_kernel_probability(cases: &[Case]) {
    print!("{:<16}", "\nhrtick kernel");
    SIZES.iter().for_each(|&size| {
        print!("{:>8.2}", enforcement(cases, Megabytes(size)).high_resolution_probability())
    });
    println!();
}

/// Prints the mean error of each function from each size, which shows the functions that cause a low score.
fn print_function_errors(cases: &[Case]) {
    println!("\nmean error of each function, by base");
    let by_base = SIZES.map(|size| errors(cases, Megabytes(size)));
    for (i, case) in cases.iter().enumerate() {
        print!("{:<16}", case.name);
        for errors in &by_base {
            print!("{:>8.1}", errors.get(i).copied().flatten().unwrap_or(f64::NAN));
        }
        println!();
    }
}

fn row(name: &str, score: &BaseScore) {
    let pooled = score.best.get("pooled").copied().unwrap_or(f64::NAN);
    let share = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), |share| format!("{share:.1}"));
    println!(
        "{name:>8}{:>8.1}{:>8.1}{pooled:>8.1}{:>8.1}{:>8.1}{:>8.1}{:>8}{:>8}",
        score.mape_mean,
        score.mape_median,
        score.best_two_pooled,
        score.regret_mean,
        score.regret_p95,
        share(score.coverage_80),
        share(score.coverage_95),
    );
}

fn load(path: &Path) -> Result<Measured> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    dataset::from_json(&text).with_context(|| format!("{} is not a saved run", path.display()))
}
