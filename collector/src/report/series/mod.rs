//! Time series: cost, invocations, durations, errors and cold starts per hour or day, of one function and of the fleet.
//!
//! A small fleet is computed from its rollups, and so is one without a collector. Of a large one, the sums of each function are
//! stored with its summaries, and the sums over the fleet are kept in memory; see [`fleet_sums`].

use std::collections::BTreeMap;

use serde::Serialize;

use tailor_sizing::pricing::bill::Bill;
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::telemetry::utilization::Utilization;
use tailor_sizing::units::{Architecture, Megabytes};

use agent_proto::batch::BatchHeader;

use super::list::{kind, matches, selects_function};
use super::load::{Request, keys, reports};
use super::{Quantiles, UtilizationReport, list};
use crate::changes::{self, Change, State};
use crate::query::{Group, ListQuery};
use crate::store::{FunctionKey, HOUR_US, StoreError, StoredRollup, SummaryRow, Window};
use crate::tags::TagTable;

mod builder;
pub mod fleet_sums;
mod sums;

use builder::{Builder, Range};
use fleet_sums::{Cell, timeline_kind};
pub(super) use sums::{Billing, Timeline};

/// Maximum number of changes that a time series lists.
const MAX_CHANGES: usize = 200;

/// Functions whose stored sums are read at once.
const CHUNK: usize = 128;

/// A time series.
#[derive(Debug, Clone, Serialize)]
pub struct SeriesReport {
    /// Length of the span of one point, hours: 1 or 24.
    pub bucket_hours: u64,
    /// Start of the first point, microseconds since the Unix epoch.
    pub from_us: u64,
    /// One point for each hour or day of the window, also without invocations.
    pub points: Vec<SeriesPoint>,
    /// Sums over the window.
    pub total: SeriesTotal,
    /// Sums over the same time before the window; `null` when the measurements begin later.
    pub previous: Option<SeriesTotal>,
    /// One time series for each value of the property by which the query groups, the one with the highest cost first.
    pub groups: Option<Vec<SeriesGroup>>,
    /// The changes of the tuner in the window, oldest first: at most 200, the latest.
    pub changes: Vec<ChangeMark>,
    /// When the stored sums were computed that it is from, microseconds since the Unix epoch; `null` when it was
    /// computed from the measurements.
    pub computed_at_us: Option<u64>,
}

impl SeriesReport {
    /// Puts the latest point first.
    pub fn reverse(&mut self) {
        self.points.reverse();
        self.groups.iter_mut().flatten().for_each(|group| group.points.reverse());
    }
}

/// One hour or one day.
#[derive(Debug, Clone, Serialize)]
pub struct SeriesPoint {
    /// Its start, microseconds since the Unix epoch.
    pub at_us: u64,
    /// All invocations.
    pub invocations: u64,
    /// Failed invocations.
    pub errors: u64,
    /// Those whose caller waited for an environment.
    pub cold_starts: u64,
    /// Billed time, ms.
    pub billed_ms: u64,
    /// The cost, without invocations whose price is not known.
    pub cost_pico_usd: PicoDollars,
    /// Duration, cold starts and failures included; `null` without invocations, and where durations are not kept.
    pub duration_ms: Option<Quantiles>,
    /// What the environments of one function used, where several invocations run at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub utilization: Option<UtilizationReport>,
}

/// Sums over a time.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct SeriesTotal {
    /// Length of the time in which they were measured, hours.
    pub hours: f64,
    /// All invocations.
    pub invocations: u64,
    /// Failed invocations.
    pub errors: u64,
    /// Those whose caller waited for an environment.
    pub cold_starts: u64,
    /// Billed time, ms.
    pub billed_ms: u64,
    /// The cost, without invocations whose price is not known.
    pub cost_pico_usd: PicoDollars,
    /// The parts of the cost.
    pub cost_parts: CostParts,
}

/// The parts of a cost, pico-dollars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct CostParts {
    /// Memory × time of handlers.
    pub compute_pico_usd: PicoDollars,
    /// Memory × time of Init.
    pub init_pico_usd: PicoDollars,
    /// Requests.
    pub requests_pico_usd: PicoDollars,
    /// `/tmp` above 512 MB.
    pub storage_pico_usd: PicoDollars,
}

impl CostParts {
    fn add(&mut self, bill: &Bill) {
        self.compute_pico_usd += bill.compute;
        self.init_pico_usd += bill.init;
        self.requests_pico_usd += bill.requests;
        self.storage_pico_usd += bill.storage;
    }

    fn total(&self) -> PicoDollars {
        self.compute_pico_usd + self.init_pico_usd + self.requests_pico_usd + self.storage_pico_usd
    }
}

