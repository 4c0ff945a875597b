//! The time of day, in the unit of the wire and the store. The clock is passed in, so that tests control it.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds in an hour.
pub const HOUR_US: u64 = 3_600_000_000;

/// Microseconds in a day.
pub const DAY_US: u64 = 24 * HOUR_US;

/// Returns microseconds since the Unix epoch.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Clock {
    /// The clock of the system.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(now_us))
    }

    /// A clock that returns what `now_us` returns.
    #[must_use]
    pub fn from_fn(now_us: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now_us))
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        (self.0)()
    }
}

/// The system's time, microseconds since the Unix epoch.
#[must_use]
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
