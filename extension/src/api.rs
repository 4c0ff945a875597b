//! The Extensions API: register, subscribe, next.
//!
//! On hyper directly. The crate `lambda-extension` was measured and left: its event loop ends the process at
//! the first event it cannot read or answer that is late, its telemetry listener refuses whole batches over
//! one unknown record, and it adds 0.4 MB to a layer of one.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;

/// Bytes of an answer that are read; Lambda's are a few hundred.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

const IDENTIFIER: &str = "lambda-extension-identifier";

/// A client of the API at `AWS_LAMBDA_RUNTIME_API`.
#[derive(Debug)]
pub struct Api {
    base: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// The API could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The request could not be formed: the address or the identifier is not usable.
    #[error("cannot form a request to the extensions API: {0}")]
    Request(#[from] http::Error),
    /// No answer.
    #[error("extensions API does not answer: {0}")]
    Transport(#[from] hyper_util::client::legacy::Error),
    /// An answer that broke off or is far too long.
    #[error("answer of the extensions API cannot be read: {0}")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
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
    #[must_use]
    pub fn new(address: &str) -> Self {
        Self {
            base: format!("http://{address}"),
            client: Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build_http(),
        }
    }

    /// Registers under `name`, which must be our file's, for `events`.
    ///
    /// # Errors
    /// When the API does not answer or refuses, as it does events that the mode does not have.
    pub async fn register(&self, name: &str, events: &[&str]) -> Result<Registration, ApiError> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}/2020-01-01/extension/register", self.base))
            .header("lambda-extension-name", name)
            .header("lambda-extension-accept-feature", "accountId")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::from(serde_json::json!({ "events": events }).to_string()))?;
        let (head, body) = self.exchange(request).await?;
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
        let request =
            self.request(Method::GET, "/2020-01-01/extension/event/next", identifier, Bytes::new())?;
        let (_, body) = self.exchange(request).await?;
        Ok(Event::read(&body))
    }

    /// Asks for telemetry.
    ///
    /// # Errors
    /// When the API does not answer; a refusal is a status.
    pub async fn subscribe(&self, identifier: &str, subscription: String) -> Result<StatusCode, ApiError> {
        let request = self.request(Method::PUT, "/2022-07-01/telemetry", identifier, subscription.into())?;
        Ok(self.client.request(request).await?.status())
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        identifier: &str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, http::Error> {
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(IDENTIFIER, identifier)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(http::response::Parts, Bytes), ApiError> {
        let (head, body) = self.client.request(request).await?.into_parts();
        let body = read(body).await?;
        if head.status.is_success() {
            return Ok((head, body));
        }
        let body = String::from_utf8_lossy(&body).chars().take(300).collect();
        Err(ApiError::Refused { status: head.status, body })
    }
}

async fn read(body: Incoming) -> Result<Bytes, ApiError> {
    Ok(Limited::new(body, MAX_ANSWER_BYTES).collect().await.map_err(ApiError::Body)?.to_bytes())
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
