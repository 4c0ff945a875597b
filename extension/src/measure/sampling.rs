//! When to sample the running invocation.
//!
//! A freeze stops the timer. So a sample of one invocation can become due at the next thaw, before the INVOKE that
//! follows it is received. The reading at that INVOKE must be early, and a full sample would delay it. But there may be
//! no INVOKE: at SHUTDOWN the platform ends the function's processes before it informs the extension, and then a sample
//! is all that is known of the last invocation. So a late sample is a quick one first, and a full one only when no
//! INVOKE follows.

use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

/// A sample that is later than this was delayed by a freeze or by the CPU quota.
const LATE: Duration = Duration::from_millis(2);

/// The longest time from a thaw to its INVOKE: after 20 ms there is a new CPU quota.
const INVOKE_TIMEOUT: Duration = Duration::from_millis(20);

/// What takes the samples.
pub trait Sampler {
    /// How long to wait before the next sample; `None` while no invocation runs.
    fn pause(&self) -> Option<Duration>;
    /// Takes a sample at the lowest cost.
    fn quick_sample(&self);
    /// Takes a full sample.
    fn sample(&self);
}

/// Takes samples and never returns. `invoked` is notified of each INVOKE.
pub async fn run(sampler: &impl Sampler, invoked: &Notify) {
    loop {
        let Some(pause) = sampler.pause() else {
            invoked.notified().await;
            continue;
        };
        let due = Instant::now() + pause;
        if timeout_at(due, invoked.notified()).await.is_ok() {
            continue;
        }
        if due.elapsed() > LATE {
            sampler.quick_sample();
            if timeout(INVOKE_TIMEOUT, invoked.notified()).await.is_ok() {
                continue;
            }
        }
        sampler.sample();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    struct Recorder {
        pause: Cell<Option<Duration>>,
        samples: RefCell<Vec<&'static str>>,
    }

    impl Sampler for Recorder {
        fn pause(&self) -> Option<Duration> {
            self.pause.take()
        }
        fn quick_sample(&self) {
            self.samples.borrow_mut().push("quick");
        }
        fn sample(&self) {
            self.samples.borrow_mut().push("full");
        }
    }

    /// The samples when one is due after `pause_ms` and the thread is blocked for `frozen_ms`; waits for `count` of them.
    async fn samples(pause_ms: u64, frozen_ms: u64, is_followed: bool, count: usize) -> Vec<&'static str> {
        let pause = Cell::new(Some(Duration::from_millis(pause_ms)));
        let (recorder, invoked) = (Recorder { pause, samples: RefCell::default() }, Notify::new());
        let function = async {
            tokio::task::yield_now().await;
            std::thread::sleep(Duration::from_millis(frozen_ms));
            while recorder.samples.borrow().len() < count {
                tokio::task::yield_now().await;
            }
            if is_followed {
                invoked.notify_one();
                tokio::time::sleep(2 * INVOKE_TIMEOUT).await;
            }
        };
        tokio::select! {
            () = run(&recorder, &invoked) => {}
            () = function => {}
        }
        recorder.samples.into_inner()
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_late_sample_does_not_delay_the_next_invocation() {
        assert_eq!(samples(5, 60, true, 1).await, ["quick"]);
        assert_eq!(samples(5, 60, false, 2).await, ["quick", "full"], "the last thaw, or no CPU quota left");
        assert_eq!(samples(60_000, 0, true, 0).await, [""; 0], "the next invocation has its own samples");
        assert_eq!(samples(5, 0, false, 1).await.len(), 1, "a sample that is not late");
    }
}
