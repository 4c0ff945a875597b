//! The metrics of the archive.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::http::metrics::gauge_value;
use crate::store::Upload;
use crate::store::archive::ArchiveRecord;

/// Counters since the start, and gauges. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    invocations: Counter,
    bytes: Counter,
    failures: Counter,
    dropped: Gauge,
    waiting: Gauge,
    spool_bytes: Gauge,
    spool_limit_bytes: Gauge,
    last_upload_seconds: Gauge,
    /// The dropped invocations when they were logged last.
    logged_dropped: Arc<AtomicU64>,
}

impl Metrics {
    /// Registers all of them.
    pub fn register(&self, registry: &mut Registry) {
        let name = "tailor_archive_invocations";
        registry.register(name, "Invocations uploaded to the archive", self.invocations.clone());
        let help = "Size of the objects uploaded to the archive";
        registry.register_with_unit("tailor_archive_uploaded", help, Unit::Bytes, self.bytes.clone());
        let help = "Rounds of the archive that failed, because S3 or the store failed";
        registry.register("tailor_archive_failures", help, self.failures.clone());
        let help =
            "Invocations that are not in the archive, because its spool was full or the archive was off";
        registry.register("tailor_archive_dropped_invocations", help, self.dropped.clone());
        let help = "Invocations that wait for their upload to the archive";
        registry.register("tailor_archive_waiting_invocations", help, self.waiting.clone());
        let help = "Size of the spool of the archive";
        registry.register_with_unit("tailor_archive_spool", help, Unit::Bytes, self.spool_bytes.clone());
        let help = "Limit of the spool of the archive";
        let limit = self.spool_limit_bytes.clone();
        registry.register_with_unit("tailor_archive_spool_limit", help, Unit::Bytes, limit);
        let help = "Time of the latest upload to the archive, since the Unix epoch";
        let last = self.last_upload_seconds.clone();
        registry.register_with_unit("tailor_archive_last_upload_time", help, Unit::Seconds, last);
    }

    /// An object is in S3.
    pub(super) fn uploaded(&self, upload: &Upload) {
        self.invocations.inc_by(upload.totals.invocations);
        self.bytes.inc_by(upload.bytes);
        self.last_upload_seconds.set(gauge_value(upload.at_us / 1_000_000));
    }

    /// A round failed.
    pub(super) fn failed(&self) {
        self.failures.inc();
    }

    /// Sets the gauges. Logs when more was dropped than before.
    pub(super) fn observe(&self, record: &ArchiveRecord) {
        let dropped = record.dropped();
        self.dropped.set(gauge_value(dropped.invocations));
        self.waiting.set(gauge_value(record.waiting().invocations));
        self.spool_bytes.set(gauge_value(record.spool_bytes));
        self.spool_limit_bytes.set(gauge_value(record.max_spool_bytes.unwrap_or(0)));
        if self.logged_dropped.swap(dropped.invocations, Ordering::Relaxed) < dropped.invocations {
            tracing::warn!(
                "{} invocations are not in the archive in total, because its spool was full or the archive was off",
                dropped.invocations
            );
        }
    }
}
