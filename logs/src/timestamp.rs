//! Timestamps of log lines: ISO 8601 in the variants that tools write, and counts since the Unix epoch.

/// 2014-11-01, microseconds since the Unix epoch: Lambda did not exist before.
const EARLIEST_US: u64 = 1_414_800_000_000_000;

/// 2100-01-01, microseconds since the Unix epoch.
const LATEST_US: u64 = 4_102_444_800_000_000;

/// Reads a timestamp such as `2026-01-02T03:04:05.678Z` at the start of `text`. Returns microseconds since the Unix epoch
/// and the number of bytes read; `None` when there is none.
///
/// The separator is `T` or a space, the fraction has up to nine digits after `.` or `,`, the offset is `Z`, `+00:00`, `+0000`
/// or absent, which means UTC.
#[must_use]
pub fn parse_iso(text: &[u8]) -> Option<(u64, usize)> {
    let number = |from: usize, digits: usize| -> Option<i64> {
        text.get(from..from + digits)?
            .iter()
            .try_fold(0, |value, byte| byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0')))
    };
    let separator = |at: usize, allowed: &[u8]| text.get(at).is_some_and(|byte| allowed.contains(byte));
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    let is_separated = separator(4, b"-/")
        && separator(7, b"-/")
        && separator(10, b"T ")
        && separator(13, b":")
        && separator(16, b":");
    let is_in_range =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    if !is_separated || !is_in_range {
        return None;
    }
    let mut at = 19;
    let mut fraction_us = 0;
    if separator(at, b".,") {
        let digits = text[at + 1..].iter().take(9).take_while(|byte| byte.is_ascii_digit()).count();
        for place in 0..6 {
            let digit = if place < digits { i64::from(text[at + 1 + place] - b'0') } else { 0 };
            fraction_us = fraction_us * 10 + digit;
        }
        at += if digits > 0 { 1 + digits } else { 0 };
    }
    let (offset_s, length) = offset(&text[at..]);
    let seconds =
        days_since_epoch(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset_s;
    let us = seconds.checked_mul(1_000_000)?.checked_add(fraction_us)?;
    in_range(u64::try_from(us).ok()?).map(|us| (us, at + length))
}

/// The offset from UTC in seconds, and its length in bytes.
fn offset(text: &[u8]) -> (i64, usize) {
    let two = |at: usize| match text.get(at..at + 2) {
        Some([a @ b'0'..=b'9', b @ b'0'..=b'9']) => Some(i64::from(a - b'0') * 10 + i64::from(b - b'0')),
        _ => None,
    };
    match text.first() {
        Some(b'Z') => (0, 1),
        Some(sign @ (b'+' | b'-')) => {
            let has_colon = text.get(3) == Some(&b':');
            match (two(1), two(if has_colon { 4 } else { 3 })) {
                (Some(hours), Some(minutes)) => {
                    let seconds = hours * 3_600 + minutes * 60;
                    (if *sign == b'+' { seconds } else { -seconds }, if has_colon { 6 } else { 5 })
                }
                _ => (0, 0),
            }
        }
        _ => (0, 0),
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. March is the first month, so that a leap day is the last of
/// its year.
const fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Converts a count since the Unix epoch to microseconds. Its unit follows from its size: seconds, milliseconds,
/// microseconds or nanoseconds.
#[must_use]
pub fn from_count(count: u64) -> Option<u64> {
    let factors = [1_000_000, 1_000, 1];
    let us = factors.into_iter().find_map(|factor| in_range(count.checked_mul(factor)?));
    us.or_else(|| in_range(count / 1_000))
}

const fn in_range(us: u64) -> Option<u64> {
    if us >= EARLIEST_US && us <= LATEST_US { Some(us) } else { None }
}

/// Reads a whole text as a timestamp of any form.
#[must_use]
pub fn parse(text: &[u8]) -> Option<u64> {
    let text = text.trim_ascii();
    if !text.is_empty() && text.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.') {
        let whole = text.split(|byte| *byte == b'.').next().unwrap_or_default();
        return from_count(std::str::from_utf8(whole).ok()?.parse().ok()?);
    }
    parse_iso(text).map(|(us, _)| us)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_the_same_time_is_read() {
        let expected = 1_767_323_045_678_000;
        for text in [
            "2026-01-02T03:04:05.678Z",
            "2026-01-02 03:04:05.678",
            "2026-01-02T03:04:05,678Z",
            "2026-01-02T03:04:05.678000+00:00",
            "2026-01-02T03:04:05.678000000Z",
            "2026-01-02T05:04:05.678+0200",
            "2026-01-01T22:34:05.678-04:30",
            "1767323045678",
            "1767323045678000",
            "1767323045678000000",
        ] {
            assert_eq!(parse(text.as_bytes()), Some(expected), "{text}");
        }
        assert_eq!(parse(b"1767323045"), Some(1_767_323_045_000_000));
        assert_eq!(parse(b"2024-02-29T00:00:00Z"), Some(1_709_164_800_000_000));
        for text in
            ["", "2026-13-02T03:04:05Z", "2026-01-02", "12", "1970-01-01T00:00:00Z", "9".repeat(30).as_str()]
        {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}
