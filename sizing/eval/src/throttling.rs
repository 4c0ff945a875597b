//! Which timer tick explains the throttling that was measured on AWS Lambda.
//!
//! A published loop in Node.js repeats a burst of work of about 3.6 ms without idle time, and has the wall time of each. The
//! simulation repeats the same work on each kernel, and the likelihood compares the two distributions of wall times.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use tailor_sizing::model::cfs_simulation::{Kernel, consecutive_ms};

use crate::curves::text;

/// Sizes at which nearly every burst is throttled.
const THROTTLED_MB: [u32; 3] = [128, 256, 512];

/// The size whose wall times are nearly CPU times, and their limit above which an iteration was throttled, ms.
const UNTHROTTLED_MB: u32 = 1_769;
const UNTHROTTLED_MS: f64 = 6.0;

/// Moments of the timer tick within the period that are simulated for one size, and bursts for each.
const OFFSETS: u32 = 10;
const SIMULATED: usize = 400;

/// Standard deviation that a measured wall time may differ from a simulated one, ms.
const SPREAD_MS: f64 = 1.0;

/// Probability of a wall time that the simulation does not have, and the range over which it may be, ms.
const OUTLIERS: f64 = 0.02;
const OUTLIER_RANGE_MS: f64 = 200.0;

/// The measured iterations by size.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Iterations {
    sizes: BTreeMap<u32, Size>,
}

#[derive(Debug, Clone, PartialEq, Default)]
struct Size {
    wall_ms: Vec<f64>,
    /// CPU time of all iterations, ms.
    cpu_ms: f64,
}

impl Iterations {
    /// Reads the iterations from `folder`.
    ///
    /// # Errors
    /// When the file cannot be read, or a row has no size or wall time.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("lambda-throttling-2025.csv.gz");
        let mut iterations = Self::default();
        for line in text(&path)?.lines().skip(1) {
            let mut cells = line.split(',');
            let memory = cells.next().and_then(|cell| cell.parse().ok());
            let memory: u32 = memory.with_context(|| format!("`{line}` has no memory size"))?;
            let size = iterations.sizes.entry(memory).or_default();
            let wall_ms = cells.nth(1).and_then(|cell| cell.parse().ok());
            size.wall_ms.push(wall_ms.with_context(|| format!("`{line}` has no wall time"))?);
            if let Some(cpu_ms) = cells.nth(1).and_then(|cell| cell.parse().ok()) {
                size.cpu_ms = size.cpu_ms.max(cpu_ms);
            }
        }
        Ok(iterations)
    }

    /// Logarithm of the likelihood of all iterations at the throttled sizes, on a kernel with a timer tick of `tick_ms`.
    #[must_use]
    pub fn log_likelihood(&self, kernel: Kernel, tick_ms: f64) -> f64 {
        let bursts = self.unthrottled_ms();
        let of_size = |memory: u32| {
            let Some(size) = self.sizes.get(&memory) else { return 0.0 };
            // The share that was received: at 256 MB less than `memory / 1769`.
            let share = size.cpu_ms / size.wall_ms.iter().sum::<f64>().max(f64::MIN_POSITIVE);
            let mean_ms = bursts.iter().sum::<f64>() / bursts.len().max(1) as f64;
            let scale = size.cpu_ms / size.wall_ms.len().max(1) as f64 / mean_ms;
            let busy_ms: Vec<f64> = bursts.iter().cycle().take(SIMULATED).map(|ms| ms * scale).collect();
            // The moment of the tick in the period differs between environments.
            let simulated: Vec<f64> = (0..OFFSETS)
                .map(|i| (f64::from(i) + 0.5) / f64::from(OFFSETS))
                .flat_map(|offset| consecutive_ms(&busy_ms, share, kernel, tick_ms, offset))
                .collect();
            size.wall_ms.iter().map(|&ms| density(ms, &simulated).ln()).sum()
        };
        THROTTLED_MB.into_iter().map(of_size).sum()
    }

    /// Wall times of the iterations that were not throttled, ms.
    fn unthrottled_ms(&self) -> Vec<f64> {
        let all = self.sizes.get(&UNTHROTTLED_MB).map(|size| size.wall_ms.as_slice()).unwrap_or_default();
        all.iter().copied().filter(|&ms| ms < UNTHROTTLED_MS).collect()
    }
}

/// Probability density of a wall time, per ms.
fn density(ms: f64, simulated: &[f64]) -> f64 {
    let near = |other: &f64| (-0.5 * ((ms - other) / SPREAD_MS).powi(2)).exp();
    let sum: f64 = simulated.iter().map(near).sum();
    let peak = SPREAD_MS * (2.0 * std::f64::consts::PI).sqrt() * simulated.len().max(1) as f64;
    (1.0 - OUTLIERS) * sum / peak + OUTLIERS / OUTLIER_RANGE_MS
}
