//! Maintenance windows and dates without changes, in UTC.

use time::{Date, Month, OffsetDateTime};

/// Names of the days of the week, from Monday.
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// Minutes in a day.
const DAY_MINUTES: u16 = 24 * 60;

/// A period of the week: some days, from one time of day to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// The days, from Monday.
    days: [bool; 7],
    /// Minutes of the day.
    from: u16,
    until: u16,
}

impl Period {
    /// Parses periods such as `Mon-Fri 09:00-17:00; Sat,Sun 00:00-24:00`.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, String> {
        text.split(';').map(|text| Self::parse(text.trim())).collect()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is no window; use `Mon-Fri 09:00-17:00` or `Sat,Sun 00:00-24:00` (UTC)");
        let (days, times) = text.split_once(' ').ok_or_else(wrong)?;
        let day = |name: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(name)).ok_or_else(wrong);
        let mut selected = [false; 7];
        for part in days.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (day(first)?, day(last)?);
            let length = (last + 7 - first) % 7;
            (0..=length).for_each(|offset| selected[(first + offset) % 7] = true);
        }
        let (from, until) = times.trim().split_once('-').ok_or_else(wrong)?;
        let minutes = |text: &str| -> Option<u16> {
            let (hours, minutes) = text.split_once(':')?;
            let minutes = minutes.parse::<u16>().ok().filter(|minutes| *minutes < 60)?;
            let total = hours.parse::<u16>().ok()?.checked_mul(60)?.checked_add(minutes)?;
            (total <= DAY_MINUTES).then_some(total)
        };
        let (from, until) = (minutes(from).ok_or_else(wrong)?, minutes(until).ok_or_else(wrong)?);
        if from >= until {
            return Err(format!("`{text}`: the start is not before the end; use two windows for a night"));
        }
        Ok(Self { days: selected, from, until })
    }

    /// Whether a time, microseconds since the Unix epoch, is in the period.
    #[must_use]
    pub fn contains(&self, now_us: u64) -> bool {
        let Some(now) = instant(now_us) else { return false };
        let minute = u16::from(now.hour()) * 60 + u16::from(now.minute());
        let day = usize::from(now.weekday().number_days_from_monday());
        self.days[day] && (self.from..self.until).contains(&minute)
    }

    /// The times that are in both lists.
    #[must_use]
    pub fn intersection(one: &[Self], other: &[Self]) -> Vec<Self> {
        let pairs = one.iter().flat_map(|one| other.iter().map(move |other| (one, other)));
        let both = pairs.map(|(one, other)| Self {
            days: std::array::from_fn(|day| one.days[day] && other.days[day]),
            from: one.from.max(other.from),
            until: one.until.min(other.until),
        });
        both.filter(|period| period.from < period.until && period.days.contains(&true)).collect()
    }
}

/// A range of dates, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dates {
    first: Date,
    last: Date,
}

impl Dates {
    /// Parses `2026-12-20..2027-01-05`, or one date.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        let dates = date(first.trim()).zip(date(last.trim())).filter(|(first, last)| first <= last);
        let (first, last) =
            dates.ok_or_else(|| format!("`{text}` is no range of dates; use `2026-12-20..2027-01-05`"))?;
        Ok(Self { first, last })
    }

    /// Whether a time, microseconds since the Unix epoch, is in the range.
    #[must_use]
    pub fn contains(&self, now_us: u64) -> bool {
        instant(now_us).is_some_and(|now| (self.first..=self.last).contains(&now.date()))
    }
}

/// The date in `2026-12-20`.
#[must_use]
pub fn date(text: &str) -> Option<Date> {
    let mut parts = text.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let month = Month::try_from(month.parse::<u8>().ok()?).ok()?;
    Date::from_calendar_date(year.parse().ok()?, month, day.parse().ok()?)
        .ok()
        .filter(|_| parts.next().is_none())
}

fn instant(us: u64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(i64::try_from(us / 1_000_000).ok()?).ok()
}

/// The days from a date to a time, microseconds since the Unix epoch.
#[must_use]
pub fn days_since(from: Date, now_us: u64) -> Option<i64> {
    Some((instant(now_us)?.date() - from).whole_days())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// Saturday, 2026-11-28, 12:00 UTC.
    const SATURDAY_NOON_US: u64 = 1_795_867_200_000_000;

    #[test]
    fn windows_and_dates_contain_their_times() {
        let hour = 3_600_000_000;
        let weekend = Period::parse_list("Fri-Mon 11:00-12:30").unwrap();
        assert!(weekend[0].contains(SATURDAY_NOON_US) && !weekend[0].contains(SATURDAY_NOON_US + hour));
        assert!(!Period::parse_list("Mon-Fri 00:00-24:00").unwrap()[0].contains(SATURDAY_NOON_US));
        let both = Period::intersection(&weekend, &Period::parse_list("Sat 12:00-24:00").unwrap());
        assert!(both[0].contains(SATURDAY_NOON_US) && !both[0].contains(SATURDAY_NOON_US - hour / 2));
        for wrong in ["Mon", "Mon 9-17", "Mon 17:00-09:00", "Day 00:00-01:00", "Mon 00:00-25:00"] {
            assert!(Period::parse_list(wrong).is_err(), "{wrong}");
        }
        assert!(Dates::parse("2026-11-20..2026-11-28").unwrap().contains(SATURDAY_NOON_US));
        assert!(!Dates::parse("2026-11-29").unwrap().contains(SATURDAY_NOON_US));
        assert!(Dates::parse("2026-12-01..2026-11-01").is_err() && Dates::parse("2026-13-01").is_err());
        assert_eq!(days_since(date("2026-11-21").unwrap(), SATURDAY_NOON_US), Some(7));
    }
}
