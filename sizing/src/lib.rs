//! What an AWS Lambda invocation costs, and what it would cost and take at any other memory size.
//!
//! Pure functions and types: no I/O, no clock, no async, and no dependency on the other crates of this workspace.
//!
//! Start at [`advice::advise`] and [`advice::explain`]. The modules depend on each other in this order, without cycles:
//!
//! | module | content | uses |
//! |---|---|---|
//! | [`units`] | memory sizes, architectures | |
//! | [`telemetry`] | invocations, histograms, rollups | `units` |
//! | [`pricing`] | money, price tables, bills, expected cost | `telemetry`, `units` |
//! | [`model`] | duration at other memory sizes, with intervals; the memory floor | `telemetry`, `units` |
//! | [`placement`] | where a function should run: arm64, provisioned concurrency, SnapStart, managed instances | `telemetry`, `pricing`, `units` |
//! | [`advice`] | the recommended memory size and hints | all of the above |

pub mod advice;
pub mod model;
pub mod placement;
pub mod pricing;
pub mod telemetry;
pub mod units;
