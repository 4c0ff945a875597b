//! The input of advice: one function's configuration and measurements.

use crate::model::enforcement::Enforcement;
use crate::pricing::prices::PriceError;
use crate::telemetry::rollup::Rollup;
use crate::units::{Architecture, Megabytes};

/// The configuration and the measurements of one function.
#[derive(Debug, Clone, Copy)]
pub struct FunctionEvidence<'a> {
    /// AWS region, such as `eu-central-1`.
    pub region: &'a str,
    /// Architecture now.
    pub architecture: Architecture,
    /// Memory size configured now.
    pub memory: Megabytes,
    /// `/tmp` configured now, MB; 512 is free.
    pub ephemeral_mb: u32,
    /// Timeout configured now, ms.
    pub timeout_ms: Option<u64>,
    /// Execution environments behind the evidence.
    pub environments: u64,
    /// How the fleet's kernel enforces the CPU quota, inferred from all its functions.
    pub enforcement: Enforcement,
    /// What was measured of the same code, one rollup per size.
    pub sizes: &'a [(Megabytes, Rollup)],
}

/// Why no advice could be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdviceError {
    /// The function's price is not known.
    #[error(transparent)]
    Price(#[from] PriceError),
    /// The function runs on instances that are billed as such.
    #[error(
        "no advice for managed instances: cost and memory size belong to the instance, not to an invocation"
    )]
    ManagedInstances,
    /// No invocation with a duration was measured at any size.
    #[error("no invocation was measured yet: invoke the function and try again")]
    NoEvidence,
}
