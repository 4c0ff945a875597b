//! Delivering batches to the collector over HTTP or HTTPS.
//!
//! Deliveries happen while a later handler runs and never hold anything up. The connection is kept, and may
//! have died in the freeze: one retry at once on a new one, then back-off.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::response::Parts;
use http::{Request, StatusCode, header};
use http_body_util::Full;
use tokio::time::Instant;

use crate::deliver::outbox::Sealed;
use crate::freeze_timeout;
use crate::net::client::{Client, ClientError};
use crate::net::credentials::{CredentialsError, Provider};
use crate::net::sign::{Scope, ToSign, authorization};
use crate::settings::{ApiKey, Auth, Settings, Variables, function_url_region};
use crate::timestamp;

/// The most one try may take while the environment runs. A network without a route to the collector fails by silence.
const TRY_LIMIT: Duration = Duration::from_secs(5);

/// First pause after a failed delivery; it doubles with every further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Longest pause. While it lasts the collector is left alone: this is the circuit breaker.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Carries the collector's key where `Authorization` carries a signature.
const KEY_HEADER: &str = "x-tailor-api-key";

/// Delivers batches to one collector.
#[derive(Debug)]
pub struct Shipper {
    client: Client,
    key: Option<ApiKey>,
    signer: Option<Signer>,
    /// The most one try may take.
    try_limit: Cell<Duration>,
    failures: Cell<u32>,
    /// Tries since the last delivery that was answered.
    failed_tries: Cell<u32>,
    not_before: Cell<Option<Instant>>,
}

/// Signs for a Lambda function URL.
#[derive(Debug)]
struct Signer {
    provider: Provider,
    region: String,
}

