use std::collections::HashMap;

use http_body_util::BodyExt;

use super::*;
use crate::net::client::tests::on_one_thread;

#[test]
fn only_temporary_failures_are_retried() {
    for status in [408, 425, 429, 500, 502, 503, 504, 507, 520] {
        let outcome = outcome_of(StatusCode::from_u16(status).unwrap(), b"{}", 7);
        assert_eq!(outcome, DeliveryOutcome::Failed { retry_after: None }, "{status}");
    }
    for status in [302, 400, 401, 403, 404, 413, 415] {
        let outcome = outcome_of(StatusCode::from_u16(status).unwrap(), b"{}", 7);
        assert_eq!(outcome, DeliveryOutcome::Rejected, "{status}");
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
    let request = on_one_thread(async {
        let key = shipper.read_key(TRY_TIMEOUT).await.unwrap();
        shipper
            .request(
                agent_proto::BATCHES_PATH,
                agent_proto::CONTENT_TYPE,
                &batch.bytes,
                key.as_ref(),
                1_440_938_160,
            )
            .await
            .unwrap()
    });
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

/// A shipper to a server that gives each of `responses` on its own connection.
fn collector(responses: Vec<String>) -> Shipper {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for (stream, response) in listener.incoming().flatten().zip(responses) {
            let mut reader = std::io::BufReader::new(&stream);
            while std::io::BufRead::read_line(&mut reader, &mut String::new()).unwrap() > 2 {}
            std::io::Write::write_all(&mut (&stream), response.as_bytes()).unwrap();
        }
    });
    let variables = HashMap::from([("TAILOR_ENDPOINT", url.as_str())]);
    Shipper::new(&Settings::read(&variables).0, &variables).unwrap()
}

fn pause_after(response: String) -> Duration {
    let shipper = collector(vec![response]);
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
        shipper
            .request(agent_proto::BATCHES_PATH, agent_proto::CONTENT_TYPE, &batch.bytes, None, 0)
            .await
            .unwrap()
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
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

/// A server that gives each of `responses` on its own connection, and the complete requests that it receives.
fn recorder(responses: Vec<(u16, Vec<u8>)>) -> (String, std::sync::mpsc::Receiver<String>) {
    use std::io::{BufRead, Read, Write};
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, requests) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for (stream, (status, body)) in listener.incoming().flatten().zip(responses) {
            let mut reader = std::io::BufReader::new(&stream);
            let mut request = String::new();
            while reader.read_line(&mut request).unwrap() > 2 {}
            let length = request.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            let mut content = vec![0; length.parse().unwrap()];
            reader.read_exact(&mut content).unwrap();
            sender.send(request + &String::from_utf8_lossy(&content)).unwrap();
            let head =
                format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            (&stream).write_all(&[head.as_bytes(), &body].concat()).unwrap();
        }
    });
    (url, requests)
}

/// A shipper to `collector` with a key in the Secrets Manager at `aws`.
fn with_stored_key(collector: &str, aws: &str) -> Shipper {
    let variables = HashMap::from([
        ("TAILOR_ENDPOINT", collector),
        ("TAILOR_API_KEY_SECRET", "arn:aws:secretsmanager:eu-west-1:111122223333:secret:tailor"),
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", aws),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "AKID"),
        ("AWS_SECRET_ACCESS_KEY", "s3cret"),
        ("AWS_SESSION_TOKEN", "t0ken"),
    ]);
    Shipper::new(&Settings::read(&variables).0, &variables).unwrap()
}

/// The response of Secrets Manager with this key.
fn secret(key: &str) -> (u16, Vec<u8>) {
    (200, format!(r#"{{"SecretString":"{key}"}}"#).into_bytes())
}

/// The key of two characters in a request.
fn key_of(request: &str) -> String {
    request.split_once("Bearer ").unwrap().1[..2].to_owned()
}

/// Each read of a stored key has a price.
#[test]
fn a_rejected_stored_key_is_read_once_for_each_request_for_an_upload() {
    let (aws, reads) = recorder(vec![secret("k1"), secret("k2"), secret("k3"), secret("k3")]);
    let (collector, posts) =
        recorder(vec![(401, vec![]), (401, vec![]), (401, vec![]), (200, b"ok".to_vec())]);
    let shipper = with_stored_key(&collector, &aws);
    on_one_thread(async {
        assert!(shipper.post("/v1/profiles", "{}".to_owned()).await.is_none());
        assert_eq!(reads.try_iter().count(), 2);
        let (head, body) = shipper.post("/v1/profiles", "{}".to_owned()).await.unwrap();
        assert_eq!((head.status, &body[..]), (StatusCode::OK, &b"ok"[..]));
        assert_eq!(reads.try_iter().count(), 1, "the first read of the second request is not needed");
    });
    let keys: Vec<_> = posts.try_iter().map(|request| key_of(&request)).collect();
    assert_eq!(keys, ["k1", "k2", "k2", "k3"]);
}

#[test]
fn a_rejected_stored_key_is_read_again_and_then_after_a_long_pause() {
    let (aws, reads) = recorder(vec![secret("k1"), secret("k2"), secret("k2"), secret("k2")]);
    let (collector, deliveries) = recorder(vec![
        (401, vec![]),
        (200, vec![0x08, 1]),
        (401, vec![]),
        (401, vec![]),
        (401, vec![]),
        (401, vec![]),
    ]);
    let shipper = with_stored_key(&collector, &aws);
    let keys = || -> Vec<_> { deliveries.try_iter().map(|request| key_of(&request)).collect() };
    on_one_thread(async {
        let deliver = async || shipper.deliver(&SealedBatch::of(1, vec![1])).await;
        assert_eq!(deliver().await, DeliveryOutcome::Acknowledged(1));
        assert_eq!(keys(), ["k1", "k2"]);
        let [read, _] = reads.try_iter().collect::<Vec<_>>().try_into().unwrap();
        for expected in [
            "x-amz-target: secretsmanager.GetSecretValue",
            "/eu-west-1/secretsmanager/aws4_request",
            "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target,",
            r#"{"SecretId":"arn:aws:secretsmanager:eu-west-1:111122223333:secret:tailor"}"#,
        ] {
            assert!(str::contains(&read, expected), "{expected}: {read}");
        }
        // A key that stays wrong is read once for each delivery, and the pauses grow.
        for pause_s in [30, 60] {
            let outcome = deliver().await;
            assert_eq!(outcome, DeliveryOutcome::Failed { retry_after: Some(Duration::from_secs(pause_s)) });
            assert_eq!((reads.try_iter().count(), keys().len()), (1, 2));
        }
        assert!(shipper.backoff.remaining() > Duration::from_secs(59));
    });
}
