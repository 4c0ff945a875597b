//! Errors of the control plane, as AWS's SDKs expect them.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;

use crate::fleet::FleetError;

/// An error response: status, exception name and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsError {
    /// HTTP status.
    pub status: StatusCode,
    /// Exception, for example `ResourceNotFoundException`.
    pub exception: &'static str,
    /// The error message.
    pub message: String,
    /// `Reason` of throttling errors.
    pub reason: Option<&'static str>,
}

impl AwsError {
    fn new(status: StatusCode, exception: &'static str, message: impl Into<String>) -> AwsError {
        AwsError { status, exception, message: message.into(), reason: None }
    }

    /// 404.
    pub fn not_found(message: impl Into<String>) -> AwsError {
        AwsError::new(StatusCode::NOT_FOUND, "ResourceNotFoundException", message)
    }

    /// 400.
    pub fn invalid(message: impl Into<String>) -> AwsError {
        AwsError::new(StatusCode::BAD_REQUEST, "InvalidParameterValueException", message)
    }

    /// 400: the body does not have the format of the operation.
    pub fn malformed(message: impl Into<String>) -> AwsError {
        AwsError::new(StatusCode::BAD_REQUEST, "InvalidRequestContentException", message)
    }

    /// 409: another change is in progress, or the resource exists.
    pub fn conflict(message: impl Into<String>) -> AwsError {
        AwsError::new(StatusCode::CONFLICT, "ResourceConflictException", message)
    }

    /// 412: `RevisionId` or `CodeSha256` is not the current one.
    pub fn precondition(message: impl Into<String>) -> AwsError {
        AwsError::new(StatusCode::PRECONDITION_FAILED, "PreconditionFailedException", message)
    }

    /// 413.
    pub fn too_large(message: impl Into<String>) -> AwsError {
        AwsError::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestTooLargeException", message)
    }

    /// 429.
    pub fn throttled(reason: &'static str) -> AwsError {
        let error =
            AwsError::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequestsException", "Rate Exceeded.");
        AwsError { reason: Some(reason), ..error }
    }

    /// 500.
    pub fn service(message: impl Into<String>) -> AwsError {
        AwsError::new(StatusCode::INTERNAL_SERVER_ERROR, "ServiceException", message)
    }
}

impl From<FleetError> for AwsError {
    fn from(error: FleetError) -> AwsError {
        match error {
            FleetError::ReservedConcurrency => {
                AwsError::throttled("ReservedFunctionConcurrentInvocationLimitExceeded")
            }
            FleetError::AccountConcurrency => AwsError::throttled("ConcurrentInvocationLimitExceeded"),
            FleetError::ShuttingDown | FleetError::Layers(_) => AwsError::service(error.to_string()),
        }
    }
}

impl IntoResponse for AwsError {
    fn into_response(self) -> Response {
        let kind = if self.status.is_server_error() { "Service" } else { "User" };
        let mut body = json!({"Type": kind, "Message": self.message, "message": self.message});
        if let Some(reason) = self.reason {
            body["Reason"] = reason.into();
        }
        let mut response = (self.status, [("x-amzn-errortype", self.exception)], Json(body)).into_response();
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert("retry-after", http::HeaderValue::from_static("1"));
        }
        response
    }
}
