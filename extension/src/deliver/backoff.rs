//! When a delivery may be tried again after one failed.
//!
//! The pause doubles with each failure, up to a limit. A random part spreads the environments of a fleet: they failed
//! at the same moment and must not all retry at the same moment. A `Retry-After` header sets the earliest moment.

use std::cell::Cell;
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use tokio::time::Instant;

use crate::timestamp::parse_http_date;

/// The longest pause after the first failure. It doubles with each further failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause without a `Retry-After` header. During the pause the collector gets no request: this is the
/// circuit breaker.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// The most of a `Retry-After` header that is obeyed. A wrong header must not stop deliveries for the rest of the
/// environment's life.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// Exponential backoff with jitter.
#[derive(Debug, Default)]
pub struct Backoff {
    /// Failures since the last success.
    failures: Cell<u32>,
    /// No try before this moment.
    retry_at: Cell<Option<Instant>>,
}

impl Backoff {
    /// Whether a delivery may be tried now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.retry_at.get().is_none_or(|retry_at| Instant::now() >= retry_at)
    }

    /// The collector responded: the next delivery may be tried at once.
    pub fn record_success(&self) {
        self.failures.set(0);
        self.retry_at.set(None);
    }

    /// A delivery failed. `retry_after` is what the response's `Retry-After` header requires.
    pub fn record_failure(&self, retry_after: Option<Duration>) {
        let failures = self.failures.get();
        self.failures.set(failures.saturating_add(1));
        self.retry_at.set(Some(Instant::now() + pause(failures, retry_after, random())));
    }

    /// The rest of the pause; zero when there is none.
    #[cfg(test)]
    pub(super) fn remaining(&self) -> Duration {
        self.retry_at
            .get()
            .map_or(Duration::ZERO, |retry_at| retry_at.saturating_duration_since(Instant::now()))
    }
}

/// The pause after `failures` earlier failures. `random` selects a point in its range: the upper half of the doubled
/// pause, or from `retry_after` to one and a half times of it.
fn pause(failures: u32, retry_after: Option<Duration>, random: u32) -> Duration {
    let longest = FIRST_PAUSE.saturating_mul(1 << failures.min(6)).min(MAX_PAUSE);
    let shortest = retry_after.unwrap_or_default().min(MAX_RETRY_AFTER).max(longest / 2);
    let spread = (shortest / 2).max(longest / 2);
    shortest + spread.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// A number from the kernel. A generator in this process would give the same numbers in each environment that is
/// restored from one snapshot.
fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without randomness the longest pause is the safe one.
    SystemRandom::new().fill(&mut bytes).map_or(u32::MAX, |()| u32::from_le_bytes(bytes))
}

/// Parses a `Retry-After` header: seconds, or an HTTP date, which is compared with `now_s`, seconds since the Unix epoch. A
/// date in the past is zero; `None` for any other value.
pub(super) fn parse_retry_after(value: &str, now_s: u64) -> Option<Duration> {
    let value = value.trim();
    let seconds = value.parse().ok().or_else(|| Some(parse_http_date(value)?.saturating_sub(now_s)));
    seconds.map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_double_up_to_a_limit_and_spread_over_half_their_length() {
        let range = |failures| (pause(failures, None, 0), pause(failures, None, u32::MAX));
        assert_eq!(range(0), (SECOND / 2, SECOND));
        assert_eq!(range(3), (4 * SECOND, 8 * SECOND));
        assert_eq!(range(6), (30 * SECOND, 60 * SECOND));
        assert_eq!(range(u32::MAX), (30 * SECOND, 60 * SECOND));
    }

    #[test]
    fn retry_after_is_the_earliest_moment_and_bounded() {
        let range = |retry_after| (pause(0, Some(retry_after), 0), pause(0, Some(retry_after), u32::MAX));
        assert_eq!(range(20 * SECOND), (20 * SECOND, 30 * SECOND));
        assert_eq!(range(Duration::ZERO), (SECOND / 2, SECOND), "never shorter than without the header");
        assert_eq!(range(Duration::MAX), (300 * SECOND, 450 * SECOND));
        // The doubled pause still applies when it is longer than what the header requires.
        assert_eq!(pause(6, Some(5 * SECOND), 0), 30 * SECOND);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        // Sun, 06 Nov 1994 08:49:37 GMT
        let parse = |value| parse_retry_after(value, 784_111_777);
        assert_eq!(parse("120"), Some(120 * SECOND));
        assert_eq!(parse(" 0 "), Some(Duration::ZERO));
        assert_eq!(parse("Sun, 06 Nov 1994 08:50:07 GMT"), Some(30 * SECOND));
        assert_eq!(parse("Sun, 06 Nov 1994 08:49:07 GMT"), Some(Duration::ZERO), "in the past");
        for value in ["", "-1", "1.5", "soon", "99999999999999999999999"] {
            assert_eq!(parse(value), None, "{value}");
        }
    }
}
