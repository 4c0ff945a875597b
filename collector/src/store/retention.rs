//! How long measurements are kept, and what of a function is old at a time. Both stores use these limits.

use super::HOUR_US;
use crate::clock::DAY_US;

/// Hours in a day.
pub(super) const DAY_HOURS: u64 = DAY_US / HOUR_US;

/// Summaries of a function are computed again after this time, because their windows move.
const SUMMARY_AGE_US: u64 = HOUR_US;

/// How long rollups are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Days with one rollup per hour.
    pub hourly_days: u64,
    /// Days with one rollup per day, counted from today.
    pub daily_days: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { hourly_days: 8, daily_days: 400 }
    }
}

/// What of a function is old at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// The time at which environments may have ended, microseconds since the Unix epoch.
    pub(super) now_us: u64,
    /// Hourly rollups before this hour are merged into those of their day.
    pub(super) hourly_from: u64,
    /// What is before this hour is deleted.
    pub(super) daily_from: u64,
    /// The collector's clock, microseconds since the Unix epoch.
    pub(super) clock_us: u64,
    /// Summaries that were computed before this time, or after `clock_us`, are computed again.
    pub(super) summaries_from_us: u64,
}

impl Retention {
    /// What is old at `now_us`, which is at most the collector's clock. Times of summaries are by the clock itself. A clock that
    /// was set back leaves some in the future.
    pub(super) const fn limits(self, now_us: u64, clock_us: u64) -> Limits {
        // Whole days only, so that a day is never in both forms.
        let today = now_us / DAY_US * DAY_HOURS;
        Limits {
            now_us,
            hourly_from: today.saturating_sub(self.hourly_days.saturating_mul(DAY_HOURS)),
            daily_from: today.saturating_sub(self.daily_days.saturating_mul(DAY_HOURS)),
            clock_us,
            summaries_from_us: clock_us.saturating_sub(SUMMARY_AGE_US),
        }
    }
}

impl Limits {
    /// A function whose newest batch was received before this time may be deleted, microseconds since the Unix epoch.
    pub(super) const fn functions_from_us(self) -> u64 {
        self.daily_from.saturating_mul(HOUR_US)
    }

    /// Totals of ended environments before this day are deleted, days since the Unix epoch.
    pub(super) const fn ended_from_day(self) -> u64 {
        self.daily_from / DAY_HOURS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_whole_days_and_never_before_the_epoch() {
        let retention = Retention { hourly_days: 8, daily_days: 400 };
        let at = |day: u64, hour: u64| retention.limits(day * DAY_US + hour * HOUR_US, 0);
        for hour in [0, 1, 23] {
            let limits = at(20_000, hour);
            assert_eq!((limits.hourly_from, limits.daily_from), (19_992 * 24, 19_600 * 24));
            assert_eq!(limits.functions_from_us(), 19_600 * DAY_US);
            assert_eq!(limits.ended_from_day(), 19_600);
        }
        assert_eq!((at(5, 0).hourly_from, at(5, 0).daily_from), (0, 0));
        let limits = Retention { hourly_days: u64::MAX, daily_days: u64::MAX }.limits(u64::MAX, u64::MAX);
        assert_eq!((limits.hourly_from, limits.daily_from), (0, 0));
    }

    #[test]
    fn summaries_are_old_by_the_clock_and_not_by_the_limited_time() {
        let limits = Retention::default().limits(3 * DAY_US, 500 * DAY_US);
        assert_eq!((limits.now_us, limits.clock_us), (3 * DAY_US, 500 * DAY_US));
        assert_eq!(limits.summaries_from_us, 500 * DAY_US - HOUR_US);
    }
}
