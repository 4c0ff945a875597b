//! `GET /metrics`: the fleet of the tenant, and for the scope `admin` the collector's own metrics.

pub mod counters;
pub mod fleet;
mod own;
mod process;
pub(crate) mod snapshot;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::App;
use super::auth::MetricsReader;
use super::error::ApiError;
use crate::store::{FunctionKey, Receipt, Store, Tenant};
use counters::{Counters, FleetCounters};
use own::Own;
use process::ProcessMetrics;

/// A number as the value of a gauge, which is signed: at most its largest value.
pub(crate) fn gauge_value(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The media type of the OpenMetrics text format.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The media type of Prometheus's text format.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Why a request was not authenticated.
#[derive(Debug, Clone, Copy)]
pub enum AuthFailure {
    /// It has no key and no session.
    Missing,
    /// The key is not known.
    Unknown,
    /// The key has expired.
    Expired,
    /// The key does not have the scope.
    Scope,
    /// The key is not for this function.
    Function,
}

impl AuthFailure {
    const ALL: [Self; 5] = [Self::Missing, Self::Unknown, Self::Expired, Self::Scope, Self::Function];

    const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Scope => "scope",
            Self::Function => "function",
        }
    }
}

/// One label with its value.
type Label = [(&'static str, &'static str); 1];

/// Counters since the start of the collector.
pub struct Metrics {
    registry: Registry,
    batches_stored: Counter,
    batches_repeated: Counter,
    invocations_stored: Counter,
    rejected_not_retryable: Counter,
    rejected_retryable: Counter,
    damaged_rows: Gauge,
    connections: Gauge,
    closed_for_others: Counter,
    closed_overdue: Counter,
    own: Own,
    /// The counters of functions.
    pub fleet: FleetCounters,
    /// The reports behind the gauges of functions.
    pub reports: fleet::Reports,
}

impl Default for Metrics {
    fn default() -> Self {
        // The encoder appends `_total` to the names of counters, and a full stop to their descriptions.
        let mut registry = Registry::default();
        let batches = Family::<Label, Counter>::default();
        registry.register("tailor_batches", "Batches on disk, by whether they were new", batches.clone());
        let rejected = Family::<Label, Counter>::default();
        let help = "Batches refused, by whether they may be sent again";
        registry.register("tailor_batches_refused", help, rejected.clone());
        let invocations_stored = Counter::default();
        registry.register("tailor_invocations_stored", "Invocations stored", invocations_stored.clone());
        let damaged_rows = Gauge::default();
        let help = "Damaged rows of the store that were found since the start";
        registry.register("tailor_store_damaged_rows", help, damaged_rows.clone());
        let connections = Gauge::default();
        registry.register("tailor_connections", "Open connections", connections.clone());
        let closed = Family::<Label, Counter>::default();
        let help = "Connections that were closed to make room for others, or because a time limit passed";
        registry.register("tailor_connections_closed", help, closed.clone());
        let own = Own::register(&mut registry);
        Self {
            registry,
            batches_stored: batches.get_or_create_owned(&[("result", "stored")]),
            batches_repeated: batches.get_or_create_owned(&[("result", "repeated")]),
            invocations_stored,
            rejected_not_retryable: rejected.get_or_create_owned(&[("retryable", "no")]),
            rejected_retryable: rejected.get_or_create_owned(&[("retryable", "yes")]),
            damaged_rows,
            connections,
            closed_for_others: closed.get_or_create_owned(&[("reason", "room")]),
            closed_overdue: closed.get_or_create_owned(&[("reason", "time")]),
            own,
            fleet: FleetCounters::default(),
            reports: fleet::Reports::default(),
        }
    }
}

impl Metrics {
    /// The metrics of the collector and of its store.
    pub fn of(store: &dyn Store) -> Self {
        let mut metrics = Self::default();
        store.register_metrics(&mut metrics.registry);
        metrics
    }

    /// Registers the metrics of another part of the collector.
    pub fn register(&mut self, register: impl FnOnce(&mut Registry)) {
        register(&mut self.registry);
    }

    /// Adds metrics that another part of the collector computes when they are read.
    pub fn add(&mut self, collector: impl Collector) {
        self.registry.register_collector(Box::new(collector));
    }

    /// A batch is on disk.
    pub fn accepted(&self, receipt: Receipt, tenant: &Tenant, function: &FunctionKey, sums: Counters) {
        match receipt {
            Receipt::Stored => {
                self.batches_stored.inc();
                self.invocations_stored.inc_by(sums.invocations);
                self.fleet.add(tenant, function, sums);
            }
            Receipt::Duplicate => {
                self.batches_repeated.inc();
            }
        }
    }

    /// A request was not authenticated.
    pub(crate) fn auth_failed(&self, failure: AuthFailure) {
        self.own.auth_failures.get_or_create(&[("reason", failure.name())]).inc();
    }

    /// A response was sent.
    pub(super) fn record_response(
        &self,
        method: &'static str,
        route: String,
        status: StatusCode,
        time: Duration,
    ) {
        let labels =
            [("method", method.to_owned()), ("route", route), ("status", status.as_str().to_owned())];
        self.own.requests.get_or_create(&labels).observe(time.as_secs_f64());
    }

    /// A batch was rejected with this status.
    pub fn rejected(&self, status: StatusCode) {
        let is_retryable = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        let counter = if is_retryable { &self.rejected_retryable } else { &self.rejected_not_retryable };
        counter.inc();
    }
}

/// `GET /metrics`.
///
/// # Errors
/// 401 without a key or a session, 403 when the key has neither the scope `read` nor `admin`, 503 when the metrics cannot be
/// encoded.
pub async fn serve(
    State(app): State<Arc<App>>,
    reader: MetricsReader,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let is_openmetrics = accepted.into_iter().any(|value| value.contains("application/openmetrics-text"));
    let mut registries = vec![];
    if reader.is_admin {
        own::update(&app).await;
        let mut process = Registry::default();
        process.register_collector(Box::new(ProcessMetrics::of(app.data_folder.clone())));
        registries.push(process);
    }
    if reader.may_read {
        let mut fleet = Registry::default();
        fleet.register_collector(Box::new(fleet::of(&app, &reader.tenant).await));
        registries.push(fleet);
    }
    let own = reader.is_admin.then_some(&app.metrics.registry);
    let body = encode(own.into_iter().chain(&registries), is_openmetrics)
        .map_err(|_| ApiError::unavailable("metrics", "cannot encode the metrics"))?;
    let media_type = if is_openmetrics { OPENMETRICS } else { PROMETHEUS_TEXT };
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(media_type))], body).into_response())
}

fn encode<'a>(
    registries: impl Iterator<Item = &'a Registry>,
    is_openmetrics: bool,
) -> Result<String, std::fmt::Error> {
    let mut body = String::new();
    for registry in registries {
        if is_openmetrics {
            text::encode_registry(&mut body, registry)?
        } else {
            prometheus_text::encode(&mut body, registry)?
        }
    }
    if is_openmetrics {
        text::encode_eof(&mut body)?;
    }
    Ok(body)
}

/// Raises a counter to a value that was counted elsewhere.
fn raise_to(counter: &Counter, value: usize) {
    counter.inc_by((value as u64).saturating_sub(counter.get()));
}
