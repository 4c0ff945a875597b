//! Delivering batches to the collector over HTTP or HTTPS.
//!
//! Deliveries happen while a later handler runs and never hold anything up. The connection is kept, and may
//! have died in the freeze: one retry at once on a new one, then back-off.

use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::Full;
use tokio::time::{Instant, timeout};

use crate::client::Client;
use crate::outbox::Sealed;
use crate::settings::ApiKey;

/// The most one try may take. A network without a route to the collector fails by silence.
const TRY_LIMIT: Duration = Duration::from_secs(5);

/// First pause after a failed delivery; it doubles with every further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Longest pause. While it lasts the collector is left alone: this is the circuit breaker.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Delivers batches to one collector.
#[derive(Debug)]
pub struct Shipper {
    client: Client,
    key: Option<ApiKey>,
    failures: Cell<u32>,
    not_before: Cell<Option<Instant>>,
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
    /// A shipper to the collector at `endpoint`.
    #[must_use]
    pub fn new(endpoint: &Uri, key: Option<ApiKey>) -> Self {
        let client = Client::new(endpoint);
        Self { client, key, failures: Cell::new(0), not_before: Cell::new(None) }
    }

    /// Whether a delivery may be tried now, or the last failure is too recent.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.not_before.get().is_none_or(|not_before| Instant::now() >= not_before)
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
            self.not_before.set(None);
        }
        delivery
    }

    /// `None` when the connection broke before an answer: it may have died in the freeze.
    async fn try_once(&self, batch: &Sealed) -> Option<Delivery> {
        let Ok(request) = self.request(batch) else { return Some(Delivery::Refused) };
        let collector = self.client.host();
        match timeout(TRY_LIMIT, self.client.exchange(request)).await {
            Ok(Ok((head, body))) => Some(judge(head.status, &body)),
            Ok(Err(error)) => {
                tracing::info!(collector, %error, "delivery failed");
                None
            }
            Err(_) => {
                tracing::info!(collector, "delivery took longer than {TRY_LIMIT:?}");
                Some(Delivery::Failed)
            }
        }
    }

    fn request(&self, batch: &Sealed) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut request = self
            .client
            .request("POST", agent_proto::BATCHES_PATH)
            .header(header::CONTENT_TYPE, agent_proto::CONTENT_TYPE);
        if let Some(key) = &self.key {
            let mut value = header::HeaderValue::try_from(format!("Bearer {}", key.expose()))?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        request.body(Full::new(Bytes::from(batch.bytes.clone())))
    }
}

/// Only an overloaded or restarting collector is worth asking again; all else stays as it is.
fn judge(status: StatusCode, body: &[u8]) -> Delivery {
    match status {
        StatusCode::OK => match agent_proto::batch::decode_ack(body) {
            Ok(ack) => Delivery::Acknowledged(ack.durable_sequence),
            Err(error) => {
                tracing::warn!(%error, "the endpoint answers, but not as a collector does");
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
            let said: String = String::from_utf8_lossy(body).chars().take(200).collect();
            tracing::error!(%status, said, "the collector refuses the batch: check TAILOR_ENDPOINT and the API key");
            Delivery::Refused
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for (status, expected) in [
            (StatusCode::SERVICE_UNAVAILABLE, Delivery::Failed),
            (StatusCode::TOO_MANY_REQUESTS, Delivery::Failed),
            (StatusCode::UNAUTHORIZED, Delivery::Refused),
            (StatusCode::BAD_REQUEST, Delivery::Refused),
            (StatusCode::INTERNAL_SERVER_ERROR, Delivery::Refused),
        ] {
            assert_eq!(judge(status, b"{}"), expected, "{status}");
        }
        assert_eq!(judge(StatusCode::OK, b"<html>"), Delivery::Failed);
        // Field 1, varint 7.
        assert_eq!(judge(StatusCode::OK, &[0x08, 7]), Delivery::Acknowledged(7));
    }
}
