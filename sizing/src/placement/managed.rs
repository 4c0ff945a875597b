//! Settings for a function that runs on managed instances, from what its environments use.

use serde::Serialize;

use crate::pricing::managed_instances::runtime_limit;
use crate::telemetry::utilization::Utilization;
use crate::units::Megabytes;

/// Memory per vCPU of the instance families `c`, `m` and `r`, GiB: the values of `ExecutionEnvironmentMemoryGiBPerVCpu` that
/// use an instance fully.
const GIB_PER_VCPU: [u64; 3] = [2, 4, 8];

/// Highest value of `PerExecutionEnvironmentMaxConcurrency`.
const MAX_CONCURRENCY: f64 = 1_600.0;

/// Share of the CPU and of the memory of an environment that is planned for.
const TARGET_SHARE: f64 = 0.8;

/// How far the CPU time of an invocation may differ at another concurrency.
const CPU_SPREAD: f64 = 0.25;

/// Fewest intervals for settings: less than ten minutes of one environment show no peak.
const MIN_INTERVALS: u64 = 10;

const KIB_PER_GIB: f64 = 1_048_576.0;

/// What bounds the concurrency of an environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ConcurrencyLimit {
    /// CPU time.
    Cpu,
    /// Memory.
    Memory,
    /// What AWS's calculator permits for one vCPU in this runtime.
    Runtime,
}

/// Settings for the environments of one function.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ManagedSettings {
    /// Setting `ExecutionEnvironmentMemoryGiBPerVCpu`.
    pub gib_per_vcpu: u64,
    /// The same with the highest and with the median CPU use.
    pub gib_per_vcpu_interval: [u64; 2],
    /// vCPUs of an environment with it.
    pub vcpus: f64,
    /// Setting `PerExecutionEnvironmentMaxConcurrency`.
    pub max_concurrency: u64,
    /// The same with a quarter more and a quarter less CPU time for an invocation.
    pub max_concurrency_interval: [u64; 2],
    /// What bounds the concurrency.
    pub limited_by: ConcurrencyLimit,
    /// What is assumed.
    pub assumptions: Vec<String>,
}

/// Why there are no settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ManagedSettingsError {
    /// Nothing was measured.
    #[error("CPU and memory of its environments were not measured: use this version of the layer")]
    NotMeasured,
    /// Too little was measured.
    #[error("too few intervals were measured for advice on its settings: {0} of {MIN_INTERVALS}")]
    TooFew(u64),
}

/// Settings for environments of this memory size.
///
/// # Errors
/// [`ManagedSettingsError`] when too little was measured.
pub fn managed_settings(
    utilization: &Utilization,
    memory: Megabytes,
    runtime: &str,
) -> Result<ManagedSettings, ManagedSettingsError> {
    let Some(cpu) = utilization.cpu_per_invocation().filter(|_| utilization.max_peak_kib > 0) else {
        return Err(ManagedSettingsError::NotMeasured);
    };
    if utilization.intervals < MIN_INTERVALS {
        return Err(ManagedSettingsError::TooFew(utilization.intervals));
    }
    let memory_gib = f64::from(memory.0) / 1_024.0;
    let peak_gib = utilization.max_peak_kib as f64 / KIB_PER_GIB;
    let vcpus_at = |quantile: f64| utilization.cpu_milli.quantile(quantile).unwrap_or(0.0) / 1_000.0;
    let ratio = |vcpus: f64| gib_per_vcpu(peak_gib / vcpus.max(1e-3), memory_gib);
    let gib_per_vcpu = ratio(vcpus_at(0.99));
    let vcpus = (memory_gib / gib_per_vcpu as f64).max(1.0);
    let by_memory = TARGET_SHARE * memory_gib * f64::from(utilization.max_concurrency.max(1)) / peak_gib;
    let by_runtime = vcpus * runtime_limit(runtime) as f64;
    let limits = |cpu: f64| {
        [
            (TARGET_SHARE * vcpus / cpu.max(1e-6), ConcurrencyLimit::Cpu),
            (by_memory, ConcurrencyLimit::Memory),
            (by_runtime, ConcurrencyLimit::Runtime),
        ]
    };
    let least = |cpu: f64| {
        limits(cpu).into_iter().fold((MAX_CONCURRENCY, ConcurrencyLimit::Runtime), |least, limit| {
            if limit.0 < least.0 { limit } else { least }
        })
    };
    let (concurrency, limited_by) = least(cpu);
    Ok(ManagedSettings {
        gib_per_vcpu,
        gib_per_vcpu_interval: [ratio(vcpus_at(1.0)), ratio(vcpus_at(0.5))],
        vcpus,
        max_concurrency: concurrency_limit(concurrency),
        max_concurrency_interval: [
            concurrency_limit(least(cpu * (1.0 + CPU_SPREAD)).0),
            concurrency_limit(least(cpu * (1.0 - CPU_SPREAD)).0),
        ],
        limited_by,
        assumptions: vec![
            format!(
                "an environment is planned to use {:.0} % of its CPU and of its memory; the CPU time of an invocation differs by \
                 a quarter at another concurrency",
                100.0 * TARGET_SHARE
            ),
            "memory grows in proportion to the invocations at the same time, which overstates it: the memory of the runtime is \
             shared"
                .to_owned(),
            "an environment has at least one vCPU".to_owned(),
        ],
    })
}

