//! A model's predictions over all sizes, sampled once and read quickly.
//!
//! The replay costs microseconds and Lambda has ten thousand sizes: it is run at some forty of them, where
//! the curve may bend, and read between them along straight lines in the logarithms of memory and duration.

use crate::interval::Prediction;
use crate::predict::Model;
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
    log_mean: f64,
    log_bounds: [f64; 4],
}

impl Curve {
    /// Samples the mean duration.
    #[must_use]
    pub fn new(model: &Model) -> Self {
        Self::of(|memory| model.predict(memory))
    }

    /// Samples the duration at quantile `q` (0 to 1).
    #[must_use]
    pub fn quantile(model: &Model, q: f64) -> Self {
        Self::of(|memory| model.quantile(memory, q))
    }

    fn of(predict: impl Fn(Megabytes) -> Prediction) -> Self {
        let knots = KNOTS
            .into_iter()
            .map(|memory| {
                let Prediction { mean_ms, interval_80: a, interval_95: b } = predict(Megabytes(memory));
                Knot {
                    log_memory: f64::from(memory).ln(),
                    log_mean: mean_ms.ln(),
                    log_bounds: [a[0].ln(), a[1].ln(), b[0].ln(), b[1].ln()],
                }
            })
            .collect();
        Self { knots }
    }

    /// Expected duration at `memory`, ms.
    #[must_use]
    pub fn mean_ms(&self, memory: Megabytes) -> f64 {
        self.at(memory, |knot| knot.log_mean)
    }

    /// Expected duration at `memory` with its intervals.
    #[must_use]
    pub fn predict(&self, memory: Megabytes) -> Prediction {
        let bound = |i: usize| self.at(memory, |knot| knot.log_bounds[i]);
        Prediction {
            mean_ms: self.mean_ms(memory),
            interval_80: [bound(0), bound(1)],
            interval_95: [bound(2), bound(3)],
        }
    }

    fn at(&self, memory: Megabytes, value: impl Fn(&Knot) -> f64) -> f64 {
        let log_memory = f64::from(memory.0.max(1)).ln();
        let after = self.knots.partition_point(|knot| knot.log_memory < log_memory);
        match (after.checked_sub(1).and_then(|before| self.knots.get(before)), self.knots.get(after)) {
            (Some(left), Some(right)) => {
                let t = (log_memory - left.log_memory) / (right.log_memory - left.log_memory);
                (value(left) * (1.0 - t) + value(right) * t).exp()
            }
            (Some(only), None) | (None, Some(only)) => value(only).exp(),
            (None, None) => f64::NAN,
        }
    }
}
