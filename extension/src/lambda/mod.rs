//! AWS's interfaces for extensions: the Extensions API, the Telemetry API, and the listener for telemetry.

pub mod extensions_api;
pub mod listener;
pub mod record_time;
pub mod telemetry;
