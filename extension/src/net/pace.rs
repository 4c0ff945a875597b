//! The speed of an upload, by the CPU time that it uses.

use std::pin::Pin;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::sleep;

use crate::clock::own_cpu_time;

/// The part of the share's CPU time that an upload may use beside a running handler.
const CPU_PART: f64 = 0.05;

/// The most CPU time that is counted for one part: reading, hashing or encrypting 64 KB takes less. What other work of the
/// extension used meanwhile must not stop an upload.
const MAX_PART_CPU: Duration = Duration::from_micros(500);

/// Pauses between the parts of a file, so that the extension's CPU time stays below a part of the share's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Wall time per CPU time; zero for no pauses.
    wall_per_cpu: f64,
    /// CPU time of the process at the last pause.
    cpu: Duration,
}

impl Pace {
    /// For a memory size with `share` vCPUs.
    pub(crate) fn of_share(share: f64) -> Self {
        Self { wall_per_cpu: 1.0 / (CPU_PART * share.max(0.01)), cpu: own_cpu_time() }
    }

    /// As fast as possible: no handler runs.
    pub(crate) const fn unlimited() -> Self {
        Self { wall_per_cpu: 0.0, cpu: Duration::ZERO }
    }

    /// The pause after what has been done since the last one.
    ///
    /// It also lets everything else that is ready run first. The end of a pause and an INVOKE are often ready at the same
    /// time, after a freeze: the next event must be requested before the upload continues, because Lambda bills the time
    /// until then.
    pub(crate) fn pause(&mut self) -> Pause {
        let now = own_cpu_time();
        let used = now.saturating_sub(self.cpu);
        self.cpu = now;
        let duration = self.after(used);
        Box::pin(async move {
            sleep(duration).await;
            yield_now().await;
        })
    }

    fn after(&self, used: Duration) -> Duration {
        used.min(MAX_PART_CPU).mul_f64(self.wall_per_cpu)
    }
}

/// A pause in progress.
pub(crate) type Pause = Pin<Box<dyn Future<Output = ()>>>;

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use tokio::sync::Notify;
    use tokio::task::{LocalSet, spawn_local};

    use super::*;

    #[test]
    fn the_pause_keeps_the_cpu_time_below_its_part_of_the_share() {
        let after = |share: f64, us: u64| Pace::of_share(share).after(Duration::from_micros(us)).as_micros();
        assert_eq!(after(1.0, 100), 2_000);
        assert_eq!(after(128.0 / 1_769.0, 100), 27_640);
        assert_eq!(after(1.0, 1_000_000), 10_000);
        assert_eq!(Pace::unlimited().after(Duration::from_secs(1)), Duration::ZERO);
    }

    #[test]
    fn what_is_ready_runs_before_an_upload_continues() {
        let order = Rc::new(RefCell::new(vec![]));
        let (first, second) = (Rc::new(Notify::new()), Rc::new(Notify::new()));
        let note = |text: &'static str| {
            let order = Rc::clone(&order);
            move || order.borrow_mut().push(text)
        };
        let (upload, event, request) = (note("upload"), note("event"), note("request"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let pause = Pace::unlimited().pause();
            let uploading = spawn_local(async move {
                pause.await;
                upload();
            });
            let (notify, notified) = (Rc::clone(&second), Rc::clone(&first));
            let waiting = spawn_local(async move {
                notified.notified().await;
                event();
                notify.notify_one();
            });
            let requesting = spawn_local(async move {
                second.notified().await;
                request();
            });
            first.notify_one();
            for task in [uploading, waiting, requesting] {
                task.await.unwrap();
            }
        });
        assert_eq!(*order.borrow(), ["event", "request", "upload"]);
    }
}
