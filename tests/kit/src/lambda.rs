//! A client of the Lambda API.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// A client of the Lambda API at one address.
#[derive(Debug, Clone)]
pub struct LambdaClient {
    base: String,
    agent: ureq::Agent,
}

/// Response to an invocation.
#[derive(Debug, Clone, PartialEq)]
pub struct InvokeResponse {
    /// Value of the header `X-Amzn-RequestId`.
    pub request_id: String,
    /// The payload.
    pub payload: Value,
    /// Value of the header `X-Amz-Function-Error`; set when the function failed.
    pub function_error: Option<String>,
}

impl LambdaClient {
    /// A client of the API at `address` (`host:port`).
    #[must_use]
    pub fn new(address: &str) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false).build();
        Self { base: format!("http://{address}/2015-03-31/functions"), agent: config.into() }
    }

    /// Invokes `function` and waits for the response.
    ///
    /// # Errors
    /// When the API cannot be reached or rejects the request. An error of the function is in the [`InvokeResponse`].
    pub fn invoke(&self, function: &str, event: &str) -> Result<InvokeResponse> {
        let mut response = self
            .agent
            .post(format!("{}/{function}/invocations", self.base))
            .send(event)
            .with_context(|| format!("cannot invoke {function}"))?;
        let body = response.body_mut().read_to_string()?;
        if !response.status().is_success() {
            bail!("the request to invoke {function} was rejected: {} {body}", response.status());
        }
        let header =
            |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let function_error = header("x-amz-function-error");
        Ok(InvokeResponse {
            request_id: header("x-amzn-requestid").unwrap_or_default(),
            payload: serde_json::from_str(&body).unwrap_or(Value::String(body)),
            function_error,
        })
    }

    /// The function's configuration.
    ///
    /// # Errors
    /// When the API cannot be reached or rejects the request.
    pub fn configuration(&self, function: &str) -> Result<Value> {
        let mut response = self.agent.get(format!("{}/{function}/configuration", self.base)).call()?;
        let body = response.body_mut().read_to_string()?;
        if !response.status().is_success() {
            bail!(
                "the request for the configuration of {function} was rejected: {} {body}",
                response.status()
            );
        }
        Ok(serde_json::from_str(&body)?)
    }

    /// Changes the function's memory size and waits until the update is complete.
    ///
    /// # Errors
    /// When the API cannot be reached or rejects the request, or when the update fails or takes longer than 30 seconds.
    pub fn resize(&self, function: &str, memory_mb: u32) -> Result<()> {
        let mut response = self
            .agent
            .put(format!("{}/{function}/configuration", self.base))
            .send(format!(r#"{{"MemorySize":{memory_mb}}}"#))?;
        if !response.status().is_success() {
            let body = response.body_mut().read_to_string()?;
            bail!(
                "the request to resize {function} to {memory_mb} MB was rejected: {} {body}",
                response.status()
            );
        }
        for _ in 0..300 {
            match self.configuration(function)?["LastUpdateStatus"].as_str() {
                Some("InProgress") => std::thread::sleep(Duration::from_millis(100)),
                Some("Successful") => return Ok(()),
                other => bail!("resizing {function} to {memory_mb} MB failed: {other:?}"),
            }
        }
        bail!("resizing {function} to {memory_mb} MB takes longer than 30 seconds")
    }
}
