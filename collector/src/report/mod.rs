//! Reports: one per function and one of the fleet, computed from rollups.
//!
//! The command line, the JSON API and the pages all show these same values. Nothing here formats; see
//! [`crate::render`] for text and [`crate::web`] for pages. Field names and units are the JSON API's.

use serde::{Deserialize, Serialize};

use tailor_sizing::advice::hints::{Hint, HintCode};
use tailor_sizing::advice::{Advice, AdviceError, Confidence, CurvePoint, Saving, TrialMeasurement, Verdict};
use tailor_sizing::model::memory_floor::MemoryFloor;
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::telemetry::histogram::LogHistogram;
use tailor_sizing::telemetry::initialization::Initializations;
use tailor_sizing::units::{Architecture, Megabytes};

use crate::changes::Change;
use crate::profiles::Profile;
use crate::recommendations::Recommendation;
use crate::store::{Damage, FunctionKey, SummaryRow};
use crate::tags::Tags;

pub mod bill;
mod build;
mod cost_change;
mod digits;
pub mod evaluation;
pub mod hints;
pub mod ledger;
pub mod list;
pub mod load;
pub mod losses;
pub mod overview;
pub mod placement;
pub mod resources;
pub mod series;
mod stored;
pub mod summaries;
pub mod threads;
pub mod utilization;
mod varint;

pub use build::per_million;
pub use cost_change::of_function as cost_change;
pub use evaluation::{Evaluation, MeasuredVersion, hint_code, reasons};
pub use list::fleet;
pub use load::{EnforcementCache, Request, evaluations, function};
pub use losses::Losses;
pub use resources::Resources;
pub use series::SeriesReport;
pub use series::fleet_sums::FleetSumsCache;
pub use utilization::UtilizationReport;

/// The report of all functions of a tenant.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FleetReport {
    /// Sum over the functions.
    pub total: FleetTotal,
    /// The functions of this page, in the order of the query.
    pub functions: Vec<FunctionReport>,
    /// Number of functions that the filters select, on all pages.
    pub matching_functions: u64,
    /// The cursor of the next page; `null` on the last one.
    pub next: Option<String>,
    /// Sums by account, region or runtime, when the query requests them.
    pub groups: Option<Vec<FleetGroup>>,
    /// The hints over the functions that the filters select. `GET /v1/hints` has them.
    #[serde(skip)]
    pub hints: Vec<hints::FleetHint>,
    /// The functions with the largest savings: at most five.
    #[serde(skip)]
    pub top: Vec<SummaryRow>,
    /// The functions whose cost changed the most against the time before, at most five, when the query requests them.
    #[serde(skip)]
    pub movers: Vec<SummaryRow>,
    /// The summaries that order, filters and sums are from; `null` when they were computed for this report.
    pub summaries: Option<SummariesUsed>,
    /// Damaged rows of the store, which are not included.
    pub damage: Damage,
    /// The day the prices were compiled.
    pub prices_of: String,
}

/// Sums over the functions that share an account, a region or a runtime.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FleetGroup {
    /// The account, region or runtime; empty when unknown.
    pub value: String,
    /// Number of functions.
    pub functions: u64,
    /// Sums over them.
    pub total: FleetTotal,
}

/// Stored summaries, from which a list was made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SummariesUsed {
    /// Length of their window, hours.
    pub hours: u64,
    /// Their strategy.
    pub strategy: String,
    /// When the oldest was computed, microseconds since the Unix epoch.
    pub oldest_at_us: u64,
}

/// Sums over a fleet.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct FleetTotal {
    /// All invocations.
    pub invocations: u64,
    /// Failed invocations.
    pub errors: u64,
    /// Those whose caller waited for an environment.
    pub cold_starts: u64,
    /// Billed time, ms.
    pub billed_ms: u64,
    /// The cost, without functions whose price is not known.
    pub cost_pico_usd: PicoDollars,
    /// How much less the functions whose recommended size is cheaper would have cost at it.
    pub saving_pico_usd: PicoDollars,
    /// How much more the functions whose recommended size is faster and more expensive would have cost at it.
    pub spending_pico_usd: PicoDollars,
}

