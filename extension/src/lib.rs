//! The external Lambda extension: measures, costs and reports every invocation of the function it rides on.
//!
//! [`lifecycle`] is the event loop; [`agent`] the state it drives; [`process`] and [`telemetry`] the two
//! sources; [`ledger`] joins them; [`outbox`] and [`shipper`] carry the result away. It adds no billed time,
//! never ends before the platform says so, and says what it lost.

pub mod agent;
pub mod api;
pub mod calendar;
pub mod client;
pub mod credentials;
pub mod ledger;
pub mod lifecycle;
pub mod outbox;
pub mod patience;
pub mod process;
pub mod settings;
pub mod shipper;
pub mod sign;
pub mod summary;
pub mod telemetry;
mod ticker;
