//! Receives the bodies of requests: with a size limit, a timeout, and memory that is reserved as the bytes arrive.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::sync::OwnedSemaphorePermit;

use super::App;
use super::connections::Connection;
use super::error::ApiError;
use super::server::{REQUEST_TIMEOUT, ReportTurn};

/// Maximum size of a body on every route but the one of batches, bytes. Only the sign-in form has a body.
const MAX_FORM_BYTES: usize = 4 << 10;

/// How long such a body may take.
const FORM_TIMEOUT: Duration = Duration::from_secs(5);

/// Memory reserved for a body before its first byte, bytes.
const FIRST_RESERVATION: usize = 1 << 10;

/// A body that has been arriving for this long may be given up when memory is needed for others.
const SLOW_SENDER: Duration = Duration::from_secs(5);

/// A received body and the memory reserved for it.
pub(crate) struct Received {
    pub(crate) bytes: Bytes,
    _memory: OwnedSemaphorePermit,
}

/// How much may be received, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimit {
    /// Maximum size, bytes.
    pub(crate) bytes: usize,
    /// Maximum time.
    pub(crate) timeout: Duration,
}

/// Receives the body of a request.
///
/// # Errors
/// 413 when the body or its declared size exceeds the limit, 429 when there is no memory for it, 503 when it does not
/// arrive in time or ends early.
pub(crate) async fn receive(app: &App, request: Request, limit: BodyLimit) -> Result<Received, ApiError> {
    let declared = declared_size(request.headers())?;
    if declared.is_some_and(|declared| declared > limit.bytes) {
        return Err(too_large(limit));
    }
    let connection = request.extensions().get::<Arc<Connection>>().cloned();
    if let Some(connection) = &connection {
        // The deadline below comes first. This one is for a connection that does not end after it.
        connection.receiving_body(limit.timeout + Duration::from_secs(5));
    }
    let received =
        tokio::time::timeout(limit.timeout, collect(app, request.into_body(), declared, limit)).await;
    if let Some(connection) = &connection {
        connection.working(REQUEST_TIMEOUT);
    }
    received
        .map_err(|_| ApiError::unavailable("body_timeout", "the body did not arrive in time: send again"))?
}

async fn collect(
    app: &App,
    mut body: Body,
    declared: Option<usize>,
    limit: BodyLimit,
) -> Result<Received, ApiError> {
    let mut reserved = FIRST_RESERVATION;
    let mut memory = reserve(app, reserved).await?;
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        // The connection is closed, so usually no client receives this response.
        let frame =
            frame.map_err(|_| ApiError::unavailable("body_cut", "the body ended early: send again"))?;
        let Ok(data) = frame.into_data() else { continue };
        let size = bytes.len() + data.len();
        if size > limit.bytes {
            return Err(too_large(limit));
        }
        if size > reserved {
            // Doubles, so that a body in many small parts needs few reservations, and memory for what arrived only.
            let more = reserved.max(size - reserved);
            memory.merge(reserve(app, more).await?);
            reserved += more;
        }
        // Usually the body is one part, which is not copied. Others are: a part keeps the whole buffer of its connection.
        if declared == Some(data.len()) {
            return Ok(Received { bytes: data, _memory: memory });
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Received { bytes: bytes.freeze(), _memory: memory })
}

/// Reserves memory. When there is none, bodies that arrive slowly are given up for it.
async fn reserve(app: &App, bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
    if let Ok(memory) = app.memory.receive(bytes).await {
        return Ok(memory);
    }
    app.connections.close_slow_senders(SLOW_SENDER);
    app.memory.receive(bytes).await
}

/// The size that a request declares for its body.
///
/// # Errors
/// 413 when it is not a number of this machine.
pub(crate) fn declared_size(headers: &HeaderMap) -> Result<Option<usize>, ApiError> {
    let Some(length) = headers.get(header::CONTENT_LENGTH) else { return Ok(None) };
    let parsed = length.to_str().ok().and_then(|text| text.parse().ok());
    parsed.map(Some).ok_or_else(|| {
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the content length is not a valid size")
    })
}

fn too_large(limit: BodyLimit) -> ApiError {
    let message = format!("the body of this request has at most {} bytes", limit.bytes);
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
}

/// Middleware of every route but the one of batches: receives the body before the handler runs.
pub async fn receive_form(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if request.body().is_end_stream() {
        return Ok(next.run(request).await);
    }
    let mut parts = Request::new(());
    *parts.headers_mut() = request.headers().clone();
    *parts.method_mut() = request.method().clone();
    *parts.uri_mut() = request.uri().clone();
    *parts.extensions_mut() = request.extensions().clone();
    let limit = BodyLimit { bytes: MAX_FORM_BYTES, timeout: FORM_TIMEOUT };
    let received = receive(&app, request, limit).await?;
    // A few kilobytes: they are released when the handler has finished.
    let bytes = received.bytes.clone();
    let response = next.run(parts.map(|()| Body::from(bytes))).await;
    drop(received);
    Ok(response)
}

/// Middleware of the routes that compute reports: only some run at the same time.
pub async fn wait_for_report_turn(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    // Whoever is rejected anyway does not wait.
    if !app.has_known_credentials(request.headers()) {
        return Ok(next.run(request).await);
    }
    let turn = Arc::new(app.memory.report().await?);
    // On a thread of its own: a large report takes long between two awaits, and connections must be served meanwhile.
    let runtime = tokio::runtime::Handle::current();
    let computed = tokio::task::spawn_blocking(move || runtime.block_on(next.run(request))).await;
    let mut response = computed.map_err(|error| {
        ApiError::unavailable("report", format!("the report cannot be computed: {error}"))
    })?;
    response.extensions_mut().insert(ReportTurn(turn));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::KeyRing;
    use crate::store::sqlite::SqliteStore;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    #[tokio::test]
    async fn a_small_response_waits_neither_for_reports_nor_for_slow_readers() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(folder.path()).unwrap());
        let app = Arc::new(App::new(store, KeyRing::default(), false));
        let mut turns = Vec::new();
        while let Ok(turn) = tokio::time::timeout(Duration::from_millis(100), app.memory.report()).await {
            turns.push(turn.unwrap());
        }
        // Nor does a small response wait for memory that slow readers use.
        let _sending = app.memory.send(usize::MAX, Duration::from_secs(1)).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = axum::Router::new()
            .route("/", axum::routing::get(|_: super::super::auth::ApiReader| async {}))
            .route_layer(axum::middleware::from_fn_with_state(Arc::clone(&app), wait_for_report_turn))
            .with_state(Arc::clone(&app));
        tokio::spawn(super::super::run(listener, routes, app, std::future::pending()));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 401"), "{response}");
    }
}
