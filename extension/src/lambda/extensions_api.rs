//! The Extensions API: register, subscribe, next.
//!
//! Built on hyper. The crate `lambda-extension` is not used: its event loop ends the process at the first event that it
//! cannot read, its telemetry listener refuses a whole request because of one unknown record, and it adds 0.4 MB to a
//! layer of 1 MB.

use bytes::Bytes;
use http::StatusCode;
use http_body_util::Full;
use serde::Deserialize;

use crate::net::client::{Answer, Client, ClientError};

const IDENTIFIER: &str = "lambda-extension-identifier";

/// A client of the API at `AWS_LAMBDA_RUNTIME_API`.
#[derive(Debug)]
pub struct Api {
    client: Client,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The address is invalid.
    #[error("AWS_LAMBDA_RUNTIME_API is not host:port: {0}")]
    Address(#[from] http::uri::InvalidUri),
    /// No answer.
    #[error("the Extensions API does not answer: {0}")]
    Transport(#[from] ClientError),
    /// A refusal.
    #[error("the Extensions API answered {status}: {body}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// The start of the body.
        body: String,
    },
    /// The answer cannot be decoded.
    #[error("cannot decode the answer of the Extensions API: {0}")]
    Shape(&'static str),
}

/// The answer to a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The extension's identifier for every further call.
    pub identifier: String,
    /// The function.
    pub function: Function,
}

/// The function of the environment.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Function {
    /// Its name.
    pub function_name: String,
    /// Its version.
    pub function_version: String,
    /// Its account; `None` where the platform does not support the feature.
    #[serde(default)]
    pub account_id: Option<String>,
}

/// One event of the Extensions API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The function is invoked.
    Invoke {
        /// The id of the invocation.
        request_id: String,
        /// The end of its timeout, milliseconds since the Unix epoch.
        deadline_ms: u64,
    },
    /// The environment ends.
    Shutdown {
        /// The time at which Lambda kills the extension, milliseconds since the Unix epoch.
        deadline_ms: u64,
    },
    /// An unknown or invalid event.
    Other,
}

impl Api {
    /// A client of the API at `address` (`host:port`).
    ///
    /// # Errors
    /// [`ApiError::Address`].
    pub fn new(address: &str) -> Result<Self, ApiError> {
        Ok(Self { client: Client::new(&format!("http://{address}").parse()?) })
    }

    /// Registers for `events` under `name`, which must be the name of the executable file.
    ///
    /// # Errors
    /// When the API does not answer or refuses, for example events that the platform does not have.
    pub async fn register(&self, name: &str, events: &[&str]) -> Result<Registration, ApiError> {
        let request = self
            .client
            .request("POST", "/2020-01-01/extension/register")
            .header("lambda-extension-name", name)
            .header("lambda-extension-accept-feature", "accountId")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::from(serde_json::json!({ "events": events }).to_string()))
            .map_err(ClientError::from)?;
        let (head, body) = accepted(self.client.exchange(request).await?)?;
        let identifier = head
            .headers
            .get(IDENTIFIER)
            .and_then(|value| value.to_str().ok())
            .ok_or(ApiError::Shape("registration without an identifier"))?
            .to_owned();
        let function =
            serde_json::from_slice(&body).map_err(|_| ApiError::Shape("registration without a function"))?;
        Ok(Registration { identifier, function })
    }

    /// Waits for the next event, without a timeout: the environment may be frozen for hours.
    ///
    /// # Errors
    /// When the API does not answer or refuses.
    pub async fn next(&self, identifier: &str) -> Result<Event, ApiError> {
        let answer =
            self.exchange("GET", "/2020-01-01/extension/event/next", identifier, Bytes::new()).await?;
        let (_, body) = accepted(answer)?;
        Ok(Event::read(&body))
    }

    /// Subscribes to telemetry.
    ///
    /// # Errors
    /// When the API does not answer. A refusal is returned as a status.
    pub async fn subscribe(&self, identifier: &str, subscription: String) -> Result<StatusCode, ApiError> {
        let answer = self.exchange("PUT", "/2022-07-01/telemetry", identifier, subscription.into()).await?;
        Ok(answer.0.status)
    }

    /// Sends a request with `identifier`, and sends it again when the connection is broken.
    async fn exchange(
        &self,
        method: &'static str,
        path: &str,
        identifier: &str,
        body: Bytes,
    ) -> Result<Answer, ClientError> {
        let request = || {
            self.client
                .request(method, path)
                .header(IDENTIFIER, identifier)
                .header(http::header::CONTENT_TYPE, "application/json")
                .body(Full::new(body.clone()))
        };
        match self.client.exchange(request()?).await {
            Err(ClientError::Broken(_)) => self.client.exchange(request()?).await,
            answer => answer,
        }
    }
}

/// The answer, or [`ApiError::Refused`].
fn accepted((head, body): Answer) -> Result<Answer, ApiError> {
    if head.status.is_success() {
        return Ok((head, body));
    }
    let body = String::from_utf8_lossy(&body).chars().take(300).collect();
    Err(ApiError::Refused { status: head.status, body })
}

impl Event {
    /// Decodes an event. An unknown or invalid event is [`Event::Other`]; it must not end the extension.
    fn read(body: &[u8]) -> Self {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Wire {
            event_type: String,
            #[serde(default)]
            request_id: String,
            #[serde(default)]
            deadline_ms: u64,
        }
        let Ok(wire) = serde_json::from_slice::<Wire>(body) else { return Self::Other };
        if wire.event_type.eq_ignore_ascii_case("INVOKE") {
            Self::Invoke { request_id: wire.request_id, deadline_ms: wire.deadline_ms }
        } else if wire.event_type.eq_ignore_ascii_case("SHUTDOWN") {
            Self::Shutdown { deadline_ms: wire.deadline_ms }
        } else {
            Self::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_tolerantly() {
        let invoke =
            br#"{"eventType":"INVOKE","deadlineMs":5,"requestId":"r","invokedFunctionArn":"a","new":[1]}"#;
        assert_eq!(Event::read(invoke), Event::Invoke { request_id: "r".into(), deadline_ms: 5 });
        let shutdown = br#"{"eventType":"SHUTDOWN","shutdownReason":"SandboxTerminated","deadlineMs":7}"#;
        assert_eq!(Event::read(shutdown), Event::Shutdown { deadline_ms: 7 });
        assert_eq!(Event::read(br#"{"eventType":"HIBERNATE"}"#), Event::Other);
        assert_eq!(Event::read(b"<html>"), Event::Other);
    }
}
