//! A subscription as an extension requests it, checked against the documented limits.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::Uri;
use serde::Deserialize;
use thiserror::Error;

use super::event::{Category, Schema};

const MAX_ITEMS: RangeInclusive<usize> = 1_000..=10_000;
const MAX_BYTES: RangeInclusive<usize> = 262_144..=1_048_576;
const TIMEOUT_MS: RangeInclusive<u64> = 25..=30_000;

/// Taken by the Runtime API.
const RESERVED_PORT: u16 = 9001;

/// Names of the environment's own address, the only allowed destination.
const SANDBOX_HOSTS: [&str; 2] = ["sandbox.localdomain", "sandbox"];

/// Why a subscription is rejected with 400 `ValidationError`.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SubscriptionError {
    #[error("the body is not a subscription: {0}")]
    Body(String),
    #[error("types must name at least one of platform, function, extension")]
    NoTypes,
    #[error("{field} is {value}, allowed is {low} to {high}")]
    OutOfRange { field: &'static str, value: u64, low: u64, high: u64 },
    #[error("destination: {0}")]
    Destination(String),
}

/// Where batches go. The port is on the environment's loopback interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// `POST` of a JSON array to this path.
    Http { port: u16, path: String },
    /// One JSON object a line.
    Tcp { port: u16 },
}

/// A checked subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// How events are written.
    pub schema: Schema,
    /// Requested categories.
    pub categories: Vec<Category>,
    /// A batch is sent when it has this many events,
    pub max_items: usize,
    /// or this many bytes,
    pub max_bytes: usize,
    /// or its first event is this old.
    pub timeout: Duration,
    /// Where it is sent.
    pub destination: Destination,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    schema_version: Schema,
    types: Vec<Category>,
    #[serde(default)]
    buffering: Buffering,
    destination: DestinationBody,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Buffering {
    max_items: usize,
    max_bytes: usize,
    timeout_ms: u64,
}

impl Default for Buffering {
    fn default() -> Buffering {
        Buffering { max_items: *MAX_ITEMS.end(), max_bytes: *MAX_BYTES.start(), timeout_ms: 1_000 }
    }
}

#[derive(Deserialize)]
struct DestinationBody {
    protocol: String,
    #[serde(rename = "URI")]
    uri: Option<String>,
    port: Option<u16>,
}

impl Subscription {
    /// Parses and checks a request body.
    pub fn parse(body: &[u8]) -> Result<Subscription, SubscriptionError> {
        let body: Body =
            serde_json::from_slice(body).map_err(|error| SubscriptionError::Body(error.to_string()))?;
        if body.types.is_empty() {
            return Err(SubscriptionError::NoTypes);
        }
        let Buffering { max_items, max_bytes, timeout_ms } = body.buffering;
        check("buffering.maxItems", max_items as u64, *MAX_ITEMS.start() as u64, *MAX_ITEMS.end() as u64)?;
        check("buffering.maxBytes", max_bytes as u64, *MAX_BYTES.start() as u64, *MAX_BYTES.end() as u64)?;
        check("buffering.timeoutMs", timeout_ms, *TIMEOUT_MS.start(), *TIMEOUT_MS.end())?;
        Ok(Subscription {
            schema: body.schema_version,
            categories: body.types,
            max_items,
            max_bytes,
            timeout: Duration::from_millis(timeout_ms),
            destination: destination(&body.destination)?,
        })
    }
}

fn check(field: &'static str, value: u64, low: u64, high: u64) -> Result<(), SubscriptionError> {
    if (low..=high).contains(&value) {
        Ok(())
    } else {
        Err(SubscriptionError::OutOfRange { field, value, low, high })
    }
}

fn destination(body: &DestinationBody) -> Result<Destination, SubscriptionError> {
    let reject = |message: String| Err(SubscriptionError::Destination(message));
    let destination = match body.protocol.as_str() {
        "HTTP" => {
            let Some(text) = &body.uri else { return reject("URI is required for HTTP".into()) };
            let Ok(uri) = text.parse::<Uri>() else { return reject(format!("{text} is not a URI")) };
            if uri.scheme_str() != Some("http") {
                return reject(format!("{text} is not an http URI"));
            }
            if !uri.host().is_some_and(|host| SANDBOX_HOSTS.contains(&host)) {
                return reject(format!("the host of {text} must be sandbox.localdomain"));
            }
            let Some(port) = uri.port_u16() else { return reject(format!("{text} has no port")) };
            Destination::Http { port, path: uri.path().to_owned() }
        }
        "TCP" => match body.port {
            Some(port) => Destination::Tcp { port },
            None => return reject("port is required for TCP".into()),
        },
        other => return reject(format!("protocol {other} is not HTTP or TCP")),
    };
    let (Destination::Http { port, .. } | Destination::Tcp { port }) = &destination;
    if *port == RESERVED_PORT {
        return reject(format!("port {RESERVED_PORT} is reserved"));
    }
    Ok(destination)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn body() -> Value {
        json!({"schemaVersion": "2025-01-29", "types": ["platform"],
               "buffering": {"maxItems": 1000, "maxBytes": 262144, "timeoutMs": 25},
               "destination": {"protocol": "HTTP", "URI": "http://sandbox.localdomain:8080/x"}})
    }

    fn parse(value: &Value) -> Result<Subscription, SubscriptionError> {
        Subscription::parse(value.to_string().as_bytes())
    }

    #[test]
    fn a_full_subscription_is_taken_as_it_is() {
        let subscription = parse(&body()).unwrap();
        assert_eq!(subscription.destination, Destination::Http { port: 8080, path: "/x".into() });
        assert_eq!(subscription.timeout, Duration::from_millis(25));
    }

    #[test]
    fn buffering_defaults_are_the_documented_ones() {
        let mut value = body();
        value.as_object_mut().unwrap().remove("buffering");
        let subscription = parse(&value).unwrap();
        assert_eq!((subscription.max_items, subscription.max_bytes), (10_000, 262_144));
        assert_eq!(subscription.timeout, Duration::from_secs(1));
    }

    #[test]
    fn limits_hosts_ports_and_versions_are_enforced() {
        let cases = [
            ("/buffering/maxItems", json!(999)),
            ("/buffering/maxItems", json!(10_001)),
            ("/buffering/maxBytes", json!(262_143)),
            ("/buffering/maxBytes", json!(1_048_577)),
            ("/buffering/timeoutMs", json!(24)),
            ("/buffering/timeoutMs", json!(30_001)),
            ("/types", json!([])),
            ("/types", json!(["other"])),
            ("/schemaVersion", json!("2021-01-01")),
            ("/destination/URI", json!("http://127.0.0.1:8080")),
            ("/destination/URI", json!("https://sandbox.localdomain:8080")),
            ("/destination/URI", json!("http://sandbox.localdomain")),
            ("/destination/URI", json!("http://sandbox.localdomain:9001")),
            ("/destination/protocol", json!("UDP")),
        ];
        for (pointer, value) in cases {
            let mut body = body();
            *body.pointer_mut(pointer).unwrap() = value.clone();
            assert!(parse(&body).is_err(), "{pointer} = {value} was accepted");
        }
    }
}
