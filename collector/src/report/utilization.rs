//! CPU, memory and concurrency of the environments of a function on managed instances.

use serde::{Deserialize, Serialize};

use tailor_sizing::telemetry::utilization::Utilization;

use super::round_to_micros;

/// What the environments of a function used, where several invocations run at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct UtilizationReport {
    /// Time that was measured, over all environments, ms.
    pub measured_ms: u64,
    /// CPU that one environment uses on average, vCPUs.
    pub mean_vcpus: f64,
    /// The same in the busiest five seconds of an interval: 99 % of the intervals use less.
    pub p99_vcpus: f64,
    /// CPU of one invocation while it runs, vCPUs.
    pub vcpus_per_invocation: f64,
    /// Invocations at the same time in one environment on average.
    pub mean_concurrency: f64,
    /// The most.
    pub max_concurrency: u32,
    /// Highest memory of the function's processes in one environment, MB, rounded up.
    pub peak_memory_mb: u64,
}

impl UtilizationReport {
    /// `None` when nothing was measured.
    #[must_use]
    pub fn of(utilization: &Utilization) -> Option<Self> {
        (utilization.measured_us > 0).then(|| Self {
            measured_ms: utilization.measured_us / 1_000,
            mean_vcpus: round_to_micros(utilization.mean_cpu()),
            p99_vcpus: round_to_micros(utilization.cpu_milli.quantile(0.99).unwrap_or(0.0) / 1_000.0),
            vcpus_per_invocation: round_to_micros(utilization.cpu_per_invocation().unwrap_or(0.0)),
            mean_concurrency: round_to_micros(utilization.mean_concurrency()),
            max_concurrency: utilization.max_concurrency,
            peak_memory_mb: utilization.max_peak_kib.div_ceil(1_024),
        })
    }
}
