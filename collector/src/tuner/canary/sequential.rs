//! Sequential tests: they may be evaluated after every invocation and stop early in either direction.

/// The result of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The new version is worse.
    Worse,
    /// The new version is not worse.
    Same,
    /// It is not known yet; about so many more invocations are needed.
    Continue(u64),
}

/// Wald's sequential probability ratio test of a share: of errors, or of slow invocations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sprt {
    /// The share of a healthy version.
    pub healthy: f64,
    /// The share of a version that is worse.
    pub faulty: f64,
    /// Largest probability to call a healthy version worse.
    pub alpha: f64,
    /// Largest probability to call a worse version healthy.
    pub beta: f64,
}

impl Sprt {
    /// Decides on `bad` of `count` invocations.
    #[must_use]
    pub fn decide(&self, bad: u64, count: u64) -> Decision {
        let (upper, lower) = self.bounds();
        let good = count.saturating_sub(bad) as f64;
        let ratio = bad as f64 * self.bad_step() + good * self.good_step();
        if ratio >= upper {
            Decision::Worse
        } else if ratio <= lower {
            Decision::Same
        } else {
            // A healthy version drifts towards the lower bound.
            let drift = self.healthy * self.bad_step() + (1.0 - self.healthy) * self.good_step();
            Decision::Continue(invocations_rounded_up((lower - ratio) / drift))
        }
    }

    /// Expected number of invocations until a healthy version passes.
    #[must_use]
    pub fn expected_healthy(&self) -> u64 {
        let (upper, lower) = self.bounds();
        let drift = self.healthy * self.bad_step() + (1.0 - self.healthy) * self.good_step();
        invocations_rounded_up(((1.0 - self.alpha) * lower + self.alpha * upper) / drift)
    }

    /// Expected number of invocations until a worse version fails.
    #[must_use]
    pub fn expected_faulty(&self) -> u64 {
        let (upper, lower) = self.bounds();
        let drift = self.faulty * self.bad_step() + (1.0 - self.faulty) * self.good_step();
        invocations_rounded_up((self.beta * lower + (1.0 - self.beta) * upper) / drift)
    }

    fn bounds(&self) -> (f64, f64) {
        (((1.0 - self.beta) / self.alpha).ln(), (self.beta / (1.0 - self.alpha)).ln())
    }

    fn bad_step(&self) -> f64 {
        (self.faulty / self.healthy).ln()
    }

    fn good_step(&self) -> f64 {
        ((1.0 - self.faulty) / (1.0 - self.healthy)).ln()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the value is clamped before the cast"
)]
fn invocations_rounded_up(count: f64) -> u64 {
    count.ceil().clamp(1.0, 1e12) as u64
}

/// Half the width of a confidence sequence of a mean: with probability `1 - alpha` the mean is inside for every count at
/// once (Robbins' normal mixture, tuned to 500 invocations).
#[must_use]
pub fn mean_interval(variance: f64, count: u64, alpha: f64) -> f64 {
    if count < 2 {
        return f64::INFINITY;
    }
    let n = count as f64;
    let rho = (-2.0 * alpha.ln() + (-2.0 * alpha.ln()).ln() + 1.0) / 500.0;
    let inner = 2.0 * (n * rho + 1.0) / (n * n * rho) * ((n * rho + 1.0).sqrt() / alpha).ln();
    (variance.max(0.0) * inner).sqrt()
}

#[cfg(test)]
mod tests {
    use tailor_test_kit::random::Random;

    use super::*;

    #[test]
    fn the_test_needs_the_published_number_of_invocations_and_keeps_its_error_rates() {
        let test = Sprt { healthy: 0.001, faulty: 0.01, alpha: 0.01, beta: 0.05 };
        assert!((400..470).contains(&test.expected_healthy()), "{}", test.expected_healthy());
        assert!((270..330).contains(&test.expected_faulty()), "{}", test.expected_faulty());
        let mut random = Random::new(7);
        for (rate, wrong, most) in [(0.001, Decision::Worse, 0.02), (0.01, Decision::Same, 0.07)] {
            let mut errors = 0;
            for _ in 0..2_000 {
                let (mut bad, mut count) = (0, 0);
                let decision = loop {
                    count += 1;
                    bad += u64::from(random.unit() < rate);
                    match test.decide(bad, count) {
                        Decision::Continue(_) => {}
                        decision => break decision,
                    }
                };
                errors += u64::from(decision == wrong);
            }
            assert!((errors as f64) < most * 2_000.0, "{errors} errors at {rate}");
        }
    }

    #[test]
    fn the_interval_contains_the_mean_at_every_count() {
        let mut random = Random::new(11);
        let mut left = 0;
        for _ in 0..300 {
            let (mut sum, mut squares, mut outside) = (0.0, 0.0, false);
            for count in 1..3_000u64 {
                let value = random.unit() + random.unit() + random.unit() - 1.5;
                sum += value;
                squares += value * value;
                let n = count as f64;
                let mean: f64 = sum / n;
                let variance = squares / n - mean * mean;
                outside |= count >= 30 && mean.abs() > mean_interval(variance, count, 0.05);
            }
            left += u64::from(outside);
        }
        assert!(left <= 15, "{left} of 300 sequences left the interval");
    }
}
