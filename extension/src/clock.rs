//! The time of day, and the CPU time of this process.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// The time since the Unix epoch; zero when the clock is before it.
pub(crate) fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Seconds since the Unix epoch; zero when the clock is before it.
pub(crate) fn unix_s() -> u64 {
    unix_time().as_secs()
}

/// Microseconds since the Unix epoch; zero when the clock is before it.
pub(crate) fn unix_us() -> u64 {
    u64::try_from(unix_time().as_micros()).unwrap_or(u64::MAX)
}

/// The CPU time of this process; zero where it is unknown.
pub(crate) fn own_cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}
