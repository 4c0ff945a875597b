//! The HTTP server: the shared state of its handlers, and the accept loop.

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

use self::error::ApiError;
use crate::clock::Clock;
use crate::keys::KeyRing;
use crate::prices::MissingPrices;
use crate::query::Query;
use crate::report;
use crate::store::{Store, Tenant};

pub mod auth;
pub mod error;
pub mod extract;
pub mod memory_budget;
pub mod metrics;
pub mod sessions;

/// Maximum number of open connections. Further connections wait to be accepted.
const MAX_CONNECTIONS: usize = 4_096;

/// Buffer size of a connection, bytes. It limits the size of request headers, and so the memory that an
/// unauthenticated client can use.
const MAX_BUFFER: usize = 64 << 10;

/// Timeout for the headers of a request, including the idle time before it.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long open requests may take to finish after shutdown starts.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// The shared state of the handlers.
pub struct App {
    /// The store of measurements.
    pub store: Arc<dyn Store>,
    /// The API keys.
    pub keys: KeyRing,
    /// Whether local reads need no key. Only for a listener on a loopback address.
    pub local_reads: bool,
    /// Lambda's prices.
    pub prices: PriceTable,
    /// The regions without a price that were logged.
    pub missing_prices: MissingPrices,
    /// Browser sessions.
    pub sessions: sessions::Sessions,
    /// The memory budget of batches that are being processed.
    pub batch_memory: memory_budget::MemoryBudget,
    /// The clock.
    pub clock: Clock,
    /// The collector's own metrics.
    pub metrics: metrics::Metrics,
}

impl App {
    /// The state for a store, with the built-in prices and the system clock.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, keys: KeyRing, local_reads: bool) -> Self {
        Self {
            store,
            keys,
            local_reads,
            prices: PriceTable::embedded(),
            missing_prices: MissingPrices::default(),
            sessions: sessions::Sessions::default(),
            batch_memory: memory_budget::MemoryBudget::default(),
            clock: Clock::system(),
            metrics: metrics::Metrics::default(),
        }
    }
}

impl App {
    /// The report that a tenant requests with `query`.
    ///
    /// # Errors
    /// 400 when the strategy is not known.
    pub(crate) fn report_request<'a>(
        &'a self,
        tenant: &'a Tenant,
        query: &Query,
    ) -> Result<report::Request<'a>, ApiError> {
        let now_us = self.clock.now_us();
        Ok(report::Request {
            store: self.store.as_ref(),
            tenant,
            window: query.window(now_us),
            prices: &self.prices,
            strategy: query.strategy()?,
            now_us,
        })
    }
}

/// Serves until `shutdown` resolves, then waits for open requests to finish.
pub async fn run(listener: TcpListener, routes: Router, shutdown: impl Future<Output = ()>) {
    let service = TowerToHyperService::new(routes);
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(MAX_BUFFER);
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
            // An error of one connection concerns only its client.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
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
            // Acknowledgements are small, and clients wait for them.
            let _ = stream.set_nodelay(true);
            Some((stream, permit))
        }
        Err(error) => {
            // Most likely there are no free file descriptors: wait until some are closed.
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}
