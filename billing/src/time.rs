//! Times of exports: seconds since the Unix epoch, UTC.

/// Seconds in one hour.
pub const HOUR_S: i64 = 3_600;

/// Seconds in one day.
pub const DAY_S: i64 = 86_400;

/// Reads `2024-09-02`, `2024-09-02 07:00:00`, `2024-09-02T07:00:00.000Z` and times with an offset such as `+02:00`.
///
/// Fractions of a second are dropped. A time without an offset is UTC, as in all exports of AWS. `None` when it is not a time
/// after 1970 and before 2200.
#[must_use]
pub fn parse(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| -> Option<i64> {
        let part = text.get(from..to)?;
        part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())?
    };
    let is_at =
        |at: usize, expected: &[u8]| text.as_bytes().get(at).is_some_and(|byte| expected.contains(byte));
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    if !is_at(4, b"-") || !is_at(7, b"-") || !(1970..2200).contains(&year) {
        return None;
    }
    if !(1..=12).contains(&month) || !(1..=days_in(year, month)).contains(&day) {
        return None;
    }
    let days = days_before(year, month) + day - 1;
    if text.len() == 10 {
        return Some(days * DAY_S);
    }
    let (hour, minute) = (number(11, 13)?, number(14, 16)?);
    if !is_at(10, b"T ") || !is_at(13, b":") || hour > 23 || minute > 59 {
        return None;
    }
    let (second, rest) =
        if is_at(16, b":") { (number(17, 19)?, text.get(19..)?) } else { (0, text.get(16..)?) };
    let rest = match rest.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches(|letter: char| letter.is_ascii_digit()),
        None => rest,
    };
    let local = days * DAY_S + hour * HOUR_S + minute * 60 + second;
    (second <= 60).then_some(local - offset(rest.trim())?).filter(|at| *at >= 0)
}

/// Seconds east of UTC.
fn offset(text: &str) -> Option<i64> {
    if matches!(text, "" | "Z" | "z" | "UTC") {
        return Some(0);
    }
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let digits: String = text[1..].chars().filter(|letter| *letter != ':').collect();
    let digits = if digits.len() == 2 { format!("{digits}00") } else { digits };
    if digits.len() != 4 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (hours, minutes): (i64, i64) = (digits[..2].parse().ok()?, digits[2..].parse().ok()?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * HOUR_S + minutes * 60))
}

const fn is_leap(year: i64) -> bool {
    (year % 4 == 0 && year % 100 != 0) || year % 400 == 0
}

const fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from the epoch to the first of a month.
fn days_before(year: i64, month: i64) -> i64 {
    let leap_days = |year: i64| (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400;
    let years = (year - 1970) * 365 + leap_days(year) - leap_days(1970);
    years + (1..month).map(|month| days_in(year, month)).sum::<i64>()
}

/// Year, month and day of a time.
#[must_use]
pub fn date(at_s: i64) -> (i64, i64, i64) {
    let days = at_s.div_euclid(DAY_S);
    // The estimate is at most one year off.
    let mut year = 1970 + days.div_euclid(366);
    while days_before(year + 1, 1) <= days {
        year += 1;
    }
    let mut month = 1;
    while month < 12 && days_before(year, month + 1) <= days {
        month += 1;
    }
    (year, month, days - days_before(year, month) + 1)
}

/// A time as `2024-09-02T07:00:00Z`.
#[must_use]
pub fn format(at_s: i64) -> String {
    let second = at_s.rem_euclid(DAY_S);
    format!("{}T{:02}:{:02}:{:02}Z", format_day(at_s), second / HOUR_S, second / 60 % 60, second % 60)
}

/// The day of a time, as `2024-09-02`.
#[must_use]
pub fn format_day(at_s: i64) -> String {
    let (year, month, day) = date(at_s);
    format!("{year:04}-{month:02}-{day:02}")
}

/// The first second of the month of a time and of the next month.
#[must_use]
pub fn month(at_s: i64) -> (i64, i64) {
    let (year, month, _) = date(at_s);
    let next = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    (days_before(year, month) * DAY_S, days_before(next.0, next.1) * DAY_S)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_of_every_form_are_read() {
        let seven = 1_725_260_400;
        for text in [
            "2024-09-02 07:00:00",
            "2024-09-02T07:00:00Z",
            "2024-09-02T07:00:00.000Z",
            "2024-09-02T09:00:00+02:00",
            "2024-09-02T02:00:00.123456-0500",
            "2024-09-02T07:00Z",
            "2024-09-02 07:00:00 UTC",
        ] {
            assert_eq!(parse(text), Some(seven), "{text}");
        }
        assert_eq!(parse("2024-09-02"), Some(seven - 7 * HOUR_S));
        for text in [
            "",
            "2024-02-30",
            "2024-13-01",
            "1969-01-01",
            "2024-09-02 25:00:00",
            "2024-09-02x07:00:00",
            "tomorrow",
            "２０24-09-02",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(month(seven), (1_725_148_800, 1_727_740_800));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(at_s in 0i64..7_258_118_400) {
            prop_assert_eq!(parse(&format(at_s)), Some(at_s));
            let (from, until) = month(at_s);
            prop_assert!(from <= at_s && at_s < until);
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,30}") {
            let _ = parse(&text);
        }
    }
}
