//! What other tools recommend for functions: AWS Lambda Power Tuning and AWS Compute Optimizer.
//!
//! A file in the data folder has them. Reports of a function show them beside the advice, which does not use them. What an
//! experiment measured at each size is shown in the curves of the function.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tailor_sizing::pricing::money::{PICO_PER_DOLLAR, PicoDollars};
use tailor_sizing::units::Megabytes;

use crate::files;
use crate::store::{FunctionKey, Tenant};

pub mod compute_optimizer;
pub mod power_tuning;

/// The file in the data folder.
const FILE_NAME: &str = "recommendations.json";

/// The version of its form.
const VERSION: u32 = 1;

/// A tool that recommends memory sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tool {
    /// AWS Lambda Power Tuning, or `tailor tune`, which has the same output.
    PowerTuning,
    /// AWS Compute Optimizer.
    ComputeOptimizer,
}

impl Tool {
    /// Its name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PowerTuning => "AWS Lambda Power Tuning",
            Self::ComputeOptimizer => "AWS Compute Optimizer",
        }
    }
}

/// What a tool recommends for one version of a function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recommendation {
    /// The tool.
    pub tool: Tool,
    /// The version of the function; empty when the tool does not name it.
    #[serde(default)]
    pub version: String,
    /// The recommended size; `null` when the tool recommends none.
    #[serde(rename = "memory_mb")]
    pub memory: Option<Megabytes>,
    /// The size for which it was recommended; `null` when unknown.
    #[serde(rename = "current_memory_mb")]
    pub current: Option<Megabytes>,
    /// Mean duration at the recommended size, ms: measured by Power Tuning, projected by Compute Optimizer.
    pub duration_ms: Option<f64>,
    /// Measured cost of a million invocations at the recommended size.
    pub cost_per_million_pico_usd: Option<PicoDollars>,
    /// Estimated saving of a month.
    pub monthly_saving_pico_usd: Option<PicoDollars>,
    /// What the tool found, such as `NotOptimized`; empty when it does not state it.
    #[serde(default)]
    pub finding: String,
    /// When the tool made it, as the tool writes it; empty when unknown.
    #[serde(default)]
    pub made_at: String,
    /// When it was imported, microseconds since the Unix epoch.
    pub imported_at_us: u64,
    /// What Power Tuning measured at each size. The curves of the function show it beside the predictions.
    #[serde(default)]
    pub sizes: Vec<MeasuredSize>,
}

/// What an experiment measured at one size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MeasuredSize {
    /// The size.
    #[serde(rename = "memory_mb")]
    pub memory: Megabytes,
    /// Mean duration, ms.
    pub duration_ms: f64,
    /// Mean cost of a million invocations.
    pub cost_per_million_pico_usd: Option<PicoDollars>,
}

impl Recommendation {
    /// It in one sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let mut text = match (self.memory, self.current) {
            (Some(memory), Some(current)) => format!("{} recommends {current} → {memory}", self.tool.name()),
            (Some(memory), None) => format!("{} recommends {memory}", self.tool.name()),
            (None, _) => format!("{} recommends no other size", self.tool.name()),
        };
        if !self.version.is_empty() {
            text += &format!(" for version {}", self.version);
        }
        let duration = self.duration_ms.map(|ms| format!("mean duration {ms:.1} ms"));
        let cost = self.cost_per_million_pico_usd.map(|cost| format!("{cost} for a million invocations"));
        let saving = self.monthly_saving_pico_usd.map(|saving| format!("estimated saving {saving} a month"));
        let finding = Some(&self.finding).filter(|finding| !finding.is_empty());
        let made_at = Some(&self.made_at).filter(|at| !at.is_empty()).map(|at| format!("made at {at}"));
        let details = [duration, cost, saving, finding.map(|finding| format!("finding {finding}")), made_at];
        let details: Vec<String> = details.into_iter().flatten().collect();
        if !details.is_empty() {
            text += &format!(" ({})", details.join(", "));
        }
        text
    }
}

/// A recommendation and its function. An empty account or region stands for every one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The owner.
    pub tenant: String,
    /// The function.
    pub function: FunctionKey,
    /// The recommendation.
    pub recommendation: Recommendation,
}

impl Entry {
    fn replaces(&self, other: &Self) -> bool {
        let id = |entry: &Self| (entry.recommendation.tool, entry.recommendation.version.clone());
        (&self.tenant, &self.function) == (&other.tenant, &other.function) && id(self) == id(other)
    }

    fn is_for(&self, tenant: &Tenant, function: &FunctionKey) -> bool {
        let agrees = |own: &str, other: &str| own.is_empty() || other.is_empty() || own == other;
        self.tenant == tenant.0
            && self.function.name == function.name
            && agrees(&self.function.region, &function.region)
            && agrees(&self.function.account, &function.account)
    }
}

/// The file.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    version: u32,
    recommendations: Vec<Entry>,
}

/// The recommendations in a data folder.
#[derive(Debug, Clone)]
pub struct Recommendations {
    path: PathBuf,
}

impl Recommendations {
    /// Those of a data folder.
    #[must_use]
    pub fn of(folder: &Path) -> Self {
        Self { path: folder.join(FILE_NAME) }
    }

    /// Stores entries. Each replaces the one of the same tool for the same version of the function.
    ///
    /// # Errors
    /// When the file cannot be read or written, or a newer program wrote it.
    pub fn add(&self, entries: Vec<Entry>) -> anyhow::Result<()> {
        let lock_path = self.path.with_extension("lock");
        let lock = OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(&lock_path);
        let lock = lock.with_context(|| format!("cannot open {}", lock_path.display()))?;
        lock.lock().with_context(|| format!("cannot lock {}", lock_path.display()))?;
        let mut recommendations = self.read()?;
        recommendations.retain(|old| !entries.iter().any(|entry| entry.replaces(old)));
        recommendations.extend(entries);
        let text = serde_json::to_string(&Stored { version: VERSION, recommendations })?;
        files::replace(&self.path, &text).with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Those for a function.
    ///
    /// # Errors
    /// When the file cannot be read, or a newer program wrote it.
    pub fn for_function(
        &self,
        tenant: &Tenant,
        function: &FunctionKey,
    ) -> anyhow::Result<Vec<Recommendation>> {
        let mut entries = self.read()?;
        entries.retain(|entry| entry.is_for(tenant, function));
        Ok(entries.into_iter().map(|entry| entry.recommendation).collect())
    }

    fn read(&self) -> anyhow::Result<Vec<Entry>> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", self.path.display()));
            }
        };
        let stored: Stored = serde_json::from_slice(&text)
            .with_context(|| format!("{} is damaged: delete it and import again", self.path.display()))?;
        anyhow::ensure!(
            stored.version == VERSION,
            "{} has version {}, and this program reads version {VERSION}: use the program that wrote it",
            self.path.display(),
            stored.version
        );
        Ok(stored.recommendations)
    }
}

/// Dollars that a tool writes as a float, times `count`; `None` when the number is not one.
fn dollars(amount: f64, count: f64) -> Option<PicoDollars> {
    /// More than any bill. A float has no exact pico-dollars there.
    const MAX_PICO: f64 = 1e24;
    let pico = amount * PICO_PER_DOLLAR as f64 * count;
    #[expect(clippy::cast_possible_truncation, reason = "rounded, and the range is checked")]
    let rounded = PicoDollars(pico.round() as i128);
    (pico.abs() < MAX_PICO).then_some(rounded)
}
