//! The resources that a function used, except CPU time and memory.

use serde::{Deserialize, Serialize};

use tailor_sizing::telemetry::rollup::Rollup;

use super::round_to_micros;
use super::threads::ThreadClasses;

/// Resources that the function's processes used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// Means over the successful warm invocations; `null` when none was measured.
    pub warm_means: Option<WarmMeans>,
    /// Means of the threads' work over the same invocations; `null` when no thread was classified.
    pub thread_classes: Option<ThreadClasses>,
    /// Highest use of `/tmp`, KiB; 0 when unknown.
    pub max_tmp_used_kib: u64,
    /// Mean time of a successful warm invocation after the runtime answered, ms: extensions use it.
    pub post_runtime_ms: f64,
    /// Invocations of any outcome that waited for an extension for most of their duration.
    pub extension_waits: u64,
    /// The longest such wait, ms.
    pub longest_extension_wait_ms: f64,
}

/// Means of one successful warm invocation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WarmMeans {
    /// TCP connections opened.
    pub connections_opened: f64,
    /// Bytes received from the network.
    pub network_received_bytes: f64,
    /// Bytes sent to the network.
    pub network_sent_bytes: f64,
    /// Bytes read from storage.
    pub disk_read_bytes: f64,
    /// Bytes written to storage.
    pub disk_written_bytes: f64,
    /// Page faults served from memory.
    pub minor_faults: f64,
    /// Page faults that read from disk.
    pub major_faults: f64,
    /// Context switches because a thread blocked.
    pub voluntary_switches: f64,
    /// Context switches forced on a thread.
    pub involuntary_switches: f64,
    /// CPU time of the environment that no known process accounts for, ms.
    pub unaccounted_cpu_ms: f64,
    /// Time in which a thread of the environment waited for a CPU, ms; 0 where the kernel does not show it.
    pub cpu_pressure_ms: f64,
    /// Periods of the CPU quota; 0 where the kernel does not show them.
    pub quota_periods: f64,
    /// Those that were throttled.
    pub throttled_periods: f64,
}

impl Resources {
    pub(super) fn of(rollup: &Rollup) -> Self {
        let (work, invocations) = (&rollup.warm.work, rollup.warm.invocations);
        let mean = |total: u64| round_to_micros(total as f64 / invocations as f64);
        let warm_means = (invocations > 0).then(|| WarmMeans {
            connections_opened: mean(work.sockets_opened),
            network_received_bytes: mean(work.network_rx_bytes),
            network_sent_bytes: mean(work.network_tx_bytes),
            disk_read_bytes: mean(work.disk_read_bytes),
            disk_written_bytes: mean(work.disk_written_bytes),
            minor_faults: mean(work.minor_faults),
            major_faults: mean(work.major_faults),
            voluntary_switches: mean(work.voluntary_switches),
            involuntary_switches: mean(work.involuntary_switches),
            unaccounted_cpu_ms: round_to_micros(mean(work.unaccounted_us) / 1_000.0),
            cpu_pressure_ms: round_to_micros(mean(work.pressure_us) / 1_000.0),
            quota_periods: mean(work.quota_periods),
            throttled_periods: mean(work.throttled_periods),
        });
        let post_runtime_us = rollup.post_runtime_us as f64 / rollup.warm_duration_us.count().max(1) as f64;
        Self {
            warm_means,
            thread_classes: ThreadClasses::of(work, invocations),
            max_tmp_used_kib: rollup.max_tmp_used_kib,
            post_runtime_ms: round_to_micros(post_runtime_us / 1_000.0),
            extension_waits: rollup.extension_waits.invocations,
            longest_extension_wait_ms: rollup.extension_waits.longest_us as f64 / 1_000.0,
        }
    }
}
