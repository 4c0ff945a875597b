//! Tasks of the one thread.

use std::pin::Pin;

use tokio::task::{JoinHandle, spawn_local};

/// Starts a task.
///
/// The future is boxed, so that all tasks have one type: the code that tokio adds for each type of task has 3 KB.
pub fn spawn(future: impl Future<Output = ()> + 'static) -> JoinHandle<()> {
    let future: Pin<Box<dyn Future<Output = ()>>> = Box::pin(future);
    spawn_local(future)
}
