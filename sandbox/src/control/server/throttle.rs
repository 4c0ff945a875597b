//! The optional request limit of the control plane. On Lambda it is 15 requests per second for all operations except
//! Invoke and GetFunction.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// A token bucket of one second.
pub(in crate::control) struct Throttle {
    rate: Option<f64>,
    bucket: Mutex<(Instant, f64)>,
}

impl Throttle {
    /// At most `rate` requests a second; no limit when absent.
    pub(in crate::control) fn new(rate: Option<f64>) -> Throttle {
        Throttle { rate, bucket: Mutex::new((Instant::now(), rate.unwrap_or_default())) }
    }

    /// Whether a request at `now` may go on.
    pub(in crate::control) fn admit(&self, now: Instant) -> bool {
        let Some(rate) = self.rate else { return true };
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, tokens) = *bucket;
        let tokens = (tokens + now.saturating_duration_since(since).as_secs_f64() * rate).min(rate);
        let admitted = tokens >= 1.0;
        *bucket = (now, if admitted { tokens - 1.0 } else { tokens });
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn fifteen_a_second() {
        let throttle = Throttle::new(Some(15.0));
        let start = Instant::now();
        let admitted = |at| (0..40).filter(|_| throttle.admit(at)).count();
        assert_eq!(admitted(start), 15);
        assert_eq!(admitted(start + Duration::from_millis(200)), 3);
        assert_eq!(admitted(start + Duration::from_secs(10)), 15);
        assert!((0..1000).all(|_| Throttle::new(None).admit(start)));
    }
}