/// The lowest memory per vCPU that has enough memory for the CPU, with at least one vCPU in an environment.
fn gib_per_vcpu(needed: f64, memory_gib: f64) -> u64 {
    let possible = GIB_PER_VCPU.into_iter().filter(|gib| *gib as f64 <= memory_gib);
    possible
        .clone()
        .find(|gib| *gib as f64 >= needed)
        .or_else(|| possible.clone().next_back())
        .unwrap_or(GIB_PER_VCPU[0])
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "float to integer casts saturate"
)]
fn concurrency_limit(concurrency: f64) -> u64 {
    concurrency.floor().max(1.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::utilization::Interval;

    /// Environments in which `max_concurrency` invocations use this many thousandths of a vCPU and MiB.
    fn utilization(milli: u64, mib: u64, max_concurrency: u32) -> Utilization {
        let mut utilization = Utilization::default();
        let interval = Interval {
            duration_us: 60_000_000,
            cpu_us: milli * 60_000,
            max_cpu_milli: milli,
            peak_kib: mib * 1_024,
            max_concurrency,
        };
        for _ in 0..MIN_INTERVALS {
            utilization.record(&interval, 60_000_000 * u64::from(max_concurrency));
        }
        utilization
    }

    #[test]
    fn cpu_memory_or_the_runtime_bounds_the_concurrency() {
        let settings = |milli, mib, concurrency, memory_mb, runtime| {
            managed_settings(&utilization(milli, mib, concurrency), Megabytes(memory_mb), runtime).unwrap()
        };
        // 4 invocations use 2 vCPUs and 1 GiB: 2 GiB per vCPU, and half a vCPU each.
        let busy = settings(2_000, 1_024, 4, 8_192, "python3.13");
        assert_eq!((busy.gib_per_vcpu, busy.max_concurrency), (2, 6));
        assert_eq!(busy.limited_by, ConcurrencyLimit::Cpu);
        assert_eq!(busy.max_concurrency_interval, [5, 8]);
        // 2 invocations use 3 GiB: 0.8 × 8 GiB for 1.5 GiB each.
        let large = settings(200, 3_072, 2, 8_192, "python3.13");
        assert_eq!((large.gib_per_vcpu, large.max_concurrency), (8, 4));
        assert_eq!(large.limited_by, ConcurrencyLimit::Memory);
        // Invocations that only wait.
        let waiting = settings(50, 200, 40, 2_048, "python3.13");
        assert_eq!((waiting.gib_per_vcpu, waiting.max_concurrency), (2, 16));
        assert_eq!(waiting.limited_by, ConcurrencyLimit::Runtime);
    }

    #[test]
    fn too_few_measurements_give_no_settings() {
        let none = managed_settings(&Utilization::default(), Megabytes(2_048), "");
        assert_eq!(none, Err(ManagedSettingsError::NotMeasured));
        let mut few = utilization(1_000, 1_024, 1);
        few.intervals = 3;
        assert_eq!(managed_settings(&few, Megabytes(2_048), ""), Err(ManagedSettingsError::TooFew(3)));
    }
}
