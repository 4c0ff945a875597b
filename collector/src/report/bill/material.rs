//! What the bill of one function is computed from: sums of its measurements. They are stored with the function's summaries, so
//! that the bill of a large fleet does not read every rollup.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use tailor_sizing::pricing::bill::Usage;
use tailor_sizing::pricing::full_bill::{ImportedPart, MeasuredUsage};
use tailor_sizing::telemetry::initialization::Initializations;
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::{Architecture, Megabytes};

use crate::report::MeasuredBy;
use crate::report::evaluation::Material;
use crate::store::{FunctionKey, HOUR_US, SeriesKey, SummaryKind, Window};

/// The kind of summary with the sums of the bill over this many hours.
pub(in crate::report) fn bill_kind(hours: u64) -> SummaryKind {
    SummaryKind { hours, strategy: "bill".to_owned() }
}

/// The measurements of one function, as far as its bill needs them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::report) struct BillMaterial {
    pub(super) runtime: String,
    pub(super) architecture: Architecture,
    memory: Megabytes,
    usage: Vec<(Architecture, Usage)>,
    initializations: Initializations,
    restored_mb: u128,
    versions: u64,
    sent_bytes: Option<u64>,
    is_managed: bool,
    pub(super) measured_by: MeasuredBy,
    pub(super) invocations: u64,
    first_at_us: u64,
    last_at_us: u64,
}

/// A series of one function.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BilledSeries {
    pub(super) version: String,
    pub(super) memory: Megabytes,
    pub(super) architecture: Architecture,
}

impl BilledSeries {
    pub(super) fn of(key: &SeriesKey) -> Self {
        Self { version: key.version.clone(), memory: key.memory, architecture: key.architecture }
    }
}

/// What the bill needs of a rollup. Sums of any parts of a series merge to those of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct SeriesSums {
    pub(super) invocations: u64,
    pub(super) billed_ms: u64,
    /// Init that was billed.
    pub(super) init_us: u64,
    pub(super) initializations: Initializations,
    /// Invocations of which the processes were measured.
    pub(super) measured: u64,
    /// Bytes that these processes sent.
    pub(super) sent_bytes: u64,
    /// Zero when empty.
    pub(super) first_at_us: u64,
    pub(super) last_at_us: u64,
}

impl SeriesSums {
    pub(super) fn of(rollup: &Rollup) -> Self {
        let [warm, cold] = [&rollup.warm, &rollup.cold];
        Self {
            invocations: rollup.invocations,
            billed_ms: rollup.billed_ms,
            init_us: rollup.billed_init_us(),
            initializations: rollup.initializations,
            measured: warm.invocations.saturating_add(cold.invocations),
            sent_bytes: warm.work.network_tx_bytes.saturating_add(cold.work.network_tx_bytes),
            first_at_us: rollup.first_at_us,
            last_at_us: rollup.last_at_us,
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (sum, value) in [
            (&mut self.invocations, other.invocations),
            (&mut self.billed_ms, other.billed_ms),
            (&mut self.init_us, other.init_us),
            (&mut self.measured, other.measured),
            (&mut self.sent_bytes, other.sent_bytes),
        ] {
            *sum = sum.saturating_add(value);
        }
        self.initializations.merge(&other.initializations);
        self.first_at_us = match (self.first_at_us, other.first_at_us) {
            (0, first) | (first, 0) => first,
            (a, b) => a.min(b),
        };
        self.last_at_us = self.last_at_us.max(other.last_at_us);
    }
}

/// What the bill needs of a function's environments.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct BilledEnvironment {
    /// Of the environment that sent the newest batch; empty when there is none.
    pub(super) runtime: String,
    pub(super) ephemeral_mb: u32,
    pub(super) is_managed: bool,
    pub(super) measured_by: MeasuredBy,
}

/// The sums of a function in a window.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct WindowSums {
    pub(super) series: BTreeMap<BilledSeries, SeriesSums>,
    pub(super) environment: BilledEnvironment,
}

impl BillMaterial {
    /// `None` when nothing was measured.
    pub(in crate::report) fn of(material: &Material) -> Option<Self> {
        let mut sums = WindowSums::default();
        for series in &material.series {
            let merged = sums.series.entry(BilledSeries::of(&series.key)).or_default();
            merged.merge(&SeriesSums::of(&series.rollup));
        }
        if let Some(header) = material.environments.newest_header() {
            sums.environment.runtime.clone_from(&header.environment.runtime);
            sums.environment.ephemeral_mb = header.environment.ephemeral_mb;
            sums.environment.is_managed = header.environment.is_managed_instances();
        }
        sums.environment.measured_by = material.measured_by();
        Self::of_sums(sums)
    }

