//! Money as exact integers.
//!
//! Lambda's prices have up to ten decimals of a dollar. One invocation at 128 MB for one millisecond costs about
//! 2e-9 dollars. Floats would lose precision, so money is an integer number of pico-dollars (1e-12 USD), and is
//! converted to dollars only for display.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub};

use serde::{Deserialize, Serialize};

/// Pico-dollars in one dollar.
pub const PICO_PER_DOLLAR: i128 = 1_000_000_000_000;

/// An amount of money in pico-dollars (1e-12 USD); a negative saving is an extra cost.
///
/// `i128` is large enough for the sum over any fleet and any time, so sums are exact. Arithmetic outside the range
/// saturates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PicoDollars(pub i128);

impl PicoDollars {
    /// No money.
    pub const ZERO: Self = Self(0);

    /// The amount in dollars, rounded to a float: for display and for ratios only.
    #[must_use]
    pub fn to_dollars(self) -> f64 {
        self.0 as f64 / PICO_PER_DOLLAR as f64
    }

    /// The exact amount in dollars, without trailing zeros: `0.0000166667`.
    #[must_use]
    pub fn to_decimal(self) -> String {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (magnitude, unit) = (self.0.unsigned_abs(), PICO_PER_DOLLAR.unsigned_abs());
        let text = format!("{sign}{}.{:012}", magnitude / unit, magnitude % unit);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }

    /// This amount `count` times.
    #[must_use]
    pub fn times(self, count: u64) -> Self {
        Self(self.0.saturating_mul(i128::from(count)))
    }

    /// `self × numerator / denominator`, rounded half away from zero.
    ///
    /// `None` when `denominator` is zero.
    #[must_use]
    pub fn scaled(self, numerator: u128, denominator: u128) -> Option<Self> {
        if denominator == 0 {
            return None;
        }
        let numerator = i128::try_from(numerator).ok()?;
        let denominator = i128::try_from(denominator).ok()?;
        let product = self.0.checked_mul(numerator)?;
        let half = if product < 0 { -(denominator / 2) } else { denominator / 2 };
        let rounded = product.saturating_add(half) / denominator;
        Some(Self(rounded))
    }
}

impl Add for PicoDollars {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for PicoDollars {
    fn add_assign(&mut self, other: Self) {
        self.0 = self.0.saturating_add(other.0);
    }
}

impl Sub for PicoDollars {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Sum for PicoDollars {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

impl fmt::Display for PicoDollars {
    /// Dollars with two decimals, or with as many as three significant digits need: `$12.34`, `$0.0517`,
    /// `$0.00000210`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = self.0.unsigned_abs();
        let sign = if self.0 < 0 { "-" } else { "" };
        let digits = magnitude.checked_ilog10().map_or(13, |power| power + 1);
        // An amount of 13 digits is at least one dollar. Two decimals then show three significant digits.
        let decimals = 15_u32.saturating_sub(digits).clamp(2, 12);
        let dollars = self.to_dollars().abs();
        write!(f, "{sign}${dollars:.*}", decimals as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn display_keeps_significant_digits() {
        assert_eq!(PicoDollars(12_345_000_000_000).to_string(), "$12.35");
        assert_eq!(PicoDollars(51_700_000_000).to_string(), "$0.0517");
        assert_eq!(PicoDollars(-210_000).to_string(), "-$0.000000210");
        assert_eq!(PicoDollars(30_783_400).to_string(), "$0.0000308");
        assert_eq!(PicoDollars(769_600_000_000).to_string(), "$0.770");
        assert_eq!(PicoDollars(1_234_560_000_000_000).to_string(), "$1234.56");
        assert_eq!(PicoDollars(7).to_string(), "$0.000000000007");
        assert_eq!(PicoDollars::ZERO.to_string(), "$0.00");
    }

    #[test]
    fn decimals_are_exact() {
        for (pico, text) in [
            (16_666_700, "0.0000166667"),
            (0, "0"),
            (-178_500_000_000, "-0.1785"),
            (20_000_000_000_000, "20"),
        ] {
            assert_eq!(PicoDollars(pico).to_decimal(), text);
        }
    }

    proptest! {
        #[test]
        fn scaling_rounds_to_nearest(amount in -1_000_000_000i64..1_000_000_000, n in 0u32..1_000_000, d in 1u32..1_000_000) {
            let scaled = PicoDollars(amount.into()).scaled(n.into(), d.into()).unwrap().0;
            let exact = i128::from(amount) * i128::from(n);
            prop_assert!((scaled * i128::from(d) - exact).abs() * 2 <= i128::from(d));
        }
    }
}
