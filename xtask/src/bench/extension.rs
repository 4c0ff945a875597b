//! What the extension costs the function it rides on: the same handlers with and without it, in one run.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tailor_e2e::build;
use tailor_e2e::functions::{Example, Language};
use tailor_e2e::stage::{Plan, Stage};

/// What the benchmark can be asked.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Write the figures as JSON to this file, too.
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

/// Runs the benchmark.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    ensure!(options.invocations >= 10, "fewer than 10 invocations say nothing");
    let [bare, attached] = measure(options)?;
    println!(
        "{:<16}{:>14}{:>14}{:>10}{:>14}{:>14}{:>12}{:>12}",
        "handler", "billed ms", "with", "added ms", "duration us", "with", "CPU us/call", "RSS KiB"
    );
    let mut rows = vec![];
    for example in &EXAMPLES {
        let (without, with) = (&bare.samples[example.name], &attached.samples[example.name]);
        let (billed, billed_with) = (median(&without.billed_ms), median(&with.billed_ms));
        let (duration, duration_with) = (median(&without.duration_us), median(&with.duration_us));
        let overhead =
            attached.overhead.get(example.name).context("the collector heard nothing of a handler")?;
        let cpu_us = overhead["cpu_us"].as_u64().unwrap_or_default() / u64::from(options.invocations);
        let resident_kib = overhead["resident_kib"].as_u64().unwrap_or_default();
        println!(
            "{:<16}{billed:>14}{billed_with:>14}{:>10}{duration:>14}{duration_with:>14}{cpu_us:>12}{resident_kib:>12}",
            example.name,
            i128::from(billed_with) - i128::from(billed),
        );
        rows.push(json!({
            "handler": example.name, "memory_mb": example.memory_mb, "workload": example.workload,
            "billed_ms": billed, "billed_ms_with_extension": billed_with,
            "duration_us": duration, "duration_us_with_extension": duration_with,
            "extension_cpu_us_per_invocation": cpu_us, "extension_resident_kib": resident_kib,
        }));
    }
    println!(
        "medians of {} warm invocations each; CPU includes looking inside and delivering",
        options.invocations - 1
    );
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&json!({ "extension": rows }))?;
        fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

struct Measured {
    samples: BTreeMap<String, Sample>,
    /// What the extension says it used, by function; empty without it.
    overhead: BTreeMap<String, Value>,
}

/// Runs every handler without and with the extension, in turn: whatever else this machine does meets both.
fn measure(options: &Options) -> Result<[Measured; 2]> {
    let mut stages = [stage(false)?, stage(true)?];
    for example in &EXAMPLES {
        eprintln!("invoking {}", example.name);
        for _ in 0..options.invocations {
            for stage in &stages {
                let answer = stage.lambda.invoke(example.name, example.event)?;
                ensure!(answer.function_error.is_none(), "{} failed: {}", example.name, answer.payload);
            }
        }
    }
    for stage in &mut stages {
        stage.stop_sandbox()?;
    }
    let [bare, attached] = stages;
    Ok([results(&bare)?, results(&attached)?])
}

fn stage(attach_layer: bool) -> Result<Stage> {
    let folder = build::target_folder()?.join("bench-extension").join(attach_layer.to_string());
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let project = build::project()?;
    // As in production: what a demo sends every second would be charged to every few invocations.
    let flush_interval_ms = 60_000;
    let plan = Plan::new(build::programs()?, &project, &folder, &EXAMPLES);
    Stage::set(&Plan { attach_layer, flush_interval_ms, ..plan })
}

fn results(stage: &Stage) -> Result<Measured> {
    let mut samples = BTreeMap::<String, Sample>::new();
    for line in
        stage.trace()?.iter().filter(|line| line["event"] == "invocation" && line["init_us"].is_null())
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
    if let Ok(summary) = stage.summary() {
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
