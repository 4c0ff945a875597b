//! The distributions of the simulation. The same seed gives the same numbers on every machine.

/// A sequence of pseudo-random numbers.
#[derive(Debug, Clone)]
pub struct Random(tailor_test_kit::random::Random);

impl Random {
    /// A generator with this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(tailor_test_kit::random::Random::new(seed))
    }

    /// A number above 0 and below 1.
    pub fn unit(&mut self) -> f64 {
        self.0.unit()
    }

    /// A number of the standard normal distribution.
    pub fn normal(&mut self) -> f64 {
        normal_quantile(self.unit())
    }

    /// A number whose logarithm is normally distributed around that of `median`.
    pub fn around(&mut self, median: f64, sigma: f64) -> f64 {
        median * (sigma * self.normal()).exp()
    }

    /// An index below the number of weights, in proportion to them.
    pub fn pick(&mut self, weights: &[f64]) -> usize {
        let mut left = self.unit() * weights.iter().sum::<f64>();
        for (index, weight) in weights.iter().enumerate() {
            left -= weight;
            if left <= 0.0 {
                return index;
            }
        }
        weights.len().saturating_sub(1)
    }

    /// A number of events of which `mean` are expected.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
    pub fn poisson(&mut self, mean: f64) -> u64 {
        if mean <= 0.0 {
            return 0;
        }
        if mean > 50.0 {
            return (mean + mean.sqrt() * self.normal()).round().max(0.0) as u64;
        }
        let (limit, mut product, mut count) = ((-mean).exp(), self.unit(), 0);
        while product > limit {
            product *= self.unit();
            count += 1;
        }
        count
    }
}

/// The quantile of the standard normal distribution (Acklam's approximation, relative error below 1.2e-9).
#[must_use]
pub fn normal_quantile(p: f64) -> f64 {
    const A: [f64; 6] = [
        -39.696_830_286_653_8,
        220.946_098_424_521,
        -275.928_510_446_969,
        138.357_751_867_269,
        -30.664_798_066_147_2,
        2.506_628_277_459_24,
    ];
    const B: [f64; 5] = [
        -54.476_098_798_224_1,
        161.585_836_858_041,
        -155.698_979_859_887,
        66.801_311_887_719_7,
        -13.280_681_552_885_7,
    ];
    const C: [f64; 6] = [
        -0.007_784_894_002_430_29,
        -0.322_396_458_041_136,
        -2.400_758_277_161_84,
        -2.549_732_539_343_73,
        4.374_664_141_464_97,
        2.938_163_982_698_78,
    ];
    const D: [f64; 4] =
        [0.007_784_695_709_041_46, 0.322_467_129_070_04, 2.445_134_137_143, 3.754_408_661_907_42];
    let polynomial = |coefficients: &[f64], x: f64| coefficients.iter().fold(0.0, |sum, c| sum * x + c);
    let tail = |q: f64| polynomial(&C, q) / (polynomial(&D, q) * q + 1.0);
    if p < 0.024_25 {
        tail((-2.0 * p.ln()).sqrt())
    } else if p > 1.0 - 0.024_25 {
        -tail((-2.0 * (1.0 - p).ln()).sqrt())
    } else {
        let q = p - 0.5;
        q * polynomial(&A, q * q) / (polynomial(&B, q * q) * q * q + 1.0)
    }
}

/// The probability that a standard normal number is above `z`.
#[must_use]
pub fn normal_above(z: f64) -> f64 {
    if z < 0.0 {
        return 1.0 - normal_above(-z);
    }
    // Abramowitz and Stegun 26.2.17; far out, the asymptotic form.
    let density = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    if z > 6.0 {
        return density / z;
    }
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let sum = t
        * (0.319_381_53
            + t * (-0.356_563_782 + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    density * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_tail_probabilities_agree() {
        for z in [-4.0, -2.5, -0.3, 0.0, 1.0, 2.2, 3.7, 5.0] {
            let back = normal_quantile(1.0 - normal_above(z));
            assert!((back - z).abs() < 0.01, "{z}: {back}");
        }
    }

    #[test]
    fn counts_have_their_mean() {
        let mut random = Random::new(3);
        for mean in [0.3, 7.0, 200.0] {
            let sum: u64 = (0..2_000).map(|_| random.poisson(mean)).sum();
            assert!((sum as f64 / 2_000.0 / mean - 1.0).abs() < 0.06, "{mean}: {sum}");
        }
    }
}
