//! Timestamps of log lines: ISO 8601 in the variants that tools write, and counts since the Unix epoch.

/// 2014-11-01, microseconds since the Unix epoch: Lambda did not exist before.
const EARLIEST_US: u64 = 1_414_800_000_000_000;

/// 2100-01-01, microseconds since the Unix epoch.
const LATEST_US: u64 = 4_102_444_800_000_000;

/// The first and the last byte at each place of a date and a time. Between them are also bytes that are not in timestamps.
const FIRST_BYTES: &[u8; 19] = b"0000-00-00 00:00:00";
const LAST_BYTES: &[u8; 19] = b"9999/99/99T99:99:99";

/// Reads a timestamp such as `2026-01-02T03:04:05.678Z` at the start of `text`. Returns microseconds since the Unix epoch
/// and the number of bytes read; `None` when there is none.
///
/// The separator is `T` or a space, the fraction has up to nine digits after `.` or `,`, the offset is `Z`, `+00:00`, `+0000`
/// or absent, which means UTC.
#[must_use]
pub fn parse_iso(text: &[u8]) -> Option<(u64, usize)> {
    let head: &[u8; 19] = text.first_chunk()?;
    // All bytes are compared at once, because most lines of a log begin with a timestamp.
    let in_form = FIRST_BYTES.iter().zip(LAST_BYTES).zip(head);
    if in_form.fold(false, |other, ((first, last), byte)| other | (byte < first) | (byte > last)) {
        return None;
    }
    let is_separated = head[4] != b'.' && head[7] != b'.' && matches!(head[10], b'T' | b' ');
    let two = |at: usize| u32::from(head[at] - b'0') * 10 + u32::from(head[at + 1] - b'0');
    let (year, month, day) = (two(0) * 100 + two(2), two(5), two(8));
    let (hour, minute, second) = (two(11), two(14), two(17));
    let is_in_range =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    if !is_separated || !is_in_range {
        return None;
    }
    let (fraction_us, fraction_length) = fraction(&text[19..]);
    let at = 19 + fraction_length;
    let (offset_s, offset_length) = offset(&text[at..]);
    let seconds_of_day = hour * 3_600 + minute * 60 + second;
    let seconds = days_since_epoch(year, month, day) * 86_400 + i64::from(seconds_of_day) - offset_s;
    let us = seconds * 1_000_000 + i64::from(fraction_us);
    in_range(u64::try_from(us).ok()?).map(|us| (us, at + offset_length))
}

/// The fraction of a second in microseconds, and its length in bytes.
fn fraction(text: &[u8]) -> (u32, usize) {
    let [b'.' | b',', digits @ ..] = text else { return (0, 0) };
    let (mut us, mut unit_us, mut count) = (0, 100_000, 0);
    for digit in digits.iter().take(9).map(|byte| byte.wrapping_sub(b'0')).take_while(|digit| *digit <= 9) {
        us += u32::from(digit) * unit_us;
        unit_us /= 10;
        count += 1;
    }
    (us, if count > 0 { 1 + count } else { 0 })
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
fn days_since_epoch(year: u32, month: u32, day: u32) -> i64 {
    // One era of 400 years is added, so that the year before 0 is not negative.
    let year = if month <= 2 { year + 399 } else { year + 400 };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + day_of_year;
    i64::from(days) - 719_468 - 146_097
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
        // Bytes between the first and the last digit or separator.
        for text in
            ["2026.01-02T03:04:05Z", "2026-01-02@03:04:05Z", "2026-01-02T03:04:0:Z", "202/-01-02T03:04:05Z"]
        {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        for text in
            ["", "2026-13-02T03:04:05Z", "2026-01-02", "12", "1970-01-01T00:00:00Z", "9".repeat(30).as_str()]
        {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
    #[test]
    fn every_day_follows_the_day_before() {
        let mut expected_us = parse(b"2015-01-01T00:00:00Z").unwrap();
        for (year, month) in (2015..2100).flat_map(|year| (1..=12).map(move |month| (year, month))) {
            let is_leap_year = year % 4 == 0;
            let days = match month {
                2 if is_leap_year => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            for day in 1..=days {
                let text = format!("{year}-{month:02}-{day:02}T00:00:00Z");
                assert_eq!(parse(text.as_bytes()), Some(expected_us), "{text}");
                expected_us += 86_400_000_000;
            }
        }
    }
}
