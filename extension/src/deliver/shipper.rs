//! Delivers batches to the collector over HTTP or HTTPS.
//!
//! A delivery runs while a later invocation runs, and nothing waits for it. The connection is kept. It may have broken
//! during the freeze, so a broken connection is replaced once at once. After that, [`Backoff`] decides.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::response::Parts;
use http::{Request, StatusCode, header};
use http_body_util::Full;

use super::backoff::{Backoff, parse_retry_after};
use super::outbox::SealedBatch;
use crate::freeze_timeout;
use crate::net::client::{Client, ClientError};
use crate::net::credentials::{CredentialsError, Provider};
use crate::net::proxy::proxy_for;
use crate::net::sign::{Scope, ToSign, authorization};
use crate::settings::{ApiKey, Auth, Settings, Variables, function_url_region};
use crate::timestamp;

/// The longest time for one try while the environment runs. Without a route to the collector there is no answer at all.
const TRY_TIMEOUT: Duration = Duration::from_secs(5);

/// The header for the collector's key when `Authorization` has a signature.
const KEY_HEADER: &str = "x-tailor-api-key";

/// Delivers batches to one collector.
#[derive(Debug)]
pub struct Shipper {
    client: Client,
    key: Option<ApiKey>,
    signer: Option<Signer>,
    /// The longest time for one try.
    try_timeout: Cell<Duration>,
    backoff: Backoff,
    /// Tries without an answer since the last answer.
    failed_tries: Cell<u32>,
}

/// Signs requests to a Lambda function URL.
#[derive(Debug)]
struct Signer {
    provider: Provider,
    region: String,
}

/// Why these settings do not allow deliveries.
#[derive(Debug, thiserror::Error)]
pub enum ShipperError {
    /// There is no collector.
    #[error("TAILOR_ENDPOINT is not set")]
    NoEndpoint,
    /// A signature needs a region.
    #[error("TAILOR_ENDPOINT is not a Lambda function URL with a region: set AWS_REGION to sign requests")]
    NoRegion,
    /// There are no credentials to sign with.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot sign the request: {0}")]
    Credentials(#[from] CredentialsError),
}

impl From<http::Error> for RequestError {
    fn from(error: http::Error) -> Self {
        Self::Client(error.into())
    }
}

/// The result of one delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// The collector has every batch up to this sequence on disk.
    Acknowledged(u64),
    /// The collector will never accept this batch.
    Rejected,
    /// The delivery can be tried again.
    Failed {
        /// The time that the collector asks to wait.
        retry_after: Option<Duration>,
    },
}

impl DeliveryOutcome {
    /// A failure without a `Retry-After` header.
    const FAILED: Self = Self::Failed { retry_after: None };
}

impl Shipper {
    /// A shipper to the collector of the settings.
    ///
    /// # Errors
    /// [`ShipperError`] when there is no collector, or when requests must be signed and cannot be.
    pub fn new(settings: &Settings, variables: &impl Variables) -> Result<Self, ShipperError> {
        let endpoint = settings.endpoint.as_ref().ok_or(ShipperError::NoEndpoint)?;
        let signer = match settings.auth {
            Auth::Key => None,
            Auth::Iam => Some(Signer {
                provider: Provider::read(variables)?,
                region: function_url_region(endpoint)
                    .map(Into::into)
                    .or_else(|| variables.get("AWS_REGION"))
                    .ok_or(ShipperError::NoRegion)?,
            }),
        };
        Ok(Self {
            client: Client::new(endpoint)
                .trusting(settings.ca_file.clone())
                .through(proxy_for(endpoint, variables)),
            key: settings.api_key.clone(),
            signer,
            try_timeout: Cell::new(TRY_TIMEOUT),
            backoff: Backoff::default(),
            failed_tries: Cell::new(0),
        })
    }

