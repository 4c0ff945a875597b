//! When to look inside the running invocation.
//!
//! The freeze stops the timer, so that a tick left over from one invocation is due at the thaw for the next, and comes
//! before its INVOKE is read. By then the counters must be read for that, as soon as can be: a tick would come at the
//! worst time. But the thaw may also be the last, and the platform ends the function's processes before it tells us;
//! then nothing else tells of the last invocation. So a tick that comes late is a cheap look back first, and a tick only
//! if no INVOKE follows.

use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

/// A tick that comes so late was kept by a freeze, or by a used-up quota.
const LATE: Duration = Duration::from_millis(2);

/// How long an INVOKE may take to reach us after the thaw: a quota that was used up comes again within 20 ms.
const INVOKE_LIMIT: Duration = Duration::from_millis(20);

/// What looks.
pub trait Looks {
    /// How long to wait before the next look; `None` until something is invoked.
    fn pause(&self) -> Option<Duration>;
    /// Looks as cheaply as can be at what the invocation has done.
    fn look_back(&self);
    /// Looks inside the invocation.
    fn tick(&self);
}

/// Looks at the right times, for ever. `invoked` is notified of each INVOKE.
pub async fn run(looks: &impl Looks, invoked: &Notify) {
    loop {
        let Some(pause) = looks.pause() else {
            invoked.notified().await;
            continue;
        };
        let due = Instant::now() + pause;
        if timeout_at(due, invoked.notified()).await.is_ok() {
            continue;
        }
        if due.elapsed() > LATE {
            looks.look_back();
            if timeout(INVOKE_LIMIT, invoked.notified()).await.is_ok() {
                continue;
            }
        }
        looks.tick();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    struct Told {
        pause: Cell<Option<Duration>>,
        looks: RefCell<Vec<&'static str>>,
    }

    impl Looks for Told {
        fn pause(&self) -> Option<Duration> {
            self.pause.take()
        }
        fn look_back(&self) {
            self.looks.borrow_mut().push("back");
        }
        fn tick(&self) {
            self.looks.borrow_mut().push("tick");
        }
    }

    /// What is looked at, when a tick is due after `pause` and all stands still for `frozen`; `until` so many looks.
    async fn looks_of(pause: u64, frozen: u64, is_followed: bool, until: usize) -> Vec<&'static str> {
        let pause = Cell::new(Some(Duration::from_millis(pause)));
        let (told, invoked) = (Told { pause, looks: RefCell::default() }, Notify::new());
        let rest = async {
            tokio::task::yield_now().await;
            std::thread::sleep(Duration::from_millis(frozen));
            while told.looks.borrow().len() < until {
                tokio::task::yield_now().await;
            }
            if is_followed {
                invoked.notify_one();
                tokio::time::sleep(2 * INVOKE_LIMIT).await;
            }
        };
        tokio::select! {
            () = run(&told, &invoked) => {}
            () = rest => {}
        }
        told.looks.into_inner()
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_tick_left_over_from_the_invocation_before_does_not_delay_the_next() {
        assert_eq!(looks_of(5, 60, true, 1).await, ["back"]);
        assert_eq!(looks_of(5, 60, false, 2).await, ["back", "tick"], "the last thaw, or a used-up quota");
        assert_eq!(looks_of(60_000, 0, true, 0).await, [""; 0], "another invocation has its own ticks");
        assert_eq!(looks_of(5, 0, false, 1).await.len(), 1, "one that is not late");
    }
}
