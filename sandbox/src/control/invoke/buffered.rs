//! `Invoke`: synchronous, asynchronous and dry.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::response;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, StatusCode};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::control::ControlPlane;
use crate::control::catalog::Resolved;
use crate::control::catalog::function_ref::FunctionRef;
use crate::control::functions::configuration::Qualifier;
use crate::control::server::error::AwsError;
use crate::environment::invocation::{Caller, Completion, Invocation, InvokeRequest, InvokeResult};

/// Largest event of a synchronous invocation, bytes.
pub(in crate::control) const MAX_SYNC_BYTES: usize = 6 * 1024 * 1024;

/// Largest event of an asynchronous invocation, bytes.
const MAX_EVENT_BYTES: usize = 1024 * 1024;

/// Attempts of an asynchronous invocation, including the first.
const EVENT_ATTEMPTS: u32 = 3;

/// Delay between attempts of an asynchronous invocation. Lambda waits one and two minutes, which is too long for
/// local tests.
const EVENT_RETRY_PAUSE: Duration = Duration::from_secs(1);

pub(in crate::control) async fn invoke(
    State(plane): State<Arc<ControlPlane>>,
    Path(name): Path<String>,
    Query(query): Query<Qualifier>,
    headers: HeaderMap,
    payload: Bytes,
) -> Result<Response, AwsError> {
    let kind = headers.get("x-amz-invocation-type").map(|value| value.as_bytes());
    let limit = if kind == Some(b"Event") { MAX_EVENT_BYTES } else { MAX_SYNC_BYTES };
    let checked = CheckedRequest::new(&plane, &name, query.qualifier.as_deref(), &headers, payload, limit)?;
    match kind {
        None | Some(b"RequestResponse") => invoke_and_respond(&plane, &checked).await,
        Some(b"Event") => {
            let accepted = empty(StatusCode::ACCEPTED, &checked);
            tokio::spawn(run_event(plane, checked));
            accepted
        }
        Some(b"DryRun") => empty(StatusCode::NO_CONTENT, &checked),
        Some(other) => {
            let other = String::from_utf8_lossy(other);
            Err(AwsError::invalid(format!("invocation type {other} is unknown")))
        }
    }
}

/// A request that may be sent to the fleet.
pub(in crate::control) struct CheckedRequest {
    resolved: Resolved,
    invocation: Arc<Invocation>,
    /// The caller requested the end of the log.
    pub(in crate::control) wants_tail: bool,
}

impl CheckedRequest {
    /// Checks that all kinds of invocation have in common. The payload may have at most `limit` bytes.
    pub(in crate::control) fn new(
        plane: &ControlPlane,
        name: &str,
        qualifier: Option<&str>,
        headers: &HeaderMap,
        payload: Bytes,
        limit: usize,
    ) -> Result<CheckedRequest, AwsError> {
        let function = FunctionRef::parse(name, qualifier)?;
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let resolved = plane.catalog().resolve(&function, Instant::now(), chance())?;
        let payload = if payload.is_empty() { Bytes::from_static(b"{}") } else { payload };
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
        let tenant_id = check_tenant(&resolved, header("x-amz-tenant-id"))?;
        let invocation = Arc::new(Invocation {
            request_id: Uuid::new_v4().to_string(),
            payload,
            function_arn: resolved.function_arn.clone(),
            trace_id: header("x-amzn-trace-id").map_or_else(new_trace_id, str::to_owned),
            client_context,
            cognito_identity: None,
            tenant_id,
        });
        let wants_tail = header("x-amz-log-type") == Some("Tail");
        Ok(CheckedRequest { resolved, invocation, wants_tail })
    }

    /// A request without checks.
    pub(in crate::control) fn trusted(resolved: Resolved, invocation: Invocation) -> CheckedRequest {
        CheckedRequest { resolved, invocation: Arc::new(invocation), wants_tail: false }
    }

    /// The headers that all responses have.
    pub(in crate::control) fn response(&self, status: StatusCode) -> response::Builder {
        Response::builder()
            .status(status)
            .header("x-amzn-requestid", &self.invocation.request_id)
            .header("x-amzn-trace-id", &self.invocation.trace_id)
            .header("x-amz-executed-version", &self.resolved.version)
    }
}

