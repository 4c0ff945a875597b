//! Wall-clock times the way Lambda's APIs write them.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Offset of the platform's clock from the machine's. Global, because there is one clock.
static OFFSET_MS: AtomicI64 = AtomicI64::new(0);

/// The platform's clock, used for deadlines, telemetry and credentials.
pub fn now() -> SystemTime {
    let offset_ms = OFFSET_MS.load(Ordering::Relaxed);
    let offset = Duration::from_millis(offset_ms.unsigned_abs());
    let shifted = match offset_ms {
        0.. => SystemTime::now().checked_add(offset),
        _ => SystemTime::now().checked_sub(offset),
    };
    shifted.unwrap_or(UNIX_EPOCH)
}

/// Sets the offset of [`now`].
pub fn set_offset_ms(offset_ms: i64) {
    OFFSET_MS.store(offset_ms, Ordering::Relaxed);
}

/// Milliseconds since the Unix epoch, as in `deadlineMs`.
pub fn epoch_ms(time: SystemTime) -> u64 {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

/// ISO 8601 in UTC with milliseconds, as in the `time` of telemetry events: `2026-01-02T03:04:05.001Z`.
pub fn iso_ms(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

/// `LastModified` of the control plane writes its offset without a colon: `2026-01-02T03:04:05.001+0000`.
pub fn last_modified(time: SystemTime) -> String {
    iso_ms(time).replace('Z', "+0000")
}

/// Milliseconds with microsecond precision, the unit of every `durationMs`.
pub fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_lambda_writes_them() {
        let time = UNIX_EPOCH + Duration::from_micros(1_767_323_045_001_900);
        assert_eq!(iso_ms(time), "2026-01-02T03:04:05.001Z");
        assert_eq!(last_modified(time), "2026-01-02T03:04:05.001+0000");
        assert_eq!(epoch_ms(time), 1_767_323_045_001);
        assert_eq!(millis(Duration::from_nanos(1_234_567)), 1.235);
    }
}