/// Nothing can be delivered with these settings.
#[derive(Debug, thiserror::Error)]
pub enum ShipperError {
    /// No collector is named.
    #[error("TAILOR_ENDPOINT is not set")]
    NoEndpoint,
    /// Signatures are for one region.
    #[error("signing for TAILOR_ENDPOINT needs AWS_REGION: it is not a function URL that names its region")]
    NoRegion,
    /// There is nothing to sign with.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// A request that could not be made.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error(transparent)]
    Form(#[from] ClientError),
    #[error("cannot sign: {0}")]
    Credentials(#[from] CredentialsError),
}

impl From<http::Error> for RequestError {
    fn from(error: http::Error) -> Self {
        Self::Form(error.into())
    }
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The collector has everything up to this sequence on disk.
    Acknowledged(u64),
    /// The collector will never take this batch.
    Refused,
    /// Try again later.
    Failed,
}

impl Shipper {
    /// A shipper to the collector that the settings name.
    ///
    /// # Errors
    /// [`ShipperError`] when there is none, or when it must be signed for and cannot be.
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
            client: Client::new(endpoint).trusting(settings.ca_file.clone()),
            key: settings.api_key.clone(),
            signer,
            try_limit: Cell::new(TRY_LIMIT),
            failures: Cell::new(0),
            failed_tries: Cell::new(0),
            not_before: Cell::new(None),
        })
    }

    /// Whether a delivery may be tried now, or the last failure is too recent.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.not_before.get().is_none_or(|not_before| Instant::now() >= not_before)
    }

    /// From now on a try may take `limit` at most: the environment ends.
    pub fn limit_tries(&self, limit: Duration) {
        self.try_limit.set(limit.min(TRY_LIMIT));
    }

    /// Delivers one batch, trying a second time at once when the first try found no living connection; an
    /// answer, or none in time, is not tried again at once.
    pub async fn deliver(&self, batch: &Sealed) -> Delivery {
        let delivery = match self.try_once(batch).await {
            Some(delivery) => delivery,
            None => self.try_once(batch).await.unwrap_or(Delivery::Failed),
        };
        if delivery == Delivery::Failed {
            let failures = self.failures.get();
            let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(6)).min(LONGEST_PAUSE);
            self.failures.set(failures.saturating_add(1));
            self.not_before.set(Some(Instant::now() + pause));
        } else {
            self.failures.set(0);
            self.failed_tries.set(0);
            self.not_before.set(None);
        }
        delivery
    }

    /// `None` when the connection broke before an answer: it may have died in the freeze.
    async fn try_once(&self, batch: &Sealed) -> Option<Delivery> {
        let collector = self.client.host();
        let exchange = async {
            let request = self.request(batch, unix_s()).await?;
            Ok::<_, RequestError>(self.client.exchange(request).await?)
        };
        let limit = self.try_limit.get();
        match freeze_timeout::within(limit, exchange).await {
            Some(Ok((head, body))) => Some(self.judge(&head, &body, batch.sequence)),
            Some(Err(RequestError::Form(error))) => {
                self.complain(&error);
                None
            }
            Some(Err(error)) => {
                tracing::error!(collector, %error, "delivery failed");
                Some(Delivery::Failed)
            }
            None => {
                self.complain(&format_args!("no answer within {limit:?}"));
                Some(Delivery::Failed)
            }
        }
    }

    /// Says what went wrong: loud when an outage begins, since somebody has to know of a wrong port or certificate;
    /// while it lasts, only to those who want to hear everything. A connection that died in the freeze is no outage
    /// yet: it takes two failed tries to be one.
    fn complain(&self, error: &impl std::fmt::Display) {
        let collector = self.client.host();
        let tries = self.failed_tries.get();
        self.failed_tries.set(tries.saturating_add(1));
        if tries == 1 {
            tracing::warn!(collector, %error, "delivery failed: trying again from time to time");
        } else {
            tracing::info!(collector, %error, "delivery failed");
        }
    }

    async fn request(&self, batch: &Sealed, now_s: u64) -> Result<Request<Full<Bytes>>, RequestError> {
        let request = self
            .client
            .request("POST", agent_proto::BATCHES_PATH)
            .header(header::CONTENT_TYPE, agent_proto::CONTENT_TYPE);
        let mut request = request.body(Full::new(Bytes::from(batch.bytes.clone())))?;
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

    /// What an answer means for the batch of that sequence.
    fn judge(&self, head: &Parts, body: &[u8], sequence: u64) -> Delivery {
        if let Some(signer) = &self.signer
            && head.status == StatusCode::FORBIDDEN
        {
            // Credentials expire, clocks are off after a thaw, and permissions are given later.
            signer.provider.forget();
            // The kind alone: what AWS says further on may quote what was signed, the session's token included.
            let kind = head.headers.get("x-amzn-errortype").and_then(|kind| kind.to_str().ok());
            tracing::error!(
                kind,
                "AWS refuses the signature: the function's role needs lambda:InvokeFunctionUrl and lambda:InvokeFunction on the collector"
            );
            return Delivery::Failed;
        }
        judge(head.status, body, sequence)
    }
}

/// Seconds since the Unix epoch.
fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// What the collector says of an error. Nothing of an answer in any other form: proxies quote requests, and the key
/// is in them.
fn said(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Answer {
        error: Said,
    }
    #[derive(serde::Deserialize)]
    struct Said {
        message: String,
    }
    let Answer { error } = serde_json::from_slice(body).ok()?;
    Some(error.message.chars().take(200).collect())
}

