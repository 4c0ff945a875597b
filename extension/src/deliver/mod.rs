//! From what is known of each invocation to the collector and the function's log.
//!
//! [`ledger`] joins measurements and telemetry, [`outbox`] keeps batches until they are acknowledged, and [`shipper`]
//! sends them. [`summary`] writes log lines for functions without a collector.

pub mod ledger;
pub mod outbox;
pub mod shipper;
pub mod summary;
