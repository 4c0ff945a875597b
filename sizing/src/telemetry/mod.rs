//! What was measured: single invocations and their mergeable summaries.

pub mod extension_waits;
pub mod histogram;
pub mod initialization;
pub mod invocation;
pub mod rollup;
pub mod thread_class;
pub mod utilization;
