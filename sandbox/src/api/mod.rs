//! The APIs that the processes of an environment use, on one address per environment.

mod extension;
mod local;
mod response;
mod runtime;
mod telemetry;

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::environment::Shared;

/// Serves the APIs of `environment` on `listener` until the task is aborted.
pub fn serve(listener: TcpListener, environment: Arc<Shared>) -> JoinHandle<()> {
    let router = Router::new()
        .route("/ping", get(|| async { "pong" }))
        .merge(runtime::routes())
        .merge(extension::routes())
        .merge(telemetry::routes())
        .merge(local::routes())
        .fallback(|| async { (http::StatusCode::NOT_FOUND, "404 page not found\n") })
        .with_state(environment);
    // Responses are small, and latency is what matters.
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "an environment's API stopped");
        }
    })
}

/// `{"status":"OK"}` with status 202, the response to reported errors and responses.
pub(super) fn accepted() -> Response {
    (http::StatusCode::ACCEPTED, Json(serde_json::json!({"status": "OK"}))).into_response()
}
