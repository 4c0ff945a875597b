//! Advice: one recommended memory size for a function, with reasons, hints and confidence.
//!
//! [`evidence`] is the input and [`recommendation`] the result; `analysis` and `choice` compute one from the other. [`strategy`]
//! is the optimization goal, [`hints`] are findings beside the size, and [`explain`] adds what was measured and billed.

mod analysis;
mod choice;
pub mod evidence;
pub mod explain;
pub mod hints;
pub mod recommendation;
pub mod strategy;
pub mod trial;

pub use evidence::{AdviceError, FunctionEvidence};
pub use recommendation::{Advice, Confidence, ConfidenceLevel, CurvePoint, Saving, Verdict};
pub use trial::{TrialMeasurement, trial_measurement};

use crate::pricing::prices::RateTable;

/// Recommends a memory size for one function.
///
/// # Errors
/// [`AdviceError::Price`] for a region or architecture without prices, [`AdviceError::NoEvidence`] when no
/// invocation was measured.
pub fn advise(
    evidence: &FunctionEvidence<'_>,
    prices: &dyn RateTable,
    strategy: strategy::Strategy,
) -> Result<Advice, AdviceError> {
    analysis::Analysis::new(evidence, prices).map(|analysis| analysis.advice(strategy))
}
