//! What the bill of one function is computed from: sums of its measurements. They are stored with the function's summaries, so
//! that the bill of a large fleet does not read every rollup.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use tailor_sizing::pricing::bill::Usage;
use tailor_sizing::pricing::full_bill::MeasuredUsage;
use tailor_sizing::telemetry::initialization::Initializations;
use tailor_sizing::units::{Architecture, Megabytes};

use crate::report::MeasuredBy;
use crate::report::evaluation::Material;
use crate::store::{FunctionKey, HOUR_US, SummaryKind, Window};

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

impl BillMaterial {
    /// `None` when nothing was measured.
    pub(in crate::report) fn of(material: &Material) -> Option<Self> {
        let latest = material.latest()?;
        let newest = material.environments.newest_header();
        let mut sums = Self {
            runtime: newest.map(|header| header.environment.runtime.clone()).unwrap_or_default(),
            architecture: latest.key.architecture,
            memory: latest.key.memory,
            usage: usage(material),
            initializations: Initializations::default(),
            restored_mb: 0,
            versions: 0,
            sent_bytes: None,
            is_managed: newest.is_some_and(|header| header.environment.is_managed_instances()),
            measured_by: material.measured_by(),
            invocations: 0,
            first_at_us: u64::MAX,
            last_at_us: 0,
        };
        let (mut measured, mut sent_bytes) = (0_u64, 0_u64);
        for series in &material.series {
            let rollup = &series.rollup;
            sums.initializations.merge(&rollup.initializations);
            sums.restored_mb +=
                u128::from(rollup.initializations.snap_start) * u128::from(series.key.memory.0);
            sums.invocations = sums.invocations.saturating_add(rollup.invocations);
            if rollup.first_at_us > 0 {
                sums.first_at_us = sums.first_at_us.min(rollup.first_at_us);
            }
            sums.last_at_us = sums.last_at_us.max(rollup.last_at_us);
            for work in [&rollup.warm, &rollup.cold] {
                measured = measured.saturating_add(work.invocations);
                sent_bytes = sent_bytes.saturating_add(work.work.network_tx_bytes);
            }
        }
        sums.first_at_us = sums.first_at_us.min(sums.last_at_us);
        sums.sent_bytes = (measured > 0).then_some(sent_bytes);
        let mut versions: Vec<&str> = material.series.iter().map(|one| one.key.version.as_str()).collect();
        versions.sort_unstable();
        versions.dedup();
        sums.versions = versions.len() as u64;
        Some(sums)
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
            hours,
        }
    }

    /// Memory × billed time on all architectures: it selects the volume tier of the functions that follow.
    pub(super) fn memory_mb_ms(&self) -> u128 {
        self.usage.iter().map(|(_, usage)| usage.memory_mb_ms).sum()
    }
}

/// The usage of a function on each architecture.
fn usage(material: &Material) -> Vec<(Architecture, Usage)> {
    let ephemeral_mb =
        material.environments.newest_header().map_or(0, |header| header.environment.ephemeral_mb);
    let mut usage: BTreeMap<Architecture, Usage> = BTreeMap::new();
    for series in &material.series {
        let (memory, rollup) = (series.key.memory, &series.rollup);
        let one = Usage::of(memory, rollup.billed_ms, rollup.invocations, ephemeral_mb)
            .with_init(memory, rollup.init_us / 1_000);
        usage.entry(series.key.architecture).or_default().add(&one);
    }
    usage.into_iter().collect()
}
