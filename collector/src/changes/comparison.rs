//! Measurements at one memory size, summarized for comparison with another size.

use serde::{Deserialize, Serialize};

use tailor_sizing::pricing::bill::FREE_STORAGE_MB;
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::pricing::prices::Rates;
use tailor_sizing::telemetry::histogram::LogHistogram;
use tailor_sizing::telemetry::invocation::Outcome;
use tailor_sizing::units::Megabytes;

use crate::store::Recent;

/// Maximum number of single invocations in a comparison.
pub const MAX_COMPARED_INVOCATIONS: usize = 2_000;

/// Summary of invocations at one memory size.
///
/// Duration and billed time are of successful warm invocations only: every change of size causes cold starts,
/// which would hide the effect of the size itself. The cost does not include `/tmp`, which does not change.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Measurements {
    /// All invocations.
    pub invocations: u64,
    /// Failed invocations.
    pub errors: u64,
    /// Invocations that ran out of memory.
    pub out_of_memory: u64,
    /// Successful warm invocations.
    pub warm: u64,
    /// Cost of one million warm invocations, pico-dollars; `None` when no price is known.
    pub cost_per_million_pico_usd: Option<PicoDollars>,
    /// Mean duration of the warm invocations, ms.
    pub mean_ms: f64,
    /// Median duration, ms.
    pub p50_ms: f64,
    /// 95th percentile of duration, ms.
    pub p95_ms: f64,
    /// Standard error of the mean, ms; 0 with fewer than two invocations.
    pub mean_error_ms: f64,
}

/// The measurements of the invocations with this memory size that started at `since_us` (microseconds since the Unix
/// epoch) or later, with cost if `rates` are known.
#[must_use]
pub fn since(recent: &[Recent], memory: Megabytes, since_us: u64, rates: Option<&Rates>) -> Measurements {
    let mut measurements = Measurements::default();
    let mut durations = LogHistogram::default();
    let (mut sum_us, mut billed_ms) = (0u64, 0u64);
    let selected = recent
        .iter()
        .filter(|recent| recent.memory == memory && recent.invocation.started_at_us >= since_us)
        .map(|recent| &recent.invocation);
    for invocation in selected {
        measurements.invocations += 1;
        match invocation.outcome {
            Outcome::Success | Outcome::Unknown if !invocation.initialization.is_first() => {
                measurements.warm += 1;
                billed_ms = billed_ms.saturating_add(invocation.billed_ms);
                sum_us = sum_us.saturating_add(invocation.duration_us);
                durations.record(invocation.duration_us);
            }
            Outcome::Success | Outcome::Unknown => {}
            Outcome::OutOfMemory => {
                measurements.errors += 1;
                measurements.out_of_memory += 1;
            }
            Outcome::Error | Outcome::Timeout => measurements.errors += 1,
        }
    }
    let ms = |us: f64| us / 1_000.0;
    if measurements.warm > 0 {
        measurements.mean_ms = ms(sum_us as f64 / measurements.warm as f64);
        measurements.p50_ms = ms(durations.quantile(0.5).unwrap_or(0.0));
        measurements.p95_ms = ms(durations.quantile(0.95).unwrap_or(0.0));
        let cost = rates.map(|rates| rates.cost(memory, billed_ms, measurements.warm, FREE_STORAGE_MB));
        measurements.cost_per_million_pico_usd =
            cost.and_then(|cost| cost.scaled(1_000_000, u128::from(measurements.warm)));
        let variance = durations.variance().unwrap_or(0.0);
        measurements.mean_error_ms = ms((variance / measurements.warm as f64).sqrt());
    }
    measurements
}
