//! Why an environment is reset, with Lambda's error types and messages.

use bytes::Bytes;
use serde_json::json;

use super::invocation::InvokeResult;

/// A fatal error of an environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// For example `Extension.Crash`.
    pub error_type: String,
    /// The message as on Lambda.
    pub message: String,
    /// What the runtime posted, which is then what the caller gets.
    pub body: Option<Bytes>,
    /// The function or initialization timeout passed.
    pub is_timeout: bool,
    /// The runtime was killed with `SIGKILL`, possibly by the out-of-memory killer.
    pub is_killed: bool,
}

impl Failure {
    /// An error of the runtime or an extension.
    pub fn new(error_type: &str, message: &str) -> Failure {
        Failure {
            error_type: error_type.to_owned(),
            message: message.to_owned(),
            body: None,
            is_timeout: false,
            is_killed: false,
        }
    }

    /// An error of the sandbox itself.
    pub fn sandbox(message: &str) -> Failure {
        Failure::new("Sandbox.Failure", message)
    }

    /// A timeout after `seconds`.
    pub fn timeout(seconds: f64) -> Failure {
        let message = format!("Task timed out after {seconds:.2} seconds");
        Failure { is_timeout: true, ..Failure::new("Sandbox.Timedout", &message) }
    }

    /// With what the runtime posted.
    pub fn with_body(self, body: Bytes) -> Failure {
        Failure { body: Some(body), ..self }
    }

    /// The process was killed.
    pub fn killed(self) -> Failure {
        Failure { is_killed: true, ..self }
    }

    /// The kernel killed the process because of the memory limit. Lambda reports this for Python and Ruby; other
    /// runtimes get an exit error (specification sheet, section 2.5).
    pub fn out_of_memory(self, runtime: &str) -> Failure {
        if runtime.starts_with("python") || runtime.starts_with("ruby") {
            Failure { error_type: "Runtime.OutOfMemory".into(), ..self }
        } else {
            self
        }
    }

    /// `status` of telemetry events.
    pub fn status(&self) -> &'static str {
        if self.is_timeout {
            "timeout"
        } else if self.error_type.starts_with("Sandbox.") {
            "failure"
        } else {
            "error"
        }
    }

    /// `shutdownReason` of the reset that follows.
    pub fn shutdown_reason(&self) -> &'static str {
        if self.is_timeout { "timeout" } else { "failure" }
    }

    /// What the caller of the failed invocation gets.
    fn response(&self, request_id: &str) -> Bytes {
        if let Some(body) = &self.body {
            return body.clone();
        }
        let message = format!("RequestId: {request_id} Error: {}", self.message);
        json!({"errorType": self.error_type, "errorMessage": message}).to_string().into()
    }

    /// That, as the response.
    pub fn result(&self, request_id: &str) -> InvokeResult {
        InvokeResult { payload: self.response(request_id), error_type: Some(self.error_type.clone()) }
    }
}
