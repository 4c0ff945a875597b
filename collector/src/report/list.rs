//! The list of a fleet's functions: filters, order, pages, and sums by account, region or runtime.
//!
//! A small fleet is computed when it is read. Of a large one, order, filters and sums are from stored summaries, and only
//! the functions of the page are read. Without a collector that keeps summaries, a large one is computed, too.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use tailor_sizing::advice::Verdict;
use tailor_sizing::advice::hints::Hint;
use tailor_sizing::pricing::money::PicoDollars;

use super::cost_change;
use super::hints::{self, FleetHint};
use super::load::{Request, function, reports};
use super::summaries::STRATEGIES;
use super::{FleetGroup, FleetReport, FleetTotal, FunctionReport, SummariesUsed, hint_code};
use crate::query::{DEFAULT_STRATEGY, Group, ListQuery, SortKey, TagFilter};
use crate::store::{AdvisedSize, FunctionKey, RowHint, StoreError, SummaryKind, SummaryRow};
use crate::tags::TagTable;

/// Functions with the largest savings, and functions whose cost changed the most, that the overview shows.
const TOP_FUNCTIONS: usize = 5;

/// Smallest change of a cost that the overview shows, as a part of the cost: one in this number.
const MIN_CHANGE_PART: i128 = 20;

/// Windows for which summaries are kept, hours.
pub(super) const SUMMARY_HOURS: [u64; 4] = [1, 24, 7 * 24, 30 * 24];

/// The fleet of a tenant: the functions that `list` selects.
///
/// # Errors
/// [`StoreError`] when the store cannot be read.
pub async fn fleet(request: &Request<'_>, list: &ListQuery) -> Result<FleetReport, StoreError> {
    let tags = request.tag_table();
    if request.computes_fleet().await? {
        return computed_fleet(request, list).await;
    }
    let (kind, is_exact) = kind(list);
    let mut page = Page::select(request.store.summaries(request.tenant, &kind).await?, list, &tags);
    let mut functions = Vec::with_capacity(page.keys.len());
    if is_exact {
        let stored = request.store.summary_reports(request.tenant, &page.keys, &kind).await?;
        for (key, report) in page.keys.iter().zip(stored) {
            let report = report.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            match report {
                Some(report) => functions.push(report),
                None => functions.extend(function(request, key).await?),
            }
        }
    } else {
        // No summaries are kept for this window or strategy: those of the nearest one gave the order.
        for key in &page.keys {
            functions.extend(function(request, key).await?);
        }
    }
    let oldest_at_us = page.oldest_at_us;
    let used = SummariesUsed { hours: kind.hours, strategy: kind.strategy, oldest_at_us };
    Ok(page.report(functions, Some(used), request))
}

/// The fleet of a tenant, computed for the window of the request whatever the number of functions.
///
/// # Errors
/// [`StoreError`] when the store cannot be read.
pub async fn computed_fleet(request: &Request<'_>, list: &ListQuery) -> Result<FleetReport, StoreError> {
    let mut computed: BTreeMap<FunctionKey, FunctionReport> =
        reports(request, None).await?.into_iter().map(|report| (report.key(), report)).collect();
    let tags = request.tag_table();
    let mut rows: Vec<SummaryRow> = computed.values().map(|report| row(report, request.now_us)).collect();
    for row in rows.iter_mut().filter(|row| list.movers && matches(row, list, &tags)) {
        row.cost_change = cost_change(request, &row.function, list.hours).await?;
    }
    let mut page = Page::select(rows, list, &tags);
    let functions = page.keys.iter().filter_map(|key| computed.remove(key)).collect();
    Ok(page.report(functions, None, request))
}

/// The sums over the functions that `list` selects, by each of these properties: of each, the value with the highest cost first.
///
/// # Errors
/// [`StoreError`] when the store cannot be read.
pub async fn allocations(
    request: &Request<'_>,
    list: &ListQuery,
    properties: &[Group],
) -> Result<Vec<Vec<FleetGroup>>, StoreError> {
    let tags = request.tag_table();
    let mut rows: Vec<SummaryRow> = if request.computes_fleet().await? {
        reports(request, None).await?.iter().map(|report| row(report, request.now_us)).collect()
    } else {
        request.store.summaries(request.tenant, &kind(list).0).await?
    };
    rows.retain(|row| matches(row, list, &tags));
    Ok(properties.iter().map(|by| groups(&rows, by, &tags)).collect())
}

/// The summaries for a list, and whether they are exactly of its window and strategy.
pub(super) fn kind(list: &ListQuery) -> (SummaryKind, bool) {
    let named = list.strategy.as_deref().unwrap_or(DEFAULT_STRATEGY);
    let strategy = STRATEGIES.into_iter().find(|name| *name == named && list.weight.is_none());
    let longer = SUMMARY_HOURS.into_iter().find(|hours| *hours >= list.hours);
    let hours = longer.unwrap_or(SUMMARY_HOURS[SUMMARY_HOURS.len() - 1]);
    let kind = SummaryKind { hours, strategy: strategy.unwrap_or(DEFAULT_STRATEGY).to_owned() };
    (kind, hours == list.hours && strategy.is_some())
}

