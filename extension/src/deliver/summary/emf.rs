//! CloudWatch's Embedded Metric Format: a log line that declares which of its fields are metrics.
//!
//! The metrics are fields at the root of the line; `_aws` has their names. Source: CloudWatch's user guide,
//! "Specification: Embedded metric format".

use serde::Serialize;

/// The metrics' namespace in CloudWatch.
const NAMESPACE: &str = "LambdaTailor";

/// The fields of a summary that are metrics, with CloudWatch's names for their units.
const METRICS: [Metric; 12] = [
    Metric { name: "invocations", unit: "Count" },
    Metric { name: "errors", unit: "Count" },
    Metric { name: "cold_starts", unit: "Count" },
    Metric { name: "estimated", unit: "Count" },
    Metric { name: "duration_p50_ms", unit: "Milliseconds" },
    Metric { name: "duration_p95_ms", unit: "Milliseconds" },
    Metric { name: "billed_ms", unit: "Milliseconds" },
    // CloudWatch has no unit for money.
    Metric { name: "cost_pico_usd", unit: "None" },
    Metric { name: "peak_memory_mb", unit: "Megabytes" },
    Metric { name: "busy_ms", unit: "Milliseconds" },
    Metric { name: "starved_ms", unit: "Milliseconds" },
    Metric { name: "idle_ms", unit: "Milliseconds" },
];

/// The `_aws` member.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Metadata {
    /// Milliseconds since the Unix epoch.
    timestamp: u64,
    cloud_watch_metrics: [Directive; 1],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Directive {
    namespace: &'static str,
    dimensions: [[&'static str; 1]; 1],
    metrics: Vec<Metric>,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metric {
    name: &'static str,
    unit: &'static str,
}

impl Metadata {
    /// For a line with all fields except `absent`; `timestamp` is milliseconds since the Unix epoch.
    pub(super) fn at(timestamp: u64, absent: &[&str]) -> Self {
        let metrics = METRICS.into_iter().filter(|metric| !absent.contains(&metric.name)).collect();
        let directive = Directive { namespace: NAMESPACE, dimensions: [["FunctionName"]], metrics };
        Self { timestamp, cloud_watch_metrics: [directive] }
    }
}
