//! The clock, the disk and the prices.

use time::macros::format_description;
use time::{Date, OffsetDateTime};

use super::{Finding, Level};
use crate::report::FunctionReport;

/// Difference of clocks from which invocations can be counted in the wrong hour, ms.
const CLOCK_WARNING_MS: i64 = 5_000;

/// Largest time from the sending of a batch to its arrival that is not a wrong clock, ms: a delivery is repeated for so
/// long.
const LATE_WARNING_MS: i64 = 120_000;

/// Free space below which the disk is nearly full, bytes.
const DISK_WARNING_BYTES: u64 = 1 << 30;

/// Free space below which nothing can be stored soon, bytes.
const DISK_ERROR_BYTES: u64 = 64 << 20;

/// Age of prices from which newer ones should be used, days.
const PRICES_WARNING_DAYS: i64 = 180;

/// The clock of the collector, against the clocks of the environments that sent batches.
#[must_use]
pub fn clock_of_environments(reports: &[FunctionReport]) -> Finding {
    const SUBJECT: &str = "collector";
    match reports.iter().filter_map(|report| report.extension.delivery_ms).min() {
        None => Finding::new(
            Level::Info,
            "clock",
            SUBJECT,
            "no batch was received, so the clock cannot be compared with that of an environment",
            "",
        ),
        Some(least) if least < -CLOCK_WARNING_MS => Finding::new(
            Level::Error,
            "clock",
            SUBJECT,
            format!("the clock is at least {} s behind that of an environment", -least / 1_000),
            "synchronize the clock of the collector's machine (NTP): invocations are counted by it",
        ),
        Some(least) if least > LATE_WARNING_MS => Finding::new(
            Level::Warning,
            "clock",
            SUBJECT,
            format!("every batch arrived at least {} s after it was sent", least / 1_000),
            "check that the clock of the collector's machine is synchronized (NTP)",
        ),
        Some(_) => Finding::ok("clock", SUBJECT, "the clock agrees with those of the environments"),
    }
}

/// The clock of this machine, against that of a collector, seconds since the Unix epoch.
#[must_use]
pub fn clock_of_server(address: &str, server_s: i64, now_s: i64) -> Finding {
    let difference_s = now_s - server_s;
    if difference_s.abs().saturating_mul(1_000) <= CLOCK_WARNING_MS {
        return Finding::ok("clock", address, "its clock agrees with that of this machine");
    }
    let direction = if difference_s > 0 { "behind" } else { "ahead of" };
    Finding::new(
        Level::Warning,
        "clock",
        address,
        format!("its clock is {} s {direction} that of this machine", difference_s.abs()),
        "synchronize both clocks (NTP)",
    )
}

/// The free space of the file system of the data folder.
#[must_use]
pub fn disk(folder: &str, free_bytes: u64) -> Finding {
    let megabytes = free_bytes >> 20;
    let level = match free_bytes {
        free if free < DISK_ERROR_BYTES => Level::Error,
        free if free < DISK_WARNING_BYTES => Level::Warning,
        _ => return Finding::ok("disk", folder, format!("{megabytes} MB are free")),
    };
    Finding::new(
        level,
        "disk",
        folder,
        format!("only {megabytes} MB are free"),
        "free disk space, or keep data for a shorter time with --daily-days; a full disk refuses batches",
    )
}

/// The age of the prices.
#[must_use]
pub fn prices(compiled: &str, now_s: i64) -> Finding {
    let day = Date::parse(compiled, format_description!("[year]-[month]-[day]"));
    let today = OffsetDateTime::from_unix_timestamp(now_s).map(OffsetDateTime::date);
    let (Ok(day), Ok(today)) = (day, today) else {
        return Finding::new(
            Level::Warning,
            "prices",
            compiled,
            "the date of the prices cannot be read",
            "use AWS's price list, or a table with the member `compiled`, with --prices",
        );
    };
    let days = (today - day).whole_days();
    if days <= PRICES_WARNING_DAYS {
        return Finding::ok("prices", compiled, format!("the prices are {} days old", days.max(0)));
    }
    Finding::new(
        Level::Warning,
        "prices",
        compiled,
        format!("the prices are {days} days old"),
        "use newer ones with --prices FILE, or a newer version of tailor",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_and_prices_have_limits() {
        assert_eq!(disk("data", 2 << 30).level, Level::Ok);
        assert_eq!(disk("data", 512 << 20).level, Level::Warning);
        assert_eq!(disk("data", 1 << 20).level, Level::Error);
        let now_s = 1_793_491_200; // 2026-11-01
        assert_eq!(prices("2026-10-01", now_s).level, Level::Ok);
        assert_eq!(prices("2026-01-01", now_s).level, Level::Warning);
        assert_eq!(prices("", now_s).level, Level::Warning);
    }

    #[test]
    fn clocks_may_differ_by_seconds() {
        assert_eq!(clock_of_server("http://a", 100, 103).level, Level::Ok);
        let ahead = clock_of_server("http://a", 200, 100);
        assert!(ahead.finding.contains("100 s ahead of"), "{ahead:?}");
        let behind = clock_of_server("http://a", 100, 200);
        assert!(behind.finding.contains("100 s behind"), "{behind:?}");
    }
}