/// The time series of the functions with one account, region, runtime or value of a tag.
#[derive(Debug, Clone, Serialize)]
pub struct SeriesGroup {
    /// The value; empty when unknown.
    pub value: String,
    /// Whether it is the sum of all groups that are not listed.
    pub is_rest: bool,
    /// Sums over the window.
    pub total: SeriesTotal,
    /// One point for each hour or day of the window.
    pub points: Vec<SeriesPoint>,
}

/// A change of the tuner.
#[derive(Debug, Clone, Serialize)]
pub struct ChangeMark {
    /// When the new size took effect, microseconds since the Unix epoch.
    pub at_us: u64,
    /// The function.
    pub function: FunctionKey,
    /// Memory size before, MB.
    pub from_mb: u32,
    /// Memory size after, MB.
    pub to_mb: u32,
    /// Its state now.
    pub state: State,
}

/// The time series of one function over the last `hours` hours; `None` when nothing was measured of it.
///
/// # Errors
/// [`StoreError`] when the store cannot be read.
pub async fn function(
    request: &Request<'_>,
    key: &FunctionKey,
    hours: u64,
) -> Result<Option<SeriesReport>, StoreError> {
    let range = Range::of(request.now_us, hours);
    let (timeline, _, rollups) = live_timeline(request, key, range).await?;
    let mut builder = Builder::new(range, request.prices);
    builder.add_timeline(&key.region, &timeline, &[]);
    let log = request.store.changes(request.tenant, Some(key)).await?;
    let mut report = builder.finish(false, marks(changes::fold(log), range), None);
    add_utilization(&mut report, &rollups);
    Ok((report.total.invocations > 0).then_some(report))
}

/// The time series of the functions that `list` selects.
///
/// # Errors
/// [`StoreError`] when the store cannot be read.
pub async fn fleet(request: &Request<'_>, list: &ListQuery) -> Result<SeriesReport, StoreError> {
    let range = Range::of(request.now_us, list.hours);
    let mut builder = Builder::new(range, request.prices);
    let computed_at_us = if request.computes_fleet().await? {
        add_live(request, list, range, &mut builder).await?;
        None
    } else {
        Some(add_stored(request, list, &mut builder).await?)
    };
    let mut changes = changes::fold(request.store.changes(request.tenant, None).await?);
    let tags = request.tag_table();
    changes.retain(|change| selects_function(list, &change.function, &tags));
    Ok(builder.finish(list.by.is_some(), marks(changes, range), computed_at_us))
}

