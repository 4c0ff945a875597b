//! Duration at any memory size, from what was measured at one or several.
//!
//! The simulation of the work gives the prediction. Its error is modelled as a smooth function of the logarithm of
//! duration over the logarithm of memory, estimated from every measured size and decaying with
//! distance from it (a Gaussian process with an exponential kernel, which between two sizes interpolates).
//! The same process gives the interval: narrow near measured sizes, wide far from them or with little
//! evidence. What a size costs is in [`crate::pricing::bill`]; which to choose in [`crate::advice::strategy`].

use crate::model::enforcement::Enforcement;
use crate::model::hypotheses::{KernelProfiles, Simulated, WorkHypotheses, log_ms, source_weight};
use crate::model::interval::Prediction;
use crate::model::memory_floor::peak_memory_mb;
use crate::model::profile::Profile;
use crate::model::quantile::{self, Tail};
use crate::model::uncertainty::{MeasuredPoint, Target, Uncertainty};
use crate::telemetry::rollup::Rollup;
use crate::units::Megabytes;

/// Standard deviation of the simulation's error, in logarithm, at sizes that were not measured.
const SIMULATION_ERROR: f64 = 0.053;

/// Doublings of memory over which the correlation of the error decreases to 1/e.
const MEMORY_OCTAVES: f64 = 1.5;

/// Weight of `a + b / memory` beside the simulation where CPU time was not measured. From 0.2 to 0.5, two sizes predict each
/// published set of AWS curves at least as well as `a + b / memory` alone (decision 0004).
const HYPERBOLA_WEIGHT: f64 = 0.3;

/// A residual beyond this (a factor of 20) is invalid data, not an error of the simulation.
const MAX_RESIDUAL: f64 = 3.0;

/// Largest variance of a logarithm that raises the mean above the median: by a quarter at most.
const MAX_VARIANCE: f64 = 0.45;

/// The fitted duration model of one function.
#[derive(Debug, Clone)]
pub struct Model {
    work: WorkHypotheses,
    profile: Profile,
    anchors: Vec<Anchor>,
    seen: Vec<MeasuredPoint>,
    /// Weights of the anchors' residuals, and the Cholesky factor of their covariance.
    weights: Vec<f64>,
    factor: Vec<Vec<f64>>,
    noise: f64,
    tails: Vec<Tail>,
    /// `a` and `b` of `a + b / memory`, where no CPU time was measured and more than one size was.
    hyperbola: Option<[f64; 2]>,
}

/// The simulation's error at a measured size.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    octave: f64,
    residual: f64,
    variance: f64,
}

/// What is expected of the mean duration at one size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Expected {
    /// The size.
    pub memory: Megabytes,
    /// Logarithm of the mean duration in ms.
    pub log_ms: f64,
    /// Variance of that logarithm.
    pub variance: f64,
    /// Relative variance of single durations that the quota alone gives.
    pub quota_spread: f64,
}

impl Expected {
    /// Mean of the distribution of the duration, ms. It is above the median by more, the less certain the prediction is, so that
    /// an uncertain size has to be better by more to be chosen.
    #[must_use]
    pub fn mean_ms(&self) -> f64 {
        (self.log_ms + 0.5 * self.variance.clamp(0.0, MAX_VARIANCE)).exp()
    }
}

