//! A timeout that counts the running time of the environment. The clock continues during a freeze, so an ordinary timeout
//! would abort a delivery at the thaw when it needed only a few milliseconds more than the handler.

use std::pin::{Pin, pin};
use std::time::Duration;

use tokio::time::timeout;

/// The resolution of the running time. A freeze of any length counts as one slice at most.
const SLICE: Duration = Duration::from_millis(250);

/// The output of `future`; `None` when it does not complete within `limit` of running time.
pub async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    within_pinned(limit, pin!(future)).await
}

/// The same for any type of future, so that there is one copy of its code.
async fn within_pinned<T>(limit: Duration, mut future: Pin<&mut dyn Future<Output = T>>) -> Option<T> {
    let mut left = limit;
    while !left.is_zero() {
        let slice = left.min(SLICE);
        if let Ok(output) = timeout(slice, &mut future).await {
            return Some(output);
        }
        left -= slice;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::time::sleep;

    use super::*;
    use crate::net::client::tests::on_one_thread;

    #[test]
    fn a_freeze_costs_no_more_than_a_slice() {
        on_one_thread(async {
            // A blocked thread has the same effect as a freeze.
            let frozen = async {
                std::thread::sleep(SLICE * 3);
                sleep(SLICE / 2).await;
                "delivered"
            };
            assert_eq!(within(SLICE * 2, frozen).await, Some("delivered"));
            let began = Instant::now();
            assert_eq!(within(Duration::from_millis(20), std::future::pending::<()>()).await, None);
            assert!(began.elapsed() >= Duration::from_millis(20));
        });
    }
}
