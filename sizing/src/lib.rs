//! What a Lambda invocation costs, and what it would cost at any other memory size.
//!
//! Pure functions and types: no I/O, no clock, no async, nothing of the other crates.

pub mod bill;
pub mod histogram;
pub mod invocation;
pub mod money;
pub mod prices;
pub mod rollup;
pub mod units;
