//! The collector's own metrics, in the OpenMetrics text format.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::App;
use super::auth::ApiAdmin;
use super::error::ApiError;
use crate::store::{Receipt, Store};

/// The media type of the OpenMetrics text format.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// One label with its value.
type Label = [(&'static str, &'static str); 1];

/// Counters since the start of the collector.
pub struct Metrics {
    registry: Registry,
    batches_stored: Counter,
    batches_repeated: Counter,
    invocations_stored: Counter,
    refused_not_retryable: Counter,
    refused_retryable: Counter,
    damaged_rows: Gauge,
    connections: Gauge,
    closed_for_others: Counter,
    closed_overdue: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        // The encoder appends `_total` to the names of counters, and a full stop to their descriptions.
        let mut registry = Registry::default();
        let batches = Family::<Label, Counter>::default();
        registry.register("tailor_batches", "Batches on disk, by whether they were new", batches.clone());
        let refused = Family::<Label, Counter>::default();
        let help = "Batches refused, by whether they may be sent again";
        registry.register("tailor_batches_refused", help, refused.clone());
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
        Self {
            registry,
            batches_stored: batches.get_or_create_owned(&[("result", "stored")]),
            batches_repeated: batches.get_or_create_owned(&[("result", "repeated")]),
            invocations_stored,
            refused_not_retryable: refused.get_or_create_owned(&[("retryable", "no")]),
            refused_retryable: refused.get_or_create_owned(&[("retryable", "yes")]),
            damaged_rows,
            connections,
            closed_for_others: closed.get_or_create_owned(&[("reason", "room")]),
            closed_overdue: closed.get_or_create_owned(&[("reason", "time")]),
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

    /// A batch is on disk.
    pub fn accepted(&self, receipt: Receipt, invocations: u64) {
        match receipt {
            Receipt::Stored => {
                self.batches_stored.inc();
                self.invocations_stored.inc_by(invocations);
            }
            Receipt::Duplicate => {
                self.batches_repeated.inc();
            }
        }
    }

    /// A batch was refused with this status.
    pub fn refused(&self, status: StatusCode) {
        let is_retryable = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        let counter = if is_retryable { &self.refused_retryable } else { &self.refused_not_retryable };
        counter.inc();
    }
}

/// `GET /metrics`.
///
/// # Errors
/// 401 without a key or a session, 403 when the key does not have the scope `admin`, 503 when the metrics cannot be encoded.
pub async fn serve(State(app): State<Arc<App>>, _admin: ApiAdmin) -> Result<Response, ApiError> {
    let mut text = String::new();
    app.metrics.damaged_rows.set(i64::try_from(app.store.damage().rows).unwrap_or(i64::MAX));
    let (open, for_others, overdue) = app.connections.counts();
    app.metrics.connections.set(i64::try_from(open).unwrap_or(i64::MAX));
    raise_to(&app.metrics.closed_for_others, for_others);
    raise_to(&app.metrics.closed_overdue, overdue);
    encode(&mut text, &app.metrics.registry)
        .map_err(|_| ApiError::unavailable("metrics", "cannot encode the metrics"))?;
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(OPENMETRICS))], text).into_response())
}

/// Raises a counter to a value that was counted elsewhere.
fn raise_to(counter: &Counter, value: usize) {
    counter.inc_by((value as u64).saturating_sub(counter.get()));
}