    /// `None` when nothing was measured.
    pub(super) fn of_sums(window: WindowSums) -> Option<Self> {
        let WindowSums { series, environment } = window;
        let (latest, _) = series.iter().max_by_key(|(_, sums)| sums.last_at_us)?;
        let mut material = Self {
            runtime: environment.runtime,
            architecture: latest.architecture,
            memory: latest.memory,
            usage: usage(&series, environment.ephemeral_mb),
            initializations: Initializations::default(),
            restored_mb: 0,
            versions: 0,
            sent_bytes: None,
            is_managed: environment.is_managed,
            measured_by: environment.measured_by,
            invocations: 0,
            first_at_us: u64::MAX,
            last_at_us: 0,
        };
        let (mut measured, mut sent_bytes) = (0_u64, 0_u64);
        for (key, sums) in &series {
            material.initializations.merge(&sums.initializations);
            material.restored_mb += u128::from(sums.initializations.snap_start) * u128::from(key.memory.0);
            material.invocations = material.invocations.saturating_add(sums.invocations);
            if sums.first_at_us > 0 {
                material.first_at_us = material.first_at_us.min(sums.first_at_us);
            }
            material.last_at_us = material.last_at_us.max(sums.last_at_us);
            measured = measured.saturating_add(sums.measured);
            sent_bytes = sent_bytes.saturating_add(sums.sent_bytes);
        }
        material.first_at_us = material.first_at_us.min(material.last_at_us);
        material.sent_bytes = (measured > 0).then_some(sent_bytes);
        let versions: BTreeSet<&str> = series.keys().map(|key| key.version.as_str()).collect();
        material.versions = versions.len() as u64;
        Some(material)
    }

    /// Start of the bill in microseconds since the epoch, and its length in hours. It begins with the window or with the first
    /// invocation. A log ends with its last invocation; a function with the layer is measured until now.
    pub(super) fn time(&self, window: Window, now_us: u64) -> (u64, u64) {
        let from_us = window.from_us().max(self.first_at_us / HOUR_US * HOUR_US);
        let last_us = self.last_at_us.saturating_add(1);
        let until_us = if self.measured_by == MeasuredBy::Logs { last_us } else { now_us.max(last_us) };
        let until_us = until_us.min(window.until_hour.saturating_mul(HOUR_US));
        (from_us, until_us.saturating_sub(from_us).div_ceil(HOUR_US).max(1))
    }

    pub(super) fn measured<'a>(
        &'a self,
        key: &'a FunctionKey,
        log_bytes: Option<u64>,
        hours: u64,
    ) -> MeasuredUsage<'a> {
        MeasuredUsage {
            region: &key.region,
            runtime: &self.runtime,
            memory: self.memory,
            usage: self.usage.clone(),
            initializations: self.initializations,
            restored_mb: self.restored_mb,
            versions: self.versions,
            sent_bytes: self.sent_bytes,
            log_bytes,
            is_managed: self.is_managed,
            imported: match self.measured_by {
                MeasuredBy::Layer => ImportedPart::None,
                MeasuredBy::LayerAndLogs => ImportedPart::Some,
                MeasuredBy::Logs => ImportedPart::All,
            },
            hours,
        }
    }

    /// Memory × billed time on all architectures: it selects the volume tier of the functions that follow.
    pub(super) fn memory_mb_ms(&self) -> u128 {
        self.usage.iter().map(|(_, usage)| usage.memory_mb_ms).sum()
    }
}

/// The usage of a function on each architecture.
fn usage(series: &BTreeMap<BilledSeries, SeriesSums>, ephemeral_mb: u32) -> Vec<(Architecture, Usage)> {
    let mut usage: BTreeMap<Architecture, Usage> = BTreeMap::new();
    for (BilledSeries { memory, architecture, .. }, sums) in series {
        let one = Usage::of(*memory, sums.billed_ms, sums.invocations, ephemeral_mb)
            .with_init(*memory, sums.init_us / 1_000);
        usage.entry(*architecture).or_default().add(&one);
    }
    usage.into_iter().collect()
}