/// Only an overloaded or restarting collector is worth asking again; all else stays as it is.
fn judge(status: StatusCode, body: &[u8], sequence: u64) -> Delivery {
    match status {
        StatusCode::OK => match agent_proto::batch::decode_ack(body) {
            Ok(ack) if ack.durable_sequence >= sequence => Delivery::Acknowledged(ack.durable_sequence),
            _ => {
                tracing::warn!("the endpoint answers, but not as a collector does: check TAILOR_ENDPOINT");
                Delivery::Failed
            }
        },
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => {
            tracing::info!(%status, "the collector asks to try again later");
            Delivery::Failed
        }
        _ => {
            let said = said(body);
            tracing::error!(%status, said, "the collector refuses the batch: check TAILOR_ENDPOINT and the API key");
            Delivery::Refused
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::net::client::tests::on_one_thread;

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for (status, expected) in [
            (StatusCode::SERVICE_UNAVAILABLE, Delivery::Failed),
            (StatusCode::TOO_MANY_REQUESTS, Delivery::Failed),
            (StatusCode::UNAUTHORIZED, Delivery::Refused),
            (StatusCode::BAD_REQUEST, Delivery::Refused),
            (StatusCode::INTERNAL_SERVER_ERROR, Delivery::Refused),
        ] {
            assert_eq!(judge(status, b"{}", 7), expected, "{status}");
        }
        assert_eq!(judge(StatusCode::OK, b"<html>", 7), Delivery::Failed);
        // Field 1, varint 7.
        assert_eq!(judge(StatusCode::OK, &[0x08, 7], 7), Delivery::Acknowledged(7));
        assert_eq!(judge(StatusCode::OK, &[0x08, 7], 8), Delivery::Failed);
        assert_eq!(judge(StatusCode::OK, b"", 1), Delivery::Failed, "many a server answers so");
    }

    #[test]
    fn only_the_collectors_own_words_are_repeated() {
        let error = br#"{"error":{"code":"unauthorized","message":"the key is not known"}}"#;
        assert_eq!(said(error).as_deref(), Some("the key is not known"));
        assert_eq!(said(br#"{"headers":{"authorization":"Bearer s3cret"}}"#), None);
        assert_eq!(said(b"no such route; you sent Bearer s3cret"), None);
    }

    #[test]
    fn a_signed_request_carries_the_key_beside_the_signature() {
        let variables = HashMap::from([
            ("TAILOR_ENDPOINT", "https://abc.lambda-url.eu-west-1.on.aws"),
            ("TAILOR_API_KEY", "collector-key"),
            ("TAILOR_AUTH", "iam"),
            ("AWS_ACCESS_KEY_ID", "AKID"),
            ("AWS_SECRET_ACCESS_KEY", "s3cret"),
            ("AWS_SESSION_TOKEN", "t0ken"),
        ]);
        let shipper = Shipper::new(&Settings::read(&variables).0, &variables).unwrap();
        let batch = Sealed::of(1, vec![1, 2, 3]);
        let request = on_one_thread(shipper.request(&batch, 1_440_938_160)).unwrap();
        let header = |name: &str| request.headers()[name].to_str().unwrap();
        assert_eq!((header("x-tailor-api-key"), header("x-amz-security-token")), ("collector-key", "t0ken"));
        assert_eq!(header("x-amz-date"), "20150830T123600Z");
        let signed = header("authorization");
        assert!(signed.contains("AKID/20150830/eu-west-1/lambda/aws4_request"), "{signed}");
        assert!(signed.contains("SignedHeaders=content-type;host;x-amz-date;x-amz-security-token,"));
        let shown = format!("{shipper:?} {request:?}");
        assert!(!["s3cret", "t0ken", "collector-key"].iter().any(|secret| shown.contains(secret)), "{shown}");
        // A permission that is given later must not have cost the batch.
        let (head, ()) = http::Response::builder().status(403).body(()).unwrap().into_parts();
        assert_eq!(shipper.judge(&head, b"{}", 1), Delivery::Failed);
    }

    #[test]
    fn what_cannot_be_signed_for_is_said() {
        let said = |variables: &[(&'static str, &'static str)]| {
            let variables: HashMap<_, _> = variables.iter().copied().collect();
            Shipper::new(&Settings::read(&variables).0, &variables).unwrap_err().to_string()
        };
        let url = ("TAILOR_ENDPOINT", "https://abc.lambda-url.eu-west-1.on.aws");
        assert!(said(&[]).contains("TAILOR_ENDPOINT"));
        assert!(said(&[url]).contains("AWS_ACCESS_KEY_ID"));
        let keys = [("AWS_ACCESS_KEY_ID", "A"), ("AWS_SECRET_ACCESS_KEY", "S"), ("TAILOR_AUTH", "iam")];
        assert!(
            said(&[("TAILOR_ENDPOINT", "https://x.example"), keys[0], keys[1], keys[2]])
                .contains("AWS_REGION")
        );
    }
}
