//! The metrics of what is sent.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::http::metrics::gauge_value;

/// One label with its value.
type Label = [(&'static str, &'static str); 1];

/// Those of OTLP. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct OtlpMetrics {
    requests: Family<Label, Counter>,
    rejected: Counter,
    last: Gauge,
}

impl OtlpMetrics {
    /// Registers all of them.
    pub fn register(&self, registry: &mut Registry) {
        for result in ["accepted", "failed", "refused"] {
            drop(self.requests.get_or_create(&[("result", result)]));
        }
        let help =
            "Requests with metrics as OTLP, by result: accepted, failed, or refused and not sent again";
        registry.register("tailor_otlp_requests", help, self.requests.clone());
        let help = "Data points that the OTLP receiver did not accept";
        registry.register("tailor_otlp_rejected_data_points", help, self.rejected.clone());
        let help = "Time of the latest accepted request with metrics as OTLP, since the Unix epoch";
        let last = self.last.clone();
        registry.register_with_unit("tailor_otlp_last_accepted_timestamp", help, Unit::Seconds, last);
    }

    pub(super) fn requested(&self, result: &'static str) {
        self.requests.get_or_create(&[("result", result)]).inc();
    }

    pub(super) fn accepted(&self, rejected: u64, now_us: u64) {
        self.requested("accepted");
        self.rejected.inc_by(rejected);
        self.last.set(gauge_value(now_us / 1_000_000));
    }
}

/// Those of the webhook. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct WebhookMetrics {
    attempts: Family<Label, Counter>,
    dropped: Family<Label, Counter>,
    queued: Gauge,
}

impl WebhookMetrics {
    /// Registers all of them.
    pub fn register(&self, registry: &mut Registry) {
        for result in ["accepted", "failed"] {
            drop(self.attempts.get_or_create(&[("result", result)]));
        }
        for reason in ["full", "expired"] {
            drop(self.dropped.get_or_create(&[("reason", reason)]));
        }
        let help = "Attempts to send an event to the webhook, by result";
        registry.register("tailor_webhook_attempts", help, self.attempts.clone());
        let help = "Events that were dropped, because the queue of the webhook was full or they were too old";
        registry.register("tailor_webhook_dropped_events", help, self.dropped.clone());
        let help = "Events that wait for the webhook";
        registry.register("tailor_webhook_queued_events", help, self.queued.clone());
    }

    pub(super) fn attempted(&self, is_accepted: bool) {
        let result = if is_accepted { "accepted" } else { "failed" };
        self.attempts.get_or_create(&[("result", result)]).inc();
    }

    pub(super) fn dropped(&self, reason: &'static str, count: u64) {
        self.dropped.get_or_create(&[("reason", reason)]).inc_by(count);
    }

    pub(super) fn queued(&self, count: usize) {
        self.queued.set(gauge_value(count as u64));
    }
}
