//! The time of a telemetry record, which may be imprecise or unreadable.

use crate::timestamp;

/// One second less a microsecond: what a timestamp without a fraction leaves open.
const WHOLE_SECOND_US: u64 = 999_999;

/// When the platform generated a record: between two instants, microseconds since the Unix epoch.
///
/// The platform writes milliseconds, which are taken as exact. A timestamp in whole seconds leaves a second open, and an
/// unreadable one leaves everything open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordTime {
    earliest_us: u64,
    latest_us: u64,
}

impl RecordTime {
    /// The time is missing or unreadable.
    pub const UNKNOWN: Self = Self { earliest_us: 0, latest_us: u64::MAX };

    /// A time that is known to the microsecond.
    #[must_use]
    pub const fn exact(us: u64) -> Self {
        Self { earliest_us: us, latest_us: us }
    }

    /// The time that an RFC 3339 timestamp states; [`RecordTime::UNKNOWN`] if it is not one.
    #[must_use]
    pub fn parse(timestamp: &str) -> Self {
        let Some(earliest_us) = timestamp::parse_rfc3339(timestamp) else { return Self::UNKNOWN };
        let open_us = if timestamp.contains('.') { 0 } else { WHOLE_SECOND_US };
        Self { earliest_us, latest_us: earliest_us.saturating_add(open_us) }
    }

    /// The earliest time it can be; zero when it is unknown.
    #[must_use]
    pub const fn earliest_us(self) -> u64 {
        self.earliest_us
    }

    /// The latest time it can be; [`u64::MAX`] when it is unknown.
    #[must_use]
    pub const fn latest_us(self) -> u64 {
        self.latest_us
    }

    /// Whether it is certainly before `other`.
    #[must_use]
    pub const fn is_before(self, other: Self) -> bool {
        self.latest_us < other.earliest_us
    }

    /// Whether it can be between `from_us` and `to_us`.
    #[must_use]
    pub const fn may_be_between(self, from_us: u64, to_us: u64) -> bool {
        self.earliest_us <= to_us && self.latest_us >= from_us
    }

    /// The earliest time it can be; `None` when it is unknown.
    #[must_use]
    pub fn known_us(self) -> Option<u64> {
        (self != Self::UNKNOWN).then_some(self.earliest_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_as_precise_as_its_text() {
        let exact = RecordTime::parse("2026-01-02T03:04:05.160Z");
        assert_eq!(exact, RecordTime::exact(1_767_323_045_160_000));
        let second = RecordTime::parse("2026-01-02T03:04:05Z");
        assert_eq!(
            (second.earliest_us(), second.latest_us()),
            (1_767_323_045_000_000, 1_767_323_045_999_999)
        );
        assert!(second.may_be_between(exact.earliest_us(), exact.latest_us()));
        assert!(!second.is_before(exact) && !exact.is_before(second));
        for text in ["", "yesterday", "12:01:23:521Z"] {
            assert_eq!(RecordTime::parse(text), RecordTime::UNKNOWN, "{text}");
        }
        assert_eq!(RecordTime::UNKNOWN.known_us(), None);
        assert!(RecordTime::UNKNOWN.may_be_between(5, 6) && !RecordTime::UNKNOWN.is_before(exact));
    }
}
