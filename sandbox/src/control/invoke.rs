//! `Invoke`: synchronous, asynchronous and dry.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, StatusCode};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::ControlPlane;
use super::catalog::Resolved;
use super::error::AwsError;
use super::functions::Qualifier;
use super::name::FunctionRef;
use crate::environment::invocation::{Completion, Invocation, InvokeRequest, InvokeResult};

/// Largest event of a synchronous invocation, bytes.
const MAX_SYNC_BYTES: usize = 6 * 1024 * 1024;

/// Largest event of an asynchronous invocation, bytes.
const MAX_EVENT_BYTES: usize = 1024 * 1024;

/// Tries of an asynchronous invocation, the first included.
const EVENT_ATTEMPTS: u32 = 3;

/// Pause between tries of an asynchronous invocation. Real Lambda waits one and two minutes; nobody who tests
/// locally wants to.
const EVENT_RETRY_PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn invoke(
    State(plane): State<Arc<ControlPlane>>,
    Path(name): Path<String>,
    Query(query): Query<Qualifier>,
    headers: HeaderMap,
    payload: Bytes,
) -> Result<Response, AwsError> {
    let function = FunctionRef::parse(&name, query.qualifier.as_deref())?;
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let resolved = plane.catalog().resolve(&function, Instant::now(), chance())?;
    let payload = if payload.is_empty() { Bytes::from_static(b"{}") } else { payload };
    let limit = match header("x-amz-invocation-type") {
        Some("Event") => MAX_EVENT_BYTES,
        _ => MAX_SYNC_BYTES,
    };
    if payload.len() > limit {
        return Err(AwsError::too_large(format!(
            "{} byte payload is too large (limit {limit} bytes)",
            payload.len()
        )));
    }
    if serde_json::from_slice::<serde::de::IgnoredAny>(&payload).is_err() {
        return Err(AwsError::malformed("Could not parse request body into json"));
    }
    let client_context = header("x-amz-client-context")
        .map(|text| STANDARD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok()))
        .map(|decoded| decoded.ok_or_else(|| AwsError::malformed("Client context must be valid Base64")))
        .transpose()?;
    let invocation = Arc::new(Invocation {
        request_id: Uuid::new_v4().to_string(),
        payload,
        function_arn: resolved.function_arn.clone(),
        trace_id: header("x-amzn-trace-id").map_or_else(new_trace_id, str::to_owned),
        client_context,
        cognito_identity: None,
    });
    match header("x-amz-invocation-type") {
        None | Some("RequestResponse") => {
            let wants_tail = header("x-amz-log-type") == Some("Tail");
            answer(&plane, &resolved, invocation, wants_tail).await
        }
        Some("Event") => {
            let accepted = empty(StatusCode::ACCEPTED, &resolved, &invocation);
            tokio::spawn(run_event(plane, resolved, invocation));
            accepted
        }
        Some("DryRun") => empty(StatusCode::NO_CONTENT, &resolved, &invocation),
        Some(other) => Err(AwsError::invalid(format!("invocation type {other} is unknown"))),
    }
}

/// Sends one invocation to the fleet. The two receivers are its answer and its end.
pub(super) async fn send(
    plane: &ControlPlane,
    resolved: &Resolved,
    invocation: Arc<Invocation>,
) -> Result<(oneshot::Receiver<InvokeResult>, oneshot::Receiver<Completion>), AwsError> {
    let (result, answered) = oneshot::channel();
    let (completion, completed) = oneshot::channel();
    let request = InvokeRequest { invocation, result, completion };
    plane.fleet.invoke(&resolved.target, request).await?;
    Ok((answered, completed))
}

async fn answer(
    plane: &ControlPlane,
    resolved: &Resolved,
    invocation: Arc<Invocation>,
    wants_tail: bool,
) -> Result<Response, AwsError> {
    let (answered, completed) = send(plane, resolved, invocation.clone()).await?;
    let result = answered.await.map_err(|_| AwsError::service("the environment ended"))?;
    let mut response = Response::builder()
        .status(StatusCode::OK)
        .header("content-type", "application/json")
        .header("x-amzn-requestid", &invocation.request_id)
        .header("x-amzn-trace-id", &invocation.trace_id)
        .header("x-amz-executed-version", &resolved.version);
    if result.is_error {
        response = response.header("x-amz-function-error", "Unhandled");
    }
    if wants_tail {
        // The tail holds the REPORT line, which exists only when extensions are done too.
        if let Ok(completion) = completed.await {
            response = response.header("x-amz-log-result", STANDARD.encode(completion.log_tail));
        }
    }
    response.body(Body::from(result.payload)).map_err(|error| AwsError::service(error.to_string()))
}

fn empty(status: StatusCode, resolved: &Resolved, invocation: &Invocation) -> Result<Response, AwsError> {
    Response::builder()
        .status(status)
        .header("x-amzn-requestid", &invocation.request_id)
        .header("x-amz-executed-version", &resolved.version)
        .body(Body::empty())
        .map_err(|error| AwsError::service(error.to_string()))
}

/// An asynchronous invocation: tried again after function errors and throttling, with the same request id.
async fn run_event(plane: Arc<ControlPlane>, resolved: Resolved, invocation: Arc<Invocation>) {
    for attempt in 1..=EVENT_ATTEMPTS {
        if let Ok((answered, completed)) = send(&plane, &resolved, invocation.clone()).await {
            let failed = answered.await.map_or(true, |result| result.is_error);
            let _ = completed.await;
            if !failed {
                return;
            }
        }
        if attempt < EVENT_ATTEMPTS {
            tokio::time::sleep(EVENT_RETRY_PAUSE).await;
        }
    }
    tracing::warn!(request_id = %invocation.request_id, "asynchronous invocation failed for good");
}

/// A random number from 0 to 1.
fn chance() -> f64 {
    let (high, _) = Uuid::new_v4().as_u64_pair();
    // 53 random bits make every representable step of the unit interval equally likely.
    #[expect(clippy::cast_precision_loss)]
    let chance = (high >> 11) as f64 / (1_u64 << 53) as f64;
    chance
}

/// An unsampled X-Ray root.
pub(super) fn new_trace_id() -> String {
    let seconds = crate::time::epoch_ms(std::time::SystemTime::now()) / 1000;
    let random = Uuid::new_v4().simple().to_string();
    format!("Root=1-{seconds:08x}-{};Parent={};Sampled=0", &random[..24], &random[8..24])
}
