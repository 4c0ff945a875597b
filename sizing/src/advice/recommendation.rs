//! The result of advice: one recommended memory size, its reasons, its confidence and the predicted curve.

use serde::{Deserialize, Serialize};

use crate::advice::hints::Hint;
use crate::advice::trial::TrialMeasurement;
use crate::model::interval::Prediction;
use crate::model::memory_floor::MemoryFloor;
use crate::pricing::money::PicoDollars;
use crate::units::Megabytes;

/// A recommended size with its evidence.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Advice {
    /// The recommended size; the current one when no change is recommended.
    #[serde(rename = "memory_mb")]
    pub memory: Megabytes,
    /// The size configured now.
    #[serde(rename = "current_memory_mb")]
    pub current: Megabytes,
    /// Expected change of the cost of an invocation; negative is cheaper.
    pub cost_change_percent: f64,
    /// Expected change of the mean duration of a warm invocation; negative is faster.
    pub duration_change_percent: f64,
    /// Expected saving; zero when no change is recommended.
    pub saving: Saving,
    /// The smallest size judged safe from running out of memory.
    pub floor: MemoryFloor,
    /// Whether to change, and if not, why not.
    pub verdict: Verdict,
    /// The reasons for the verdict, one sentence each.
    pub reasons: Vec<String>,
    /// What the strategy trades for what, one sentence.
    pub trade: String,
    /// A short measurement at another size that would settle the choice; `None` when it would change nothing.
    pub trial: Option<TrialMeasurement>,
    /// Findings from the measurements.
    pub hints: Vec<Hint>,
    /// How reliable it is.
    pub confidence: Confidence,
    /// The expected values at a selection of sizes, in rising order.
    pub curve: Vec<CurvePoint>,
}

/// Whether a change is recommended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Another size is better.
    Change,
    /// The current size is below the floor: increase it, even if the cost increases.
    RaiseForMemory,
    /// No size is better by more than the dead band.
    AlreadyBest,
    /// Another size may be better, but the interval is too wide for what it would gain.
    TooUncertain,
    /// Too few invocations were measured.
    TooLittleEvidence,
    /// A smaller size seems better, but much of the environment's CPU time is of no known process.
    CpuUnaccounted,
    /// CPU time was not measured and only one size was seen.
    NoCpuTelemetry,
}

/// Expected saving of the recommended size against the current one; negative when it costs more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Saving {
    /// For a million invocations, pico-dollars.
    pub per_million: PicoDollars,
    /// Its 80 % interval, low and high.
    pub per_million_interval_80: [PicoDollars; 2],
    /// For a month at the observed rate; `None` when less than an hour was observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_month: Option<PicoDollars>,
    /// Its 80 % interval, low and high.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_month_interval_80: Option<[PicoDollars; 2]>,
}

/// How reliable the advice is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Confidence {
    /// The level.
    pub level: ConfidenceLevel,
    /// Warm invocations measured, all sizes together.
    pub invocations: u64,
    /// Environments they ran in.
    pub environments: u64,
    /// Sizes they ran at.
    pub sizes: usize,
    /// Hours from the first to the last of them.
    pub span_hours: f64,
    /// Half of the 80 % interval of the duration at the recommended size, as a percentage of it.
    pub duration_within_percent: f64,
}

/// The level of confidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfidenceLevel {
    /// Fewer than 50 invocations, or a prediction that may be off by more than 30 %.
    Low,
    /// In between.
    Medium,
    /// At least 200 invocations and a prediction within 15 %.
    High,
}

/// What is expected at one size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// The size.
    #[serde(rename = "memory_mb")]
    pub memory: Megabytes,
    /// Whether invocations were measured at this size.
    pub observed: bool,
    /// Mean duration of a warm invocation, ms.
    pub mean: Prediction,
    /// Its quantiles, ms.
    pub p50: Prediction,
    /// 95th percentile, ms.
    pub p95: Prediction,
    /// 99th percentile, ms.
    pub p99: Prediction,
    /// Expected cost of a million invocations, pico-dollars.
    pub cost_per_million: PicoDollars,
    /// Its 80 % interval.
    pub cost_per_million_interval_80: [PicoDollars; 2],
}
