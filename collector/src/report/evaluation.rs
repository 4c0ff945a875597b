//! The evaluation of one function: its measurements from the store, and the advice.
//!
//! A report is built from it, and the tuner decides on it.

use std::collections::BTreeMap;

use agent_proto::batch::BatchHeader;
use tailor_sizing::advice::hints::HintCode;
use tailor_sizing::advice::strategy::Strategy;
use tailor_sizing::advice::{Advice, AdviceError, FunctionEvidence, advise};
use tailor_sizing::model::accounting::Unaccounted;
use tailor_sizing::model::enforcement::Enforcement;
use tailor_sizing::pricing::prices::PriceTable;
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::{Architecture, Megabytes};

use super::MeasuredBy;
use crate::changes::Change;
use crate::store::{Environments, FunctionKey, Series};

/// The stored measurements of one function in a window.
#[derive(Default)]
pub(super) struct Material {
    pub(super) series: Vec<Series>,
    pub(super) environments: Environments,
    /// Latest first. Only reports read them.
    pub(super) changes: Vec<Change>,
}

impl Material {
    /// The series with the latest invocation: the present configuration.
    pub(super) fn latest(&self) -> Option<&Series> {
        self.series.iter().max_by_key(|series| series.rollup.last_at_us)
    }

    /// How the invocations were measured.
    pub(super) fn measured_by(&self) -> MeasuredBy {
        let (mut layer, mut logs) = (false, false);
        for (_, header) in self.environments.headers() {
            *(if header.environment.is_imported() { &mut logs } else { &mut layer }) = true;
        }
        MeasuredBy::of(layer, logs)
    }

    /// Number of environments.
    pub(super) fn environment_count(&self) -> u64 {
        let ended = self.environments.ended.iter().map(|ended| ended.environments);
        ended.fold(self.environments.live.len() as u64, u64::saturating_add)
    }
}

/// What all functions of a report are evaluated with.
pub(super) struct Basis<'a> {
    pub(super) prices: &'a PriceTable,
    pub(super) strategy: Strategy,
    pub(super) enforcement: Enforcement,
}

/// A version of which invocations were measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeasuredVersion {
    /// Its number, or `$LATEST`.
    pub name: String,
    /// Its latest invocation, microseconds since the Unix epoch.
    pub last_at_us: u64,
}

impl MeasuredVersion {
    /// The versions of these measurements, each once, by name. A measurement is a version and its latest invocation.
    #[must_use]
    pub fn of<'a>(measured: impl IntoIterator<Item = (&'a str, u64)>) -> Vec<Self> {
        let mut versions: BTreeMap<&str, u64> = BTreeMap::new();
        for (name, last_at_us) in measured {
            let last = versions.entry(name).or_default();
            *last = last_at_us.max(*last);
        }
        versions.into_iter().map(|(name, last_at_us)| Self { name: name.to_owned(), last_at_us }).collect()
    }
}

/// The latest facts of one function, and the advice for it.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// The function.
    pub key: FunctionKey,
    /// Memory size of the latest invocations.
    pub memory: Megabytes,
    /// Instruction set of the latest invocations.
    pub architecture: Architecture,
    /// The versions with invocations, by name.
    pub versions: Vec<MeasuredVersion>,
    /// How the invocations were measured.
    pub measured_by: MeasuredBy,
    /// CPU time that no known process accounts for.
    pub unaccounted: Unaccounted,
    /// All invocations at the present memory size and architecture.
    pub present: Rollup,
    /// The advice, or why there is none.
    pub advice: Result<Advice, AdviceError>,
}

/// An evaluation, and what only a report needs.
pub(super) struct Evaluated<'a> {
    pub(super) evaluation: Evaluation,
    /// All invocations.
    pub(super) whole: Rollup,
    /// Invocations on the present architecture by memory size, smallest first.
    pub(super) sizes: Vec<(Megabytes, Rollup)>,
    pub(super) is_managed: bool,
    /// The header of the batch that arrived last.
    pub(super) newest: Option<&'a BatchHeader>,
    pub(super) ephemeral_mb: u32,
}

/// Evaluates one function. `None` when nothing was measured.
pub(super) fn evaluate<'a>(
    key: &FunctionKey,
    material: &'a Material,
    basis: &Basis<'_>,
) -> Option<Evaluated<'a>> {
    let latest = material.latest()?;
    let (memory, architecture) = (latest.key.memory, latest.key.architecture);
    let newest = material.environments.newest_header();
    let is_managed = newest.is_some_and(|header| header.environment.is_managed_instances());
    let ephemeral_mb = newest.map_or(0, |header| header.environment.ephemeral_mb);

    let mut whole = Rollup::default();
    let mut by_size: BTreeMap<Megabytes, Rollup> = BTreeMap::new();
    for Series { key, rollup } in &material.series {
        whole.merge(rollup);
        // Measurements on another architecture do not predict this one.
        if key.architecture == architecture {
            by_size.entry(key.memory).or_default().merge(rollup);
        }
    }
    let sizes: Vec<(Megabytes, Rollup)> = by_size.into_iter().collect();
    let evidence = FunctionEvidence {
        region: &key.region,
        architecture,
        memory,
        ephemeral_mb,
        timeout_ms: newest.map(|header| header.environment.timeout_ms).filter(|&timeout| timeout > 0),
        environments: material.environment_count(),
        enforcement: basis.enforcement,
        sizes: &sizes,
    };
    let advice = if is_managed {
        Err(AdviceError::ManagedInstances)
    } else {
        advise(&evidence, basis.prices, basis.strategy)
    };
    let measured = material.series.iter();
    let versions =
        MeasuredVersion::of(measured.map(|series| (series.key.version.as_str(), series.rollup.last_at_us)));
    let unaccounted = Unaccounted::of(&sizes);
    let measured_by = material.measured_by();
    let present = sizes.iter().find(|(size, _)| *size == memory).map(|(_, rollup)| rollup.clone());
    let present = present.unwrap_or_default();
    let key = key.clone();
    let evaluation =
        Evaluation { key, memory, architecture, versions, measured_by, unaccounted, present, advice };
    Some(Evaluated { evaluation, whole, sizes, is_managed, newest, ephemeral_mb })
}

/// The reasons of an advice: the verdict, then each hint as `code: evidence; action`.
#[must_use]
pub fn reasons(advice: &Advice) -> Vec<String> {
    let hints = advice
        .hints
        .iter()
        .map(|hint| format!("{}: {}; {}", hint_code(hint.code), hint.evidence, hint.action));
    advice.reasons.iter().cloned().chain(hints).collect()
}

/// A hint's stable code, as the JSON has it.
#[must_use]
pub fn hint_code(code: HintCode) -> String {
    serde_json::to_value(code).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