/// The kind of advice, as in filters.
#[must_use]
pub fn advice_code(report: &FunctionReport) -> &'static str {
    match report.advice.verdict() {
        Some(Verdict::Change | Verdict::RaiseForMemory) => "change",
        Some(Verdict::AlreadyBest) => "keep",
        Some(_) => "unsure",
        None => "none",
    }
}

/// The summary of a report.
pub(super) fn row(report: &FunctionReport, now_us: u64) -> SummaryRow {
    SummaryRow {
        function: report.key(),
        runtime: report.runtime.clone(),
        architecture: report.architecture,
        memory: report.memory,
        invocations: report.invocations,
        errors: report.errors,
        cold_starts: report.cold_starts,
        billed_ms: report.billed_ms,
        p95_ms: report.duration_ms.p95,
        cost: report.cost_pico_usd,
        cost_change: None,
        saving: report.saving(),
        advice: advice_code(report).to_owned(),
        advised: report.advice.is_change().then_some(AdvisedSize {
            memory: report.advice.memory,
            cost_change_percent: report.advice.cost_change_percent,
            duration_change_percent: report.advice.duration_change_percent,
        }),
        hints: report
            .advice
            .full
            .iter()
            .flat_map(|advice| &advice.hints)
            .map(|hint| row_hint(report, hint))
            .collect(),
        computed_at_us: now_us,
    }
}

fn row_hint(report: &FunctionReport, hint: &Hint) -> RowHint {
    let saving =
        hint.saving_per_million.and_then(|saving| saving.scaled(report.invocations.into(), 1_000_000));
    RowHint { code: hint_code(hint.code), saving: saving.unwrap_or(PicoDollars::ZERO) }
}

/// The functions with the largest savings.
fn top(rows: &[SummaryRow]) -> Vec<SummaryRow> {
    let mut rows: Vec<&SummaryRow> =
        rows.iter().filter(|row| row.saving > PicoDollars::ZERO && row.advised.is_some()).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.saving));
    rows.into_iter().take(TOP_FUNCTIONS).cloned().collect()
}

/// The functions whose cost changed the most.
fn movers(rows: &[SummaryRow]) -> Vec<SummaryRow> {
    let change = |row: &SummaryRow| row.cost_change.unwrap_or_default().0.saturating_abs();
    let is_material = |row: &&SummaryRow| {
        change(row) > 0 && change(row) >= row.cost.unwrap_or_default().0 / MIN_CHANGE_PART
    };
    let mut moved: Vec<&SummaryRow> = rows.iter().filter(is_material).collect();
    moved.sort_by_key(|row| std::cmp::Reverse(change(row)));
    moved.into_iter().take(TOP_FUNCTIONS).cloned().collect()
}

/// Whether the filters select a function.
pub(super) fn matches(row: &SummaryRow, list: &ListQuery, tags: &TagTable) -> bool {
    let equals = |filter: &Option<String>, value: &str| filter.as_ref().is_none_or(|filter| filter == value);
    selects_function(list, &row.function, tags)
        && equals(&list.runtime, &row.runtime)
        && equals(&list.architecture, row.architecture.as_str())
        && list.advice.is_none_or(|advice| advice.code() == row.advice)
        && list.min_cost.is_none_or(|least| row.cost.is_some_and(|cost| cost >= least))
}

/// The place of a function in the order: the sorted value, then its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Position(i128, String, String, String);

impl Position {
    fn of(row: &SummaryRow, sort: SortKey) -> Self {
        let value = match sort {
            SortKey::Name => 0,
            SortKey::Saving => row.saving.0,
            SortKey::Cost => row.cost.map_or(-1, |cost| cost.0),
            SortKey::Invocations => i128::from(row.invocations),
            SortKey::Errors => i128::from(row.errors),
            SortKey::ColdStarts => i128::from(row.cold_starts),
            SortKey::Memory => i128::from(row.memory.0),
            // Finite and not negative: a quantile of durations in microseconds.
            #[expect(clippy::cast_possible_truncation, reason = "saturates")]
            SortKey::P95 => (row.p95_ms * 1_000.0) as i128,
        };
        let FunctionKey { account, region, name } = row.function.clone();
        Self(value, name, region, account)
    }

    /// Names rise, and values fall, unless the order is reversed.
    fn compare(&self, other: &Self, list: &ListQuery) -> Ordering {
        let by_name = (&self.1, &self.2, &self.3).cmp(&(&other.1, &other.2, &other.3));
        if list.sort == SortKey::Name {
            return if list.is_reversed { by_name.reverse() } else { by_name };
        }
        let by_value = self.0.cmp(&other.0);
        let by_value = if list.is_reversed { by_value } else { by_value.reverse() };
        by_value.then(by_name)
    }

    fn cursor(&self) -> Option<String> {
        serde_json::to_vec(self).ok().map(hex::encode)
    }

    fn read(cursor: &str) -> Option<Self> {
        serde_json::from_slice(&hex::decode(cursor).ok()?).ok()
    }
}

/// Whether a text is a cursor of a list.
#[must_use]
pub fn is_cursor(text: &str) -> bool {
    Position::read(text).is_some()
}