impl Model {
    /// Fits the model to every measured size, with the evidence about the kernel. Returns `None` when no size has an
    /// invocation with a duration.
    #[must_use]
    pub fn fit(sizes: &[(Megabytes, Rollup)], enforcement: Enforcement) -> Option<Self> {
        let by_kernel: Vec<KernelProfiles> = enforcement
            .kernels()
            .map(|(kernel, probability)| {
                let profile = |(memory, rollup): &(Megabytes, Rollup)| Profile::of(*memory, rollup, kernel);
                KernelProfiles { kernel, probability, profiles: sizes.iter().filter_map(profile).collect() }
            })
            .collect();
        let profiles = &by_kernel.first()?.profiles;
        let profile =
            profiles.iter().copied().max_by(|a, b| source_weight(a).total_cmp(&source_weight(b)))?;
        let work = WorkHypotheses::fit(&by_kernel)?;
        let hyperbola = (!profile.measured).then(|| hyperbola(profiles)).flatten();
        let (mut anchors, mut seen, mut tails) = (Vec::new(), Vec::new(), Vec::new());
        for (memory, rollup) in sizes {
            let Some(profile) = profiles.iter().find(|profile| profile.memory == *memory) else { continue };
            let Simulated { log_ms: log_simulated, quota_spread, .. } = simulate(&work, hyperbola, *memory);
            let residual = log_ms(profile.wall_ms) - log_simulated;
            anchors.push(Anchor {
                octave: octave(*memory),
                residual: residual.clamp(-MAX_RESIDUAL, MAX_RESIDUAL),
                variance: profile.noise,
            });
            seen.push(MeasuredPoint {
                memory: *memory,
                log_simulated,
                busy_ms: profile.busy_ms,
                queued: profile.queued_ms / profile.wall_ms,
                used_mb: peak_memory_mb(rollup),
            });
            if !rollup.warm_duration_us.is_empty() {
                tails.push(Tail::new(*memory, rollup.warm_duration_us.clone(), quota_spread));
            }
        }
        let noise = anchors.iter().map(|anchor| anchor.variance).fold(f64::INFINITY, f64::min);
        let factor = factorize(&anchors);
        let residuals = anchors.iter().map(|anchor| anchor.residual).collect();
        let weights = backward(&factor, forward(&factor, residuals));
        Some(Self { work, profile, anchors, seen, weights, factor, noise, tails, hyperbola })
    }

    /// The profile of the size with the highest weight.
    #[must_use]
    pub const fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Expected mean duration at `memory`, with its intervals.
    #[must_use]
    pub fn predict(&self, memory: Megabytes) -> Prediction {
        let expected = self.expect(memory);
        Prediction::new(expected.log_ms, expected.variance)
    }

    /// Expected duration at quantile `q` (0 to 1) at a size whose mean is `expected`.
    #[must_use]
    pub fn quantile(&self, expected: &Expected, q: f64) -> Prediction {
        let (ratio, more) = quantile::ratio(&self.tails, q, expected.memory, expected.quota_spread);
        Prediction::new(expected.log_ms + ratio.ln(), expected.variance + more.variance())
    }

    /// What is expected of the mean at `memory`.
    #[must_use]
    pub fn expect(&self, memory: Megabytes) -> Expected {
        let (log_ms, uncertainty, quota_spread) = self.log_prediction(memory);
        Expected { memory, log_ms, variance: uncertainty.variance(), quota_spread }
    }

    /// The uncertainty of the prediction at `memory`, by source.
    #[must_use]
    pub fn uncertainty(&self, memory: Megabytes) -> Uncertainty {
        self.log_prediction(memory).1
    }

    fn log_prediction(&self, memory: Megabytes) -> (f64, Uncertainty, f64) {
        let Simulated { log_ms: log_simulated, between, quota_spread } =
            simulate(&self.work, self.hyperbola, memory);
        let at = octave(memory);
        let covariances: Vec<f64> = self.anchors.iter().map(|anchor| covariance(anchor.octave, at)).collect();
        let correction: f64 = covariances.iter().zip(&self.weights).map(|(k, w)| k * w).sum();
        let explained: f64 = forward(&self.factor, covariances).iter().map(|v| v * v).sum();
        let nearest =
            self.anchors.iter().map(|anchor| (anchor.octave - at).abs()).fold(f64::INFINITY, f64::min);
        let unknown = 1.0 - (-2.0 * nearest / MEMORY_OCTAVES).exp();
        let uncertainty = Uncertainty {
            several_threads: self.profile.has_helpers(),
            noise: self.noise,
            simulation: (SIMULATION_ERROR * SIMULATION_ERROR - explained).max(0.0),
            between,
            ..Uncertainty::of_step(&Target { memory, log_simulated, quota_spread, unknown }, &self.seen)
        };
        (log_simulated + correction, uncertainty, quota_spread)
    }
}

