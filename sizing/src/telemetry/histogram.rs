//! A mergeable histogram with a bounded relative error.
//!
//! Base-2 logarithmic buckets, 32 to an octave: a value is reported within 1.1 % of what was recorded.
//! Merging is addition, so histograms combined in any order are equal to the bit; that is what lets the
//! collector append partial rollups and merge them when they are read. Bucket limits are integers, so the
//! same value lands in the same bucket on every machine.

use std::collections::BTreeMap;

/// Buckets in one doubling of the value.
pub const BUCKETS_PER_OCTAVE: u16 = 32;

/// `ceil(2^(63 + k/32))`: the least mantissa, scaled to 64 bits, of each bucket of an octave.
const MANTISSA_FLOOR: [u64; BUCKETS_PER_OCTAVE as usize] = [
    0x8000_0000_0000_0000,
    0x82cd_8698_ac2b_a1d8,
    0x85aa_c367_cc48_7b15,
    0x8898_0e80_92da_8528,
    0x8b95_c1e3_ea8b_d6e7,
    0x8ea4_398b_45cd_53c1,
    0x91c3_d373_ab11_c337,
    0x94f4_efa8_fef7_0962,
    0x9837_f051_8db8_a970,
    0x9b8d_39b9_d54e_5539,
    0x9ef5_3260_91a1_11ae,
    0xa270_4303_0c49_6819,
    0xa5fe_d6a9_b151_38eb,
    0xa9a1_5ab4_ea7c_0ef9,
    0xad58_3eea_42a1_4ac7,
    0xb123_f581_d2ac_2590,
    0xb504_f333_f9de_6485,
    0xb8fb_af47_62fb_9eea,
    0xbd08_a39f_580c_36bf,
    0xc12c_4cca_6670_9457,
    0xc567_2a11_5506_dade,
    0xc9b9_bd86_6e2f_27a3,
    0xce24_8c15_1f84_80e4,
    0xd2a8_1d91_f12a_e45b,
    0xd744_fcca_d69d_6af5,
    0xdbfb_b797_daf2_3756,
    0xe0cc_deec_2a94_e112,
    0xe5b9_06e7_7c83_48a9,
    0xeac0_c6e7_dd24_392f,
    0xefe4_b99b_dcda_f5cc,
    0xf525_7d15_2486_cc2d,
    0xfa83_b2db_722a_033b,
];

/// Counts of values by logarithmic bucket.
///
/// Bucket 0 counts zeros; bucket `1 + i` counts values from `2^(i/32)` up to, not including, `2^((i+1)/32)`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogHistogram {
    buckets: BTreeMap<u16, u64>,
}

/// A bucket number that no 64-bit value can fall into.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("histogram bucket {0} does not exist: the last one is {MAX_BUCKET}")]
pub struct NoSuchBucket(pub u64);

/// The bucket of `u64::MAX`.
pub const MAX_BUCKET: u16 = 64 * BUCKETS_PER_OCTAVE;

impl LogHistogram {
    /// Records one value.
    pub fn record(&mut self, value: u64) {
        self.record_many(value, 1);
    }

    /// Records `count` equal values.
    pub fn record_many(&mut self, value: u64, count: u64) {
        if count > 0 {
            let slot = self.buckets.entry(bucket_of(value)).or_default();
            *slot = slot.saturating_add(count);
        }
    }

