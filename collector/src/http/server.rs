//! The accept loop, and what applies to every request: a deadline, and memory for its response.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;

use super::App;
use super::connections::Connection;
use super::error::ApiError;
use super::stream::{Stream, Transport};

/// Buffer size of a connection, bytes. It limits the size of request headers, and so the memory that an
/// unauthenticated client can use.
const MAX_BUFFER: usize = 16 << 10;

/// Bytes of a response that the kernel buffers for a client that reads slowly.
const KERNEL_BUFFER: usize = 128 << 10;

/// How long a request may take, with its body, until its response is ready.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A response of at most this size needs no reserved memory, bytes: an acknowledgement or an error must not wait for
/// clients that read slowly. The limit of connections limits their memory.
const SMALL_RESPONSE: usize = 4 << 10;

/// How long a response waits for memory before the slowest reader is cut off, and then again before it is rejected.
const SEND_MEMORY_TIMEOUT: Duration = Duration::from_secs(2);

/// A client that has read for this long may be cut off when memory is needed for other responses.
const SLOW_READER: Duration = Duration::from_secs(5);

/// How often overdue connections are searched.
const OVERDUE_INTERVAL: Duration = Duration::from_millis(500);

/// How long open requests may take to finish after shutdown starts.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// Paths that the reserved connections serve.
const RESERVED_PATHS: [&str; 3] = ["/healthz", "/readyz", "/login"];

