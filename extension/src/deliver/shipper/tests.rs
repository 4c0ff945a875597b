use std::collections::HashMap;

use http_body_util::BodyExt;

use super::*;
use crate::net::client::tests::on_one_thread;

#[test]
fn only_temporary_failures_are_retried() {
    for (status, expected) in [
        (StatusCode::SERVICE_UNAVAILABLE, DeliveryOutcome::Failed { retry_after: None }),
        (StatusCode::TOO_MANY_REQUESTS, DeliveryOutcome::Failed { retry_after: None }),
        (StatusCode::UNAUTHORIZED, DeliveryOutcome::Rejected),
        (StatusCode::BAD_REQUEST, DeliveryOutcome::Rejected),
        (StatusCode::INTERNAL_SERVER_ERROR, DeliveryOutcome::Rejected),
    ] {
        assert_eq!(outcome_of(status, b"{}", 7), expected, "{status}");
    }
    assert_eq!(outcome_of(StatusCode::OK, b"<html>", 7), DeliveryOutcome::Failed { retry_after: None });
    // Field 1, varint 7.
    assert_eq!(outcome_of(StatusCode::OK, &[0x08, 7], 7), DeliveryOutcome::Acknowledged(7));
    assert_eq!(outcome_of(StatusCode::OK, &[0x08, 7], 8), DeliveryOutcome::Failed { retry_after: None });
    assert_eq!(
        outcome_of(StatusCode::OK, b"", 1),
        DeliveryOutcome::Failed { retry_after: None },
        "a server that is not a collector"
    );
}

#[test]
fn only_the_collectors_error_message_is_logged() {
    let error = br#"{"error":{"code":"unauthorized","message":"the key is not known"}}"#;
    assert_eq!(error_message(error).as_deref(), Some("the key is not known"));
    assert_eq!(error_message(br#"{"headers":{"authorization":"Bearer s3cret"}}"#), None);
    assert_eq!(error_message(b"no such route; you sent Bearer s3cret"), None);
}

#[test]
fn a_signed_request_has_the_key_in_its_own_header() {
    let variables = HashMap::from([
        ("TAILOR_ENDPOINT", "https://abc.lambda-url.eu-west-1.on.aws"),
        ("TAILOR_API_KEY", "collector-key"),
        ("TAILOR_AUTH", "iam"),
        ("AWS_ACCESS_KEY_ID", "AKID"),
        ("AWS_SECRET_ACCESS_KEY", "s3cret"),
        ("AWS_SESSION_TOKEN", "t0ken"),
    ]);
    let shipper = Shipper::new(&Settings::read(&variables).0, &variables).unwrap();
    let batch = SealedBatch::of(1, vec![1, 2, 3]);
    let request = on_one_thread(shipper.request(&batch, 1_440_938_160)).unwrap();
    let header = |name: &str| request.headers()[name].to_str().unwrap();
    assert_eq!((header("x-tailor-api-key"), header("x-amz-security-token")), ("collector-key", "t0ken"));
    assert_eq!(header("x-amz-date"), "20150830T123600Z");
    let signed = header("authorization");
    assert!(signed.contains("AKID/20150830/eu-west-1/lambda/aws4_request"), "{signed}");
    assert!(signed.contains("SignedHeaders=content-type;host;x-amz-date;x-amz-security-token,"));
    let shown = format!("{shipper:?} {request:?}");
    assert!(!["s3cret", "t0ken", "collector-key"].iter().any(|secret| shown.contains(secret)), "{shown}");
    // The permission may be added later, so the batch is kept.
    let (head, ()) = http::Response::builder().status(403).body(()).unwrap().into_parts();
    assert_eq!(shipper.outcome(&head, b"{}", 1), DeliveryOutcome::Failed { retry_after: None });
}

/// A shipper to a server that gives each of `answers` on its own connection.
fn collector(answers: Vec<String>) -> Shipper {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for (stream, answer) in listener.incoming().flatten().zip(answers) {
            let mut reader = std::io::BufReader::new(&stream);
            while std::io::BufRead::read_line(&mut reader, &mut String::new()).unwrap() > 2 {}
            std::io::Write::write_all(&mut (&stream), answer.as_bytes()).unwrap();
        }
    });
    let variables = HashMap::from([("TAILOR_ENDPOINT", url.as_str())]);
    Shipper::new(&Settings::read(&variables).0, &variables).unwrap()
}

fn pause_after(answer: String) -> Duration {
    let shipper = collector(vec![answer]);
    on_one_thread(async {
        let outcome = shipper.deliver(&SealedBatch::of(1, vec![1])).await;
        assert!(matches!(outcome, DeliveryOutcome::Failed { .. }), "{outcome:?}");
    });
    shipper.backoff.remaining()
}

fn overloaded(headers: &str) -> String {
    format!("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n{headers}\r\n")
}

#[test]
fn the_retry_after_header_delays_the_next_delivery() {
    let seconds = pause_after(overloaded("retry-after: 20\r\n"));
    assert!((Duration::from_secs(19)..Duration::from_secs(31)).contains(&seconds), "{seconds:?}");
}

#[test]
fn environments_that_fail_together_do_not_retry_together() {
    let pauses: std::collections::HashSet<_> =
        (0..8).map(|_| pause_after(overloaded("")).as_millis() / 20).collect();
    assert!(pauses.len() > 2, "{pauses:?}");
}

#[test]
fn a_request_shares_the_bytes_of_its_batch() {
    let shipper = collector(vec![]);
    let batch = SealedBatch::of(1, vec![1, 2, 3]);
    let body = on_one_thread(async {
        shipper.request(&batch, 0).await.unwrap().into_body().collect().await.unwrap().to_bytes()
    });
    assert_eq!(body.as_ptr(), batch.bytes.as_ptr());
}

#[test]
fn a_missing_setting_is_named_in_the_error() {
    let error = |variables: &[(&'static str, &'static str)]| {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        Shipper::new(&Settings::read(&variables).0, &variables).unwrap_err().to_string()
    };
    let url = ("TAILOR_ENDPOINT", "https://abc.lambda-url.eu-west-1.on.aws");
    assert!(error(&[]).contains("TAILOR_ENDPOINT"));
    assert!(error(&[url]).contains("AWS_ACCESS_KEY_ID"));
    let keys = [("AWS_ACCESS_KEY_ID", "A"), ("AWS_SECRET_ACCESS_KEY", "S"), ("TAILOR_AUTH", "iam")];
    assert!(
        error(&[("TAILOR_ENDPOINT", "https://x.example"), keys[0], keys[1], keys[2]]).contains("AWS_REGION")
    );
}
