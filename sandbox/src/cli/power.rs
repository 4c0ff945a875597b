//! `lambda-sandbox power`: measures one function at several memory sizes.
//!
//! Cold invocations are measured separately: their durations do not include Init, but caches are cold.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};

use super::common::{Common, Sandbox};
use super::curve::{Point, table};
use super::invoke::{pace, payload};
use crate::config::{Architecture, MEMORY_MB_PER_VCPU};

/// A memory size is abandoned when its first invocations, this many, have all failed.
const FAILURES: u32 = 3;

/// Arguments of `power`.
#[derive(Debug, Args)]
pub(super) struct Power {
    /// Folder with a function.toml.
    function: PathBuf,
    /// The event, as JSON; `@FILE` reads it from a file.
    #[arg(default_value = "{}")]
    payload: String,
    /// Memory sizes in MB.
    #[arg(long, value_delimiter = ',', default_value = "128,256,512,1024,1769,3008",
          value_parser = clap::value_parser!(u32).range(128..=10_240))]
    sizes: Vec<u32>,
    /// Warm invocations at each size, after a cold one.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Write the curve to this file, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

impl Power {
    /// The table goes to standard output, progress and warnings to standard error. The exit code is 1 if nothing
    /// was measured.
    pub(super) async fn run(self) -> anyhow::Result<i32> {
        let payload = payload(&self.payload)?;
        // Opened before the measurement, so that a wrong path fails immediately.
        let file = self.json.as_ref().map(|path| {
            File::create(path).with_context(|| format!("cannot write the curve to {}", path.display()))
        });
        let file = file.transpose()?;
        let sandbox = self.common.start(pace())?;
        warn_about_limits(&sandbox, &self.sizes);
        let outcome: anyhow::Result<_> = tokio::select! {
            outcome = measure(&sandbox, &self.function, payload, &self.sizes, self.count) => outcome,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        };
        sandbox.stop(tokio::signal::ctrl_c()).await;
        let (name, points) = outcome?;
        print!("{}", table(&points));
        points.iter().filter_map(Point::warning).for_each(|warning| eprintln!("{warning}"));
        if let Some(file) = file {
            let curve: Vec<Value> = points.iter().map(Point::json).collect();
            let cpus = std::thread::available_parallelism().map_or(1, usize::from);
            let saved = json!({
                "function": name, "architecture": Architecture::current().as_str(), "host_cpus": cpus,
                "warm_invocations": self.count, "curve": curve,
            });
            serde_json::to_writer_pretty(file, &saved).context("cannot write the curve")?;
        }
        Ok(i32::from(!points.iter().any(Point::is_measured)))
    }
}

async fn measure(
    sandbox: &Sandbox,
    function: &std::path::Path,
    payload: Bytes,
    sizes: &[u32],
    count: u32,
) -> anyhow::Result<(String, Vec<Point>)> {
    let name = sandbox.load_one(function)?;
    let mut points = Vec::new();
    for (number, memory_mb) in sizes.iter().enumerate() {
        eprintln!("{memory_mb} MB ({} of {})", number + 1, sizes.len());
        let mut point = Point::new(*memory_mb);
        for _ in 0..=count {
            let done = sandbox.plane.invoke_directly(&name, Some(*memory_mb), payload.clone()).await?;
            let (report, facts) = (&done.completion.report, &done.completion.facts);
            ensure!(
                report["metrics"]["memorySizeMB"].is_u64(),
                "{name} runs on managed instances, which are not billed by memory size: there is no curve"
            );
            let error = done.result.is_error().then_some(&done.result.payload[..]);
            point.add(report, facts, error);
            if point.failed() >= FAILURES && !point.is_measured() {
                break;
            }
        }
        points.push(point);
    }
    Ok((name, points))
}

/// Warns when the measurement cannot show Lambda's behavior: without a CPU limit, or with fewer CPUs than a size needs.
fn warn_about_limits(sandbox: &Sandbox, sizes: &[u32]) {
    if sandbox.platform.hierarchy.missing().contains(&"cpu") {
        tracing::warn!(
            "CPU is not limited here: all memory sizes get the same CPU, so the durations do not apply to Lambda"
        );
    }
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let beyond =
        |memory_mb: &&u32| f64::from(**memory_mb) / f64::from(MEMORY_MB_PER_VCPU) > cpus_as_f64(cpus);
    if let Some(memory_mb) = sizes.iter().find(beyond) {
        let bought = f64::from(*memory_mb) / f64::from(MEMORY_MB_PER_VCPU);
        tracing::warn!(
            "{memory_mb} MB give {bought:.2} CPUs on Lambda, this machine has {cpus}: functions with several threads are slower here"
        );
    }
}

fn cpus_as_f64(cpus: usize) -> f64 {
    u32::try_from(cpus).map_or(f64::MAX, f64::from)
}
