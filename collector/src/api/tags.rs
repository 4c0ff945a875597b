//! `PUT /v1/tags`: tags of functions, for example from a pipeline that deploys them.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use http::{HeaderMap, StatusCode, header};
use serde::Serialize;

use crate::http::App;
use crate::http::body::{BodyLimit, receive};
use crate::http::error::ApiError;
use crate::keys::Scope;
use crate::tags::TagError;

/// Limits of the body. A pipeline with more functions sends them in parts.
const BODY_LIMIT: BodyLimit = BodyLimit { bytes: 4 << 20, timeout: Duration::from_secs(15) };

/// What is stored after the request.
#[derive(Debug, Serialize)]
pub struct TagsStored {
    functions: usize,
}

/// `PUT /v1/tags`: replaces the tags of the functions that the body names.
///
/// # Errors
/// 400 when the body is not valid, 401 and 403 without a key with the scope `admin`, 413 and 415 for another body, 501 when
/// this collector stores no tags, as in a Lambda function, 503 when the tags cannot be written.
pub async fn put(State(app): State<Arc<App>>, request: Request) -> Result<Json<TagsStored>, ApiError> {
    // Neither a session nor a local read may write.
    let entry = app.authenticate_key(request.headers(), request.extensions(), Scope::Admin).await?;
    check_headers(request.headers())?;
    let received = receive(&app, request, BODY_LIMIT).await?;
    let text = std::str::from_utf8(&received.bytes)
        .map_err(|_| ApiError::bad_request("tags", "the body is not UTF-8"))?
        .to_owned();
    drop(received);
    let (tags, tenant) = (Arc::clone(&app.tags), entry.key.tenant.clone());
    let stored = tokio::task::spawn_blocking(move || tags.put_sent(&tenant, &text));
    let functions = stored
        .await
        .map_err(|error| ApiError::unavailable("tags", format!("cannot store the tags: {error}")))?
        .map_err(|error| match error {
            TagError::Io(..) => ApiError::unavailable("tags", error.to_string()),
            TagError::NotStored => ApiError::new(StatusCode::NOT_IMPLEMENTED, "tags", error.to_string()),
            _ => ApiError::bad_request("tags", error.to_string()),
        })?;
    tracing::info!(key = entry.key.id(), functions, "stored tags of functions");
    Ok(Json(TagsStored { functions }))
}

fn check_headers(headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name| headers.get(name).map(|value: &http::HeaderValue| value.to_str().unwrap_or_default());
    let essence = text(header::CONTENT_TYPE).map(|value| value.split(';').next().unwrap_or_default().trim());
    let is_json = essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"));
    let is_plain =
        text(header::CONTENT_ENCODING).is_none_or(|coding| coding.eq_ignore_ascii_case("identity"));
    if is_json && is_plain {
        return Ok(());
    }
    let message = "the body must be `application/json`, without a content encoding";
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", message))
}
