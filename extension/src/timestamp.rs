//! Timestamp formats: RFC 3339 in telemetry and credentials, the basic format in signatures, and HTTP dates.

const SECONDS_A_DAY: i64 = 86_400;

/// An RFC 3339 timestamp as microseconds since the Unix epoch; `None` when it is invalid or before 1970.
#[must_use]
pub fn parse_rfc3339(timestamp: &str) -> Option<u64> {
    let text = timestamp.trim().as_bytes();
    let (date, rest) = text.split_at_checked(19)?;
    let separators_fit = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')].iter().all(|&(at, c)| date[at] == c);
    if !separators_fit || !matches!(date[10], b'T' | b't' | b' ') {
        return None;
    }
    let field = |from: usize, to: usize, most: i64| number(&date[from..to]).filter(|&value| value <= most);
    let (year, month, day) = (field(0, 4, 9_999)?, field(5, 7, 12)?, field(8, 10, 31)?);
    // A leap second is the first second of the next minute.
    let (hour, minute, second) = (field(11, 13, 23)?, field(14, 16, 59)?, field(17, 19, 60)?);
    if month == 0 || day == 0 {
        return None;
    }
    let (fraction_us, zone) = fraction(rest)?;
    let offset_s = match zone {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), hours @ .., b':', m1, m2] if hours.len() == 2 => {
            let offset = number(hours)? * 3_600 + number(&[*m1, *m2])? * 60;
            if *sign == b'+' { offset } else { -offset }
        }
        _ => return None,
    };
    let seconds = days_from_civil(year, month, day) * SECONDS_A_DAY + hour * 3_600 + minute * 60 + second;
    u64::try_from((seconds - offset_s) * 1_000_000 + fraction_us).ok()
}

/// Seconds since the Unix epoch of an HTTP date (`Sun, 06 Nov 1994 08:49:37 GMT`); `None` when it is invalid or before
/// 1970. The two obsolete formats, which servers must not send, are not supported.
#[must_use]
pub fn parse_http_date(text: &str) -> Option<u64> {
    const MONTHS: &[u8] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let (_, rest) = text.trim().split_once(", ")?;
    let mut fields = rest.split_ascii_whitespace().map(str::as_bytes);
    let mut next = || fields.next();
    let (day, month, year, time, zone) = (number(next()?)?, next()?, number(next()?)?, next()?, next()?);
    let month = MONTHS.chunks(3).zip(1..).find_map(|(name, number)| (name == month).then_some(number))?;
    let [h1, h2, b':', m1, m2, b':', s1, s2] = *time else { return None };
    let (hour, minute, second) = (number(&[h1, h2])?, number(&[m1, m2])?, number(&[s1, s2])?);
    let in_range = (1..=31).contains(&day) && year <= 9_999 && hour <= 23 && minute <= 59 && second <= 60;
    if !in_range || zone != b"GMT" {
        return None;
    }
    let seconds = days_from_civil(year, month, day) * SECONDS_A_DAY + hour * 3_600 + minute * 60 + second;
    u64::try_from(seconds).ok()
}

/// The fraction after the seconds in microseconds, and what follows it.
fn fraction(rest: &[u8]) -> Option<(i64, &[u8])> {
    let Some(digits_on) = rest.strip_prefix(b".") else { return Some((0, rest)) };
    let count = digits_on.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, zone) = digits_on.split_at(count);
    let mut value = number(&digits[..count.min(6)])?;
    (count..6).for_each(|_| value *= 10);
    Some((value, zone))
}

/// A number that consists of decimal digits only.
fn number(digits: &[u8]) -> Option<i64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The ISO 8601 basic format of signatures: `20150830T123600Z`.
#[must_use]
pub fn basic_format(unix_s: u64) -> String {
    // Any time until the year 9999 is in range.
    let unix_s = i64::try_from(unix_s).unwrap_or(0);
    let (year, month, day) = civil_from_days(unix_s / SECONDS_A_DAY);
    let of_day = unix_s % SECONDS_A_DAY;
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// Days since 1 January 1970 in the Gregorian calendar. Years start in March, so that the leap day is the last day of a
/// year. Eras of 400 years all have the same length.
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days_from_civil`].
const fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400;
    (if month <= 2 { year + 1 } else { year }, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_in_the_formats_of_aws_are_parsed() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-01-02T03:04:05.160Z", 1_767_323_045_160_000),
            ("2024-02-29T23:59:59.123456789Z", 1_709_251_199_123_456),
            ("2024-03-01T01:29:59.5+01:30", 1_709_251_199_500_000),
            ("2023-12-31T16:00:00-08:00", 1_704_067_200_000_000),
        ] {
            assert_eq!(parse_rfc3339(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "x",
            "2026-01-02",
            "2026-13-02T03:04:05Z",
            "2026-01-02T03:04:05",
            "2026-01-02T03:04:05.Z",
            "2026-01-02T03:04:05+1:00",
            "1960-01-02T03:04:05Z",
            "+026-01-02T03:04:05Z",
            "2026-01-02T03:04:05é",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn http_dates_are_parsed() {
        assert_eq!(parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(parse_http_date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        for text in [
            "",
            "soon",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 99999999999999999 08:49:37 GMT",
            "Sun, 06 November 1994 08:49:37 GMT",
            "Wed, 31 Dec 1969 23:59:59 GMT",
        ] {
            assert_eq!(parse_http_date(text), None, "{text}");
        }
    }

    #[test]
    fn every_day_of_eight_centuries_is_converted_both_ways() {
        let mut expected = (1970, 1, 1);
        for days in 0..292_194 {
            assert_eq!(civil_from_days(days), expected);
            let (year, month, day) = expected;
            assert_eq!(days_from_civil(year, month, day), days);
            let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 if is_leap => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            expected = match (month, day) {
                (12, 31) => (year + 1, 1, 1),
                (_, day) if day == length => (year, month + 1, 1),
                _ => (year, month, day + 1),
            };
        }
        assert_eq!(basic_format(1_440_938_160), "20150830T123600Z");
    }
}