/// The simulation at `memory`. Without CPU time its mean with the hyperbola: each errs where the other does not.
fn simulate(work: &WorkHypotheses, hyperbola: Option<[f64; 2]>, memory: Megabytes) -> Simulated {
    let simulated = work.at(memory);
    let Some([a, b]) = hyperbola else { return simulated };
    let off = log_ms(a + b / f64::from(memory.0.max(1))) - simulated.log_ms;
    Simulated {
        log_ms: simulated.log_ms + HYPERBOLA_WEIGHT * off,
        between: simulated.between + HYPERBOLA_WEIGHT * (1.0 - HYPERBOLA_WEIGHT) * off * off,
        ..simulated
    }
}

/// `a + b / memory` with the least relative error at the measured sizes, and both coefficients at least zero.
fn hyperbola(profiles: &[Profile]) -> Option<[f64; 2]> {
    let (mut uu, mut uv, mut vv, mut u, mut v) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for profile in profiles {
        let (x, y) = (1.0 / profile.wall_ms, 1.0 / (f64::from(profile.memory.0.max(1)) * profile.wall_ms));
        uu += x * x;
        uv += x * y;
        vv += y * y;
        u += x;
        v += y;
    }
    let determinant = uu * vv - uv * uv;
    let [a, b] = [(u * vv - v * uv) / determinant, (v * uu - u * uv) / determinant];
    let fitted = match (a, b) {
        _ if profiles.len() < 2 || !(a.is_finite() && b.is_finite()) => return None,
        (a, _) if a < 0.0 => [0.0, v / vv],
        (_, b) if b < 0.0 => [u / uu, 0.0],
        both => both.into(),
    };
    fitted.iter().all(|coefficient| coefficient.is_finite()).then_some(fitted)
}

/// Covariance of the simulation's error between two sizes, given in octaves.
fn covariance(a: f64, b: f64) -> f64 {
    SIMULATION_ERROR * SIMULATION_ERROR * (-(a - b).abs() / MEMORY_OCTAVES).exp()
}

/// Cholesky factor of the anchors' covariance; their noise keeps it positive definite.
fn factorize(anchors: &[Anchor]) -> Vec<Vec<f64>> {
    let mut factor: Vec<Vec<f64>> = Vec::with_capacity(anchors.len());
    for (i, anchor) in anchors.iter().enumerate() {
        let mut row = Vec::with_capacity(i + 1);
        for (j, other) in anchors.iter().take(i + 1).enumerate() {
            let above = factor.get(j).unwrap_or(&row);
            let dot: f64 = row.iter().zip(above).take(j).map(|(a, b)| a * b).sum();
            let entry = covariance(anchor.octave, other.octave);
            if i == j {
                row.push((entry + anchor.variance + 1e-6 - dot).max(1e-9).sqrt());
            } else {
                row.push((entry - dot) / above.get(j).copied().unwrap_or(1.0));
            }
        }
        factor.push(row);
    }
    factor
}

/// `L x = b`.
fn forward(factor: &[Vec<f64>], mut b: Vec<f64>) -> Vec<f64> {
    for (i, row) in factor.iter().enumerate() {
        let (solved, rest) = b.split_at_mut(i);
        let dot: f64 = row.iter().zip(solved.iter()).map(|(l, x)| l * x).sum();
        if let (Some(x), Some(diagonal)) = (rest.first_mut(), row.last()) {
            *x = (*x - dot) / diagonal;
        }
    }
    b
}

/// `Lᵀ x = b`.
fn backward(factor: &[Vec<f64>], mut b: Vec<f64>) -> Vec<f64> {
    for (i, row) in factor.iter().enumerate().rev() {
        let Some(x) = b.get(i).copied().zip(row.last()).map(|(x, diagonal)| x / diagonal) else { continue };
        for (entry, l) in b.iter_mut().zip(row.iter().take(i)) {
            *entry -= l * x;
        }
        if let Some(entry) = b.get_mut(i) {
            *entry = x;
        }
    }
    b
}