    /// Adds the counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (&bucket, &count) in &other.buckets {
            let slot = self.buckets.entry(bucket).or_default();
            *slot = slot.saturating_add(count);
        }
    }

    /// How many values were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.values().fold(0, |sum, &count| sum.saturating_add(count))
    }

    /// Whether nothing was recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// The value at quantile `q` (0 to 1, nearest rank) within 1.1 %; `None` when empty.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the rank is clamped to 1..=count before the cast"
    )]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let count = self.count();
        let rank = (q.clamp(0.0, 1.0) * count as f64).ceil().max(1.0) as u64;
        let mut seen = 0u64;
        for (&bucket, &count) in &self.buckets {
            seen = seen.saturating_add(count);
            if seen >= rank {
                return Some(midpoint(bucket));
            }
        }
        None
    }

    /// Mean of the recorded values, computed from their buckets; `None` when empty.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        let count = self.count();
        (count > 0)
            .then(|| self.values().map(|(value, count)| value * count as f64).sum::<f64>() / count as f64)
    }

    /// Unbiased variance of the recorded values; `None` with fewer than two.
    #[must_use]
    pub fn variance(&self) -> Option<f64> {
        let count = self.count();
        if count < 2 {
            return None;
        }
        let mean = self.mean()?;
        let squares: f64 =
            self.values().map(|(value, count)| (value - mean) * (value - mean) * count as f64).sum();
        Some(squares / (count - 1) as f64)
    }

    /// Each occupied bucket's representative value and its count, in rising order.
    pub fn values(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        self.buckets.iter().map(|(&bucket, &count)| (midpoint(bucket), count))
    }

    /// Each occupied bucket's number and its count, in rising order: the form to store.
    pub fn buckets(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        self.buckets.iter().map(|(&bucket, &count)| (bucket, count))
    }

    /// Builds a histogram from stored buckets; repeated bucket numbers add up.
    ///
    /// # Errors
    /// [`NoSuchBucket`] for a number above [`MAX_BUCKET`].
    pub fn from_buckets(buckets: impl IntoIterator<Item = (u64, u64)>) -> Result<Self, NoSuchBucket> {
        let mut histogram = Self::default();
        for (number, count) in buckets {
            let bucket = u16::try_from(number)
                .ok()
                .filter(|&bucket| bucket <= MAX_BUCKET)
                .ok_or(NoSuchBucket(number))?;
            if count > 0 {
                let slot = histogram.buckets.entry(bucket).or_default();
                *slot = slot.saturating_add(count);
            }
        }
        Ok(histogram)
    }
}

fn bucket_of(value: u64) -> u16 {
    if value == 0 {
        return 0;
    }
    let leading_zeros = value.leading_zeros();
    let mantissa = value << leading_zeros;
    let within = MANTISSA_FLOOR.partition_point(|&floor| floor <= mantissa) - 1;
    let octave = 63 - leading_zeros;
    // Both are small: the octave is at most 63 and the position within it at most 31.
    #[expect(clippy::cast_possible_truncation, reason = "at most 64 × 32")]
    let bucket = 1 + octave as u16 * BUCKETS_PER_OCTAVE + within as u16;
    bucket
}

/// The geometric middle of a bucket: no value in it is more than 1.1 % away.
fn midpoint(bucket: u16) -> f64 {
    match bucket {
        0 => 0.0,
        // One octave has a single integer here, and it is exact.
        1 => 1.0,
        _ => ((f64::from(bucket - 1) + 0.5) / f64::from(BUCKETS_PER_OCTAVE)).exp2(),
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small ranks")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn histogram(values: &[u64]) -> LogHistogram {
        let mut histogram = LogHistogram::default();
        values.iter().for_each(|&value| histogram.record(value));
        histogram
    }

    #[test]
    fn extremes_have_their_own_buckets() {
        assert_eq!(bucket_of(0), 0);
        assert_eq!(bucket_of(1), 1);
        assert_eq!(bucket_of(2), 1 + 32);
        assert_eq!(bucket_of(u64::MAX), MAX_BUCKET);
        assert!(LogHistogram::from_buckets([(u64::from(MAX_BUCKET) + 1, 1)]).is_err());
    }

    proptest! {
        #[test]
        fn reported_value_is_within_the_documented_error(value in 0u64..=u64::MAX) {
            let reported = histogram(&[value]).quantile(0.5).unwrap();
            prop_assert!((reported - value as f64).abs() <= 0.011 * value as f64, "{value} became {reported}");
        }

        #[test]
        fn merge_is_the_same_in_any_order(a in prop::collection::vec(0u64..1 << 40, 0..50), b in prop::collection::vec(0u64..1 << 40, 0..50)) {
            let (mut ab, mut ba) = (histogram(&a), histogram(&b));
            ab.merge(&histogram(&b));
            ba.merge(&histogram(&a));
            let together = histogram(&[a, b].concat());
            prop_assert_eq!(&ab, &ba);
            prop_assert_eq!(&ab, &together);
            let stored: Vec<_> = ab.buckets().map(|(bucket, count)| (u64::from(bucket), count)).collect();
            prop_assert_eq!(LogHistogram::from_buckets(stored).unwrap(), ab);
        }

        #[test]
        fn quantiles_match_sorted_values(mut values in prop::collection::vec(1u64..1 << 40, 1..200), q in 0.0f64..=1.0) {
            let reported = histogram(&values).quantile(q).unwrap();
            values.sort_unstable();
            let rank = ((q * values.len() as f64).ceil() as usize).max(1);
            let exact = values[rank - 1] as f64;
            prop_assert!((reported - exact).abs() <= 0.011 * exact);
        }
    }
}
