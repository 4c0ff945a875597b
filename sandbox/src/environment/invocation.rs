//! One invocation: its request, its progress in the runtime, and its result.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::time::{iso_ms, millis, now};

/// What the caller sent.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// `requestId`, which identifies this invocation everywhere.
    pub request_id: String,
    /// The event.
    pub payload: Bytes,
    /// ARN as invoked, qualifier included.
    pub function_arn: String,
    /// X-Ray trace header.
    pub trace_id: String,
    /// Client context, decoded.
    pub client_context: Option<String>,
    /// Cognito identity, as JSON.
    pub cognito_identity: Option<String>,
    /// The tenant of a function with tenant isolation.
    pub tenant_id: Option<String>,
}

/// What the runtime gets from `next`.
#[derive(Clone, Debug)]
pub struct NextInvocation {
    /// The invocation.
    pub invocation: Arc<Invocation>,
    /// [`InFlight::invocation_id`].
    pub invocation_id: String,
    /// When the function times out, milliseconds since the epoch.
    pub deadline_ms: u64,
}

/// What the caller gets.
#[derive(Clone, Debug)]
pub struct InvokeResult {
    /// The response, or a JSON error object. Empty if all of it went through [`Caller::chunks`].
    pub payload: Bytes,
    /// With an error: its type, for example `Runtime.ExitError`.
    pub error_type: Option<String>,
}

impl InvokeResult {
    /// The function failed (`X-Amz-Function-Error: Unhandled`).
    pub fn is_error(&self) -> bool {
        self.error_type.is_some()
    }
}

/// Where the response and the completion go.
pub struct Caller {
    /// The response, as soon as the runtime has sent it.
    pub result: oneshot::Sender<InvokeResult>,
    /// Parts of a streamed response as they come; `None` if the caller does not stream.
    pub chunks: Option<mpsc::Sender<Bytes>>,
}

/// The result of an invocation when runtime and extensions are done.
#[derive(Clone, Debug)]
pub struct Completion {
    /// The record of `platform.report`.
    pub report: Value,
    /// The kernel's counters, as in the trace's `invocation` events.
    pub facts: Value,
    /// Last lines of the log, from START to REPORT.
    pub log_tail: String,
}

/// An invocation given to an environment.
pub struct InvokeRequest {
    /// What the caller sent.
    pub invocation: Arc<Invocation>,
    /// Where the response goes.
    pub caller: Caller,
    /// Where the rest goes, once every extension is done too.
    pub completion: oneshot::Sender<Completion>,
}

/// An invocation the runtime works on.
pub struct InFlight {
    /// Identifies this attempt. Retries have the same request id; a runtime that returns this id with
    /// its response (`Lambda-Runtime-Invocation-Id`) cannot respond to a later attempt.
    pub invocation_id: String,
    released: Instant,
    released_at: SystemTime,
    response_started: Option<Instant>,
    response_ended: Option<Instant>,
    next_called: Option<Instant>,
    produced_bytes: u64,
    error_type: Option<String>,
    caller: Option<Caller>,
    responded: Arc<AtomicBool>,
}

impl InFlight {
    /// Released to the runtime now. `responded` becomes true when the caller has its response.
    pub fn new(caller: Caller, responded: Arc<AtomicBool>) -> InFlight {
        InFlight {
            invocation_id: Uuid::new_v4().to_string(),
            released: Instant::now(),
            released_at: now(),
            response_started: None,
            response_ended: None,
            next_called: None,
            produced_bytes: 0,
            error_type: None,
            caller: Some(caller),
            responded,
        }
    }

    /// The runtime has started to send its response.
    pub fn on_response_start(&mut self) {
        self.response_started.get_or_insert_with(Instant::now);
    }

    /// The runtime has sent its response: the caller gets it immediately. `error_type` if it is an error.
    pub fn on_response(&mut self, payload: Bytes, error_type: Option<String>) {
        let produced_bytes = payload.len() as u64;
        self.on_streamed(InvokeResult { payload, error_type }, produced_bytes);
    }

    /// The runtime has sent its response of `produced_bytes` bytes; what was not sent to the caller as chunks
    /// is in `result`.
    pub fn on_streamed(&mut self, result: InvokeResult, produced_bytes: u64) {
        self.on_response_start();
        self.response_ended = Some(Instant::now());
        self.produced_bytes = produced_bytes;
        self.error_type = result.error_type.clone();
        self.respond(result);
    }

    /// The number of response bytes received so far.
    pub fn on_part(&mut self, produced_bytes: u64) {
        self.produced_bytes = produced_bytes;
    }

    /// Where parts of the response go, if the caller streams.
    pub fn chunks(&self) -> Option<mpsc::Sender<Bytes>> {
        self.caller.as_ref()?.chunks.clone()
    }

    /// Sends the result to the caller, unless it already has one.
    pub fn respond(&mut self, result: InvokeResult) {
        if let Some(caller) = self.caller.take() {
            // Set before the response is sent, so that the caller's next request sees it.
            self.responded.store(true, Ordering::Release);
            // A caller that hung up does not change what the function did.
            let _ = caller.result.send(result);
        }
    }

    /// The runtime has requested the next invocation: it is done with this one.
    pub fn on_next(&mut self) {
        if self.response_ended.is_some() {
            self.next_called.get_or_insert_with(Instant::now);
        }
    }

    /// The runtime has posted a response or an error.
    pub fn has_response(&self) -> bool {
        self.response_ended.is_some()
    }

    /// Responded, and the runtime has requested the next.
    pub fn is_done(&self) -> bool {
        self.next_called.is_some()
    }

    /// The type of the error the runtime posted.
    pub fn error_type(&self) -> Option<&str> {
        self.error_type.as_deref()
    }

    /// From release to the runtime's next call, or until now.
    pub fn runtime_duration(&self) -> Duration {
        self.next_called.unwrap_or_else(Instant::now) - self.released
    }

    /// Bytes of the response.
    pub fn produced_bytes(&self) -> u64 {
        self.produced_bytes
    }

    /// The span between the runtime's end and the end of `duration`, which is what extensions took.
    pub fn overhead_span(&self, duration: Duration) -> Option<Value> {
        let next = self.next_called?;
        let start = iso_ms(self.released_at + (next - self.released));
        let overhead = duration.saturating_sub(next - self.released);
        Some(json!({"name": "extensionOverhead", "start": start, "durationMs": millis(overhead)}))
    }

    /// `spans` of telemetry; empty if the runtime never responded.
    pub fn spans(&self, with_overhead: bool) -> Vec<Value> {
        let (Some(started), Some(ended)) = (self.response_started, self.response_ended) else {
            return Vec::new();
        };
        let span = |name: &str, from: Instant, to: Instant| {
            let start = iso_ms(self.released_at + (from - self.released));
            json!({"name": name, "start": start, "durationMs": millis(to - from)})
        };
        let mut spans =
            vec![span("responseLatency", self.released, started), span("responseDuration", started, ended)];
        if let Some(next) = self.next_called.filter(|_| with_overhead) {
            spans.push(span("runtimeOverhead", ended, next));
        }
        spans
    }
}
