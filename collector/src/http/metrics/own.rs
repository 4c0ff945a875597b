//! The metrics of the collector itself that are read at each scrape.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::{AuthFailure, Label, raise_to};
use crate::http::App;
use crate::store::Schema;
use crate::version::{COMMIT, VERSION};

/// Upper bounds of the histogram of request times, seconds. A request has its response within 30 s.
const REQUEST_BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// Method, route and status of a request.
type RequestLabels = [(&'static str, String); 3];

/// Version, commit, and the store with its schema.
type BuildLabels = [(&'static str, String); 4];

/// How long the store may take to count its backlog. A scrape does not wait for it longer.
const BACKLOG_TIMEOUT: Duration = Duration::from_secs(1);

/// Most functions whose summaries are counted as out of date.
const MAX_OUTDATED: usize = 10_000;

/// What is registered.
pub(super) struct Own {
    pub(super) auth_failures: Family<Label, Counter>,
    pub(super) requests: Family<RequestLabels, Histogram>,
    budget_used: Family<Label, Gauge>,
    budget_size: Family<Label, Gauge>,
    reports_running: Gauge,
    queued_writes: Gauge,
    pending_batches: Gauge,
    outdated_summaries: Gauge,
    build: Family<BuildLabels, Gauge>,
    prices_at: Gauge,
}

impl Own {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let own = Self {
            auth_failures: Family::default(),
            requests: Family::new_with_constructor(|| Histogram::new(REQUEST_BUCKETS)),
            budget_used: Family::default(),
            budget_size: Family::default(),
            reports_running: Gauge::default(),
            queued_writes: Gauge::default(),
            pending_batches: Gauge::default(),
            outdated_summaries: Gauge::default(),
            build: Family::default(),
            prices_at: Gauge::default(),
        };
        for failure in AuthFailure::ALL {
            drop(own.auth_failures.get_or_create(&[("reason", failure.name())]));
        }
        let help = "Requests that were not authenticated, by the reason";
        registry.register("tailor_auth_failures", help, own.auth_failures.clone());
        let help = "Time from the head of a request to its response";
        let name = "tailor_http_request_duration";
        registry.register_with_unit(name, help, Unit::Seconds, own.requests.clone());
        let help = "Memory of requests and responses in use, by budget";
        registry.register_with_unit("tailor_memory_used", help, Unit::Bytes, own.budget_used.clone());
        let help = "Limit of the memory of requests and responses, by budget";
        registry.register_with_unit("tailor_memory_limit", help, Unit::Bytes, own.budget_size.clone());
        let help = "Reports that are computed now";
        registry.register("tailor_reports_running", help, own.reports_running.clone());
        let help = "Writes that wait for the store";
        registry.register("tailor_store_queued_writes", help, own.queued_writes.clone());
        let help = "Stored batches that are not merged into rollups yet";
        registry.register("tailor_store_pending_batches", help, own.pending_batches.clone());
        let help = "Functions whose summaries are out of date, of all tenants; at most 10,000 are counted";
        registry.register("tailor_summaries_outdated_functions", help, own.outdated_summaries.clone());
        registry.register("tailor_build_info", "The program and its store; always 1", own.build.clone());
        let help = "The day the prices were compiled";
        registry.register_with_unit("tailor_prices_timestamp", help, Unit::Seconds, own.prices_at.clone());
        own
    }
}

/// Sets what is read at a scrape.
pub(super) async fn update(app: &App) {
    let (metrics, own) = (&app.metrics, &app.metrics.own);
    let saturating_i64 = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
    metrics.damaged_rows.set(i64::try_from(app.store.damage().rows).unwrap_or(i64::MAX));
    let (open, for_others, overdue) = app.connections.counts();
    metrics.connections.set(saturating_i64(open));
    raise_to(&metrics.closed_for_others, for_others);
    raise_to(&metrics.closed_overdue, overdue);
    for (budget, used, size) in app.memory.used_bytes() {
        own.budget_used.get_or_create(&[("budget", budget)]).set(saturating_i64(used));
        own.budget_size.get_or_create(&[("budget", budget)]).set(saturating_i64(size));
    }
    own.reports_running.set(saturating_i64(app.memory.running_reports()));
    own.queued_writes.set(saturating_i64(app.store.queued_writes()));
    // Without a response in time, the last values stay.
    if let Ok(Ok(pending)) = tokio::time::timeout(BACKLOG_TIMEOUT, app.store.pending_batches()).await {
        own.pending_batches.set(i64::try_from(pending).unwrap_or(i64::MAX));
    }
    let outdated = app.store.changed_functions(MAX_OUTDATED);
    if let Ok(Ok(outdated)) = tokio::time::timeout(BACKLOG_TIMEOUT, outdated).await {
        own.outdated_summaries.set(saturating_i64(outdated.len()));
    }
    let Schema { store, version } = app.store.schema();
    let labels: BuildLabels = [
        ("version", VERSION.to_owned()),
        ("commit", COMMIT.unwrap_or_default().to_owned()),
        ("store", store.to_owned()),
        ("store_schema", version.to_string()),
    ];
    own.build.get_or_create(&labels).set(1);
    if let Some(seconds) = midnight(app.prices.compiled()) {
        own.prices_at.set(seconds);
    }
}

/// The start of a day such as `2026-11-01`, seconds since the Unix epoch.
fn midnight(day: &str) -> Option<i64> {
    let mut parts = day.get(..10)?.splitn(3, '-');
    let mut number = || parts.next()?.parse::<u16>().ok();
    let (year, month, day) = (number()?, number()?, number()?);
    let month = time::Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date = time::Date::from_calendar_date(year.into(), month, u8::try_from(day).ok()?).ok()?;
    Some(date.midnight().assume_utc().unix_timestamp())
}

#[cfg(test)]
mod tests {
    use super::midnight;

    #[test]
    fn a_day_begins_at_midnight() {
        assert_eq!(midnight("1970-01-02"), Some(86_400));
        assert_eq!(midnight("2026-11-01T10:00:00Z"), Some(1_793_491_200));
        for invalid in ["", "2026-13-01", "2026-02-30", "unknown day", "2026-1-1"] {
            assert_eq!(midnight(invalid), None, "{invalid}");
        }
    }
}