fn octave(memory: Megabytes) -> f64 {
    f64::from(memory.0.max(1)).log2()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::invocation::{Invocation, Outcome, Work};

    fn rollup(wall_us: u64, busy_us: u64, starved_us: u64, count: u64) -> Rollup {
        let mut rollup = Rollup::default();
        for i in 0..count {
            rollup.record(&Invocation {
                outcome: Outcome::Success,
                duration_us: wall_us + i % 3,
                billed_ms: wall_us.div_ceil(1_000),
                work: Some(Work {
                    user_us: busy_us,
                    starved_us,
                    idle_us: wall_us.saturating_sub(busy_us + starved_us),
                    top_busy_us: busy_us,
                    top_starved_us: starved_us,
                    effective_threads_milli: 1_000,
                    voluntary_switches: 2,
                    ..Work::default()
                }),
                ..Invocation::default()
            });
        }
        rollup
    }

    #[test]
    fn work_shrinks_with_memory_and_waiting_does_not() {
        // 100 ms of CPU at 256 MB takes 691 ms.
        let bound = [(Megabytes(256), rollup(691_000, 100_000, 591_000, 30))];
        let model = Model::fit(&bound, Enforcement::default()).unwrap();
        let at_1024 = model.predict(Megabytes(1_024)).mean_ms;
        assert!((at_1024 / 172.8 - 1.0).abs() < 0.15, "{at_1024}");
        let waiting = [(Megabytes(1_024), rollup(200_000, 2_000, 0, 30))];
        let at_256 = Model::fit(&waiting, Enforcement::default()).unwrap().predict(Megabytes(256)).mean_ms;
        assert!((at_256 / 205.0 - 1.0).abs() < 0.1, "{at_256}");
    }

    #[test]
    fn the_interval_widens_with_distance_and_narrows_with_a_second_size() {
        let one = [(Megabytes(512), rollup(345_000, 100_000, 245_000, 30))];
        let model = Model::fit(&one, Enforcement::default()).unwrap();
        let width = |model: &Model, memory| {
            let prediction = model.predict(Megabytes(memory));
            (prediction.interval_95[1] / prediction.interval_95[0]).ln()
        };
        assert!(width(&model, 512) < width(&model, 1_024) && width(&model, 1_024) < width(&model, 3_008));
        let two = [one[0].clone(), (Megabytes(3_008), rollup(99_000, 100_000, 0, 30))];
        let both = Model::fit(&two, Enforcement::default()).unwrap();
        assert!(width(&both, 2_048) < width(&model, 2_048));
        assert!((both.predict(Megabytes(3_008)).mean_ms / 99.0 - 1.0).abs() < 0.03);
    }

    #[test]
    fn parallelism_that_a_small_size_cannot_show_is_uncertain() {
        // Four threads with 100 ms of CPU each at 512 MB: 1.38 s, in which all but one wait at any time.
        let mut telemetry = Rollup::default();
        for _ in 0..30 {
            telemetry.record(&Invocation {
                outcome: Outcome::Success,
                duration_us: 1_380_000,
                billed_ms: 1_380,
                work: Some(Work {
                    user_us: 400_000,
                    starved_us: 5_120_000,
                    top_busy_us: 100_000,
                    top_starved_us: 1_280_000,
                    effective_threads_milli: 4_000,
                    voluntary_switches: 8,
                    ..Work::default()
                }),
                ..Invocation::default()
            });
        }
        let model = Model::fit(&[(Megabytes(512), telemetry)], Enforcement::default()).unwrap();
        let at = |memory| model.predict(Megabytes(memory));
        // With 1.7 vCPU both hypotheses agree; with 4 the threads take between 100 and 200 ms.
        assert!((at(3_008).mean_ms / 235.0 - 1.0).abs() < 0.15, "{:?}", at(3_008));
        assert!((100.0..200.0).contains(&at(7_076).mean_ms), "{:?}", at(7_076));
        let width = |memory| (at(memory).interval_80[1] / at(memory).interval_80[0]).ln();
        assert!(width(7_076) > 1.3 * width(3_008), "{} and {}", width(7_076), width(3_008));
    }
}
