//! CPU time of the environment that no counted process accounts for.

use crate::telemetry::rollup::Rollup;
use crate::units::Megabytes;

/// Above this share of all CPU time, the counted part does not represent the function.
pub const MAX_UNACCOUNTED_SHARE: f64 = 0.20;

/// Below this mean of one invocation, ms, it is the kernel's own work and the resolution of its counter (10 ms for many
/// invocations).
pub const MIN_UNACCOUNTED_MS: f64 = 1.0;

/// CPU time that nothing accounts for.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Unaccounted {
    /// Share of all CPU time, 0 to 1.
    pub share: f64,
    /// Mean of one measured invocation, ms.
    pub mean_ms: f64,
}

impl Unaccounted {
    /// From all measured invocations, cold and warm.
    #[must_use]
    pub fn of(sizes: &[(Megabytes, Rollup)]) -> Self {
        let (mut invocations, mut counted_us, mut unaccounted_us) = (0u64, 0u64, 0u64);
        for sum in sizes.iter().flat_map(|(_, rollup)| [&rollup.warm, &rollup.cold]) {
            invocations = invocations.saturating_add(sum.invocations);
            counted_us = counted_us.saturating_add(sum.work.busy_us());
            unaccounted_us = unaccounted_us.saturating_add(sum.work.unaccounted_us);
        }
        if unaccounted_us == 0 {
            return Self::default();
        }
        let all_us = counted_us.saturating_add(unaccounted_us) as f64;
        Self {
            share: unaccounted_us as f64 / all_us,
            mean_ms: unaccounted_us as f64 / 1_000.0 / invocations.max(1) as f64,
        }
    }

    /// The share in percent.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share is 0 to 1")]
    pub fn percent(&self) -> u8 {
        (100.0 * self.share).round() as u8
    }

    /// Whether it is too much for advice that reduces the memory size.
    #[must_use]
    pub fn is_relevant(&self) -> bool {
        self.share > MAX_UNACCOUNTED_SHARE && self.mean_ms >= MIN_UNACCOUNTED_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::invocation::Work;
    use crate::telemetry::rollup::WorkSum;

    fn unaccounted(user_us: u64, unaccounted_us: u64) -> Unaccounted {
        let work = Work { user_us, unaccounted_us, ..Work::default() };
        let warm = WorkSum { invocations: 10, wall_us: 1_000_000, work };
        Unaccounted::of(&[(Megabytes(512), Rollup { warm, ..Rollup::default() })])
    }

    #[test]
    fn a_large_share_of_a_relevant_time_counts() {
        assert_eq!(unaccounted(60_000, 20_000), Unaccounted { share: 0.25, mean_ms: 2.0 });
        assert!(unaccounted(60_000, 20_000).is_relevant());
        assert!(!unaccounted(600_000, 20_000).is_relevant(), "a small share");
        assert!(!unaccounted(1_000, 5_000).is_relevant(), "half a millisecond");
        assert!(!unaccounted(0, 0).is_relevant());
    }
}