/// Adds the functions of a fleet from their rollups.
async fn add_live(
    request: &Request<'_>,
    list: &ListQuery,
    range: Range,
    builder: &mut Builder<'_>,
) -> Result<(), StoreError> {
    let tags = request.tag_table();
    let mut selected: Option<BTreeMap<FunctionKey, SummaryRow>> = if list.needs_report() {
        let reports = reports(request, None).await?;
        Some(reports.iter().map(|report| (report.key(), list::row(report, request.now_us))).collect())
    } else {
        None
    };
    for key in &keys(request, None).await? {
        let (timeline, mut row, _) = live_timeline(request, key, range).await?;
        if let Some(rows) = &mut selected {
            let Some(known) = rows.remove(key) else { continue };
            row = known;
        }
        if matches(&row, list, &tags) {
            builder.add_timeline(&key.region, &timeline, &group_values(&row, list, &tags));
        }
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Adds the functions of a large fleet from stored sums. Returns when the oldest of them were computed.
async fn add_stored(
    request: &Request<'_>,
    list: &ListQuery,
    builder: &mut Builder<'_>,
) -> Result<u64, StoreError> {
    if list.selects_cells() {
        let sums = request.fleet_sums().await?;
        if sums.is_complete() || list.selects_all() {
            for (cell, spans) in sums.cells() {
                if cell.matches(list) {
                    let values: Vec<String> = cell.group(list.by.as_ref()).into_iter().collect();
                    builder.add(&cell.region, cell.architecture, spans, &values);
                }
            }
            return Ok(sums.oldest_at_us());
        }
    }
    let tags = request.tag_table();
    let rows_kind = if list.needs_report() { kind(list).0 } else { timeline_kind() };
    let mut rows = request.store.summaries(request.tenant, &rows_kind).await?;
    rows.retain(|row| matches(row, list, &tags));
    let oldest_at_us = rows.iter().map(|row| row.computed_at_us).min().unwrap_or(request.now_us);
    for rows in rows.chunks(CHUNK) {
        let keys: Vec<FunctionKey> = rows.iter().map(|row| row.function.clone()).collect();
        let stored = request.store.summary_reports(request.tenant, &keys, &timeline_kind()).await?;
        for (row, bytes) in rows.iter().zip(stored) {
            // Sums of another version of the program are computed again soon.
            let Some(timeline) = bytes.as_deref().and_then(Timeline::decode) else { continue };
            builder.add_timeline(&row.function.region, &timeline, &group_values(row, list, &tags));
        }
        tokio::task::yield_now().await;
    }
    Ok(oldest_at_us)
}

/// Adds what the environments used in each point. Only managed instances measure it.
fn add_utilization(report: &mut SeriesReport, rollups: &[StoredRollup]) {
    let bucket_us = report.bucket_hours.saturating_mul(HOUR_US);
    let mut used: BTreeMap<u64, Utilization> = BTreeMap::new();
    for stored in rollups.iter().filter(|stored| stored.rollup.utilization.intervals > 0) {
        let at_us = stored.from_hour.saturating_mul(HOUR_US);
        let start_us = at_us - at_us % bucket_us.max(1);
        used.entry(start_us).or_default().merge(&stored.rollup.utilization);
    }
    for point in &mut report.points {
        point.utilization = used.get(&point.at_us).and_then(UtilizationReport::of);
    }
}

/// The sums of one function from its rollups, a row for the filters that need no report, and the rollups.
async fn live_timeline(
    request: &Request<'_>,
    key: &FunctionKey,
    range: Range,
) -> Result<(Timeline, SummaryRow, Vec<StoredRollup>), StoreError> {
    let Request { store, tenant, now_us, .. } = *request;
    let window = Window { from_hour: range.stored_from_hour(), ..Window::ALL };
    let rollups = store.rollups(tenant, key, window).await?;
    let environments = store.environments(tenant, Some(key), window).await?;
    let header = environments.newest_header();
    let row = timeline_row(key, &rollups, header, now_us);
    Ok((Timeline::of(&rollups, billing(header)), row, rollups))
}

/// How a function is billed whose newest batch has this header.
pub(super) fn billing(header: Option<&BatchHeader>) -> Billing {
    match header {
        Some(header) if header.environment.is_managed_instances() => Billing::Instances,
        header => {
            Billing::Invocations { ephemeral_mb: header.map_or(0, |header| header.environment.ephemeral_mb) }
        }
    }
}

/// The row of a function that is stored with its sums: what filters need that are not about a window.
pub(super) fn timeline_row(
    key: &FunctionKey,
    rollups: &[StoredRollup],
    header: Option<&BatchHeader>,
    now_us: u64,
) -> SummaryRow {
    let latest = rollups.iter().max_by_key(|stored| stored.rollup.last_at_us);
    let sum = |value: fn(&Rollup) -> u64| {
        rollups.iter().fold(0u64, |sum, stored| sum.saturating_add(value(&stored.rollup)))
    };
    SummaryRow {
        function: key.clone(),
        runtime: header.map(|header| header.environment.runtime.clone()).unwrap_or_default(),
        architecture: latest.map_or(Architecture::X86_64, |stored| stored.key.architecture),
        memory: latest.map_or(Megabytes::MIN, |stored| stored.key.memory),
        invocations: sum(|rollup| rollup.invocations),
        errors: sum(|rollup| rollup.errors),
        cold_starts: sum(|rollup| rollup.cold_starts),
        billed_ms: sum(|rollup| rollup.billed_ms),
        p95_ms: 0.0,
        cost: None,
        cost_change: None,
        saving: PicoDollars::ZERO,
        advice: "none".to_owned(),
        advised: None,
        hints: Vec::new(),
        computed_at_us: now_us,
    }
}

/// The groups that a function belongs to.
fn group_values(row: &SummaryRow, list: &ListQuery, tags: &TagTable) -> Vec<String> {
    list.by.as_ref().map(|by| list::group_value(row, by, tags)).into_iter().collect()
}

/// The changes in the range that reached Lambda.
fn marks(changes: Vec<Change>, range: Range) -> Vec<ChangeMark> {
    let from_us = range.first_hour().saturating_mul(HOUR_US);
    let mark = |change: Change| {
        Some(ChangeMark {
            at_us: change.applied_at_us.filter(|at_us| *at_us >= from_us)?,
            function: change.function,
            from_mb: change.from.0,
            to_mb: change.to.0,
            state: change.state,
        })
    };
    let mut marks: Vec<ChangeMark> = changes.into_iter().filter_map(mark).collect();
    marks.sort_by_key(|mark| mark.at_us);
    marks.drain(..marks.len().saturating_sub(MAX_CHANGES));
    marks
}

impl Cell {
    /// Whether the filters select it.
    fn matches(&self, list: &ListQuery) -> bool {
        let equals =
            |filter: &Option<String>, value: &str| filter.as_ref().is_none_or(|filter| filter == value);
        equals(&list.account, &self.account)
            && equals(&list.region, &self.region)
            && equals(&list.runtime, &self.runtime)
            && equals(&list.architecture, self.architecture.as_str())
    }

    fn group(&self, by: Option<&Group>) -> Option<String> {
        Some(match by? {
            Group::Account => self.account.clone(),
            Group::Region => self.region.clone(),
            Group::Runtime => self.runtime.clone(),
            Group::Tag(_) => return None,
        })
    }
}
