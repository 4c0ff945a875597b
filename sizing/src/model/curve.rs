//! A model's predictions over all sizes, sampled once and read quickly.
//!
//! The simulation costs microseconds and Lambda has ten thousand sizes: it is run at some forty of them, where
//! the curve may bend, and read between them along straight lines in the logarithms of memory and duration.

use crate::model::interval::Prediction;
use crate::model::predict::{Expected, Model};
use crate::units::Megabytes;

/// Sizes the model is evaluated at: a fifth of an octave apart at most where the quota bends the curve, and
/// on both sides of every step in the visible vCPUs.
const KNOTS: [u32; 36] = [
    128, 144, 162, 182, 205, 230, 256, 294, 338, 388, 446, 512, 602, 708, 832, 1_024, 1_204, 1_416, 1_665,
    1_769, 1_860, 2_048, 2_389, 2_744, 3_008, 3_009, 3_538, 4_096, 4_705, 5_307, 5_308, 6_208, 7_076, 7_077,
    8_846, 10_240,
];

/// Predictions at rising sizes.
#[derive(Debug, Clone)]
pub struct Curve {
    knots: Vec<Knot>,
}

#[derive(Debug, Clone, Copy)]
struct Knot {
    log_memory: f64,
    expected: Expected,
}

impl Curve {
    /// Evaluates `model` at the knots.
    #[must_use]
    pub fn new(model: &Model) -> Self {
        let knot = |memory: u32| Knot {
            log_memory: f64::from(memory).ln(),
            expected: model.expect(Megabytes(memory)),
        };
        Self { knots: KNOTS.into_iter().map(knot).collect() }
    }

    /// Expected mean duration at `memory`, ms.
    #[must_use]
    pub fn mean_ms(&self, memory: Megabytes) -> f64 {
        self.expect(memory).log_ms.exp()
    }

    /// Expected mean duration at `memory` with its intervals.
    #[must_use]
    pub fn predict(&self, memory: Megabytes) -> Prediction {
        let expected = self.expect(memory);
        Prediction::new(expected.log_ms, expected.variance)
    }

    /// What is expected at `memory`; outside of Lambda's sizes, what is expected at the nearest of them.
    #[must_use]
    pub fn expect(&self, memory: Megabytes) -> Expected {
        let log_memory = f64::from(memory.0.max(1)).ln();
        let after = self.knots.partition_point(|knot| knot.log_memory < log_memory);
        let before = after.checked_sub(1).and_then(|before| self.knots.get(before));
        match (before, self.knots.get(after)) {
            (Some(left), Some(right)) => {
                let t = (log_memory - left.log_memory) / (right.log_memory - left.log_memory);
                let (a, b) = (&left.expected, &right.expected);
                let between = |a: f64, b: f64| a * (1.0 - t) + b * t;
                Expected {
                    memory,
                    log_ms: between(a.log_ms, b.log_ms),
                    variance: between(a.variance, b.variance),
                    quota_spread: between(a.quota_spread, b.quota_spread),
                }
            }
            (Some(only), None) | (None, Some(only)) => Expected { memory, ..only.expected },
            (None, None) => Expected { memory, log_ms: f64::NAN, variance: 0.0, quota_spread: 0.0 },
        }
    }
}
