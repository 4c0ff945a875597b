//! Delivers batches to the collector over HTTP or HTTPS.
//!
//! A delivery runs while a later invocation runs, and nothing waits for it. The connection is kept. It may have broken
//! during the freeze, so a broken connection is replaced once at once. After that, [`Backoff`] decides.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::response::Parts;
use http::{Request, StatusCode, Uri, header};
use http_body_util::Full;

use super::backoff::{Backoff, parse_retry_after};
use super::outbox::SealedBatch;
use super::stored_key::StoredKey;
use crate::clock::unix_s;
use crate::freeze_timeout;
use crate::json::Object;
use crate::net::client::{Client, ClientError, Response};
use crate::net::credentials::{CredentialsError, Provider};
use crate::net::proxy::proxy_for;
use crate::net::sign::{insert_secret, sign_request};
use crate::settings::{ApiKey, Auth, ProcessVariables, Settings, Variables, function_url_region};

/// The longest time for one try while the environment runs. Without a route to the collector there is no response at all.
const TRY_TIMEOUT: Duration = Duration::from_secs(5);

/// The header for the collector's key when `Authorization` has a signature.
const KEY_HEADER: &str = "x-tailor-api-key";

/// The pause after the first time that the collector rejects a stored key, or that AWS does not return it. It doubles each
/// time, up to the limit of [`Backoff`]: each read has a price, and a person must act first.
const FIRST_KEY_PAUSE: Duration = Duration::from_secs(30);

/// What to do without a route.
const ROUTE_ADVICE: &str =
    "A function in a VPC needs a NAT gateway, a collector in the VPC, or a proxy (HTTPS_PROXY)";

/// What to do without a route to the service that stores the key.
const KEY_ROUTE_ADVICE: &str =
    "A function in a VPC needs a NAT gateway, a VPC endpoint of the service, or a proxy (HTTPS_PROXY)";

/// Delivers batches to one collector.
#[derive(Debug)]
pub struct Shipper {
    client: Client,
    key: Key,
    signer: Option<Signer>,
    /// The longest time for one try.
    try_timeout: Cell<Duration>,
    backoff: Backoff,
    /// Tries without a response since the last response.
    failed_tries: Cell<u32>,
    /// How often in a row the stored key could not be used.
    key_failures: Cell<u32>,
}

/// The collector's key.
#[derive(Debug)]
enum Key {
    None,
    Known(ApiKey),
    Stored(Box<StoredKey>),
}

/// The end of one attempt to send a request to the collector.
enum Attempt<T> {
    /// There is a result.
    Ended(T),
    /// The connection could not be made, or it ended before the response, as after a freeze.
    NoResponse,
    /// The collector rejected the stored key.
    KeyRejected,
}

/// Signs requests to a Lambda function URL.
#[derive(Debug)]
struct Signer {
    provider: Rc<Provider>,
    region: String,
}

