//! Subscribing to telemetry and receiving its deliveries.
//!
//! Every delivery is answered 200, readable or not: the platform delivers a refused one again, and answers
//! late while the function runs. Decoding happens after the answer is on its way.

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

/// Most bytes of one delivery that are kept: twice the buffering limit we ask for, plus room for envelopes.
const MAX_DELIVERY_BYTES: usize = 1 << 20;

/// Deliveries waiting to be decoded. The platform waits for our answer before it sends the next one, so
/// more than a few means that decoding is stuck, and then the platform shall keep them.
const PENDING_DELIVERIES: usize = 8;

/// Binds `port`, or any other when it is taken: a second copy of the environment on one host, as under
/// emulators, must not end the extension.
///
/// # Errors
/// When no port can be bound at all.
pub async fn bind(port: u16) -> std::io::Result<TcpListener> {
    // All addresses: `sandbox.localdomain` is not necessarily the loopback address.
    let address = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    match TcpListener::bind(address(port)).await {
        Ok(listener) => Ok(listener),
        Err(error) => {
            tracing::info!(port, %error, "telemetry port is not free, taking another");
            TcpListener::bind(address(0)).await
        }
    }
}

/// Accepts deliveries for as long as the environment lives; each body goes to the returned channel.
pub fn serve(listener: TcpListener) -> mpsc::Receiver<Bytes> {
    let (bodies, received) = mpsc::channel(PENDING_DELIVERIES);
    tokio::task::spawn_local(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Out of descriptors, most likely: they are shared with the function. Let it pass.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            };
            count_own_connection();
            let bodies = bodies.clone();
            tokio::task::spawn_local(async move {
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
    match Limited::new(request.into_body(), MAX_DELIVERY_BYTES).collect().await {
        // A closed channel means that the extension is dormant: take and forget.
        Ok(body) => drop(bodies.send(body.to_bytes()).await),
        // Empty bytes decode to "undecodable", which is what was lost.
        Err(_) => drop(bodies.send(Bytes::new()).await),
    }
    Ok(Response::new(Full::default()))
}

/// Answer of the platform to a subscription.
#[derive(Debug, PartialEq, Eq)]
pub enum Subscription {
    /// Events will come.
    Accepted,
    /// They will not: this is an emulator, or init is over.
    Refused(http::StatusCode),
}

/// Schemas to ask for, newest first. The first is mandatory on managed instances.
const SCHEMAS: [&str; 2] = ["2025-01-29", "2022-07-01"];

/// Subscribes to platform events only: logs would be delivered at the function's cost.
///
/// # Errors
/// When the API does not answer.
pub async fn subscribe(
    api: &crate::lambda::extensions_api::Api,
    extension_id: &str,
    port: u16,
) -> Result<Subscription, crate::lambda::extensions_api::ApiError> {
    let mut status = http::StatusCode::OK;
    for schema in SCHEMAS {
        let body = serde_json::json!({
            "schemaVersion": schema,
            "types": ["platform"],
            // 25 ms is the least Lambda allows: the sooner a report comes, the less is open at shutdown.
            "buffering": {"maxItems": 1_000, "maxBytes": 262_144, "timeoutMs": 25},
            "destination": {"protocol": "HTTP", "URI": format!("http://sandbox.localdomain:{port}")},
        });
        status = api.subscribe(extension_id, body.to_string()).await?;
        match status {
            http::StatusCode::OK => return Ok(Subscription::Accepted),
            http::StatusCode::BAD_REQUEST => {}
            _ => break,
        }
    }
    Ok(Subscription::Refused(status))
}
