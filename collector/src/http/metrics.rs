//! The collector's own counters, in Prometheus' text format.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use axum::extract::State;
use axum::response::IntoResponse;
use http::{StatusCode, header};

use super::App;
use super::auth::ApiReader;
use crate::store::Receipt;

/// Counters since the collector began.
#[derive(Default)]
pub struct Metrics {
    batches_stored: AtomicU64,
    batches_repeated: AtomicU64,
    invocations_stored: AtomicU64,
    refused_for_good: AtomicU64,
    refused_for_now: AtomicU64,
}

impl Metrics {
    /// A batch is on disk.
    pub fn accepted(&self, receipt: Receipt, invocations: u64) {
        match receipt {
            Receipt::Stored => {
                self.batches_stored.fetch_add(1, Relaxed);
                self.invocations_stored.fetch_add(invocations, Relaxed);
            }
            Receipt::Duplicate => {
                self.batches_repeated.fetch_add(1, Relaxed);
            }
        }
    }

    /// A batch was refused with this status.
    pub fn refused(&self, status: StatusCode) {
        let retryable = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        let counter = if retryable { &self.refused_for_now } else { &self.refused_for_good };
        counter.fetch_add(1, Relaxed);
    }

    fn render(&self) -> String {
        let mut text = String::new();
        let mut family = |name: &str, help: &str, samples: &[(&str, &AtomicU64)]| {
            // Writing to a string does not fail.
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} counter\n");
            for (labels, counter) in samples {
                let _ = writeln!(text, "{name}{labels} {}", counter.load(Relaxed));
            }
        };
        family(
            "tailor_batches_total",
            "Batches on disk, by whether they were new.",
            &[
                ("{result=\"stored\"}", &self.batches_stored),
                ("{result=\"repeated\"}", &self.batches_repeated),
            ],
        );
        family(
            "tailor_batches_refused_total",
            "Batches refused, by whether they may be sent again.",
            &[("{retryable=\"no\"}", &self.refused_for_good), ("{retryable=\"yes\"}", &self.refused_for_now)],
        );
        family("tailor_invocations_stored_total", "Invocations stored.", &[("", &self.invocations_stored)]);
        text
    }
}

/// `GET /metrics`.
pub async fn serve(State(app): State<Arc<App>>, _reader: ApiReader) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], app.metrics.render())
}
