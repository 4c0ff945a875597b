//! What the extension costs the function it rides on: the same handlers without any, with a minimal one, with one on
//! AWS's crate and with ours, in one run.

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
use tailor_test_kit::release;
use tailor_test_kit::workspace;

use super::delivery;
use super::start::Platform;

/// Options of `cargo xtask bench extension`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Also write the figures as JSON to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Invocations of each handler at each size.
    #[arg(long, default_value_t = 60)]
    invocations: u32,
}

/// Handlers that do nothing, wait, and compute, at a tenth of a vCPU, a third of one, and a whole one.
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

/// Warm durations of one handler, rising.
#[derive(Debug, Default)]
struct Sample {
    duration_us: Vec<u64>,
    billed_ms: Vec<u64>,
}

/// Longer than the quota's period.
const PERIOD: Duration = Duration::from_millis(25);

/// What rides on the handlers, from nothing to ours.
const RIDERS: [&str; 4] = ["nothing", "minimal-extension", "bare-lambda-extension", "tailor-extension"];

/// Starts of each extension, with and without a quota; in turn, so that this machine's other work meets all.
const STARTS: u32 = 30;

/// Runs the benchmark.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    ensure!(options.invocations >= 10, "fewer than 10 invocations say nothing");
    let layers = RIDERS.map(layer);
    let layers: Vec<Option<PathBuf>> = layers.into_iter().collect::<Result<_>>()?;
    let platform = Platform::start()?;
    let small = platform.small_group()?;
    let starts = starts(&layers, &platform, small.as_ref())?;
    let ours = layers.last().and_then(Option::as_ref).context("we ride")?;
    let delivery = delivery::run(&ours.join("extensions/tailor-extension"), small.as_ref())?;
    drop((small, platform));
    let measured = measure(options, &layers)?;
    println!(
        "\nmedian billed duration, ms; duration, us; CPU per call, us (looking inside and delivering included)"
    );
    println!(
        "{:<16}{:>9}{:>9}{:>9}{:>9}{:>10}{:>10}{:>10}{:>10}{:>8}{:>10}",
        "handler",
        "nothing",
        "minimal",
        "crate",
        "tailor",
        "nothing",
        "minimal",
        "crate",
        "tailor",
        "CPU",
        "RSS KiB"
    );
    let ours = measured.last().context("we ride")?;
    let mut rows = vec![];
    for example in &EXAMPLES {
        let samples = measured.iter().map(|measured| &measured.samples[example.name]);
        let (billed, duration): (Vec<_>, Vec<_>) =
            samples.map(|sample| (median(&sample.billed_ms), median(&sample.duration_us))).unzip();
        let overhead = ours.overhead.get(example.name).context("the collector heard nothing of a handler")?;
        let cpu_us = overhead["cpu_us"].as_u64().unwrap_or_default() / u64::from(options.invocations);
        let resident_kib = overhead["resident_kib"].as_u64().unwrap_or_default();
        print!("{:<16}", example.name);
        billed.iter().for_each(|billed| print!("{billed:>9}"));
        duration.iter().for_each(|duration| print!("{duration:>10}"));
        println!("{cpu_us:>8}{resident_kib:>10}");
        rows.push(json!({
            "handler": example.name, "memory_mb": example.memory_mb, "workload": example.workload,
            "billed_ms": by_rider(&billed), "duration_us": by_rider(&duration),
            "extension_cpu_us_per_invocation": cpu_us, "extension_resident_kib": resident_kib,
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

fn by_rider(values: &[u64]) -> Value {
    RIDERS.iter().zip(values).map(|(rider, value)| ((*rider).to_owned(), json!(value))).collect()
}

/// A layer folder with that extension in it; none for nothing.
fn layer(rider: &str) -> Result<Option<PathBuf>> {
    let package = match rider {
        "nothing" => return Ok(None),
        "tailor-extension" => rider,
        _ => "baseline-extensions",
    };
    let program = release::build_for_host(&[package])?.join(rider);
    let folder = workspace::target_folder()?.join("bench-layers").join(rider);
    fs::create_dir_all(folder.join("extensions"))?;
    fs::copy(program, folder.join("extensions").join(rider))?;
    Ok(Some(folder))
}

/// Times from exec to the first `next`, printed and as JSON.
fn starts(layers: &[Option<PathBuf>], platform: &Platform, small: Option<&Group>) -> Result<Value> {
    let riders: Vec<_> =
        RIDERS.iter().zip(layers).filter_map(|(rider, layer)| Some((rider, layer.as_ref()?))).collect();
    let mut times: BTreeMap<(&str, bool), Vec<u64>> = BTreeMap::new();
    for _ in 0..STARTS {
        for (rider, layer) in &riders {
            let program = layer.join("extensions").join(rider);
            let quotas = [Some(None), small.map(Some)];
            for group in quotas.into_iter().flatten() {
                if group.is_some() {
                    // An environment that starts has used none of its quota.
                    thread::sleep(PERIOD);
                }
                let took = platform.time(&program, group)?;
                let key = (**rider, group.is_some());
                times.entry(key).or_default().push(u64::try_from(took.as_micros())?);
            }
        }
    }
    println!("exec to first next, median us ({STARTS} starts each; ratio to the minimal extension)");
    let mut rows = vec![];
    for is_small in [false, true] {
        let base = times.get(&("minimal-extension", is_small)).map(|times| median(&sorted(times)));
        let Some(base) = base else {
            println!("skipped: with the quota of 128 MB (this machine has no CPU quotas for us)");
            continue;
        };
        for (rider, _) in &riders {
            let us = median(&sorted(&times[&(**rider, is_small)]));
            let quota = if is_small { "128 MB" } else { "none" };
            println!("{rider:<24}{quota:>8}{us:>9}{:>7.2}", us as f64 / base as f64);
            rows.push(json!({"extension": rider, "cpu_quota": quota, "median_us": us}));
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
    /// What the extension says it used, by function; empty without it.
    overhead: BTreeMap<String, Value>,
}

/// Runs every handler with each rider, in turn: whatever else this machine does meets all.
fn measure(options: &Options, layers: &[Option<PathBuf>]) -> Result<Vec<Measured>> {
    let programs = build::programs()?;
    let mut deployments = RIDERS
        .iter()
        .zip(layers)
        .map(|(rider, layer)| deploy(rider, programs.clone(), layer.clone()))
        .collect::<Result<Vec<_>>>()?;
    for example in &EXAMPLES {
        eprintln!("invoking {}", example.name);
        for _ in 0..options.invocations {
            for deployment in &deployments {
                let answer = deployment.lambda.invoke(example.name, example.event)?;
                ensure!(answer.function_error.is_none(), "{} failed: {}", example.name, answer.payload);
            }
        }
    }
    for deployment in &mut deployments {
        deployment.stop_sandbox()?;
    }
    deployments.iter().map(results).collect()
}

fn deploy(rider: &str, mut programs: Programs, layer: Option<PathBuf>) -> Result<Deployment> {
    let folder = workspace::target_folder()?.join("bench-extension").join(rider);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let project = workspace::project()?;
    // As in production: what a demo sends every second would be charged to every few invocations.
    let flush_interval_ms = 60_000;
    let attach_layer = layer.is_some();
    programs.layer = layer.unwrap_or(programs.layer);
    let plan = Plan::new(programs, &project, &folder, &EXAMPLES);
    Deployment::start(&Plan { attach_layer, flush_interval_ms, ..plan })
}

fn results(deployment: &Deployment) -> Result<Measured> {
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
    // Without the layer the collector has heard of nothing.
    if let Ok(summary) = deployment.summary() {
        for function in summary["functions"].as_array().into_iter().flatten() {
            let name = function["name"].as_str().unwrap_or_default().to_owned();
            overhead.insert(name, function["overhead"].clone());
        }
    }
    Ok(Measured { samples, overhead })
}

/// The middle of a sorted list.
fn median(sorted: &[u64]) -> u64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
