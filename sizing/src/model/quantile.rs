//! Quantiles of duration at sizes that were not measured.
//!
//! Where a size was measured, its own durations show how far a quantile lies from the mean. Elsewhere that
//! distance is taken from the nearest measured size and changed by what the quota adds: at small sizes it
//! matters when within a period an invocation begins, so durations spread that did not before.

use crate::model::uncertainty::Uncertainty;
use crate::telemetry::histogram::LogHistogram;
use crate::units::Megabytes;

/// Largest accepted distance of a quantile from the mean, in standard deviations. Beyond it, few durations were
/// measured, or they have two modes.
const MAX_DEVIATIONS: f64 = 8.0;

/// Lower limit of a quantile as a share of the mean, so that its logarithm exists.
const MIN_RATIO: f64 = 1e-3;

/// Largest accepted relative standard deviation.
const MAX_SPREAD: f64 = 10.0;

/// Durations measured at one size.
#[derive(Debug, Clone)]
pub(crate) struct Tail {
    memory: Megabytes,
    /// Warm durations, µs, with their mean and relative variance.
    durations: LogHistogram,
    mean: f64,
    squared_spread: f64,
    /// Relative variance that the quota alone gives them here.
    quota_spread: f64,
}

impl Tail {
    /// The tail of warm durations in µs.
    pub(crate) fn new(memory: Megabytes, durations: LogHistogram, quota_spread: f64) -> Self {
        let mean = durations.mean().unwrap_or(0.0);
        let variance = durations.variance().unwrap_or(0.0);
        let squared_spread = if mean > 0.0 { variance / (mean * mean) } else { 0.0 };
        Self {
            memory,
            mean,
            squared_spread: squared_spread.clamp(0.0, MAX_SPREAD * MAX_SPREAD),
            durations,
            quota_spread,
        }
    }

    fn octaves_from(&self, memory: Megabytes) -> f64 {
        (f64::from(self.memory.0.max(1)) / f64::from(memory.0.max(1))).log2().abs()
    }

    /// The quantile relative to the mean, here.
    fn ratio(&self, q: f64) -> f64 {
        self.durations.quantile(q).map_or(1.0, |quantile| quantile / self.mean)
    }
}

/// The duration at quantile `q` (0 to 1) of `memory` relative to the mean there, and the uncertainty of
/// it besides the mean. `quota_spread` is the relative variance that the quota gives at `memory`.
pub(crate) fn ratio(tails: &[Tail], q: f64, memory: Megabytes, quota_spread: f64) -> (f64, Uncertainty) {
    let q = if q.is_nan() { 0.5 } else { q.clamp(0.0, 1.0) };
    let usable = tails.iter().filter(|tail| tail.mean > 0.0);
    let nearest = usable.min_by(|a, b| a.octaves_from(memory).total_cmp(&b.octaves_from(memory)));
    let Some(tail) = nearest else { return (1.0, Uncertainty::default()) };
    let here = tail.squared_spread;
    let there = ((here - tail.quota_spread).max(0.0) + quota_spread).min(MAX_SPREAD * MAX_SPREAD);
    let ratio = if tail.memory == memory {
        tail.ratio(q)
    } else if here > 0.0 {
        let deviations = (tail.ratio(q) - 1.0) / here.sqrt();
        1.0 + deviations.clamp(-MAX_DEVIATIONS, MAX_DEVIATIONS) * there.sqrt()
    } else {
        1.0 + normal_quantile(q) * there.sqrt()
    };
    // Standard error of a sample quantile of a normal distribution: sqrt(q(1 - q)/n) / density.
    let density = (-0.5 * normal_quantile(q).powi(2)).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let count = tail.durations.count().max(1) as f64;
    let noise = there * q * (1.0 - q) / (count * density * density).max(f64::MIN_POSITIVE);
    (ratio.max(MIN_RATIO), Uncertainty { noise: noise.min(1.0), ..Uncertainty::default() })
}

/// Quantile of the standard normal distribution, within 0.005 of it (Abramowitz and Stegun, 26.2.22), and at
/// most four deviations.
fn normal_quantile(q: f64) -> f64 {
    let tail = q.min(1.0 - q).clamp(1e-5, 0.5);
    let t = (-2.0 * tail.ln()).sqrt();
    let deviations = (t - (2.307_53 + 0.270_61 * t) / (1.0 + t * (0.992_29 + 0.044_81 * t))).max(0.0);
    if q < 0.5 { -deviations } else { deviations }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tail(memory: u32, durations: &[u64]) -> Tail {
        let mut histogram = LogHistogram::default();
        durations.iter().for_each(|&us| histogram.record(us));
        Tail::new(Megabytes(memory), histogram, 0.0)
    }

    #[test]
    fn the_measured_size_keeps_its_own_quantiles() {
        let durations: Vec<u64> = (1..=100).map(|i| 1_000 * i).collect();
        let tails = [tail(512, &durations)];
        let (p95, _) = ratio(&tails, 0.95, Megabytes(512), 0.0);
        assert!((p95 - 95.0 / 50.5).abs() < 0.03, "{p95}");
        let (elsewhere, _) = ratio(&tails, 0.95, Megabytes(1_024), 0.0);
        assert!((elsewhere - p95).abs() < 0.03, "{elsewhere}");
    }

    #[test]
    fn the_quota_spreads_what_was_steady() {
        let tails = [tail(1_769, &[50_000; 30])];
        let (steady, _) = ratio(&tails, 0.95, Megabytes(1_769), 0.0);
        let (spread, _) = ratio(&tails, 0.95, Megabytes(128), 0.04);
        assert!((steady - 1.0).abs() < 0.02 && (spread - 1.33).abs() < 0.02, "{steady} and {spread}");
    }

    #[test]
    fn rare_quantiles_of_few_durations_are_uncertain() {
        let durations: Vec<u64> = (1..=20).map(|i| 10_000 + 1_000 * i).collect();
        let tails = [tail(512, &durations)];
        let uncertainty = |q: f64| ratio(&tails, q, Megabytes(512), 0.0).1.noise;
        assert!(uncertainty(0.5) < uncertainty(0.95) && uncertainty(0.95) < uncertainty(0.99));
    }

    #[test]
    fn normal_quantiles_are_near_the_tables() {
        for (q, expected) in [(0.5, 0.0), (0.8, 0.841_6), (0.95, 1.644_9), (0.01, -2.326_3)] {
            assert!((normal_quantile(q) - expected).abs() < 0.005, "{q}");
        }
    }

    proptest! {
        #[test]
        fn any_durations_give_a_ratio(durations in prop::collection::vec(any::<u64>(), 0..20), q in any::<f64>(), spread in 0.0f64..1e9) {
            let (ratio, uncertainty) = ratio(&[tail(128, &durations)], q, Megabytes(256), spread);
            prop_assert!(ratio.is_finite() && ratio > 0.0 && uncertainty.noise.is_finite());
        }
    }
}