/// What the filters select, and the functions of one page.
struct Page {
    total: FleetTotal,
    matching: u64,
    groups: Option<Vec<FleetGroup>>,
    keys: Vec<FunctionKey>,
    next: Option<String>,
    oldest_at_us: u64,
    hints: Vec<FleetHint>,
    top: Vec<SummaryRow>,
    movers: Vec<SummaryRow>,
}

impl Page {
    fn select(mut rows: Vec<SummaryRow>, list: &ListQuery, tags: &TagTable) -> Self {
        rows.retain(|row| matches(row, list, tags));
        let total = rows.iter().fold(FleetTotal::default(), add);
        let matching = rows.len() as u64;
        let oldest_at_us = rows.iter().map(|row| row.computed_at_us).min().unwrap_or(0);
        let (hints, top) = (hints::over(&rows), top(&rows));
        let movers = if list.movers { movers(&rows) } else { Vec::new() };
        let groups = list.by.as_ref().map(|by| groups(&rows, by, tags));
        let mut places: Vec<(Position, SummaryRow)> =
            rows.into_iter().map(|row| (Position::of(&row, list.sort), row)).collect();
        if let Some(after) = list.cursor.as_deref().and_then(Position::read) {
            places.retain(|(position, _)| position.compare(&after, list) == Ordering::Greater);
        }
        let has_more = places.len() > list.limit;
        if has_more && list.limit > 0 {
            // Only the page is sorted: its rows are those before the last one of it.
            places.select_nth_unstable_by(list.limit - 1, |a, b| a.0.compare(&b.0, list));
        }
        places.truncate(list.limit);
        places.sort_by(|a, b| a.0.compare(&b.0, list));
        let next = places.last().filter(|_| has_more).and_then(|(position, _)| position.cursor());
        let keys = places.into_iter().map(|(_, row)| row.function).collect();
        Self { total, matching, groups, keys, next, oldest_at_us, hints, top, movers }
    }

    fn report(
        &mut self,
        mut functions: Vec<FunctionReport>,
        summaries: Option<SummariesUsed>,
        request: &Request<'_>,
    ) -> FleetReport {
        let tags = request.tag_table();
        functions.iter_mut().for_each(|function| function.tags = tags.of(&function.key()));
        FleetReport {
            total: self.total,
            functions,
            matching_functions: self.matching,
            next: self.next.take(),
            groups: self.groups.take(),
            hints: std::mem::take(&mut self.hints),
            top: std::mem::take(&mut self.top),
            movers: std::mem::take(&mut self.movers),
            summaries,
            damage: request.store.damage(),
            prices_of: request.prices.compiled().to_owned(),
        }
    }
}

fn add(sum: FleetTotal, row: &SummaryRow) -> FleetTotal {
    FleetTotal {
        invocations: sum.invocations.saturating_add(row.invocations),
        errors: sum.errors.saturating_add(row.errors),
        cold_starts: sum.cold_starts.saturating_add(row.cold_starts),
        billed_ms: sum.billed_ms.saturating_add(row.billed_ms),
        cost_pico_usd: sum.cost_pico_usd + row.cost.unwrap_or(PicoDollars::ZERO),
        saving_pico_usd: sum.saving_pico_usd + row.saving.max(PicoDollars::ZERO),
        spending_pico_usd: sum.spending_pico_usd - row.saving.min(PicoDollars::ZERO),
    }
}

/// The sums by one property, the one with the highest cost first.
fn groups(rows: &[SummaryRow], by: &Group, tags: &TagTable) -> Vec<FleetGroup> {
    let mut groups: BTreeMap<String, (u64, FleetTotal)> = BTreeMap::new();
    for row in rows {
        let (functions, total) = groups.entry(group_value(row, by, tags)).or_default();
        *functions += 1;
        *total = add(*total, row);
    }
    let mut groups: Vec<FleetGroup> = groups
        .into_iter()
        .map(|(value, (functions, total))| FleetGroup { value, functions, total })
        .collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.total.cost_pico_usd));
    groups
}

/// Whether the filters by name, account, region and tags select a function.
pub(super) fn selects_function(list: &ListQuery, function: &FunctionKey, tags: &TagTable) -> bool {
    let equals = |filter: &Option<String>, value: &str| filter.as_ref().is_none_or(|filter| filter == value);
    let has_tag = |filter: &TagFilter| {
        let value = tags.value(function, &filter.key);
        value.is_some_and(|value| filter.value.as_ref().is_none_or(|expected| expected == value))
    };
    equals(&list.account, &function.account)
        && equals(&list.region, &function.region)
        && list.has_name(&function.name)
        && list.tags.iter().all(has_tag)
}

/// The group of a function.
pub(super) fn group_value(row: &SummaryRow, by: &Group, tags: &TagTable) -> String {
    match by {
        Group::Account => row.function.account.clone(),
        Group::Region => row.function.region.clone(),
        Group::Runtime => row.runtime.clone(),
        Group::Tag(key) => tags.value(&row.function, key).unwrap_or_default().to_owned(),
    }
}
