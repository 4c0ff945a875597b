//! The pause before an attempt is repeated.

use std::time::Duration;

/// The first pause.
const FIRST: Duration = Duration::from_secs(1);

/// The longest pause that no receiver requests.
const LONGEST: Duration = Duration::from_secs(300);

/// The longest pause that a receiver can request.
const LONGEST_REQUESTED: Duration = Duration::from_secs(3_600);

/// The pause after some failures in a row: it doubles from 1 second to 5 minutes, and the receiver may request a longer one, up to an hour.
/// `random` is any number; it makes the pause up to a fifth longer, so that several senders do not send at the same time.
#[must_use]
pub fn pause(failures: u32, requested: Option<Duration>, random: u32) -> Duration {
    let doubled = FIRST.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1).min(16)));
    let pause = doubled.min(LONGEST).max(requested.unwrap_or_default().min(LONGEST_REQUESTED));
    pause + pause / 5 * (random % 1_000) / 1_000
}

/// The pause that a `Retry-After` header requests. A date is not read: the caller then uses its own pause.
#[must_use]
pub fn retry_after(header: &str) -> Option<Duration> {
    header.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_are_bounded() {
        let seconds = |failures, requested: Option<u64>| {
            pause(failures, requested.map(Duration::from_secs), 0).as_secs()
        };
        assert_eq!([1, 2, 3, 9, u32::MAX].map(|failures| seconds(failures, None)), [1, 2, 4, 256, 300]);
        assert_eq!(seconds(1, retry_after(" 30 ").map(|pause| pause.as_secs())), 30);
        assert_eq!(seconds(6, Some(5)), 32, "a shorter one is not used");
        assert_eq!(seconds(1, Some(u64::MAX)), 3_600);
        assert_eq!(retry_after("Fri, 31 Dec 1999 23:59:59 GMT"), None);
        assert!(
            pause(9, None, 999) <= Duration::from_secs(308) && pause(9, None, 999) > Duration::from_secs(300)
        );
    }
}
