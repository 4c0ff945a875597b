//! The async runtimes of commands.

use anyhow::Context;
use tokio::runtime::{Builder, Runtime};

/// A runtime on the thread of the command.
pub(super) fn single_threaded() -> anyhow::Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("cannot start the runtime")
}

/// A runtime with a thread for each CPU.
pub(super) fn multi_threaded() -> anyhow::Result<Runtime> {
    Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")
}

/// Runs one request to a store.
pub(super) fn block_on<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    Ok(single_threaded()?.block_on(work))
}