/// One function over a window of time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FunctionReport {
    /// Function name.
    pub name: String,
    /// AWS account; empty when unknown.
    pub account: String,
    /// AWS region.
    pub region: String,
    /// Runtime; empty when unknown.
    pub runtime: String,
    /// Instruction set, of the latest invocations.
    pub architecture: Architecture,
    /// Its tags, as far as they are known.
    #[serde(default)]
    pub tags: Tags,
    /// Versions seen.
    pub versions: Vec<String>,
    /// Memory size of the latest invocations.
    #[serde(rename = "memory_mb")]
    pub memory: Megabytes,
    /// All invocations.
    pub invocations: u64,
    /// Failed invocations, timeouts and out-of-memory kills included.
    pub errors: u64,
    /// Invocations that the timeout ended.
    pub timeouts: u64,
    /// Invocations that ran out of memory.
    pub out_of_memory: u64,
    /// Those whose caller waited for an environment.
    pub cold_starts: u64,
    /// First invocations of an environment, by how it was initialized.
    pub initializations: Initializations,
    /// Duration, cold starts and failures included.
    pub duration_ms: Quantiles,
    /// Billed time, ms.
    pub billed_ms: u64,
    /// The cost; `null` where no price is known.
    pub cost_pico_usd: Option<PicoDollars>,
    /// The same for a million invocations; `null` where no price is known.
    pub cost_per_million_pico_usd: Option<PicoDollars>,
    /// Highest memory in use, MB, rounded up: of the function's processes, or else of the environment.
    pub peak_memory_mb: u64,
    /// CPU time of its processes in the measured invocations, ms.
    pub busy_ms: u64,
    /// Wall time in which they were ready to run and had no CPU, in the measured invocations, ms.
    pub starved_ms: u64,
    /// Wall time in which no thread was ready to run, in the measured invocations, ms.
    pub idle_ms: u64,
    /// Wall time of the measured invocations, ms.
    pub measured_ms: u64,
    /// What its environments used; absent where each runs one invocation at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilization: Option<UtilizationReport>,
    /// Connections, network, disk, page faults, context switches and `/tmp`.
    pub resources: Resources,
    /// When the first invocation began, microseconds since the epoch.
    pub first_at_us: u64,
    /// When the latest invocation began, microseconds since the epoch.
    pub last_at_us: u64,
    /// Environments that sent a batch.
    pub environments: u64,
    /// How its invocations were measured.
    #[serde(default)]
    pub measured_by: MeasuredBy,
    /// Each size it ran with, smallest first.
    pub sizes: Vec<SizeReport>,
    /// What was lost.
    pub lost: Losses,
    /// What the extension itself used.
    pub overhead: Overheads,
    /// What the extension reports about itself.
    #[serde(default)]
    pub extension: ExtensionReport,
    /// Limits of the report, as sentences.
    pub caveats: Vec<String>,
    /// The recommendation.
    pub advice: AdviceReport,
    /// What other tools recommend; absent in the report of the fleet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_recommendations: Vec<Recommendation>,
    /// Its newest profiles, newest first; absent when the collector stores none, and in the report of the fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profiles: Option<Vec<Profile>>,
    /// Changes made to its memory size, latest first.
    pub changes: Vec<Change>,
    /// `duration_us` of every invocation: for its distribution.
    #[serde(skip)]
    pub duration_us: LogHistogram,
    /// `peak_kib` of every measured invocation: for the memory histogram.
    #[serde(skip)]
    pub peak_kib: LogHistogram,
}

impl FunctionReport {
    /// Its key in the store.
    #[must_use]
    pub fn key(&self) -> FunctionKey {
        FunctionKey { account: self.account.clone(), region: self.region.clone(), name: self.name.clone() }
    }

