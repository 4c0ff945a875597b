//! The server: what its handlers share, its routes, and the loop that serves connections until told to stop.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use http::{HeaderName, HeaderValue, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use agent_proto::BATCHES_PATH;
use tailor_sizing::pricing::prices::PriceTable;

use crate::ingest::{self, Intake};
use crate::keys::KeyRing;
use crate::store::Store;
use crate::{api, web};

pub mod access;
pub mod error;
pub mod metrics;

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
    pub sessions: access::Sessions,
    /// Room for batches under way.
    pub intake: Intake,
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
            sessions: access::Sessions::default(),
            intake: Intake::default(),
            metrics: metrics::Metrics::default(),
        }
    }
}

/// All routes.
fn router(app: Arc<App>) -> Router {
    Router::new()
        .route(BATCHES_PATH, post(ingest::post_batch))
        .route("/v1/functions", get(api::functions))
        .route("/v1/functions/{name}", get(api::function))
        .route("/v1/functions/{name}/invocations", get(api::invocations))
        .route("/v1/changes", get(api::changes))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(api::ready))
        .route("/metrics", get(metrics::serve))
        .route("/", get(web::fleet))
        .route("/functions/{name}", get(web::function))
        .route("/login", get(web::login).post(web::log_in))
        .route(web::STYLE_PATH, get(web::style))
        .fallback(|| async { error::ApiError::not_found("there is no such page") })
        .method_not_allowed_fallback(|| async {
            error::ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method", "this address has another method")
        })
        .layer(axum::middleware::map_response(secure))
        .with_state(app)
}

/// Headers of every answer: nothing is loaded from elsewhere, framed, sniffed or kept.
async fn secure(mut response: axum::response::Response) -> impl IntoResponse {
    const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; \
                          base-uri 'none'; frame-ancestors 'none'";
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Serves until `shutdown` resolves, then lets requests under way finish.
pub async fn run(listener: TcpListener, app: Arc<App>, shutdown: impl Future<Output = ()>) {
    let service = TowerToHyperService::new(router(app));
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
