//! The external Lambda extension. It measures each invocation of its function and sends the result to the collector.
//!
//! - [`lifecycle`] is the event loop, and [`agent`] is the state that the loop drives.
//! - [`lambda`] has the Extensions API and the Telemetry API; [`measure`] reads `/proc` and CPU clocks.
//! - `profiles` uploads the profiles that the function leaves in `/tmp/tailor`.
//! - [`deliver`] joins both by request id and delivers the result; [`net`] is the HTTP client that it uses.
//!
//! The extension adds no billed time, ends only after SHUTDOWN, and counts everything that it loses.

pub mod agent;
mod clock;
pub mod deliver;
pub mod freeze_timeout;
mod json;
pub mod lambda;
pub mod lifecycle;
pub mod measure;
pub mod net;
pub mod oom_kills;
mod profiles;
pub mod settings;
pub mod task;
pub mod timestamp;
