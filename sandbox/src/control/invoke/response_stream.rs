//! `InvokeWithResponseStream`: sends the response as events while the function produces it.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, StatusCode};
use http_body_util::channel::{Channel, Sender};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use crate::control::ControlPlane;
use crate::control::functions::configuration::Qualifier;
use crate::control::invoke::buffered::{CheckedRequest, MAX_SYNC_BYTES, SentInvocation, empty, send};
use crate::control::invoke::event_stream::{MAX_PAYLOAD_BYTES, event};
use crate::control::server::error::AwsError;
use crate::environment::invocation::{Completion, InvokeResult};

/// Parts buffered for a slow caller; when the buffer is full the function waits, as on Lambda.
const PARTS_IN_FLIGHT: usize = 16;

/// `InvokeComplete.ErrorDetails` is cut after this many bytes, far more than runtimes report. Escaped they still fit
/// into one event.
const MAX_DETAILS_BYTES: usize = 64 * 1024;

type Events = Sender<Bytes, Infallible>;

pub(in crate::control) async fn invoke_with_response_stream(
    State(plane): State<Arc<ControlPlane>>,
    Path(name): Path<String>,
    Query(query): Query<Qualifier>,
    headers: HeaderMap,
    payload: Bytes,
) -> Result<Response, AwsError> {
    let checked =
        CheckedRequest::new(&plane, &name, query.qualifier.as_deref(), &headers, payload, MAX_SYNC_BYTES)?;
    match headers.get("x-amz-invocation-type").map(|value| value.as_bytes()) {
        None | Some(b"RequestResponse") => {}
        Some(b"DryRun") => return empty(StatusCode::NO_CONTENT, &checked),
        Some(_) => return Err(AwsError::invalid("the invocation type must be RequestResponse or DryRun")),
    }
    let (chunks, parts) = mpsc::channel(PARTS_IN_FLIGHT);
    let SentInvocation { result, completed } = send(&plane, &checked, Some(chunks)).await?;
    let (events, body) = Channel::new(PARTS_IN_FLIGHT);
    tokio::spawn(relay(parts, result, checked.wants_tail.then_some(completed), events));
    checked
        .response(StatusCode::OK)
        .header("content-type", "application/vnd.amazon.eventstream")
        .body(Body::new(body))
        .map_err(|error| AwsError::service(error.to_string()))
}

/// Sends parts as they arrive, the rest of the response, and the result. Ends early if the caller hangs up, which
/// does not end the function.
async fn relay(
    mut parts: mpsc::Receiver<Bytes>,
    mut result: oneshot::Receiver<InvokeResult>,
    completed: Option<oneshot::Receiver<Completion>>,
    mut events: Events,
) {
    let result = loop {
        tokio::select! {
            biased;
            Some(part) = parts.recv() => {
                if !write_chunks(&mut events, &part).await {
                    return;
                }
            }
            result = &mut result => break result,
        }
    };
    // Parts from before a failure may still be in the channel.
    parts.close();
    while let Some(part) = parts.recv().await {
        if !write_chunks(&mut events, &part).await {
            return;
        }
    }
    let ended = || InvokeResult { payload: Bytes::new(), error_type: Some("Sandbox.Failure".into()) };
    let result = result.unwrap_or_else(|_| ended());
    let mut complete = json!({});
    if let Some(error_type) = &result.error_type {
        let details = &result.payload[..result.payload.len().min(MAX_DETAILS_BYTES)];
        complete["ErrorCode"] = error_type.as_str().into();
        complete["ErrorDetails"] = String::from_utf8_lossy(details).into();
    } else if !write_chunks(&mut events, &result.payload).await {
        return;
    }
    if let Some(completed) = completed
        && let Ok(completion) = completed.await
    {
        complete["LogResult"] = STANDARD.encode(completion.log_tail).into();
    }
    write_event(&mut events, "InvokeComplete", "application/json", complete.to_string().into()).await;
}

/// Sends `part` in events of at most [`MAX_PAYLOAD_BYTES`]. `false` when the caller has hung up.
async fn write_chunks(events: &mut Events, part: &Bytes) -> bool {
    for start in (0..part.len()).step_by(MAX_PAYLOAD_BYTES) {
        let chunk = part.slice(start..part.len().min(start + MAX_PAYLOAD_BYTES));
        if !write_event(events, "PayloadChunk", "application/octet-stream", chunk).await {
            return false;
        }
    }
    true
}

/// Sends one event. `false` when the caller has hung up, or when the event cannot be encoded.
async fn write_event(
    events: &mut Events,
    event_type: &'static str,
    content_type: &'static str,
    payload: Bytes,
) -> bool {
    match event(event_type, content_type, payload) {
        Ok(encoded) => events.send_data(encoded).await.is_ok(),
        Err(error) => {
            tracing::error!(%error, event_type, "cannot encode an event of a response stream");
            false
        }
    }
}
