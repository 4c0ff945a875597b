//! How long the phases of the writer take: an acknowledgement waits for the phase that runs when its batch arrives.

use std::time::Instant;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Upper bounds of the buckets, seconds.
const BUCKETS: [f64; 10] = [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];

/// A phase of the writer thread or of the checkpoint thread, or the whole time of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Rows of waiting requests are inserted.
    Insert,
    /// The transaction is committed, with its `fsync`.
    Commit,
    /// One step of maintenance.
    Maintenance,
    /// Summaries are stored.
    Summaries,
    /// The writer copies the rest of the write-ahead log, so that the log can begin again.
    Restart,
    /// The writer waits for the checkpoint thread, because the log is long.
    Pause,
    /// A batch waits until it is on disk, from its arrival at the store.
    Append,
    /// The checkpoint thread copies the write-ahead log. The writer does not wait for it.
    Checkpoint,
}

impl Phase {
    const fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Commit => "commit",
            Self::Maintenance => "maintenance",
            Self::Summaries => "summaries",
            Self::Restart => "restart",
            Self::Pause => "pause",
            Self::Append => "append",
            Self::Checkpoint => "checkpoint",
        }
    }
}

/// The times of all phases. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Phases {
    seconds: Family<[(&'static str, &'static str); 1], Histogram>,
}

impl Default for Phases {
    fn default() -> Self {
        Self { seconds: Family::new_with_constructor(|| Histogram::new(BUCKETS)) }
    }
}

impl Phases {
    /// Registers the histogram `tailor_store_phase_seconds`.
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Time of the phases of the store's writer, of its checkpoint thread, and of whole appends";
        registry.register_with_unit("tailor_store_phase", help, Unit::Seconds, self.seconds.clone());
    }

    /// Runs `work` and records how long it took.
    pub(super) fn time<T>(&self, phase: Phase, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.record(phase, start);
        result
    }

    /// Records the time since `start`.
    pub(super) fn record(&self, phase: Phase, start: Instant) {
        self.seconds.get_or_create(&[("phase", phase.name())]).observe(start.elapsed().as_secs_f64());
    }
}
