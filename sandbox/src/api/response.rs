//! `POST invocation/{id}/response`: buffered, or streamed to the caller.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use serde_json::json;
use tokio::sync::mpsc;

use super::accepted;
use super::extension::header;
use super::runtime::{BodyError, INVOCATION_ID, MAX_RESPONSE_BYTES, error_type, read};
use crate::environment::Shared;
use crate::environment::api_error::ApiError;
use crate::environment::invocation::InvokeResult;
use crate::environment::state::PostedResponse;

/// Largest streamed response (Lambda quota, 2025).
const MAX_STREAMED_BYTES: u64 = 200 * 1024 * 1024;

/// Bytes of a streamed response that Lambda sends without a rate limit.
const BURST_BYTES: u64 = 6 * 1024 * 1024;

/// Rate limit for the rest, bytes per second.
const BYTES_PER_SECOND: u64 = 2 * 1024 * 1024;

const MODE: &str = "lambda-runtime-function-response-mode";
const ERROR_TYPE_TRAILER: &str = "lambda-runtime-function-error-type";
const ERROR_BODY_TRAILER: &str = "lambda-runtime-function-error-body";

/// Error type for the caller when the response is too large.
const TOO_LARGE: &str = "Function.ResponseSizeTooLarge";

pub(super) async fn response(
    State(environment): State<Arc<Shared>>,
    Path(request_id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let attempt = header(&headers, INVOCATION_ID).map(str::to_owned);
    let post = ResponseUpload { environment, request_id, attempt };
    match header(&headers, MODE) {
        None => {
            post.begin()?;
            post.in_one_piece(body).await
        }
        Some("streaming") => match post.begin()? {
            Some(chunks) => post.streamed(body, chunks).await,
            None => post.collected(body).await,
        },
        Some(_) => {
            let message = "Invalid function response mode";
            post.end_with_error("Runtime.InvalidResponseModeHeader", message, 0)?;
            Err(ApiError::bad_request("InvalidFunctionResponseMode", message))
        }
    }
}

/// One response that a runtime posts.
struct ResponseUpload {
    environment: Arc<Shared>,
    request_id: String,
    attempt: Option<String>,
}

impl ResponseUpload {
    /// The response starts. Returns the channel for its parts if the caller streams.
    fn begin(&self) -> Result<Option<mpsc::Sender<Bytes>>, ApiError> {
        self.environment.change(|state| {
            let known = state.invocation(
                &self.request_id,
                self.attempt.as_deref(),
                PostedResponse::InvocationResponse,
            )?;
            known.on_response_start();
            Ok(known.chunks())
        })
    }

    /// Records the bytes received so far, which are also reported after a failure.
    fn record_progress(&self, produced_bytes: u64) {
        self.environment.change(|state| {
            if let Some(known) = state.in_flight.get_mut(&self.request_id) {
                known.on_part(produced_bytes);
            }
        });
    }

    /// The response has ended after `produced_bytes`.
    fn end(&self, result: InvokeResult, produced_bytes: u64) -> Result<(), ApiError> {
        self.environment.change(|state| {
            let known = state.invocation(
                &self.request_id,
                self.attempt.as_deref(),
                PostedResponse::InvocationResponse,
            )?;
            known.on_streamed(result, produced_bytes);
            Ok(())
        })
    }

    fn end_with_error(&self, error_type: &str, message: &str, produced_bytes: u64) -> Result<(), ApiError> {
        let payload = json!({"errorType": error_type, "errorMessage": message}).to_string().into();
        self.end(InvokeResult { payload, error_type: Some(error_type.to_owned()) }, produced_bytes)
    }

    async fn in_one_piece(&self, body: Body) -> Result<Response, ApiError> {
        match read(body).await {
            Ok(payload) => {
                let produced_bytes = payload.len() as u64;
                self.end(InvokeResult { payload, error_type: None }, produced_bytes)?;
                Ok(accepted())
            }
            Err(BodyError::TooLarge) => Err(self.reject_size(MAX_RESPONSE_BYTES as u64)?),
            Err(BodyError::Broken(error)) => Err(ApiError::bad_request("Runtime.TruncatedResponse", error)),
        }
    }

    /// Forwards parts as they arrive, at Lambda's rate, and at the end the error in the trailers, if any.
    async fn streamed(&self, mut body: Body, chunks: mpsc::Sender<Bytes>) -> Result<Response, ApiError> {
        let started = Instant::now();
        let mut sent = 0;
        let mut trailers = HeaderMap::new();
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return Err(self.break_off(sent)?) };
            match frame.into_data() {
                Ok(data) => {
                    sent += data.len() as u64;
                    if sent > MAX_STREAMED_BYTES {
                        return Err(self.reject_size(MAX_STREAMED_BYTES)?);
                    }
                    let pause = allowed_after(sent).saturating_sub(started.elapsed());
                    // Even a sleep of zero takes up to a millisecond.
                    if !pause.is_zero() {
                        tokio::time::sleep(pause).await;
                    }
                    self.record_progress(sent);
                    // A caller that hung up does not change what the function does.
                    let _ = chunks.send(data).await;
                }
                Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
            }
        }
        let error = error_of(&trailers);
        let result = error.unwrap_or(InvokeResult { payload: Bytes::new(), error_type: None });
        self.end(result, sent)?;
        Ok(accepted())
    }

    /// A streamed response for a caller that does not stream; the limit of buffered responses applies.
    async fn collected(&self, mut body: Body) -> Result<Response, ApiError> {
        let mut payload = BytesMut::new();
        let mut trailers = HeaderMap::new();
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return Err(self.break_off(payload.len() as u64)?) };
            match frame.into_data() {
                Ok(data) if payload.len() + data.len() > MAX_RESPONSE_BYTES => {
                    return Err(self.reject_size(MAX_RESPONSE_BYTES as u64)?);
                }
                Ok(data) => payload.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
            }
        }
        let produced_bytes = payload.len() as u64;
        let whole = || InvokeResult { payload: payload.freeze(), error_type: None };
        self.end(error_of(&trailers).unwrap_or_else(whole), produced_bytes)?;
        Ok(accepted())
    }

    /// Ends an invocation whose response is too large. Returns the error for the runtime.
    fn reject_size(&self, limit: u64) -> Result<ApiError, ApiError> {
        let error = format!("Response payload size exceeded maximum allowed payload size ({limit} bytes).");
        self.end_with_error(TOO_LARGE, &error, limit)?;
        let message = format!("Exceeded maximum allowed payload size ({limit} bytes).");
        Ok(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message))
    }

    /// Ends an invocation whose runtime stopped before its response was complete. The caller may have a part of it.
    fn break_off(&self, produced_bytes: u64) -> Result<ApiError, ApiError> {
        let (error_type, message) = ("Runtime.TruncatedResponse", "Response ended before it was complete");
        self.end_with_error(error_type, message, produced_bytes)?;
        Ok(ApiError::bad_request(error_type, message))
    }
}

