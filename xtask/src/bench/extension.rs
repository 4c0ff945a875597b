//! Cost of the extension for the function: the same handlers without an extension, with a minimal extension, with an
//! extension that uses AWS's crate, and with the Tailor extension, in one run.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lambda_sandbox::cgroup::Group;
use serde_json::{Value, json};
use tailor_test_kit::build;
use tailor_test_kit::deployment::{Deployment, Plan, Programs};
use tailor_test_kit::functions::{Example, Language};
use tailor_test_kit::process::{cpu_ns, extension_of};
use tailor_test_kit::release;
use tailor_test_kit::workspace;

use super::delivery;
use super::start::Platform;

/// Options of `cargo xtask bench extension`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Also write the results as JSON to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Invocations of each handler at each size.
    #[arg(long, default_value_t = 60)]
    invocations: u32,
}

/// Handlers that do nothing, wait, and compute, with 0.07, 0.29 and 1 vCPU.
const EXAMPLES: [Example; 9] = [
    example("empty-128", 128, "empty", "{}"),
    example("empty-512", 512, "empty", "{}"),
    example("empty-1769", 1_769, "empty", "{}"),
    example("waiting-128", 128, "io", r#"{"requests":1,"delay_ms":30}"#),
    example("waiting-512", 512, "io", r#"{"requests":1,"delay_ms":30}"#),
    example("waiting-1769", 1_769, "io", r#"{"requests":1,"delay_ms":30}"#),
    example("computing-128", 128, "cpu", r#"{"rounds":20000000}"#),
    example("computing-512", 512, "cpu", r#"{"rounds":20000000}"#),
    example("computing-1769", 1_769, "cpu", r#"{"rounds":20000000}"#),
];

const fn example(name: &'static str, memory_mb: u32, workload: &'static str, event: &'static str) -> Example {
    Example { name, language: Language::Rust, memory_mb, workload, event, invocations: 0, tunable: false }
}

/// Durations of the warm invocations of one handler, in ascending order.
#[derive(Debug, Default)]
struct Sample {
    duration_us: Vec<u64>,
    billed_ms: Vec<u64>,
}

/// Pause before a start with a quota. It is longer than the quota's period.
const QUOTA_PAUSE: Duration = Duration::from_millis(25);

/// The time in which an environment is frozen after a response.
const FREEZE_PAUSE: Duration = Duration::from_millis(60);

/// The compared extensions. `nothing` is a deployment without an extension.
const EXTENSIONS: [&str; 4] = ["nothing", "minimal-extension", "bare-lambda-extension", "tailor-extension"];

/// Number of starts of each extension, with and without a quota each. The extensions alternate, so that other load on the
/// machine affects all of them.
const STARTS: u32 = 30;

/// Runs the benchmark.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    ensure!(options.invocations >= 10, "at least 10 invocations are needed");
    let layers = EXTENSIONS.map(layer);
    let layers: Vec<Option<PathBuf>> = layers.into_iter().collect::<Result<_>>()?;
    let platform = Platform::start()?;
    let small = platform.small_group()?;
    let starts = measure_starts(&layers, &platform, small.as_ref())?;
    let tailor_layer = layers.last().and_then(Option::as_ref).context("the Tailor extension is missing")?;
    let delivery = delivery::run(&tailor_layer.join("extensions/tailor-extension"), small.as_ref())?;
    drop((small, platform));
    let measured = measure(options, &layers)?;
    println!(
        "\nmedian billed duration, ms; duration, us; CPU of the extension per warm invocation, us; its resident memory, KiB"
    );
    println!(
        "{:<16}{:>9}{:>9}{:>9}{:>9}{:>10}{:>10}{:>10}{:>10}{:>9}{:>9}{:>9}{:>10}",
        "handler",
        "nothing",
        "minimal",
        "crate",
        "tailor",
        "nothing",
        "minimal",
        "crate",
        "tailor",
        "minimal",
        "crate",
        "tailor",
        "RSS KiB"
    );
    let tailor = measured.last().context("the Tailor extension is missing")?;
    let mut rows = vec![];
    for example in &EXAMPLES {
        let samples = measured.iter().map(|measured| &measured.samples[example.name]);
        let (billed, duration): (Vec<_>, Vec<_>) =
            samples.map(|sample| (median(&sample.billed_ms), median(&sample.duration_us))).unzip();
        let overhead =
            tailor.overhead.get(example.name).context("the collector has no data for a handler")?;
        let cpu_us: Vec<u64> = measured.iter().map(|one| one.cpu_us[example.name]).collect();
        let resident_kib = overhead["resident_kib"].as_u64().unwrap_or_default();
        print!("{:<16}", example.name);
        billed.iter().for_each(|billed| print!("{billed:>9}"));
        duration.iter().for_each(|duration| print!("{duration:>10}"));
        cpu_us.iter().skip(1).for_each(|us| print!("{us:>9}"));
        println!("{resident_kib:>10}");
        rows.push(json!({
            "handler": example.name, "memory_mb": example.memory_mb, "workload": example.workload,
            "billed_ms": by_extension(&billed), "duration_us": by_extension(&duration),
            "extension_cpu_us_per_invocation": by_extension(&cpu_us), "extension_resident_kib": resident_kib,
        }));
    }
    println!("medians of {} warm invocations each", options.invocations - 1);
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(
            &json!({ "start": starts, "first_delivery": delivery, "handlers": rows }),
        )?;
        fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn by_extension(values: &[u64]) -> Value {
    EXTENSIONS.iter().zip(values).map(|(extension, value)| ((*extension).to_owned(), json!(value))).collect()
}

/// Creates a layer folder with the extension. Returns `None` for `nothing`.
fn layer(extension: &str) -> Result<Option<PathBuf>> {
    let package = match extension {
        "nothing" => return Ok(None),
        "tailor-extension" => extension,
        _ => "baseline-extensions",
    };
    let program = release::build_for_host(&[package])?.join(extension);
    let folder = workspace::target_folder()?.join("bench-layers").join(extension);
    fs::create_dir_all(folder.join("extensions"))?;
    fs::copy(program, folder.join("extensions").join(extension))?;
    Ok(Some(folder))
}

/// Measures the times from exec to the first `next`, prints them and returns them as JSON.
fn measure_starts(layers: &[Option<PathBuf>], platform: &Platform, small: Option<&Group>) -> Result<Value> {
    let extensions: Vec<_> = EXTENSIONS
        .iter()
        .zip(layers)
        .filter_map(|(extension, layer)| Some((extension, layer.as_ref()?)))
        .collect();
    let mut times: BTreeMap<(&str, bool), Vec<u64>> = BTreeMap::new();
    for _ in 0..STARTS {
        for (extension, layer) in &extensions {
            let program = layer.join("extensions").join(extension);
            let quotas = [Some(None), small.map(Some)];
            for group in quotas.into_iter().flatten() {
                if group.is_some() {
                    // A new environment has an unused quota.
                    thread::sleep(QUOTA_PAUSE);
                }
                let took = platform.time(&program, group)?;
                let key = (**extension, group.is_some());
                times.entry(key).or_default().push(u64::try_from(took.as_micros())?);
            }
        }
    }
    println!("exec to first next, median us ({STARTS} starts each; ratio to the minimal extension)");
    let mut rows = vec![];
    for is_small in [false, true] {
        let base = times.get(&("minimal-extension", is_small)).map(|times| median(&sorted(times)));
        let Some(base) = base else {
            println!("skipped: starts with the quota of 128 MB (CPU quotas are not available)");
            continue;
        };
        for (extension, _) in &extensions {
            let us = median(&sorted(&times[&(**extension, is_small)]));
            let quota = if is_small { "128 MB" } else { "none" };
            println!("{extension:<24}{quota:>8}{us:>9}{:>7.2}", us as f64 / base as f64);
            rows.push(json!({"extension": extension, "cpu_quota": quota, "median_us": us}));
        }
    }
    Ok(rows.into())
}

fn sorted(times: &[u64]) -> Vec<u64> {
    let mut times = times.to_vec();
    times.sort_unstable();
    times
}

struct Measured {
    samples: BTreeMap<String, Sample>,
    /// CPU time of the extension for a warm invocation by function, microseconds.
    cpu_us: BTreeMap<&'static str, u64>,
    /// The extension's own resource usage by function; empty without the Tailor extension.
    overhead: BTreeMap<String, Value>,
}

/// Runs every handler with each extension. The extensions alternate, so that other load on the machine affects all of
/// them.
fn measure(options: &Options, layers: &[Option<PathBuf>]) -> Result<Vec<Measured>> {
    let programs = build::programs()?;
    let mut deployments = EXTENSIONS
        .iter()
        .zip(layers)
        .map(|(extension, layer)| deploy(extension, programs.clone(), layer.clone()))
        .collect::<Result<Vec<_>>>()?;
    let mut cpu_us = vec![BTreeMap::new(); deployments.len()];
    for example in &EXAMPLES {
        eprintln!("invoking {}", example.name);
        let mut before_ns = vec![0; deployments.len()];
        for invocation in 0..options.invocations {
            for (deployment, (extension, before_ns)) in
                deployments.iter().zip(EXTENSIONS.iter().zip(&mut before_ns))
            {
                let answer = deployment.lambda.invoke(example.name, example.event)?;
                ensure!(answer.function_error.is_none(), "{} failed: {}", example.name, answer.payload);
                if invocation == 0 {
                    *before_ns = extension_cpu_ns(example.name, extension);
                }
            }
        }
        for ((cpu_us, extension), before_ns) in cpu_us.iter_mut().zip(EXTENSIONS).zip(before_ns) {
            let used_ns = extension_cpu_ns(example.name, extension).saturating_sub(before_ns);
            cpu_us.insert(example.name, used_ns / 1_000 / u64::from(options.invocations - 1));
        }
    }
    for deployment in &mut deployments {
        deployment.stop_sandbox()?;
    }
    let measured = deployments.iter().zip(cpu_us);
    measured.map(|(deployment, cpu_us)| results(deployment, cpu_us)).collect()
}

/// CPU time of an extension until now, nanoseconds; zero without one. Read after the freeze.
fn extension_cpu_ns(function: &str, extension: &str) -> u64 {
    thread::sleep(FREEZE_PAUSE);
    extension_of(function, extension).and_then(|process| cpu_ns(&process).ok()).unwrap_or_default()
}

fn deploy(extension: &str, mut programs: Programs, layer: Option<PathBuf>) -> Result<Deployment> {
    let folder = workspace::target_folder()?.join("bench-extension").join(extension);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let project = workspace::project()?;
    // The production value. With the demo's interval of one second, a larger part of the invocations would contain a
    // delivery.
    let flush_interval_ms = 60_000;
    let attach_layer = layer.is_some();
    programs.layer = layer.unwrap_or(programs.layer);
    let plan = Plan::new(programs, &project, &folder, &EXAMPLES);
    Deployment::start(&Plan { attach_layer, flush_interval_ms, ..plan })
}

fn results(deployment: &Deployment, cpu_us: BTreeMap<&'static str, u64>) -> Result<Measured> {
    let mut samples = BTreeMap::<String, Sample>::new();
    for line in
        deployment.trace()?.iter().filter(|line| line["event"] == "invocation" && line["init_us"].is_null())
    {
        let sample = samples.entry(line["function"].as_str().unwrap_or_default().to_owned()).or_default();
        sample.duration_us.extend(line["duration_us"].as_u64());
        sample.billed_ms.extend(line["billed_ms"].as_u64());
    }
    for sample in samples.values_mut() {
        sample.duration_us.sort_unstable();
        sample.billed_ms.sort_unstable();
    }
    let mut overhead = BTreeMap::new();
    // Without the Tailor extension the collector has no data.
    if let Ok(summary) = deployment.summary() {
        for function in summary["functions"].as_array().into_iter().flatten() {
            let name = function["name"].as_str().unwrap_or_default().to_owned();
            overhead.insert(name, function["overhead"].clone());
        }
    }
    Ok(Measured { samples, cpu_us, overhead })
}

/// Median of a sorted list; 0 when it is empty.
fn median(sorted: &[u64]) -> u64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
