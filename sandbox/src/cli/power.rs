//! `lambda-sandbox power`: one function at many memory sizes; the measured curve.
//!
//! Cold invocations are told apart: their durations are Lambda's, without Init, but caches are cold.

use std::fs::File;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use super::common::Common;
use super::invoke::{pace, payload};

/// Arguments of `power`.
#[derive(Debug, Args)]
pub(super) struct Power {
    /// Folder with a function.toml.
    function: PathBuf,
    /// The event, as JSON; `@FILE` reads it from a file.
    #[arg(default_value = "{}")]
    payload: String,
    /// Memory sizes in MB.
    #[arg(long, value_delimiter = ',', default_value = "128,256,512,1024,1769,3008")]
    sizes: Vec<u32>,
    /// Warm invocations at each size, after a cold one.
    #[arg(long, default_value_t = 10)]
    count: u32,
    /// Write the curve to this file, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// One measured size.
struct Point {
    memory_mb: u32,
    init_ms: f64,
    cold_ms: f64,
    warm_ms: Vec<f64>,
    billed_ms: Vec<f64>,
    cpu_ms: Vec<f64>,
    throttled_ms: Vec<f64>,
    max_memory_used_mb: u64,
    errors: u32,
}

impl Power {
    pub(super) async fn run(self) -> anyhow::Result<i32> {
        let payload = payload(&self.payload)?;
        let sandbox = self.common.start(pace())?;
        let measure = async {
            let name = sandbox.load_one(&self.function)?;
            let mut points = Vec::new();
            for (number, memory_mb) in self.sizes.iter().enumerate() {
                eprintln!("{memory_mb} MB ({} of {})", number + 1, self.sizes.len());
                let mut point = Point::new(*memory_mb);
                for _ in 0..=self.count {
                    let invoked = sandbox.plane.invoke_directly(&name, Some(*memory_mb), payload.clone());
                    let done = invoked.await?;
                    point.add(
                        &done.completion.report["metrics"],
                        &done.completion.facts,
                        done.result.is_error(),
                    );
                }
                points.push(point);
            }
            Ok((name, points))
        };
        let outcome: anyhow::Result<_> = tokio::select! {
            outcome = measure => outcome,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        };
        sandbox.stop(tokio::signal::ctrl_c()).await;
        let (name, points) = outcome?;
        print(&points);
        if let Some(path) = &self.json {
            let curve: Vec<Value> = points.iter().map(Point::json).collect();
            let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
            serde_json::to_writer_pretty(file, &json!({"function": name, "curve": curve}))?;
        }
        Ok(i32::from(points.iter().any(|point| point.errors > 0)))
    }
}

impl Point {
    fn new(memory_mb: u32) -> Point {
        Point {
            memory_mb,
            init_ms: 0.0,
            cold_ms: 0.0,
            warm_ms: Vec::new(),
            billed_ms: Vec::new(),
            cpu_ms: Vec::new(),
            throttled_ms: Vec::new(),
            max_memory_used_mb: 0,
            errors: 0,
        }
    }

    /// Adds one invocation by its report and what the kernel counted.
    fn add(&mut self, metrics: &Value, facts: &Value, failed: bool) {
        let duration_ms = metrics["durationMs"].as_f64().unwrap_or_default();
        self.errors += u32::from(failed);
        self.max_memory_used_mb =
            self.max_memory_used_mb.max(metrics["maxMemoryUsedMB"].as_u64().unwrap_or_default());
        if let Some(init_ms) = metrics["initDurationMs"].as_f64() {
            (self.init_ms, self.cold_ms) = (init_ms, duration_ms);
            return;
        }
        self.warm_ms.push(duration_ms);
        self.billed_ms.push(metrics["billedDurationMs"].as_f64().unwrap_or_default());
        let cpu_ms = |key: &str| facts["cpu"][key].as_f64().map(|ns| ns / 1e6);
        self.cpu_ms.extend(cpu_ms("usage_ns"));
        self.throttled_ms.extend(cpu_ms("throttled_ns"));
    }

    fn json(&self) -> Value {
        json!({
            "memory_mb": self.memory_mb, "init_ms": self.init_ms, "cold_ms": self.cold_ms,
            "warm_ms": self.warm_ms, "billed_ms": self.billed_ms, "cpu_ms": self.cpu_ms,
            "throttled_ms": self.throttled_ms, "max_memory_used_mb": self.max_memory_used_mb,
            "errors": self.errors, "mean_ms": mean(&self.warm_ms), "mean_billed_ms": mean(&self.billed_ms),
            "gb_seconds": self.gb_seconds(),
        })
    }

    /// What one warm invocation is billed.
    fn gb_seconds(&self) -> f64 {
        mean(&self.billed_ms) / 1e3 * f64::from(self.memory_mb) / 1024.0
    }
}

fn print(points: &[Point]) {
    println!(
        "{:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>12} {:>6}",
        "memory MB",
        "init ms",
        "cold ms",
        "p50 ms",
        "p95 ms",
        "billed ms",
        "cpu ms",
        "GB-s/million",
        "max MB"
    );
    for point in points {
        println!(
            "{:>9} {:>9.1} {:>9.2} {:>9.2} {:>9.2} {:>9.1} {:>9.2} {:>12.1} {:>6}",
            point.memory_mb,
            point.init_ms,
            point.cold_ms,
            quantile(&point.warm_ms, 0.5),
            quantile(&point.warm_ms, 0.95),
            mean(&point.billed_ms),
            mean(&point.cpu_ms),
            point.gb_seconds() * 1e6,
            point.max_memory_used_mb,
        );
    }
}

fn mean(values: &[f64]) -> f64 {
    #[expect(clippy::cast_precision_loss)]
    let count = values.len().max(1) as f64;
    values.iter().sum::<f64>() / count
}

/// Nearest rank.
fn quantile(values: &[f64], quantile: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_measured_values() {
        let values = [5.0, 1.0, 3.0, 2.0, 4.0];
        assert_eq!((quantile(&values, 0.5), quantile(&values, 0.95)), (3.0, 5.0));
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}
