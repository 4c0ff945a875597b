//! Telemetry API, version 2022-07-01, and the response to the Logs API that it replaced.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::put;
use http::{HeaderMap, StatusCode};
use serde_json::json;

use super::extension::{IDENTIFIER, header};
use crate::environment::Shared;
use crate::environment::api_error::ApiError;
use crate::telemetry::subscription::Subscription;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/2022-07-01/telemetry", put(subscribe)).route("/2020-08-15/logs", put(logs))
}

async fn subscribe(
    State(environment): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let id = header(&headers, IDENTIFIER);
    let (name, open) = environment.change(|state| {
        let name = state.extension(id)?.name.clone();
        Ok::<_, ApiError>((name, state.subscription_open))
    })?;
    if let Some(status) = environment.faults.settings().refuse_subscription {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // The message of AWS's emulator, which does not support telemetry.
        let message = "Telemetry API is not supported";
        return Err(ApiError::new(status, "Telemetry.NotSupported", message));
    }
    if !open {
        let message = "Telemetry API subscription is closed already";
        return Err(ApiError::forbidden("Telemetry.SubscriptionClosed", message));
    }
    let subscription = Subscription::parse(&body)
        .map_err(|error| ApiError::bad_request("ValidationError", error.to_string()))?;
    if !environment.telemetry.subscribe(&name, subscription) {
        let message = format!("extension {name} has a subscription already");
        return Err(ApiError::bad_request("ValidationError", message));
    }
    Ok((StatusCode::OK, axum::Json(json!("OK"))).into_response())
}

/// Replaced by the Telemetry API. The response is the one of AWS's emulator for unsupported operations.
async fn logs() -> Response {
    let body = json!({"errorType": "Logs.NotSupported", "errorMessage": "Logs API is not supported"});
    (StatusCode::ACCEPTED, axum::Json(body)).into_response()
}
