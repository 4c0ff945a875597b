//! Metrics as OTLP: names and units of the semantic conventions (FaaS, 1.44), and `tailor.` for what they do not have.

mod answer;
mod distribution;
mod message;
mod settings;
mod totals;

pub use answer::{Answer, answer};
pub use distribution::{Distribution, Distributions};
pub use message::{Exporter, FleetGauges, HintGauges, RESOURCES_PER_REQUEST, Resource, Subject, requests};
pub use settings::{Given, Settings, SettingsError};
pub use totals::{FunctionGauges, FunctionTotals, Temporality};
