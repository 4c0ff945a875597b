//! The advice that patches are made from: the JSON of `tailor functions --format json` and of the API.

use std::collections::BTreeMap;

use serde::Deserialize;

use tailor_sizing::pricing::money::PicoDollars;

/// The parts of a function's report that a patch needs.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Advised {
    /// Function name.
    pub name: String,
    /// AWS account.
    #[serde(default)]
    pub account: String,
    /// AWS region.
    #[serde(default)]
    pub region: String,
    /// The size in use, MB.
    pub memory_mb: u32,
    /// Cost of a million invocations at it.
    #[serde(default)]
    pub cost_per_million_pico_usd: Option<PicoDollars>,
    /// The tags of the function that are known.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// The recommendation.
    pub advice: AdviceOf,
}

/// A recommendation.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct AdviceOf {
    /// The recommended size, MB.
    pub memory_mb: u32,
    /// Predicted change of the cost, percent.
    pub cost_change_percent: f64,
    /// Predicted change of the mean duration, percent.
    pub duration_change_percent: f64,
    /// The prediction at each size; absent when nothing could be computed.
    #[serde(default)]
    pub full: Option<Detail>,
}

/// The verdict and the curve.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Detail {
    /// Whether to change.
    pub verdict: tailor_sizing::advice::Verdict,
    /// The prediction at each size; empty in a list of functions.
    #[serde(default)]
    pub curve: Vec<Point>,
}

/// The prediction at one size.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Point {
    /// The size, MB.
    pub memory_mb: u32,
    /// Mean duration of a warm invocation.
    pub mean: Expected,
    /// Its 95th percentile.
    pub p95: Expected,
    /// Cost of a million invocations.
    pub cost_per_million: PicoDollars,
}

/// An expected value.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Expected {
    /// The expected value, ms.
    pub mean_ms: f64,
}

impl Advised {
    /// Whether another size is recommended.
    #[must_use]
    pub fn is_change(&self) -> bool {
        use tailor_sizing::advice::Verdict::{Change, RaiseForMemory};
        let verdict = self.advice.full.as_ref().map(|full| full.verdict);
        matches!(verdict, Some(Change | RaiseForMemory)) && self.advice.memory_mb != self.memory_mb
    }

    /// The prediction at a size.
    #[must_use]
    pub fn point(&self, memory_mb: u32) -> Option<&Point> {
        self.advice.full.as_ref()?.curve.iter().find(|point| point.memory_mb == memory_mb)
    }
}

/// Whether the last list in the text is a page that other pages follow.
#[must_use]
pub fn has_more(text: &str) -> bool {
    let reports = serde_json::Deserializer::from_str(text).into_iter::<serde_json::Value>();
    reports
        .filter_map(Result::ok)
        .last()
        .is_some_and(|last| last.get("next").is_some_and(serde_json::Value::is_string))
}

/// Reads one report, several after each other, or the report of the fleet.
///
/// # Errors
/// When the text has another form.
pub fn read(text: &str) -> Result<Vec<Advised>, serde_json::Error> {
    let mut all = Vec::new();
    for report in serde_json::Deserializer::from_str(text).into_iter::<serde_json::Value>() {
        let mut report = report?;
        // A name can belong to several functions, whose reports are then a list.
        let list = if report.is_array() {
            Some(report.take())
        } else {
            report.get_mut("functions").map(serde_json::Value::take)
        };
        match list {
            Some(functions) => all.extend(serde_json::from_value::<Vec<Advised>>(functions)?),
            None => all.push(serde_json::from_value(report)?),
        }
    }
    Ok(all)
}