/// Why these settings do not allow deliveries.
#[derive(Debug, thiserror::Error)]
pub enum ShipperError {
    /// There is no collector.
    #[error("TAILOR_ENDPOINT is not set")]
    NoEndpoint,
    /// The stored key needs a region and a valid endpoint.
    #[error("{0} is missing or invalid: it is needed to read the API key")]
    StoredKey(&'static str),
    /// A signature needs a region.
    #[error("TAILOR_ENDPOINT is not a Lambda function URL with a region: set AWS_REGION to sign requests")]
    NoRegion,
    /// There are no credentials to sign with.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// Why there is no response.
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
        /// The time that the collector requires to wait.
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
        let uses_aws = settings.auth == Auth::Iam || settings.key_location.is_some();
        let provider = if uses_aws { Some(Rc::new(Provider::read(variables)?)) } else { None };
        let signer = match provider.as_ref().filter(|_| settings.auth == Auth::Iam) {
            None => None,
            Some(provider) => Some(Signer {
                provider: Rc::clone(provider),
                region: function_url_region(endpoint)
                    .map(Into::into)
                    .or_else(|| variables.get("AWS_REGION"))
                    .ok_or(ShipperError::NoRegion)?,
            }),
        };
        let key = match (&settings.api_key, &settings.key_location, provider) {
            (Some(key), _, _) => Key::Known(key.clone()),
            (None, Some(location), Some(provider)) => {
                let stored = StoredKey::new(location.clone(), provider, variables);
                Key::Stored(Box::new(stored.map_err(ShipperError::StoredKey)?))
            }
            (None, _, _) => Key::None,
        };
        Ok(Self {
            client: Client::new(endpoint)
                .with_ca_file(settings.ca_file.clone())
                .with_proxy(proxy_for(endpoint, variables)),
            key,
            signer,
            try_timeout: Cell::new(TRY_TIMEOUT),
            backoff: Backoff::default(),
            failed_tries: Cell::new(0),
            key_failures: Cell::new(0),
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

    /// Makes an attempt, and a second one at once when there was no response, or when the collector rejected a stored key,
    /// which may have been replaced.
    async fn attempt_twice<T>(&self, attempt: impl AsyncFn() -> Attempt<T>) -> Attempt<T> {
        match (attempt().await, &self.key) {
            (ended @ Attempt::Ended(_), _) => return ended,
            (Attempt::KeyRejected, Key::Stored(stored)) => stored.discard(),
            _ => {}
        }
        attempt().await
    }

    /// Delivers one batch, in at most two attempts.
    pub async fn deliver(&self, batch: &SealedBatch) -> DeliveryOutcome {
        let outcome = match self.attempt_twice(async || self.attempt_delivery(batch).await).await {
            Attempt::Ended(outcome) => outcome,
            Attempt::NoResponse => DeliveryOutcome::FAILED,
            Attempt::KeyRejected => {
                let error = "the collector rejected the key that the secret or parameter contains: store its key there";
                self.stored_key_failed(&error)
            }
        };
        if let DeliveryOutcome::Failed { retry_after } = outcome {
            self.backoff.record_failure(retry_after);
        } else {
            self.backoff.record_success();
            self.failed_tries.set(0);
            self.key_failures.set(0);
        }
        outcome
    }

    async fn attempt_delivery(&self, batch: &SealedBatch) -> Attempt<DeliveryOutcome> {
        let collector = self.client.host();
        let limit = self.try_timeout.get();
        let key = match self.read_key(limit).await {
            Ok(key) => key,
            Err(outcome) => return Attempt::Ended(outcome),
        };
        let exchange =
            self.exchange(agent_proto::BATCHES_PATH, agent_proto::CONTENT_TYPE, &batch.bytes, key.as_ref());
        let advice = || self.client.may_lack_route().then_some(ROUTE_ADVICE);
        match freeze_timeout::within(limit, exchange).await {
            Some(Ok((head, _))) if self.rejects_stored_key(&head) => Attempt::KeyRejected,
            Some(Ok((head, body))) => Attempt::Ended(self.outcome(&head, &body, batch.sequence)),
            Some(Err(RequestError::Client(error))) => {
                self.log_failure(&error, advice());
                Attempt::NoResponse
            }
            Some(Err(error)) => {
                tracing::error!(collector, %error, "delivery failed");
                Attempt::Ended(DeliveryOutcome::FAILED)
            }
            None => {
                let missing = if self.client.may_lack_route() { "connection" } else { "response" };
                self.log_failure(&format_args!("no {missing} within {limit:?}"), advice());
                Attempt::Ended(DeliveryOutcome::FAILED)
            }
        }
    }

    /// The key for a try. Reads a stored key within `limit`. The error is the outcome of the delivery.
    async fn read_key(&self, limit: Duration) -> Result<Option<ApiKey>, DeliveryOutcome> {
        let stored = match &self.key {
            Key::None => return Ok(None),
            Key::Known(key) => return Ok(Some(key.clone())),
            Key::Stored(stored) => stored,
        };
        let advice = || stored.may_lack_route().then_some(KEY_ROUTE_ADVICE);
        match freeze_timeout::within(limit, stored.current(unix_s())).await {
            Some(Ok(key)) => Ok(Some(key)),
            Some(Err(error)) if error.is_temporary() => {
                self.log_failure(&error, advice());
                Err(DeliveryOutcome::FAILED)
            }
            Some(Err(error)) => Err(self.stored_key_failed(&error)),
            None => {
                let variable = stored.variable();
                let error =
                    format_args!("cannot read the key that {variable} names: no response within {limit:?}");
                self.log_failure(&error, advice());
                Err(DeliveryOutcome::FAILED)
            }
        }
    }

    /// The stored key cannot be used until a person acts. Logged once.
    fn stored_key_failed(&self, error: &impl std::fmt::Display) -> DeliveryOutcome {
        let failures = self.key_failures.get();
        self.key_failures.set(failures.saturating_add(1));
        if failures == 0 {
            tracing::error!("{error}");
        } else {
            tracing::info!("{error}");
        }
        DeliveryOutcome::Failed { retry_after: Some(FIRST_KEY_PAUSE.saturating_mul(1 << failures.min(6))) }
    }

    /// Logs a try without a response. The second in a row is a warning, because then the port, the certificate or the
    /// route may be wrong. The first may be a connection that broke during the freeze. The later ones repeat the second.
    fn log_failure(&self, error: &impl std::fmt::Display, advice: Option<&str>) {
        let collector = self.client.host();
        let tries = self.failed_tries.get();
        self.failed_tries.set(tries.saturating_add(1));
        if tries == 1 {
            let (separator, advice) = advice.map_or(("", ""), |advice| (". ", advice));
            tracing::warn!(collector, %error, "delivery failed: it will be retried{separator}{advice}");
        } else {
            tracing::info!(collector, %error, "delivery failed");
        }
    }

    /// Whether the head of a response rejects a key that AWS stores.
    fn rejects_stored_key(&self, head: &Parts) -> bool {
        head.status == StatusCode::UNAUTHORIZED && matches!(self.key, Key::Stored(_))
    }

    /// Sends JSON to a path of the collector, in at most two attempts; `None` without a response.
    pub(crate) async fn post(&self, path: &str, json: String) -> Option<Response> {
        let json = Bytes::from(json);
        match self.attempt_twice(async || self.attempt_post(path, &json).await).await {
            Attempt::Ended(response) => response,
            Attempt::NoResponse | Attempt::KeyRejected => None,
        }
    }

    /// The result is `None` when there is no key, or no response in time.
    async fn attempt_post(&self, path: &str, json: &Bytes) -> Attempt<Option<Response>> {
        let limit = self.try_timeout.get();
        let Ok(key) = self.read_key(limit).await else { return Attempt::Ended(None) };
        let exchange = self.exchange(path, "application/json", json, key.as_ref());
        match freeze_timeout::within(limit, exchange).await {
            Some(Ok((head, _))) if self.rejects_stored_key(&head) => Attempt::KeyRejected,
            Some(Ok(response)) => Attempt::Ended(Some(response)),
            Some(Err(_)) => Attempt::NoResponse,
            None => Attempt::Ended(None),
        }
    }

    /// Whether `url`, which the collector sent, is as secure as the collector's own.
    pub(crate) fn permits(&self, url: &Uri) -> bool {
        match url.scheme_str() {
            Some("https") => true,
            Some("http") => !self.client.is_https(),
            _ => false,
        }
    }

    /// A client of the server of `url`, with the same trust.
    pub(crate) fn client_of(&self, url: &Uri) -> Client {
        self.client.of_server(url).with_proxy(proxy_for(url, &ProcessVariables))
    }

    async fn exchange(
        &self,
        path: &str,
        content_type: &'static str,
        body: &Bytes,
        key: Option<&ApiKey>,
    ) -> Result<Response, RequestError> {
        let request = self.request(path, content_type, body, key, unix_s()).await?;
        Ok(self.client.exchange(request).await?)
    }

    async fn request(
        &self,
        path: &str,
        content_type: &'static str,
        body: &Bytes,
        key: Option<&ApiKey>,
        now_s: u64,
    ) -> Result<Request<Full<Bytes>>, RequestError> {
        let request = self.client.request("POST", path).header(header::CONTENT_TYPE, content_type);
        let mut request = request.body(Full::new(body.clone()))?;
        let Some(signer) = &self.signer else {
            if let Some(key) = key {
                let bearer = format!("Bearer {}", key.secret_value());
                insert_secret(request.headers_mut(), "authorization", &bearer)?;
            }
            return Ok(request);
        };
        if let Some(key) = key {
            insert_secret(request.headers_mut(), KEY_HEADER, key.secret_value())?;
        }
        let credentials = signer.provider.current(now_s.saturating_mul(1_000_000)).await?;
        sign_request(&mut request, body, &signer.region, "lambda", &credentials, now_s)?;
        Ok(request)
    }

    /// What a response means for the batch with that sequence.
    fn outcome(&self, head: &Parts, body: &[u8], sequence: u64) -> DeliveryOutcome {
        if let Some(signer) = &self.signer
            && head.status == StatusCode::FORBIDDEN
        {
            // The credentials may have expired, the clock may be wrong after a thaw, or the permission may be missing.
            signer.provider.discard();
            // Only the error type: the rest of AWS's response may quote the signed request with the session token.
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

/// The message of the collector's error body. `None` for any other body: a proxy may quote the request with the key.
fn error_message(body: &[u8]) -> Option<String> {
    let message = Object::parse_bytes(body)?.object("error").text("message")?;
    Some(message.chars().take(200).collect())
}

/// The outcome by status. Statuses of a collector, or of a server before it, that is overloaded, restarting or faulty are
/// temporary. Any other rejection is final.
fn outcome_of(status: StatusCode, body: &[u8], sequence: u64) -> DeliveryOutcome {
    match status {
        StatusCode::OK => match agent_proto::batch::decode_ack(body) {
            Ok(ack) if ack.durable_sequence >= sequence => {
                DeliveryOutcome::Acknowledged(ack.durable_sequence)
            }
            _ => {
                tracing::warn!(
                    "the endpoint responded with 200 without an acknowledgement: check TAILOR_ENDPOINT"
                );
                DeliveryOutcome::FAILED
            }
        },
        _ if status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429) => {
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
