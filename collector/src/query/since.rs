//! The start of a window, as people write it.

use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime};

use crate::store::HOUR_US;

/// Describes the valid texts.
pub const SINCE: &str = "`since` is a time before now such as 6h, 7d or 2w, a date such as 2026-11-01, or a time such as \
     2026-11-01T10:00:00Z";

/// The start of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// A number of hours before now.
    Hours(u64),
    /// A time, microseconds since the Unix epoch.
    At(u64),
}

impl Since {
    /// Reads `6h`, `7d`, `2w`, a date (UTC), or a time as in RFC 3339.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        for (unit, hours) in [("h", 1), ("d", 24), ("w", 7 * 24)] {
            if let Some(number) = text.strip_suffix(unit) {
                let number: u64 = number.parse().ok()?;
                return number.checked_mul(hours).filter(|hours| *hours > 0).map(Self::Hours);
            }
        }
        let date = Date::parse(text, format_description!("[year]-[month]-[day]"));
        let instant = match date {
            Ok(date) => date.midnight().assume_utc(),
            Err(_) => OffsetDateTime::parse(text, &Rfc3339).ok()?,
        };
        u64::try_from(instant.unix_timestamp()).ok()?.checked_mul(1_000_000).map(Self::At)
    }

    /// The length of the window in hours at `now_us`, microseconds since the Unix epoch. Windows begin at a full hour.
    /// `None` when it begins after now.
    #[must_use]
    pub fn hours(self, now_us: u64) -> Option<u64> {
        match self {
            Self::Hours(hours) => Some(hours),
            Self::At(at_us) if at_us > now_us => None,
            Self::At(at_us) => Some((now_us / HOUR_US - at_us / HOUR_US).max(1)),
        }
    }

    /// The start at `now_us`, both in microseconds since the Unix epoch.
    #[must_use]
    pub fn at_us(self, now_us: u64) -> u64 {
        match self {
            Self::Hours(hours) => now_us.saturating_sub(hours.saturating_mul(HOUR_US)),
            Self::At(at_us) => at_us,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_a_length_a_date_or_a_time() {
        assert_eq!(Since::parse("6h"), Some(Since::Hours(6)));
        assert_eq!(Since::parse("2w"), Some(Since::Hours(336)));
        // 2026-11-01T00:00:00Z
        let midnight_us = 1_793_491_200_000_000;
        assert_eq!(Since::parse("2026-11-01"), Some(Since::At(midnight_us)));
        assert_eq!(Since::parse("2026-11-01T10:30:00+10:30"), Some(Since::At(midnight_us)));
        for invalid in [
            "",
            "h",
            "0h",
            "-1d",
            "7",
            "1.5d",
            "2026-13-01",
            "yesterday",
            "1969-01-01",
            "18446744073709551615w",
        ] {
            assert_eq!(Since::parse(invalid), None, "{invalid}");
        }
    }

    #[test]
    fn the_window_of_a_time_begins_at_its_hour() {
        let start_us = 1_793_491_200_000_000;
        let since = Since::At(start_us + 1);
        for now_us in [start_us + HOUR_US, start_us + 90 * 60_000_000, start_us + 50 * HOUR_US] {
            let window = crate::query::last_hours(now_us, since.hours(now_us).unwrap());
            assert_eq!(window.from_hour, start_us / HOUR_US);
        }
        assert_eq!(since.hours(start_us), None);
    }
}