/// Serves until `shutdown` resolves, then waits for open requests to finish.
pub async fn run(listener: TcpListener, routes: Router, app: Arc<App>, shutdown: impl Future<Output = ()>) {
    let mut http = hyper::server::conn::http1::Builder::new();
    // The connection's own deadlines are shorter.
    http.timer(TokioTimer::new()).header_read_timeout(REQUEST_TIMEOUT).max_buf_size(MAX_BUFFER);
    let routes = TowerToHyperService::new(routes);
    let graceful = GracefulShutdown::new();
    let tls = app.tls.clone();
    let mut overdue = tokio::time::interval(OVERDUE_INTERVAL);
    tokio::pin!(shutdown);
    loop {
        let (tcp, peer) = tokio::select! {
            () = &mut shutdown => break,
            _ = overdue.tick() => {
                app.connections.close_overdue();
                continue;
            }
            accepted = accept(&listener) => match accepted {
                Some(accepted) => accepted,
                None => continue,
            },
        };
        let Some(entry) = app.connections.enter(peer.ip()) else { continue };
        let connection = Arc::clone(&entry.connection);
        let (routes, app) = (routes.clone(), Arc::clone(&app));
        let handled = Arc::clone(&connection);
        let service = service_fn(move |request| {
            let (routes, app, connection) = (routes.clone(), Arc::clone(&app), Arc::clone(&handled));
            async move { Ok::<_, Infallible>(handle(&app, &connection, &routes, request, peer).await) }
        });
        let stream = Stream { tcp, connection: Arc::clone(&connection) };
        let acceptor = tls.as_ref().map(|tls| tls.acceptor());
        let (http, watcher) = (http.clone(), graceful.watcher());
        let served = async move {
            // The deadline for the headers of a request includes the handshake.
            let transport = match acceptor {
                None => Transport::Plain(stream),
                Some(acceptor) => match acceptor.accept(stream).await {
                    Ok(session) => Transport::Tls(Box::new(session)),
                    Err(error) => {
                        tracing::debug!(%error, %peer, "TLS handshake failed");
                        return;
                    }
                },
            };
            // An error of one connection concerns only its client.
            if let Err(error) = watcher.watch(http.serve_connection(TokioIo::new(transport), service)).await {
                tracing::debug!(%error, "connection ended");
            }
        };
        tokio::spawn(async move {
            let _entry = entry;
            tokio::select! {
                () = served => {}
                () = connection.closed() => tracing::debug!(%peer, "connection closed"),
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not finish in time");
    }
}

async fn accept(listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
    match listener.accept().await {
        Ok((stream, peer)) => {
            // Acknowledgements are small, and clients wait for them.
            let _ = stream.set_nodelay(true);
            // Without it, the kernel would buffer megabytes for each client that does not read.
            let _ = rustix::net::sockopt::set_socket_send_buffer_size(&stream, KERNEL_BUFFER);
            Some((stream, peer))
        }
        Err(error) => {
            // Most likely there are no free file descriptors: wait until some are closed.
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

/// The turn to compute the report of a response.
#[derive(Clone)]
pub(super) struct ReportTurn(
    #[expect(dead_code, reason = "held, not read")] pub(super) Arc<OwnedSemaphorePermit>,
);

/// The address of the client of a request.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Marks a request that arrived over the collector's own TLS, or over that of Lambda.
#[derive(Debug, Clone, Copy)]
pub struct OverTls;

async fn handle(
    app: &App,
    connection: &Arc<Connection>,
    routes: &TowerToHyperService<Router>,
    mut request: Request<Incoming>,
    peer: SocketAddr,
) -> Response<Full<Bytes>> {
    connection.working(REQUEST_TIMEOUT + OVERDUE_INTERVAL * 4);
    if connection.is_reserved() && !RESERVED_PATHS.contains(&request.uri().path()) {
        let mut response =
            ApiError::busy("the collector has too many connections: send again later").into_response();
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        return send(app, connection, response).await;
    }
    request.extensions_mut().insert(Arc::clone(connection));
    request.extensions_mut().insert(Peer(peer));
    if app.tls.is_some() {
        request.extensions_mut().insert(OverTls);
    }
    let response = match tokio::time::timeout(REQUEST_TIMEOUT, routes.call(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(impossible)) => match impossible {},
        Err(_) => {
            let message = "there was no response within 30 s: send again later";
            ApiError::unavailable("timeout", message).into_response()
        }
    };
    send(app, connection, response).await
}

/// Reserves memory for a response until the kernel has taken all of it.
async fn send(
    app: &App,
    connection: &Arc<Connection>,
    response: axum::response::Response,
) -> Response<Full<Bytes>> {
    let (mut parts, body) = response.into_parts();
    // Held until there is memory for the response, so that few responses wait for memory.
    let turn = parts.extensions.remove::<ReportTurn>();
    // The handlers make whole responses, so nothing is waited for.
    let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    connection.sending(bytes.len());
    if bytes.is_empty() {
        connection.sent();
        return Response::from_parts(parts, Full::default());
    }
    if bytes.len() <= SMALL_RESPONSE {
        let sending = Sending { bytes, _memory: None, connection: Arc::clone(connection) };
        return Response::from_parts(parts, Full::new(Bytes::from_owner(sending)));
    }
    let memory = match app.memory.send(bytes.len(), SEND_MEMORY_TIMEOUT).await {
        Ok(memory) => Ok(memory),
        Err(_) => {
            app.connections.close_slowest_reader(SLOW_READER);
            app.memory.send(bytes.len(), SEND_MEMORY_TIMEOUT).await
        }
    };
    drop(turn);
    connection.sending(bytes.len());
    match memory {
        Ok(memory) => {
            let sending = Sending { bytes, _memory: Some(memory), connection: Arc::clone(connection) };
            Response::from_parts(parts, Full::new(Bytes::from_owner(sending)))
        }
        // The error is a few bytes, so it needs no memory.
        Err(error) => {
            drop(bytes);
            let (parts, body) = error.into_response().into_parts();
            let bytes =
                Body::collect(body).await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            Response::from_parts(parts, Full::new(bytes))
        }
    }
}

/// The bytes of a response and the memory reserved for them. It is dropped when the kernel has taken all bytes.
struct Sending {
    bytes: Bytes,
    _memory: Option<OwnedSemaphorePermit>,
    connection: Arc<Connection>,
}

impl AsRef<[u8]> for Sending {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.connection.sent();
    }
}
