//! Metrics as OTLP: names and units of the semantic conventions (FaaS, 1.44), and `tailor.` for what they do not have.

mod distribution;
mod message;
mod response;
mod settings;
mod totals;

pub use distribution::{Distribution, Distributions};
pub use message::{Exporter, FleetGauges, HintGauges, RESOURCES_PER_REQUEST, Resource, Subject, requests};
pub use response::{Outcome, outcome};
pub use settings::{Given, Settings, SettingsError};
pub use totals::{FunctionGauges, FunctionTotals, Temporality};
