//! The Extensions API: register, subscribe, next.
//!
//! On hyper directly. The crate `lambda-extension` was measured and left: its event loop ends the process at
//! the first event it cannot read or answer that is late, its telemetry listener refuses whole batches over
//! one unknown record, and it adds 0.4 MB to a layer of one.

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

/// The API could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The address is not one.
    #[error("AWS_LAMBDA_RUNTIME_API is not host:port: {0}")]
    Address(#[from] http::uri::InvalidUri),
    /// No answer.
    #[error("extensions API does not answer: {0}")]
    Transport(#[from] ClientError),
    /// A refusal.
    #[error("extensions API answers {status}: {body}")]
    Refused {
        /// Its status.
        status: StatusCode,
        /// What it says.
        body: String,
    },
    /// An answer of another shape.
    #[error("extensions API answers in a shape that is not known: {0}")]
    Shape(&'static str),
}

/// What the platform tells an extension that registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Who we are in every further call.
    pub identifier: String,
    /// The function.
    pub function: Function,
}

/// The function an extension rides on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Function {
    /// Its name.
    pub function_name: String,
    /// Its version.
    pub function_version: String,
    /// Its account; only on platforms that know the feature.
    #[serde(default)]
    pub account_id: Option<String>,
}

/// One event of an extension's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The function is invoked.
    Invoke {
        /// The request.
        request_id: String,
        /// When its timeout ends it, milliseconds since the Unix epoch.
        deadline_ms: u64,
    },
    /// The environment ends.
    Shutdown {
        /// When we are killed, milliseconds since the Unix epoch.
        deadline_ms: u64,
    },
    /// A kind that does not exist yet.
    Other,
}

impl Api {
    /// A client of the API at `address` (`host:port`).
    ///
    /// # Errors
    /// When it is not an address.
    pub fn new(address: &str) -> Result<Self, ApiError> {
        Ok(Self { client: Client::new(&format!("http://{address}").parse()?) })
    }

    /// Registers under `name`, which must be our file's, for `events`.
    ///
    /// # Errors
    /// When the API does not answer or refuses, as it does events that the mode does not have.
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

    /// Waits for the next event, for hours if need be: there is a freeze in between, so no timeout.
    ///
    /// # Errors
    /// When the API does not answer or refuses.
    pub async fn next(&self, identifier: &str) -> Result<Event, ApiError> {
        let answer =
            self.exchange("GET", "/2020-01-01/extension/event/next", identifier, Bytes::new()).await?;
        let (_, body) = accepted(answer)?;
        Ok(Event::read(&body))
    }

    /// Asks for telemetry.
    ///
    /// # Errors
    /// When the API does not answer; a refusal is a status.
    pub async fn subscribe(&self, identifier: &str, subscription: String) -> Result<StatusCode, ApiError> {
        let answer = self.exchange("PUT", "/2022-07-01/telemetry", identifier, subscription.into()).await?;
        Ok(answer.0.status)
    }

    /// An exchange as `identifier`; once more when the connection turns out to be dead.
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

/// The answer, unless it is a refusal.
fn accepted((head, body): Answer) -> Result<Answer, ApiError> {
    if head.status.is_success() {
        return Ok((head, body));
    }
    let body = String::from_utf8_lossy(&body).chars().take(300).collect();
    Err(ApiError::Refused { status: head.status, body })
}

impl Event {
    /// Reads an event; what is not known, or not readable, is [`Event::Other`] and must be survived.
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
