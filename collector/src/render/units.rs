//! Numbers as people read them. Three significant digits at most: the rest is in the JSON.

use time::OffsetDateTime;
use time::macros::format_description;

use super::text::visible;

/// A duration: `0.42 ms`, `12.3 ms`, `1.23 s`, `4.5 min`, `3.1 h`.
#[must_use]
pub fn duration(ms: f64) -> String {
    match ms {
        0.0 => "0 ms".to_owned(),
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 100.0 => format!("{ms:.1} ms"),
        ms if ms < 999.5 => format!("{ms:.0} ms"),
        ms if ms < 10_000.0 => format!("{:.2} s", ms / 1e3),
        ms if ms < 100_000.0 => format!("{:.1} s", ms / 1e3),
        ms if ms < 6_000_000.0 => format!("{:.1} min", ms / 60e3),
        ms => format!("{:.1} h", ms / 3_600e3),
    }
}

/// A round duration, for an axis: `0.5 ms`, `20 ms`, `5 s`, `2 min`.
#[must_use]
pub fn tick(ms: f64) -> String {
    match ms {
        ms if ms < 999.5 => format!("{ms} ms"),
        ms if ms < 60_000.0 => format!("{} s", (ms / 100.0).round() / 10.0),
        ms => format!("{:.1} min", ms / 60e3),
    }
}

/// A whole number of milliseconds as a duration.
#[must_use]
pub fn duration_of(ms: u64) -> String {
    duration(ms as f64)
}

/// A count: `950`, `12.3k`, `4.56M`, `7.89G`.
#[must_use]
pub fn count(value: u64) -> String {
    let scaled = |by: f64, unit: &str| {
        let value = value as f64 / by;
        let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
        format!("{value:.decimals$}{unit}")
    };
    match value {
        0..10_000 => value.to_string(),
        10_000..1_000_000 => scaled(1e3, "k"),
        1_000_000..1_000_000_000 => scaled(1e6, "M"),
        _ => scaled(1e9, "G"),
    }
}

/// A count with its noun, which forms its plural with an `s`: `1 function`, `12.3k functions`.
#[must_use]
pub fn counted(value: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(value), plural(value))
}

/// The same without rounding: `12345 functions`.
#[must_use]
pub fn exactly(value: u64, noun: &str) -> String {
    format!("{value} {noun}{}", plural(value))
}

const fn plural(value: u64) -> &'static str {
    if value == 1 { "" } else { "s" }
}

/// A change in percent with its sign: `-23 %`, `+4.1 %`, `0 %`.
#[must_use]
pub fn change(percent: f64) -> String {
    match percent {
        p if p.abs() < 0.05 => "0 %".to_owned(),
        p if p.abs() < 9.95 => format!("{p:+.1} %"),
        p => format!("{p:+.0} %"),
    }
}

/// A part of a whole in percent: `0`, `7`, `100`; `-` of nothing.
#[must_use]
pub fn share(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.0}", 100.0 * part as f64 / whole as f64) }
}

/// An instant in UTC: `2026-11-21 09:30:00`.
#[must_use]
pub fn instant(at_us: u64) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    i64::try_from(at_us / 1_000_000)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|instant| instant.format(format).ok())
        .unwrap_or_else(|| "invalid time".to_owned())
}

/// A size in KB of 1,000 bytes, at least 1.
#[must_use]
pub fn kilobytes(bytes: u64) -> String {
    format!("{} KB", count(bytes.div_ceil(1_000)))
}

/// A text on one line, cut in the middle to at most `width` characters: names differ at both ends.
#[must_use]
pub fn shorten(text: &str, width: usize) -> String {
    let characters: Vec<char> = visible(text).chars().collect();
    if characters.len() <= width || width == 0 {
        return characters.into_iter().collect();
    }
    let head = width / 2;
    let tail = width - head - 1;
    let end = characters.len() - tail;
    characters[..head].iter().chain(&['…']).chain(&characters[end..]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            ["0.42 ms", "12.3 ms", "123 ms", "1.23 s", "100 min"],
            [
                duration(0.42).as_str(),
                &duration(12.34),
                &duration(123.4),
                &duration(1_234.0),
                &duration(5_999_000.0).replace(".0", ""),
            ]
        );
        assert_eq!([count(950), count(12_345), count(4_560_000)], ["950", "12.3k", "4.56M"]);
        assert_eq!([change(-23.4), change(4.12), change(0.01)], ["-23 %", "+4.1 %", "0 %"]);
        assert_eq!(instant(1_795_253_400_000_000), "2026-11-21 09:30:00");
    }

    #[test]
    fn long_names_are_cut_in_the_middle_and_stay_on_one_line() {
        assert_eq!(shorten("checkout-service-production", 12), "checko…ction");
        assert_eq!(shorten("short", 12), "short");
        assert_eq!(shorten("a\nb\u{1b}[31m", 12), "a\u{fffd}b\u{fffd}[31m");
    }
}
