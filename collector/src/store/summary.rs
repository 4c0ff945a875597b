//! Summaries: the report of each function for some windows and strategies, computed in the background, so that a list
//! costs what it shows.

use serde::{Deserialize, Serialize};

use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::units::{Architecture, Megabytes};

use super::{FunctionKey, Tenant};

/// Which summary of a function: the window and the strategy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SummaryKind {
    /// Length of the window before now, hours.
    pub hours: u64,
    /// Name of the strategy.
    pub strategy: String,
}

/// What a list sorts, filters and adds up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SummaryRow {
    /// The function.
    pub function: FunctionKey,
    /// Its runtime; empty when unknown.
    pub runtime: String,
    /// Instruction set of its latest invocations.
    pub architecture: Architecture,
    /// Memory size of its latest invocations.
    pub memory: Megabytes,
    /// All invocations.
    pub invocations: u64,
    /// Those that failed.
    pub errors: u64,
    /// Cold starts.
    pub cold_starts: u64,
    /// Billed time, ms.
    pub billed_ms: u64,
    /// 95th percentile of duration, ms.
    pub p95_ms: f64,
    /// What was paid; `None` when no price is known.
    pub cost: Option<PicoDollars>,
    /// How much more it was than in the time of the same length before; `None` when that is not known.
    #[serde(default)]
    pub cost_change: Option<PicoDollars>,
    /// What the recommended size would have saved; negative when it costs more.
    pub saving: PicoDollars,
    /// The kind of advice: `change`, `keep`, `unsure` or `none`.
    pub advice: String,
    /// The recommended size, when it is another.
    #[serde(default)]
    pub advised: Option<AdvisedSize>,
    /// The hints.
    #[serde(default)]
    pub hints: Vec<RowHint>,
    /// When it was computed, microseconds since the Unix epoch.
    pub computed_at_us: u64,
}

/// A recommended memory size with its predictions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdvisedSize {
    /// The size.
    pub memory: Megabytes,
    /// Predicted change of the cost of an invocation, percent.
    pub cost_change_percent: f64,
    /// Predicted change of mean duration, percent.
    pub duration_change_percent: f64,
}

/// A hint of a function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RowHint {
    /// Its stable code.
    pub code: String,
    /// What acting on it would have saved in the window.
    pub saving: PicoDollars,
}

/// A function whose summaries are out of date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedFunction {
    /// The owner.
    pub tenant: Tenant,
    /// The function.
    pub function: FunctionKey,
    /// When its newest compacted batch was received: whether it changed again is decided by this.
    pub received_at_us: u64,
}

/// One summary to store.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Window and strategy.
    pub kind: SummaryKind,
    /// For sorting, filters and sums.
    pub row: SummaryRow,
    /// The report as shown in lists, as JSON.
    pub report: Vec<u8>,
}
