//! Sends to others: metrics as OTLP, and events to a webhook. `tailor_push` has the content of the messages; this module
//! reads the fleet, keeps the queue and makes the requests. Neither of them ever delays a batch.

mod events;
mod http;
pub mod metrics;
pub mod otlp;
mod queue_store;
pub mod webhook;

pub use http::{Client, TlsFiles};
pub use otlp::ID_FILE;
pub use queue_store::{FILE_NAME, QueueStore};

/// A random number, for pauses of several senders that should not be equal.
fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without random numbers, the pauses are equal.
    let _ = getrandom::fill(&mut bytes);
    u32::from_ne_bytes(bytes)
}