    /// Whether a delivery may be tried now; `false` during the pause after a failure.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.backoff.is_ready()
    }

    /// Limits the time of each further try, for the end of the environment.
    pub fn limit_tries(&self, limit: Duration) {
        self.try_timeout.set(limit.min(TRY_TIMEOUT));
    }

    /// Delivers one batch. Tries a second time at once when the connection broke before an answer.
    pub async fn deliver(&self, batch: &SealedBatch) -> DeliveryOutcome {
        let outcome = match self.try_once(batch).await {
            Some(outcome) => outcome,
            None => self.try_once(batch).await.unwrap_or(DeliveryOutcome::FAILED),
        };
        if let DeliveryOutcome::Failed { retry_after } = outcome {
            self.backoff.record_failure(retry_after);
        } else {
            self.backoff.record_success();
            self.failed_tries.set(0);
        }
        outcome
    }

    /// `None` when the connection broke before an answer, as after a freeze.
    async fn try_once(&self, batch: &SealedBatch) -> Option<DeliveryOutcome> {
        let collector = self.client.host();
        let exchange = async {
            let request = self.request(batch, unix_s()).await?;
            Ok::<_, RequestError>(self.client.exchange(request).await?)
        };
        let limit = self.try_timeout.get();
        match freeze_timeout::within(limit, exchange).await {
            Some(Ok((head, body))) => Some(self.outcome(&head, &body, batch.sequence)),
            Some(Err(RequestError::Client(error))) => {
                self.log_failure(&error);
                None
            }
            Some(Err(error)) => {
                tracing::error!(collector, %error, "delivery failed");
                Some(DeliveryOutcome::FAILED)
            }
            None => {
                let missing = if self.client.may_lack_route() { "connection" } else { "answer" };
                self.log_failure(&format_args!("no {missing} within {limit:?}"));
                Some(DeliveryOutcome::FAILED)
            }
        }
    }

    /// Logs a try without an answer. The second in a row is a warning, because then the port, the certificate or the
    /// route may be wrong. The first may be a connection that broke during the freeze. The later ones repeat the second.
    fn log_failure(&self, error: &impl std::fmt::Display) {
        let collector = self.client.host();
        let tries = self.failed_tries.get();
        self.failed_tries.set(tries.saturating_add(1));
        if tries == 1 && self.client.may_lack_route() {
            tracing::warn!(
                collector,
                %error,
                "delivery failed: it will be retried. A function in a VPC needs a NAT gateway, a collector in the VPC, or a proxy (HTTPS_PROXY)"
            );
        } else if tries == 1 {
            tracing::warn!(collector, %error, "delivery failed: it will be retried");
        } else {
            tracing::info!(collector, %error, "delivery failed");
        }
    }

    async fn request(&self, batch: &SealedBatch, now_s: u64) -> Result<Request<Full<Bytes>>, RequestError> {
        let request = self
            .client
            .request("POST", agent_proto::BATCHES_PATH)
            .header(header::CONTENT_TYPE, agent_proto::CONTENT_TYPE);
        let mut request = request.body(Full::new(batch.bytes.clone()))?;
        let path = request.uri().path().to_owned();
        let mut set = |name: &'static str, value: &str| {
            let mut value = header::HeaderValue::try_from(value).map_err(http::Error::from)?;
            value.set_sensitive(true);
            request.headers_mut().insert(name, value);
            Ok::<_, http::Error>(())
        };
        let Some(signer) = &self.signer else {
            if let Some(key) = &self.key {
                set("authorization", &format!("Bearer {}", key.expose()))?;
            }
            return Ok(request);
        };
        if let Some(key) = &self.key {
            set(KEY_HEADER, key.expose())?;
        }
        let credentials = signer.provider.current(now_s.saturating_mul(1_000_000)).await?;
        let time = timestamp::basic_format(now_s);
        set("x-amz-date", &time)?;
        let mut headers = vec![
            ("content-type", agent_proto::CONTENT_TYPE),
            ("host", self.client.host()),
            ("x-amz-date", &time),
        ];
        if let Some(token) = credentials.session_token() {
            set("x-amz-security-token", token)?;
            headers.push(("x-amz-security-token", token));
        }
        let to_sign = ToSign { method: "POST", path: &path, headers: &headers, body: &batch.bytes };
        let scope = Scope { time: &time, region: &signer.region, service: "lambda" };
        set("authorization", &authorization(&to_sign, &scope, &credentials))?;
        Ok(request)
    }

    /// What an answer means for the batch with that sequence.
    fn outcome(&self, head: &Parts, body: &[u8], sequence: u64) -> DeliveryOutcome {
        if let Some(signer) = &self.signer
            && head.status == StatusCode::FORBIDDEN
        {
            // The credentials may have expired, the clock may be wrong after a thaw, or the permission may be missing.
            signer.provider.forget();
            // Only the error type: the rest of AWS's answer may quote the signed request with the session token.
            let error_type = head.headers.get("x-amzn-errortype").and_then(|kind| kind.to_str().ok());
            tracing::error!(
                error_type,
                "AWS rejected the signature: allow lambda:InvokeFunctionUrl and lambda:InvokeFunction on the collector in the function's role"
            );
            return DeliveryOutcome::FAILED;
        }
        match outcome_of(head.status, body, sequence) {
            DeliveryOutcome::Failed { .. } => DeliveryOutcome::Failed { retry_after: retry_after(head) },
            outcome => outcome,
        }
    }
}

fn retry_after(head: &Parts) -> Option<Duration> {
    parse_retry_after(head.headers.get(header::RETRY_AFTER)?.to_str().ok()?, unix_s())
}

/// Seconds since the Unix epoch.
fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The message of the collector's error body. `None` for any other body: a proxy may quote the request with the key.
fn error_message(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Body {
        error: Error,
    }
    #[derive(serde::Deserialize)]
    struct Error {
        message: String,
    }
    let Body { error } = serde_json::from_slice(body).ok()?;
    Some(error.message.chars().take(200).collect())
}

/// The outcome by status. Only an overloaded or restarting collector is worth another try; any other refusal is final.
fn outcome_of(status: StatusCode, body: &[u8], sequence: u64) -> DeliveryOutcome {
    match status {
        StatusCode::OK => match agent_proto::batch::decode_ack(body) {
            Ok(ack) if ack.durable_sequence >= sequence => {
                DeliveryOutcome::Acknowledged(ack.durable_sequence)
            }
            _ => {
                tracing::warn!("the endpoint answered 200 without an acknowledgement: check TAILOR_ENDPOINT");
                DeliveryOutcome::FAILED
            }
        },
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => {
            tracing::info!(%status, "the collector is not available: the batch will be sent again");
            DeliveryOutcome::FAILED
        }
        _ => {
            let message = error_message(body);
            tracing::error!(%status, message, "the collector rejected the batch: check TAILOR_ENDPOINT and the API key");
            DeliveryOutcome::Rejected
        }
    }
}

#[cfg(test)]
mod tests;
