//! The interval of a prediction, computed from its uncertainty.
//!
//! The error of a prediction, in logarithm, has a heavy tail, so the two intervals have their own widths
//! instead of those of a normal distribution. The widths come from `examples/calibrate`, as the weights of
//! [`crate::model::uncertainty`] do.

use serde::{Deserialize, Serialize};

/// Half-widths of the 80 % and the 95 % interval in standard deviations.
pub const WIDTH_80: f64 = 1.46;
/// See [`WIDTH_80`].
pub const WIDTH_95: f64 = 2.74;

/// Most standard deviations of any interval, in logarithm: beyond a factor of 1,000 it has no information.
const MAX_LOG: f64 = 6.9;

/// An expected duration and how far it may be off.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Expected value, ms. Of a mean duration: the mean over warm invocations.
    pub mean_ms: f64,
    /// Where it lies with 80 % probability, ms, when as many invocations are measured as there were.
    pub interval_80: [f64; 2],
    /// Where it lies with 95 % probability, ms.
    pub interval_95: [f64; 2],
}

impl Prediction {
    /// The prediction `exp(log_ms)` with a variance of its logarithm.
    #[must_use]
    pub fn new(log_ms: f64, variance: f64) -> Self {
        let sigma = variance.max(0.0).sqrt();
        let band = |width: f64| {
            let half = (width * sigma).min(MAX_LOG);
            [(log_ms - half).exp(), (log_ms + half).exp()]
        };
        Self { mean_ms: log_ms.exp(), interval_80: band(WIDTH_80), interval_95: band(WIDTH_95) }
    }

    /// The prediction of something `ratio` times as long.
    #[must_use]
    pub fn times(self, ratio: f64) -> Self {
        Self {
            mean_ms: self.mean_ms * ratio,
            interval_80: self.interval_80.map(|bound| bound * ratio),
            interval_95: self.interval_95.map(|bound| bound * ratio),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::uncertainty::Uncertainty;

    #[test]
    fn intervals_nest_around_the_mean_and_grow_with_uncertainty() {
        let sure =
            Prediction::new(100f64.ln(), Uncertainty { noise: 0.001, ..Uncertainty::default() }.variance());
        let unsure =
            Prediction::new(100f64.ln(), Uncertainty { noise: 0.1, ..Uncertainty::default() }.variance());
        for prediction in [sure, unsure] {
            assert!((prediction.mean_ms - 100.0).abs() < 1e-9);
            assert!(prediction.interval_95[0] < prediction.interval_80[0]);
            assert!(prediction.interval_80[1] < prediction.interval_95[1]);
        }
        assert!(unsure.interval_80[1] > sure.interval_80[1]);
        assert!(Prediction::new(0.0, f64::INFINITY).interval_95[1].is_finite());
    }
}
