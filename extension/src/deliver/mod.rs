//! Delivers what is known of each invocation to the collector and to the function's log.
//!
//! [`ledger`] joins measurements and telemetry, [`outbox`] keeps batches until they are acknowledged, [`shipper`] sends
//! them and [`backoff`] decides when to try again. [`summary`] writes log lines.

pub mod backoff;
pub mod ledger;
pub mod outbox;
pub mod shipper;
mod stored_key;
pub mod summary;