    /// Its measured wall time in three parts: busy, starved and idle, ms. Several threads that run at once are busy
    /// for longer than the wall time, which counts once here.
    #[must_use]
    pub fn wall_split(&self) -> [u64; 3] {
        let covered_ms = self.measured_ms.saturating_sub(self.idle_ms);
        [self.busy_ms.min(covered_ms), self.starved_ms, self.idle_ms]
    }

    /// Adds a sentence about a profile to the hints about CPU: a profile shows which code uses it.
    pub(crate) fn name_profile(&mut self, sentence: &str) {
        let AdviceReport { full, reasons, .. } = &mut self.advice;
        for hint in full.iter_mut().flat_map(|full| &mut full.hints) {
            if !matches!(hint.code, HintCode::CpuStarved | HintCode::SingleThreaded) {
                continue;
            }
            let code = format!("{}: ", hint_code(hint.code));
            for reason in reasons.iter_mut().filter(|reason| reason.starts_with(&code)) {
                *reason += &format!("; {sentence}");
            }
            hint.action += &format!("; {sentence}");
        }
    }

    /// How much less its invocations would have cost at the recommended size.
    #[must_use]
    pub fn saving(&self) -> PicoDollars {
        let per_million =
            self.advice.full.as_ref().map_or(PicoDollars::ZERO, |advice| advice.saving.per_million);
        per_million.scaled(u128::from(self.invocations), 1_000_000).unwrap_or(PicoDollars::ZERO)
    }
}

/// How invocations were measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MeasuredBy {
    /// The layer's extension measured them in their environments.
    #[default]
    Layer,
    /// They were imported from logs.
    Logs,
    /// Some were measured by the layer, and some were imported.
    LayerAndLogs,
}

impl MeasuredBy {
    /// What holds for environments of which some have the layer (`layer`), and some are from imported logs (`logs`).
    const fn of(layer: bool, logs: bool) -> Self {
        match (layer, logs) {
            (true, true) => Self::LayerAndLogs,
            (false, true) => Self::Logs,
            _ => Self::Layer,
        }
    }
}

/// Quantiles of a duration, ms.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Quantiles {
    /// Half are shorter.
    pub p50: f64,
    /// 95 % are shorter.
    pub p95: f64,
    /// 99 % are shorter.
    pub p99: f64,
}

impl Quantiles {
    /// Of a histogram of microseconds; zeros when it is empty.
    #[must_use]
    pub fn of(histogram: &LogHistogram) -> Self {
        let at = |q| round_to_micros(histogram.quantile(q).unwrap_or(0.0) / 1_000.0);
        Self { p50: at(0.5), p95: at(0.95), p99: at(0.99) }
    }
}

/// One function at one memory size.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SizeReport {
    /// The size.
    #[serde(rename = "memory_mb")]
    pub memory: Megabytes,
    /// Invocations with it.
    pub invocations: u64,
    /// Failed invocations.
    pub errors: u64,
    /// Invocations that ran out of memory.
    pub out_of_memory: u64,
    /// Those whose caller waited for an environment.
    pub cold_starts: u64,
    /// Duration of the successful warm ones.
    pub warm_duration_ms: Quantiles,
    /// Their mean, ms.
    pub warm_mean_ms: f64,
    /// Billed time of all, ms.
    pub billed_ms: u64,
    /// What they cost; `null` where no price is known.
    pub cost_pico_usd: Option<PicoDollars>,
    /// The same for a million; `null` where no price is known.
    pub cost_per_million_pico_usd: Option<PicoDollars>,
    /// Highest memory of the function's processes, MB, rounded up; 0 when not measured.
    pub peak_memory_mb: u64,
    /// When the latest began, microseconds since the epoch.
    pub last_at_us: u64,
}

/// What the extension itself used, over the environments that sent a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Overheads {
    /// CPU time, microseconds.
    pub cpu_us: u64,
    /// Resident memory of the largest, KiB.
    pub resident_kib: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
}

