//! What a receiver's response means: the rules of the OTLP specification for HTTP.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message as _;

/// Longest text of a receiver that is logged, characters.
const MAX_TEXT: usize = 300;

/// What to do after a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The request was accepted, except for some data points. They are not sent again.
    Accepted {
        /// Number of data points that were not accepted.
        rejected: u64,
        /// The reason, or a warning; empty when there is none.
        message: String,
    },
    /// The same request may be sent again, not before the pause that the receiver requests.
    Retry {
        /// The `Retry-After` header.
        after: Option<Duration>,
        /// The reason.
        message: String,
    },
    /// The request was not accepted, and a repetition would not be.
    Rejected {
        /// The reason.
        message: String,
    },
}

/// The body of an error: `google.rpc.Status`, of which only the message is read.
#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
}

/// Reads a response: its status, the `Retry-After` header and the body.
#[must_use]
pub fn outcome(status: u16, retry_after: Option<&str>, body: &[u8]) -> Outcome {
    let reason = || {
        let of_status =
            Status::decode(body).ok().map(|status| status.message).filter(|text| !text.is_empty());
        let text = of_status.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
        format!("HTTP status {status}: {}", printable(&text)).trim_end_matches([':', ' ']).to_owned()
    };
    match status {
        200..=299 => {
            // Some receivers respond with an empty body or with JSON.
            let partial =
                ExportMetricsServiceResponse::decode(body).ok().and_then(|body| body.partial_success);
            let partial = partial.unwrap_or_default();
            Outcome::Accepted {
                rejected: u64::try_from(partial.rejected_data_points).unwrap_or(0),
                message: printable(&partial.error_message),
            }
        }
        429 | 502 | 503 | 504 => {
            Outcome::Retry { after: retry_after.and_then(crate::backoff::retry_after), message: reason() }
        }
        _ => Outcome::Rejected { message: reason() },
    }
}

/// A text of another program in one line of bounded length.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_TEXT)
        .collect::<String>()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsPartialSuccess;

    #[test]
    fn responses_are_read_as_the_specification_requires() {
        let partial =
            ExportMetricsPartialSuccess { rejected_data_points: 3, error_message: "too\nold".to_owned() };
        let body = ExportMetricsServiceResponse { partial_success: Some(partial) }.encode_to_vec();
        let accepted = |rejected, message: &str| Outcome::Accepted { rejected, message: message.to_owned() };
        assert_eq!(outcome(200, None, &body), accepted(3, "too old"));
        assert_eq!(outcome(200, None, b""), accepted(0, ""));
        assert_eq!(outcome(200, None, b"{}"), accepted(0, ""));
        for status in [429, 502, 503, 504] {
            let Outcome::Retry { after, .. } = outcome(status, Some("7"), b"busy") else {
                panic!("{status} is not retried")
            };
            assert_eq!(after, Some(Duration::from_secs(7)));
        }
        for status in [301, 400, 401, 404, 413, 500, 501] {
            assert!(matches!(outcome(status, Some("7"), b""), Outcome::Rejected { .. }), "{status}");
        }
        let body = Status { message: "no such metric".to_owned() }.encode_to_vec();
        let rejected = Outcome::Rejected { message: "HTTP status 400: no such metric".to_owned() };
        assert_eq!(outcome(400, None, &body), rejected);
        assert_eq!(outcome(500, None, b""), Outcome::Rejected { message: "HTTP status 500".to_owned() });
    }
}
