//! `GET /v1/openapi.json`: the description of the API, for programs that generate clients and tests.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};

/// The document. A test compares it with the table of routes, and another one with the responses of a running server.
pub const DOCUMENT: &str = include_str!("../../openapi.json");

/// `GET /v1/openapi.json`.
pub async fn serve() -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], DOCUMENT).into_response()
}
