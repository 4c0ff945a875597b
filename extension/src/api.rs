//! The parts of Lambda's Extensions API that `lambda-extension` does not give: the telemetry subscription
//! with a schema of our choice, and an event loop that survives what the crate's does not.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// Bytes of an event that are read; Lambda's are a few hundred.
const MAX_EVENT_BYTES: usize = 64 * 1024;

/// Pause between tries of a `next` that failed at once, so that a broken API does not cost a whole CPU.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// A client of the API at `AWS_LAMBDA_RUNTIME_API`.
#[derive(Debug)]
pub struct Api {
    base: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// The API could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The request could not be formed: the address or the identifier is not usable.
    #[error("cannot form a request to the extensions API: {0}")]
    Request(#[from] http::Error),
    /// No answer.
    #[error("extensions API does not answer: {0}")]
    Transport(#[from] hyper_util::client::legacy::Error),
}

impl Api {
    /// A client of the API at `address` (`host:port`).
    #[must_use]
    pub fn new(address: &str) -> Self {
        Self { base: format!("http://{address}"), client: Client::builder(TokioExecutor::new()).build_http() }
    }

    /// Asks for telemetry; the status is the whole answer.
    pub(crate) async fn put_telemetry(
        &self,
        extension_id: &str,
        body: String,
    ) -> Result<StatusCode, ApiError> {
        let answer = self.call(Method::PUT, "/2022-07-01/telemetry", extension_id, body.into()).await?;
        Ok(answer.status())
    }

    /// Asks for events and ignores them until SHUTDOWN comes: all that a dormant extension does.
    ///
    /// An extension that ended, or stopped asking, would fail every invocation of its function.
    pub async fn next_until_shutdown(&self, extension_id: &str) {
        loop {
            match self.next_kind(extension_id).await {
                Some(kind) if kind.eq_ignore_ascii_case("SHUTDOWN") => return,
                Some(_) => {}
                None => tokio::time::sleep(RETRY_PAUSE).await,
            }
        }
    }

    /// The kind of the next event; `None` when the API refused or did not answer.
    async fn next_kind(&self, extension_id: &str) -> Option<String> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Kind {
            event_type: String,
        }
        // No timeout: the answer may be hours away, on the other side of a freeze.
        let answer = self
            .call(Method::GET, "/2020-01-01/extension/event/next", extension_id, Bytes::new())
            .await
            .ok()?;
        let body = Limited::new(answer.into_body(), MAX_EVENT_BYTES).collect().await.ok()?.to_bytes();
        serde_json::from_slice::<Kind>(&body).ok().map(|kind| kind.event_type)
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        extension_id: &str,
        body: Bytes,
    ) -> Result<http::Response<Incoming>, ApiError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("Lambda-Extension-Identifier", extension_id)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        Ok(self.client.request(request).await?)
    }
}
