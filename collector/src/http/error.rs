//! Error responses. The status shows whether the client may retry, and the body contains the reason.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use agent_proto::limits::MAX_BATCH_BYTES;

use crate::keys::{Key, Scope};

/// The `Retry-After` header, seconds.
const RETRY_AFTER_SECONDS: &str = "5";

/// The error response to a request.
///
/// The body is `{"error":{"code","message"}}`; codes are stable, messages are not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl ApiError {
    /// Any error. A client may retry only after 429, 502, 503 and 504.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    /// The key is missing or unknown. The response is the same in both cases.
    #[must_use]
    pub fn unauthorized() -> Self {
        let message =
            "missing or unknown API key: send `Authorization: Bearer KEY` or `X-Tailor-Api-Key: KEY`";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    /// The key has expired.
    #[must_use]
    pub fn expired_key(key: &Key) -> Self {
        let message =
            format!("the API key {} has expired: create another with `tailor keys create`", name_of(key));
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    /// The key does not have the scope that the request needs.
    #[must_use]
    pub fn missing_scope(key: &Key, scope: Scope) -> Self {
        let scopes: Vec<_> = key.scopes.iter().map(|scope| scope.name()).collect();
        let message = format!(
            "this needs a key with the scope `{}`; the API key {} has `{}`",
            scope.name(),
            name_of(key),
            scopes.join(",")
        );
        Self::new(StatusCode::FORBIDDEN, "scope", message)
    }

    /// The key may not send batches of this function.
    #[must_use]
    pub fn function_not_permitted(key: &Key, function: &str) -> Self {
        let message =
            format!("the API key {} may not send batches of the function `{function}`", name_of(key));
        Self::new(StatusCode::FORBIDDEN, "function", message)
    }

    /// The request is invalid. A retry fails again.
    pub fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// The resource does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// The body, as sent or decompressed, exceeds the size limit of a batch.
    #[must_use]
    pub fn too_large() -> Self {
        let message =
            format!("a batch has at most {MAX_BATCH_BYTES} bytes: send fewer invocations at a time");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    /// The collector is overloaded. The client may retry later.
    pub fn busy(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "busy", message)
    }

    /// Temporarily not possible. The client may retry later.
    pub fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

fn name_of(key: &Key) -> String {
    if key.name.is_empty() { key.id() } else { format!("{} ({})", key.id(), key.name) }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Json(json!({"error": {"code": self.code, "message": self.message}}));
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
            }
            _ => {}
        }
        response
    }
}
