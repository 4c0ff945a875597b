//! The partitions and the names of the objects.

use std::fmt;

use time::{Date, Month};

/// Microseconds in a day.
pub const DAY_US: u64 = 86_400_000_000;

/// The account of functions whose account is not known.
const UNKNOWN_ACCOUNT: &str = "unknown";

/// The tenant whose partitions are directly under the prefix.
const DEFAULT_TENANT: &str = "default";

/// Where the invocations of one day and account are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    /// The owner.
    pub tenant: String,
    /// The UTC day in which the invocations started, days since the Unix epoch.
    pub day: u64,
    /// The AWS account; empty when it is not known.
    pub account: String,
}

impl Partition {
    /// The partition of an invocation that started at `started_at_us`, microseconds since the Unix epoch.
    #[must_use]
    pub fn of(tenant: &str, account: &str, started_at_us: u64) -> Self {
        Self { tenant: tenant.to_owned(), day: started_at_us / DAY_US, account: account.to_owned() }
    }

    /// The part of the object's name before the file: `day=2026-11-29/account=123456789012`. Other tenants than `default`
    /// have `tenant=NAME/` before it, so that the partitions of one tenant are one table.
    #[must_use]
    pub fn path(&self) -> String {
        let account = if self.account.is_empty() { UNKNOWN_ACCOUNT } else { &self.account };
        let path = format!("day={}/account={}", text_of_day(self.day), encoded(account));
        if self.tenant == DEFAULT_TENANT { path } else { format!("tenant={}/{path}", encoded(&self.tenant)) }
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

/// The name of the object of a file: `PREFIX/PARTITION/FIRST-DIGEST.parquet`. `prefix` has no slash at its end.
///
/// `first` is the number of the first spooled part, and the digest is that of all parts, so that the name stays the same in
/// each attempt, and no other content has it.
#[must_use]
pub fn object_name(prefix: &str, partition: &Partition, first: u64, digest: &str) -> String {
    let name = format!("{}/{first:012}-{digest}.parquet", partition.path());
    if prefix.is_empty() { name } else { format!("{prefix}/{name}") }
}

/// A value of a partition: everything but letters, digits, `-`, `_` and `.` is encoded as in URLs, as Hive does.
fn encoded(value: &str) -> String {
    let mut text = String::new();
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => text.push(char::from(byte)),
            byte => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// `2026-11-29` for a number of days since the Unix epoch. Days after the year 9999 are the last day of it.
#[must_use]
pub fn text_of_day(day: u64) -> String {
    let epoch = Date::from_ordinal_date(1970, 1).unwrap_or(Date::MIN);
    let julian = i64::from(epoch.to_julian_day()).saturating_add_unsigned(day);
    let julian = i32::try_from(julian).unwrap_or(i32::MAX);
    let date = Date::from_julian_day(julian).unwrap_or(Date::MAX);
    format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day())
}

/// Reads `2026-11-29`: days since the Unix epoch. `None` for anything else.
#[must_use]
pub fn parse_day(text: &str) -> Option<u64> {
    let mut parts = text.splitn(3, '-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let month = Month::try_from(month.parse::<u8>().ok()?).ok()?;
    let date = Date::from_calendar_date(year.parse().ok()?, month, day.parse().ok()?).ok()?;
    let epoch = Date::from_ordinal_date(1970, 1).ok()?;
    u64::try_from(date.to_julian_day() - epoch.to_julian_day()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_day_and_account_and_are_stable() {
        let partition = Partition::of("default", "123456789012", 1_795_953_600_000_000);
        let name = object_name("logs/tailor", &partition, 42, "0badcafe");
        assert_eq!(name, "logs/tailor/day=2026-11-29/account=123456789012/000000000042-0badcafe.parquet");
        let other = Partition::of("team a/b", "", 0);
        assert_eq!(
            object_name("", &other, 1, "0badcafe"),
            "tenant=team%20a%2Fb/day=1970-01-01/account=unknown/000000000001-0badcafe.parquet"
        );
        for day in [0, 1, 20_786, 30_000, 2_932_896] {
            assert_eq!(parse_day(&text_of_day(day)), Some(day));
        }
        assert_eq!(text_of_day(u64::MAX), "9999-12-31");
        for bad in ["", "2026", "2026-13-01", "2026-02-30", "1969-12-31", "a-b-c"] {
            assert_eq!(parse_day(bad), None, "{bad}");
        }
    }
}
