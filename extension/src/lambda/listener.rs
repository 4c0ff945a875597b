//! Subscribes to the Telemetry API and receives its requests.
//!
//! Every request gets the status 200, whether it can be decoded or not: the platform would send a rejected one again. The
//! body is decoded after the response.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::net::connections::count_own_connection;

/// The largest request body in bytes: twice the buffering limit of the subscription, and room for envelopes.
const MAX_BODY_BYTES: usize = 1 << 20;

/// The most bodies that wait to be decoded. The platform waits for each response before it sends the next request, so a full
/// queue means that decoding is stuck; then the platform keeps the records.
const MAX_PENDING_BODIES: usize = 8;

/// Binds `port`, or a free port when it is zero or in use. A second environment on one host, as with an emulator, must
/// not end the extension.
///
/// # Errors
/// When no port can be bound at all.
pub async fn bind(port: u16) -> std::io::Result<TcpListener> {
    // All addresses: `sandbox.localdomain` may not be the loopback address.
    let address = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    match TcpListener::bind(address(port)).await {
        Ok(listener) => Ok(listener),
        Err(error) => {
            tracing::info!(port, %error, "cannot bind the telemetry port: using a free port");
            TcpListener::bind(address(0)).await
        }
    }
}

/// Accepts telemetry requests until the environment ends. Each body goes to the returned channel.
pub fn serve(listener: TcpListener) -> mpsc::Receiver<Bytes> {
    let (bodies, received) = mpsc::channel(MAX_PENDING_BODIES);
    crate::task::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Probably out of descriptors, which are shared with the function. Try again later.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            };
            count_own_connection();
            let bodies = bodies.clone();
            crate::task::spawn(async move {
                let service = service_fn(move |request| receive(request, bodies.clone()));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "telemetry connection ended");
                }
            });
        }
    });
    received
}

async fn receive(
    request: Request<Incoming>,
    bodies: mpsc::Sender<Bytes>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    match Limited::new(request.into_body(), MAX_BODY_BYTES).collect().await {
        // A closed channel means that nothing decodes any more: ignore the body.
        Ok(body) => drop(bodies.send(body.to_bytes()).await),
        // An empty body is counted as undecodable.
        Err(_) => drop(bodies.send(Bytes::new()).await),
    }
    Ok(Response::new(Full::default()))
}

/// The response to a subscription.
#[derive(Debug, PartialEq, Eq)]
pub enum Subscription {
    /// Telemetry will come.
    Accepted,
    /// No telemetry will come, as on an emulator.
    Rejected(http::StatusCode),
}

/// How long the platform buffers records, ms of running time; 25 is the minimum. Each delivery interrupts an invocation, so
/// one delivery serves many short invocations. At SHUTDOWN the extension waits for the last one.
pub const BUFFER_TIMEOUT_MS: u64 = 250;

/// Schema versions, newest first. Managed instances require the first.
const SCHEMAS: [&str; 2] = ["2025-01-29", "2022-07-01"];

/// Subscribes to platform events only: receiving logs would use the function's CPU.
///
/// # Errors
/// When the API does not respond. A rejection is [`Subscription::Rejected`].
pub async fn subscribe(
    api: &crate::lambda::extensions_api::Api,
    extension_id: &str,
    port: u16,
) -> Result<Subscription, crate::lambda::extensions_api::ApiError> {
    let mut status = http::StatusCode::OK;
    for schema in SCHEMAS {
        // As text, because this is before the first request for an event: a tree of JSON values costs thousands of
        // instructions.
        let body = format!(
            "{{\"schemaVersion\":\"{schema}\",\"types\":[\"platform\"],\"buffering\":{{\"maxItems\":1000,\"maxBytes\":262144,\
             \"timeoutMs\":{BUFFER_TIMEOUT_MS}}},\"destination\":{{\"protocol\":\"HTTP\",\
             \"URI\":\"http://sandbox.localdomain:{port}\"}}}}"
        );
        status = api.subscribe(extension_id, body).await?;
        match status {
            http::StatusCode::OK => return Ok(Subscription::Accepted),
            http::StatusCode::BAD_REQUEST => {}
            _ => break,
        }
    }
    Ok(Subscription::Rejected(status))
}