/// What the extensions of a function report about themselves.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ExtensionReport {
    /// Versions of the extension, of the environments that sent a batch in the window.
    pub versions: Vec<String>,
    /// When the latest batch arrived, microseconds since the Unix epoch by the collector's clock; 0 without one.
    pub received_at_us: u64,
    /// CPU time that no known process accounts for, in percent of all.
    pub unaccounted_percent: u8,
    /// Smallest difference between the arrival of a batch and the time at which it was sent by the clock of its
    /// environment, ms; `null` without an environment. AWS sets the clocks of environments.
    pub delivery_ms: Option<i64>,
    /// Why CPU time and memory are not measured; absent when they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_measured: Option<NotMeasured>,
}

/// Why CPU time and memory of a function are not measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NotMeasured {
    /// Its invocations were imported from logs.
    Logs,
    /// It runs on managed instances, and its environments sent no utilization.
    ManagedInstances,
    /// The extension could not read the processes of the function.
    Unreadable,
}

/// A recommendation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AdviceReport {
    /// Recommended size; the size in use when nothing can be recommended.
    #[serde(rename = "memory_mb")]
    pub memory: Megabytes,
    /// Predicted change of the cost of an invocation, percent; negative is a saving.
    pub cost_change_percent: f64,
    /// Predicted change of mean duration, percent; negative is faster.
    pub duration_change_percent: f64,
    /// The reasons of the verdict, then each hint as `code: evidence; action`. In the JSON of lists without the hints, which
    /// `full` has.
    pub reasons: Vec<String>,
    /// The evidence and the prediction; `null` when no advice could be computed.
    pub full: Option<AdviceDetail>,
}

/// The evidence and the prediction of an advice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdviceDetail {
    /// What the strategy trades for what, one sentence.
    #[serde(default)]
    pub trade: String,
    /// A short measurement at another size that would settle the choice; absent when it would change nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<TrialMeasurement>,
    /// Expected saving; zero when no change is recommended.
    pub saving: Saving,
    /// The smallest size judged safe from running out of memory.
    pub floor: MemoryFloor,
    /// Whether to change, and if not, why not.
    pub verdict: Verdict,
    /// Findings from the measurements.
    pub hints: Vec<Hint>,
    /// How reliable the advice is.
    pub confidence: Confidence,
    /// The expected values at a selection of sizes, in rising order; empty in the report of the fleet.
    pub curve: Vec<CurvePoint>,
}

impl AdviceReport {
    pub(crate) fn new(result: Result<Advice, AdviceError>, current: Megabytes) -> Self {
        match result {
            Ok(advice) => {
                let reasons = reasons(&advice);
                // Every field is named, so that a new one cannot be left out.
                let Advice {
                    memory,
                    current: _,
                    cost_change_percent,
                    duration_change_percent,
                    saving,
                    floor,
                    verdict,
                    reasons: _,
                    trade,
                    trial,
                    hints,
                    confidence,
                    curve,
                } = advice;
                Self {
                    memory,
                    cost_change_percent: round_to_micros(cost_change_percent),
                    duration_change_percent: round_to_micros(duration_change_percent),
                    reasons,
                    full: Some(AdviceDetail {
                        trade,
                        trial: trial.map(digits::trial),
                        saving,
                        floor: digits::floor(floor),
                        verdict,
                        hints,
                        confidence: digits::confidence(confidence),
                        curve: curve.into_iter().map(digits::point).collect(),
                    }),
                }
            }
            Err(error) => Self {
                memory: current,
                cost_change_percent: 0.0,
                duration_change_percent: 0.0,
                reasons: vec![error.to_string()],
                full: None,
            },
        }
    }

    /// The verdict; `None` when no advice could be computed.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        self.full.as_ref().map(|full| full.verdict)
    }

    /// The reasons without the hints.
    #[must_use]
    pub fn verdict_reasons(&self) -> &[String] {
        let hints = self.full.as_ref().map_or(0, |full| full.hints.len());
        &self.reasons[..self.reasons.len().saturating_sub(hints)]
    }

    /// Whether a change is recommended.
    #[must_use]
    pub fn is_change(&self) -> bool {
        matches!(self.verdict(), Some(Verdict::Change | Verdict::RaiseForMemory))
    }
}

/// Rounds to three decimals.
fn round_to_micros(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}