/// Requires a tenant id for a function with tenant isolation, and rejects one for other functions.
fn check_tenant(resolved: &Resolved, tenant_id: Option<&str>) -> Result<Option<String>, AwsError> {
    match (resolved.target.config.tenant_isolation, tenant_id) {
        (true, None) => Err(AwsError::invalid(
            "The invoked function is enabled with tenancy configuration. Add a valid tenant ID in your request and try again.",
        )),
        (false, Some(_)) => Err(AwsError::invalid(
            "The invoked function is not enabled with tenancy configuration. Remove the tenant ID from your request and try again.",
        )),
        (_, tenant_id) => Ok(tenant_id.map(str::to_owned)),
    }
}

/// An invocation that the fleet has accepted.
pub(in crate::control) struct SentInvocation {
    /// Its result.
    pub(in crate::control) result: oneshot::Receiver<InvokeResult>,
    /// Its end.
    pub(in crate::control) completed: oneshot::Receiver<Completion>,
}

/// Sends one invocation to the fleet. Parts of a streamed response go to `chunks`.
pub(in crate::control) async fn send(
    plane: &ControlPlane,
    checked: &CheckedRequest,
    chunks: Option<mpsc::Sender<Bytes>>,
) -> Result<SentInvocation, AwsError> {
    let (result_sender, result) = oneshot::channel();
    let (completion, completed) = oneshot::channel();
    let caller = Caller { result: result_sender, chunks };
    let request = InvokeRequest { invocation: checked.invocation.clone(), caller, completion };
    plane.fleet.invoke(&checked.resolved.target, request).await?;
    Ok(SentInvocation { result, completed })
}

async fn invoke_and_respond(plane: &ControlPlane, checked: &CheckedRequest) -> Result<Response, AwsError> {
    let SentInvocation { result, completed } = send(plane, checked, None).await?;
    let result = result.await.map_err(|_| AwsError::service("the environment ended"))?;
    let mut response = checked.response(StatusCode::OK).header("content-type", "application/json");
    if result.is_error() {
        response = response.header("x-amz-function-error", "Unhandled");
    }
    if checked.wants_tail {
        // The tail contains the REPORT line, which exists only when extensions are done too.
        if let Ok(completion) = completed.await {
            response = response.header("x-amz-log-result", STANDARD.encode(completion.log_tail));
        }
    }
    response.body(Body::from(result.payload)).map_err(|error| AwsError::service(error.to_string()))
}

pub(in crate::control) fn empty(status: StatusCode, checked: &CheckedRequest) -> Result<Response, AwsError> {
    checked.response(status).body(Body::empty()).map_err(|error| AwsError::service(error.to_string()))
}

/// Runs an asynchronous invocation, with retries after function errors and throttling, and the same request id.
async fn run_event(plane: Arc<ControlPlane>, checked: CheckedRequest) {
    for attempt in 1..=EVENT_ATTEMPTS {
        if let Ok(SentInvocation { result, completed }) = send(&plane, &checked, None).await {
            let failed = result.await.map_or(true, |result| result.is_error());
            let _ = completed.await;
            if !failed {
                return;
            }
        }
        if attempt < EVENT_ATTEMPTS {
            tokio::time::sleep(EVENT_RETRY_PAUSE).await;
        }
    }
    tracing::warn!(request_id = %checked.invocation.request_id, "all attempts of an asynchronous invocation failed");
}

/// A random number from 0 to 1.
fn chance() -> f64 {
    let (high, _) = Uuid::new_v4().as_u64_pair();
    // 53 random bits make every representable step of the unit interval equally likely.
    (high >> 11) as f64 / (1_u64 << 53) as f64
}

/// An unsampled X-Ray root.
pub(in crate::control) fn new_trace_id() -> String {
    let seconds = crate::time::epoch_ms(std::time::SystemTime::now()) / 1000;
    let random = Uuid::new_v4().simple().to_string();
    format!("Root=1-{seconds:08x}-{};Parent={};Sampled=0", &random[..24], &random[8..24])
}
