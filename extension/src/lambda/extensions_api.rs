//! The Extensions API: register, subscribe, next.
//!
//! Built on hyper. The crate `lambda-extension` is not used: its event loop ends the process at the first event that it
//! cannot read, its telemetry listener rejects a whole request because of one unknown record, and it adds 0.4 MB to a
//! layer of 1 MB.

use bytes::Bytes;
use http::StatusCode;
use http_body_util::Full;

use crate::json::Object;
use crate::net::client::{Client, ClientError, Response};

/// The longest text that is used, in bytes: the limit of the wire.
const MAX_TEXT_BYTES: usize = agent_proto::limits::MAX_TEXT_BYTES;

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
    /// No response.
    #[error("the Extensions API does not respond: {0}")]
    Transport(#[from] ClientError),
    /// A rejection.
    #[error("the Extensions API responded with {status}: {body}")]
    Rejected {
        /// The HTTP status.
        status: StatusCode,
        /// The start of the body.
        body: String,
    },
    /// The response cannot be decoded.
    #[error("cannot decode the response of the Extensions API: {0}")]
    Shape(&'static str),
}

/// The response to a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The extension's identifier for every further call.
    pub identifier: String,
    /// The function.
    pub function: Function,
}

/// What the registration states about the function. Environment variables have the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Its account: 12 digits. Not every platform has the feature.
    pub account: Option<String>,
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
    /// When the API does not respond or rejects the request, for example events that the platform does not have, or when
    /// the response has no identifier.
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
        Ok(Registration { identifier, function: Function::read(&body) })
    }

    /// Waits for the next event, without a timeout: the environment may be frozen for hours.
    ///
    /// # Errors
    /// When the API does not respond or rejects the request.
    pub async fn next(&self, identifier: &str) -> Result<Event, ApiError> {
        let response =
            self.exchange("GET", "/2020-01-01/extension/event/next", identifier, Bytes::new()).await?;
        let (_, body) = accepted(response)?;
        Ok(Event::read(&body))
    }

    /// Subscribes to telemetry.
    ///
    /// # Errors
    /// When the API does not respond. A rejection is returned as a status.
    pub async fn subscribe(&self, identifier: &str, subscription: String) -> Result<StatusCode, ApiError> {
        let response = self.exchange("PUT", "/2022-07-01/telemetry", identifier, subscription.into()).await?;
        Ok(response.0.status)
    }

    /// Sends a request with `identifier`.
    async fn exchange(
        &self,
        method: &'static str,
        path: &str,
        identifier: &str,
        body: Bytes,
    ) -> Result<Response, ClientError> {
        let request = self
            .client
            .request(method, path)
            .header(IDENTIFIER, identifier)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        self.client.exchange_with_resend(request).await
    }
}

/// The response, or [`ApiError::Rejected`].
fn accepted((head, body): Response) -> Result<Response, ApiError> {
    if head.status.is_success() {
        return Ok((head, body));
    }
    let body = String::from_utf8_lossy(&body).chars().take(300).collect();
    Err(ApiError::Rejected { status: head.status, body })
}

/// The text of a member that is a string or a number; `None` when it is absent, empty or anything else.
fn text(object: &Object<'_>, name: &str) -> Option<String> {
    let digits = || {
        let json = object.json(name)?;
        json.starts_with(|start: char| start.is_ascii_digit()).then(|| json.to_owned())
    };
    let text = object.text(name).or_else(digits)?;
    (!text.is_empty() && text.len() <= MAX_TEXT_BYTES).then_some(text)
}

impl Function {
    /// Decodes what can be decoded of the response to a registration. Nothing in it is needed to run, so no response is an
    /// error.
    fn read(body: &[u8]) -> Self {
        let response = Object::parse_bytes(body).unwrap_or_default();
        // A number has lost the zeros at its beginning.
        let account = text(&response, "accountId").map(|account| format!("{account:0>12}"));
        Self {
            name: text(&response, "functionName"),
            version: text(&response, "functionVersion"),
            account: account.filter(|id| id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_digit())),
        }
    }
}

impl Event {
    /// Decodes an event. An unknown or invalid event is [`Event::Other`]; it must not end the extension.
    fn read(body: &[u8]) -> Self {
        let event = Object::parse_bytes(body).unwrap_or_default();
        let kind = text(&event, "eventType").unwrap_or_default();
        let deadline_ms =
            || text(&event, "deadlineMs").and_then(|text| text.parse().ok()).unwrap_or_default();
        if kind.eq_ignore_ascii_case("INVOKE") {
            Self::Invoke {
                request_id: text(&event, "requestId").unwrap_or_default(),
                deadline_ms: deadline_ms(),
            }
        } else if kind.eq_ignore_ascii_case("SHUTDOWN") {
            Self::Shutdown { deadline_ms: deadline_ms() }
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
        assert_eq!(Event::read(br#"["SHUTDOWN","r",7]"#), Event::Other);
        let odd = br#"{"eventType":"INVOKE","deadlineMs":"5","requestId":7}"#;
        assert_eq!(Event::read(odd), Event::Invoke { request_id: "7".into(), deadline_ms: 5 });
        let partial = br#"{"eventType":"SHUTDOWN","deadlineMs":null}"#;
        assert_eq!(Event::read(partial), Event::Shutdown { deadline_ms: 0 });
    }

    #[test]
    fn of_a_registration_what_can_be_decoded_is_used() {
        let read = |body: &str| {
            let Function { name, version, account } = Function::read(body.as_bytes());
            [name, version, account].map(Option::unwrap_or_default).join(",")
        };
        let full = r#"{"functionName":"fn","functionVersion":"7","handler":"h","accountId":"012345678901"}"#;
        assert_eq!(read(full), "fn,7,012345678901");
        assert_eq!(read(r#"{"functionName":"fn","accountId":12345678901}"#), "fn,,012345678901");
        assert_eq!(read(r#"{"functionName":["fn"],"functionVersion":7,"accountId":{"id":1}}"#), ",7,");
        assert_eq!(read(r#"{"functionName":"","functionVersion":null,"accountId":"123x"}"#), ",,");
        for body in ["", "{}", "[]", r#"["fn","7"]"#, "null", "<html>", "{\"functionName\":"] {
            assert_eq!(read(body), ",,", "{body}");
        }
        assert_eq!(Function::read(b"\xff"), Function::default());
        assert_eq!(read(&format!(r#"{{"functionName":"{}"}}"#, "f".repeat(600))), ",,");
    }
}
