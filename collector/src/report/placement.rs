//! Where a function should run, from its load by hour.

use std::collections::BTreeMap;

use serde::Serialize;

use tailor_sizing::placement::{
    HourLoad, HourOfDay, Load, ManagedSettings, Placement, PlacementError, PlacementEvidence,
    managed_settings, placement,
};
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::{Architecture, round_to_u64};

use super::evaluation::Material;
use super::load::material;
use super::{MeasuredBy, Request, UtilizationReport};
use crate::store::{FunctionKey, HOUR_US, StoreError, StoredRollup};

pub mod fleet;

/// Where a function should run.
#[derive(Debug, Clone, Serialize)]
pub struct PlacementReport {
    /// Function name.
    pub name: String,
    /// AWS account; empty when unknown.
    pub account: String,
    /// AWS region.
    pub region: String,
    /// Runtime; empty when unknown.
    pub runtime: String,
    /// Instruction set.
    pub architecture: Architecture,
    /// Whether it runs on managed instances now.
    pub is_managed: bool,
    /// Mean load of each hour of the day (UTC).
    pub hours_of_day: Vec<HourOfDay>,
    /// Mean number of invocations at the same time.
    pub mean_concurrency: f64,
    /// The same in the busiest hour.
    pub busiest_concurrency: f64,
    /// What its environments used, on managed instances.
    pub utilization: Option<UtilizationReport>,
    /// Settings for its environments, on managed instances.
    pub settings: Option<ManagedSettings>,
    /// Why there are no settings; `null` when there are, and where it does not run on managed instances.
    pub no_settings: Option<String>,
    /// The places; `null` when they cannot be compared.
    #[serde(flatten)]
    pub placement: Option<Placement>,
    /// Why there are no places; `null` when there are.
    pub reason: Option<String>,
    /// The day the prices were compiled.
    pub prices_of: String,
}

/// Why the places of a function on managed instances are not compared.
const MANAGED: &str = "it runs on managed instances: what an invocation would cost elsewhere is not known, because memory and CPU \
                       are measured of the environment";

/// Where one function should run; `None` when nothing was measured of it.
///
/// # Errors
/// [`StoreError`] when the store cannot be read.
pub async fn function(
    request: &Request<'_>,
    key: &FunctionKey,
) -> Result<Option<PlacementReport>, StoreError> {
    let material = material(request, key).await?;
    if material.series.is_empty() {
        return Ok(None);
    }
    let stored = request.store.rollups(request.tenant, key, request.window).await?;
    Ok(of(request, key, &material, &stored.iter().collect::<Vec<_>>()))
}

/// The same from measurements that were read before. `stored` has the rollups of the window.
pub(super) fn of(
    request: &Request<'_>,
    key: &FunctionKey,
    material: &Material,
    stored: &[&StoredRollup],
) -> Option<PlacementReport> {
    let latest = material.latest()?;
    let newest = material.environments.newest_header();
    let is_managed = newest.is_some_and(|header| header.environment.is_managed_instances());
    let is_from_logs = material.measured_by() == MeasuredBy::Logs;
    let (load, is_spread) = load(stored, request.window.from_hour, (!is_from_logs).then_some(request.now_us));
    let mut rollup = Rollup::default();
    for series in &material.series {
        if (series.key.memory, series.key.architecture) == (latest.key.memory, latest.key.architecture) {
            rollup.merge(&series.rollup);
        }
    }
    let evidence = PlacementEvidence {
        region: &key.region,
        runtime: newest.map_or("", |header| header.environment.runtime.as_str()),
        architecture: latest.key.architecture,
        memory: latest.key.memory,
        ephemeral_mb: newest.map_or(0, |header| header.environment.ephemeral_mb),
        rollup: &rollup,
        load: &load,
    };
    let settings = is_managed
        .then(|| managed_settings(&rollup.utilization, latest.key.memory, evidence.runtime))
        .transpose();
    let found = if is_managed {
        Err(MANAGED.to_owned())
    } else {
        placement(&evidence, request.prices).map_err(|error: PlacementError| error.to_string())
    };
    let (mut places, reason) = match found {
        Ok(places) => (Some(places), None),
        Err(reason) => (None, Some(reason)),
    };
    if let Some(places) = places.as_mut().filter(|_| is_spread) {
        places.remarks.push(
            "Only days are stored of this time: every hour of a day has the same load, which favours provisioned concurrency."
                .to_owned(),
        );
    }
    Some(PlacementReport {
        name: key.name.clone(),
        account: key.account.clone(),
        region: key.region.clone(),
        runtime: evidence.runtime.to_owned(),
        architecture: latest.key.architecture,
        is_managed,
        hours_of_day: load.by_hour_of_day(),
        mean_concurrency: load.mean_concurrency(),
        busiest_concurrency: load.busiest_concurrency(),
        utilization: UtilizationReport::of(&rollup.utilization),
        no_settings: settings.as_ref().err().map(ToString::to_string),
        settings: settings.ok().flatten(),
        placement: places,
        reason,
        prices_of: request.prices.compiled().to_owned(),
    })
}

/// The load by hour, and whether it was spread evenly over days. It is from the hours that are stored as hours; only when there
/// are none, days are used. It ends at `now_us`, microseconds since the Unix epoch, or with the last stored hour.
fn load(stored: &[&StoredRollup], from_hour: u64, now_us: Option<u64>) -> (Load, bool) {
    let is_spread = !stored.iter().any(|rollup| rollup.hours == 1);
    let mut hours: BTreeMap<u64, HourLoad> = BTreeMap::new();
    let mut after_days = from_hour;
    for StoredRollup { from_hour, hours: length, rollup, .. } in stored {
        let length = (*length).max(1);
        if length > 1 && !is_spread {
            after_days = after_days.max(from_hour + length);
            continue;
        }
        let duration_ms =
            rollup.duration_us.mean().unwrap_or(0.0) * rollup.duration_us.count() as f64 / 1_000.0;
        let duration_ms = round_to_u64(duration_ms);
        for hour in *from_hour..from_hour + length {
            let entry =
                hours.entry(hour).or_insert(HourLoad { hour, invocations: 0, duration_ms: 0, inits: 0 });
            // What a division leaves belongs to the first hour.
            let part = |total: u64| total / length + if hour == *from_hour { total % length } else { 0 };
            entry.invocations += part(rollup.invocations);
            entry.duration_ms += part(duration_ms);
            entry.inits += part(rollup.inits());
        }
    }
    let first = hours.keys().copied().find(|hour| *hour >= after_days).unwrap_or(after_days).max(after_days);
    let last = hours.keys().next_back().map_or(first, |hour| hour + 1);
    // The present hour is not complete. It counts only when there is no other.
    let until = now_us.map_or(last, |now_us| (now_us / HOUR_US).max(first + 1));
    (Load::new(hours.into_values().collect(), first, until), is_spread)
}
