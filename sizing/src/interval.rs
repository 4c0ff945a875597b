//! How far a prediction may be off: what is doubtful about it, and intervals from that.
//!
//! The error of a prediction, in logarithm, has a heavy tail, so the two intervals have their own widths
//! instead of those of a normal distribution. The constants were fitted to the sample functions by
//! `examples/calibrate`, which prints them with their coverage on functions left out of the fit.

use serde::Serialize;

/// Variances and what multiplies them, one for each doubt; see [`Doubt`].
pub const WEIGHTS: [f64; 5] = [1.0, 1.27, 0.004_6, 0.000_34, 1.91];

/// Half-widths of the 80 % and the 95 % interval in standard deviations.
pub const WIDTH_80: f64 = 1.40;
/// See [`WIDTH_80`].
pub const WIDTH_95: f64 = 2.99;

/// Most standard deviations of any interval, in logarithm: beyond a factor of 1,000 it says nothing anyway.
const MOST_LOG: f64 = 6.9;

/// What is doubtful about one prediction. Squares of logarithms, to be weighted and summed.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Doubt {
    /// Relative variance of the measured mean: noise of the function itself.
    pub noise: f64,
    /// Variance of the replay's own error that no measured size speaks of.
    pub replay: f64,
    /// Square of the rise from the nearest measured size, times that size's share: going down, bursts that
    /// were never throttled must be guessed.
    pub rise: f64,
    /// Square of the fall from the nearest measured size, divided by that size's share squared: going up from
    /// a small size, what was throttled and what was waiting must be told apart in numbers that are mostly
    /// the former.
    pub fall: f64,
    /// Variance between hypotheses on the work.
    pub between: f64,
}

impl Doubt {
    /// The doubts in the order of [`WEIGHTS`].
    #[must_use]
    pub const fn parts(&self) -> [f64; 5] {
        [self.noise, self.replay, self.rise, self.fall, self.between]
    }

    /// Variance of the prediction's logarithm.
    #[must_use]
    pub fn variance(&self) -> f64 {
        self.parts().iter().zip(WEIGHTS).map(|(part, weight)| part * weight).sum::<f64>().max(0.0)
    }
}

/// An expected duration and how far it may be off.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
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
            let half = (width * sigma).min(MOST_LOG);
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

    #[test]
    fn intervals_nest_around_the_mean_and_grow_with_doubt() {
        let sure = Prediction::new(100f64.ln(), Doubt { noise: 0.001, ..Doubt::default() }.variance());
        let unsure = Prediction::new(100f64.ln(), Doubt { noise: 0.1, ..Doubt::default() }.variance());
        for prediction in [sure, unsure] {
            assert!((prediction.mean_ms - 100.0).abs() < 1e-9);
            assert!(prediction.interval_95[0] < prediction.interval_80[0]);
            assert!(prediction.interval_80[1] < prediction.interval_95[1]);
        }
        assert!(unsure.interval_80[1] > sure.interval_80[1]);
        assert!(Prediction::new(0.0, f64::INFINITY).interval_95[1].is_finite());
    }
}
