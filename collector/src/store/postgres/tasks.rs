//! The threads of the store and the tasks that run on them.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::connection::Pool;
use super::maintenance::Maintenance;
use super::write::{Append, Writer};
use super::{lease, schema};
use crate::store::StoreError;

/// Threads for everything that the store does.
const THREADS: usize = 2;

/// What runs on the threads of the store.
pub(super) struct Tasks {
    pub(super) writer: Writer,
    pub(super) maintenance: Maintenance,
    pub(super) small: Arc<Pool>,
    /// Whether the store is open for writing.
    pub(super) writes: bool,
}

impl Tasks {
    /// Runs until `stopped` resolves and the writer has ended. Sends the runtime, or why there is none, to `started`.
    pub(super) fn run(
        self,
        received: mpsc::Receiver<Append>,
        stopped: oneshot::Receiver<()>,
        started: &std::sync::mpsc::Sender<Result<Handle, StoreError>>,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("store-worker")
            .enable_all()
            .build();
        // The receiver waits for the message.
        let report = |result| drop(started.send(result));
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return report(Err(StoreError::Engine(format!("cannot start the store: {error}")))),
        };
        let prepared = runtime.block_on(async {
            if self.writes { schema::create(&self.small).await } else { schema::check(&self.small).await }
        });
        if let Err(error) = prepared {
            return report(Err(error));
        }
        report(Ok(runtime.handle().clone()));
        let Self { writer, maintenance, small, writes } = self;
        runtime.block_on(async move {
            if !writes {
                let _ = stopped.await;
                return;
            }
            let leases = maintenance.leases.clone();
            let background = [
                tokio::spawn(maintenance.clone().compact_forever()),
                tokio::spawn(maintenance.retain_forever()),
                tokio::spawn({
                    let (leases, small) = (leases.clone(), Arc::clone(&small));
                    async move {
                        loop {
                            tokio::time::sleep(lease::RENEWAL).await;
                            leases.renew_all(&small).await;
                        }
                    }
                }),
            ];
            let writer = tokio::spawn(writer.run(received));
            let _ = stopped.await;
            let _ = writer.await;
            background.iter().for_each(tokio::task::JoinHandle::abort);
            leases.release_all(&small).await;
        });
    }
}
