//! Runtime API, version 2018-06-01.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::accepted;
use super::extension::header;
use super::response::response;
use crate::environment::Shared;
use crate::environment::api_error::ApiError;
use crate::environment::invocation::NextInvocation;
use crate::environment::state::PostedResponse;

/// Largest response of a buffered invocation: 6 MiB and 100 bytes.
pub(super) const MAX_RESPONSE_BYTES: usize = 6 * 1024 * 1024 + 100;

/// Header with the attempt that a response belongs to; optional.
pub(super) const INVOCATION_ID: &str = "lambda-runtime-invocation-id";

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(next))
        .route("/2018-06-01/runtime/invocation/{id}/response", post(response))
        .route("/2018-06-01/runtime/invocation/{id}/error", post(error))
        .route("/2018-06-01/runtime/init/error", post(init_error))
        .route("/2018-06-01/runtime/restore/next", get(restore_next))
        .route("/2018-06-01/runtime/restore/error", post(restore_error))
}

async fn next(State(environment): State<Arc<Shared>>) -> Result<Response, ApiError> {
    let waiting = environment.change(|state| state.runtime_next())?;
    let NextInvocation { invocation, invocation_id, deadline_ms } =
        waiting.await.map_err(|_| ApiError::ended())?;
    let mut builder = Response::builder()
        .header("Content-Type", "application/json")
        .header("Lambda-Runtime-Aws-Request-Id", &invocation.request_id)
        .header("Lambda-Runtime-Invocation-Id", invocation_id)
        .header("Lambda-Runtime-Deadline-Ms", deadline_ms)
        .header("Lambda-Runtime-Invoked-Function-Arn", &invocation.function_arn)
        .header("Lambda-Runtime-Trace-Id", &invocation.trace_id);
    if let Some(context) = &invocation.client_context {
        builder = builder.header("Lambda-Runtime-Client-Context", context);
    }
    if let Some(identity) = &invocation.cognito_identity {
        builder = builder.header("Lambda-Runtime-Cognito-Identity", identity);
    }
    if let Some(tenant_id) = &invocation.tenant_id {
        builder = builder.header("Lambda-Runtime-Aws-Tenant-Id", tenant_id);
    }
    builder
        .body(Body::from(invocation.payload.clone()))
        .map_err(|error| ApiError::bad_request("InvalidHeader", error.to_string()))
}

async fn error(
    State(environment): State<Arc<Shared>>,
    Path(request_id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let payload =
        read(body).await.map_err(|_| ApiError::bad_request("InvalidErrorShape", "cannot read the error"))?;
    let (error_type, attempt) = (error_type(&headers), header(&headers, INVOCATION_ID));
    environment.change(|state| {
        let known = state.invocation(&request_id, attempt, PostedResponse::InvocationErrorResponse)?;
        known.on_response(payload, Some(error_type));
        Ok::<_, ApiError>(())
    })?;
    Ok(accepted())
}

async fn init_error(
    State(environment): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let payload =
        read(body).await.map_err(|_| ApiError::bad_request("InvalidErrorShape", "cannot read the error"))?;
    let error_type = error_type(&headers);
    environment.change(|state| {
        if state.runtime.has_polled {
            return Err(ApiError::invalid_transition("Ready", "InitError"));
        }
        state.runtime.init_error = Some((error_type, payload));
        Ok(())
    })?;
    Ok(accepted())
}

async fn restore_next(State(environment): State<Arc<Shared>>) -> Result<Response, ApiError> {
    let restored = environment.change(|state| state.runtime_restore_next())?;
    restored.await.map_err(|_| ApiError::ended())?;
    Ok(Response::new(Body::empty()))
}

async fn restore_error(
    State(environment): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let error_type = error_type(&headers);
    environment.change(|state| state.runtime.restore_error = Some(error_type));
    Ok(accepted())
}

/// The declared type if it has the form `Runtime.Reason` or `Function.Reason`, else `Runtime.Unknown` or
/// `Function.Unknown`.
pub(super) fn error_type(headers: &HeaderMap) -> String {
    let declared = header(headers, "lambda-runtime-function-error-type").unwrap_or_default();
    let reason = declared.strip_prefix("Runtime.").or_else(|| declared.strip_prefix("Function."));
    let is_valid = |reason: &str| {
        reason.starts_with(|first: char| first.is_ascii_uppercase())
            && reason.chars().all(|character| character.is_ascii_alphabetic())
    };
    match reason {
        Some(reason) if is_valid(reason) => declared.to_owned(),
        _ if declared.starts_with("Function.") => "Function.Unknown".into(),
        _ => "Runtime.Unknown".into(),
    }
}

pub(super) enum BodyError {
    TooLarge,
    Broken(String),
}

pub(super) async fn read(body: Body) -> Result<Bytes, BodyError> {
    match Limited::new(body, MAX_RESPONSE_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => Err(BodyError::TooLarge),
        Err(error) => Err(BodyError::Broken(error.to_string())),
    }
}
