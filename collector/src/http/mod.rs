//! The server: the state that its handlers share, and the loop that serves connections until shutdown.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use tailor_sizing::pricing::prices::PriceTable;

use crate::clock::Clock;
use crate::keys::KeyRing;
use crate::store::Store;

pub mod auth;
pub mod error;
pub mod extract;
pub mod memory_budget;
pub mod metrics;
pub mod sessions;

/// Connections at once; others wait to be accepted.
const MAX_CONNECTIONS: usize = 4_096;

/// Bytes of a connection's buffer, and so of a request's head: what a stranger can make us hold.
const MAX_BUFFER: usize = 64 << 10;

/// How long a connection may take over a request's head, and stay idle between requests.
const HEAD_DEADLINE: Duration = Duration::from_secs(30);

/// How long requests under way may take to finish once the server is told to stop.
const DRAIN_DEADLINE: Duration = Duration::from_secs(20);

/// What the handlers share.
pub struct App {
    /// Where measurements are.
    pub store: Arc<dyn Store>,
    /// Who may send and read.
    pub keys: KeyRing,
    /// Whether reading from this machine needs no key. Only for a loopback listener.
    pub local_reads: bool,
    /// What Lambda charges.
    pub prices: PriceTable,
    /// Browser sessions.
    pub sessions: sessions::Sessions,
    /// Memory for batches on their way to the store.
    pub batch_memory: memory_budget::MemoryBudget,
    /// The time of day.
    pub clock: Clock,
    /// Counters of the collector itself.
    pub metrics: metrics::Metrics,
}

impl App {
    /// An application over a store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, keys: KeyRing, local_reads: bool) -> Self {
        Self {
            store,
            keys,
            local_reads,
            prices: PriceTable::embedded(),
            sessions: sessions::Sessions::default(),
            batch_memory: memory_budget::MemoryBudget::default(),
            clock: Clock::system(),
            metrics: metrics::Metrics::default(),
        }
    }
}

/// Serves until `shutdown` resolves, then lets requests under way finish.
pub async fn run(listener: TcpListener, routes: Router, shutdown: impl Future<Output = ()>) {
    let service = TowerToHyperService::new(routes);
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE).max_buf_size(MAX_BUFFER);
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &connections) => accepted,
        };
        let Some((stream, permit)) = accepted else { continue };
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service.clone()));
        tokio::spawn(async move {
            let _permit = permit;
            // What goes wrong with one connection is its client's to see.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_DEADLINE, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not finish in time");
    }
}

async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> Option<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(connections).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => {
            // Acknowledgements are small and awaited.
            let _ = stream.set_nodelay(true);
            Some((stream, permit))
        }
        Err(error) => {
            // Out of descriptors, most likely: wait for some to close rather than spin.
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}
