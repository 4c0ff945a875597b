//! Waiting by the time an environment runs, not by the clock: that goes on in the freeze, and a delivery that needs
//! five milliseconds more than the handler would be thrown away at every thaw.

use std::pin::pin;
use std::time::Duration;

use tokio::time::timeout;

/// How finely running time is told. A freeze costs one slice, however long it was.
const SLICE: Duration = Duration::from_millis(250);

/// The output of `future` when it comes within `limit` of running time; `None` when it does not.
pub async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
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
            // Blocking the only thread is what a freeze looks like from inside.
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
