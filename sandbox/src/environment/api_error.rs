//! Error responses of the Runtime, Extensions and Telemetry APIs.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;

/// An error response with the body `{"errorType", "errorMessage"}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// `errorType`.
    pub error_type: &'static str,
    /// `errorMessage`.
    pub message: String,
}

impl ApiError {
    /// An error with any status.
    pub fn new(status: StatusCode, error_type: &'static str, message: impl Into<String>) -> ApiError {
        ApiError { status, error_type, message: message.into() }
    }

    /// 403, the response to most invalid calls.
    pub fn forbidden(error_type: &'static str, message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::FORBIDDEN, error_type, message)
    }

    /// 400.
    pub fn bad_request(error_type: &'static str, message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, error_type, message)
    }

    /// Registration for an event type that does not exist.
    pub fn invalid_event_type(event: &str) -> ApiError {
        ApiError::forbidden("Extension.InvalidEventType", format!("{event}: ErrorInvalidEventType"))
    }

    /// A call that the runtime's state does not allow.
    pub fn invalid_transition(from: &str, to: &str) -> ApiError {
        let message = format!(
            "State transition from {from} to {to} failed for runtime. Error: State transition is not allowed"
        );
        ApiError::forbidden("InvalidStateTransition", message)
    }

    /// The environment ended while a call waited.
    pub fn ended() -> ApiError {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "ContainerError", "the environment has ended")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({"errorType": self.error_type, "errorMessage": self.message});
        (self.status, Json(body)).into_response()
    }
}