/// An error in the middle of a stream: its type, and its body in base64.
fn error_of(trailers: &HeaderMap) -> Option<InvokeResult> {
    header(trailers, ERROR_TYPE_TRAILER)?;
    let body = header(trailers, ERROR_BODY_TRAILER).unwrap_or_default();
    let payload = STANDARD.decode(body).unwrap_or_else(|_| body.as_bytes().to_vec());
    Some(InvokeResult { payload: payload.into(), error_type: Some(error_type(trailers)) })
}

/// The earliest time after its start at which a response may have sent this many bytes.
fn allowed_after(bytes: u64) -> Duration {
    let beyond = bytes.saturating_sub(BURST_BYTES);
    Duration::from_nanos(beyond.saturating_mul(1_000_000_000 / BYTES_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_mib_pass_at_once_and_the_rest_at_two_a_second() {
        assert_eq!(allowed_after(BURST_BYTES), Duration::ZERO);
        let after = allowed_after(BURST_BYTES + 4 * 1024 * 1024);
        assert!((1.99..=2.01).contains(&after.as_secs_f64()), "{after:?}");
    }

    #[test]
    fn an_error_in_the_middle_is_in_the_trailers() {
        let mut trailers = HeaderMap::new();
        assert!(error_of(&trailers).is_none());
        trailers.insert(ERROR_TYPE_TRAILER, "Function.Broken".parse().unwrap());
        trailers.insert(ERROR_BODY_TRAILER, "eyJhIjoxfQ==".parse().unwrap());
        let error = error_of(&trailers).unwrap();
        assert_eq!(
            (error.error_type.as_deref(), &error.payload[..]),
            (Some("Function.Broken"), &b"{\"a\":1}"[..])
        );
    }
}
