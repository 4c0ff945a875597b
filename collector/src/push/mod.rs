//! Sends to others: metrics as OTLP, and events to a webhook. `tailor_push` has the content of the messages; this module
//! reads the fleet, keeps the queue and makes the requests. Neither of them ever delays a batch.

mod events;
mod http;
pub mod metrics;
pub mod otlp;
pub mod queue_store;
pub mod webhook;

pub use http::{Client, TlsFiles, roots_with};
pub use otlp::ID_FILE;
pub use queue_store::{FILE_NAME, QueueStore};

/// Logs problems, each once until it has ended or another one follows.
#[derive(Debug, Default)]
struct ProblemLog(String);

impl ProblemLog {
    /// Logs a problem, unless it was the last one too.
    fn log(&mut self, problem: String) {
        if self.0 != problem {
            tracing::error!("{problem}");
            self.0 = problem;
        }
    }

    /// The problem has ended.
    fn clear(&mut self) {
        self.0.clear();
    }
}

/// A random number, for pauses of several senders that should not be equal.
fn random() -> u32 {
    // Without random numbers, the pauses are equal.
    crate::random::bytes().map_or(0, u32::from_ne_bytes)
}
