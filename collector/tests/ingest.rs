//! The ingest API over real HTTP: authentication, errors, and that no batch is counted twice.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::Write;
use std::time::{Duration, Instant};

use agent_proto::batch::InitializationType;
use agent_proto::limits::MAX_BATCH_BYTES;
use agent_proto::wire::Ack;
use common::fleet::{KINDS, batch};
use common::places::{Place, test_each_place};
use common::{Collector, KEY, OTHER_KEY, Response, post, read_response};
use prost::Message;
use tailor_collector::clock::now_us;
use tailor_sizing::telemetry::invocation::RequestId;

fn invocations(collector: &Collector) -> u64 {
    collector.get("/v1/functions").json()["total"]["invocations"].as_u64().unwrap()
}

fn code(response: &Response) -> String {
    response.json()["error"]["code"].as_str().unwrap().to_owned()
}

test_each_place!(
    a_batch_that_is_sent_again_is_counted_once,
    a_batch_is_recognized_in_every_encoding,
    tenants_cannot_read_data_of_each_other,
    cost_is_exact_to_the_pico_dollar,
    a_clock_that_is_ahead_does_not_keep_the_memory_size,
    an_unknown_start_is_the_time_at_which_the_batch_came,
);

fn a_batch_that_is_sent_again_is_counted_once(place: Place) {
    let collector = Collector::start_at(place);
    let end = now_us();
    for _ in 0..3 {
        for sequence in [2, 1] {
            let response = collector.post_batch(&batch(&KINDS[0], 1, sequence, 50, end).encode().unwrap());
            assert_eq!(response.status, 200, "{}", response.text());
            assert_eq!(Ack::decode(&response.body[..]).unwrap().durable_sequence, sequence);
        }
    }
    assert_eq!(invocations(&collector), 100);
    let accept = format!("Authorization: Bearer {KEY}\r\nAccept: application/openmetrics-text\r\n");
    let metrics = collector.get_with("/metrics", &accept);
    let media_type = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(metrics.head.to_ascii_lowercase().contains(media_type), "{}", metrics.head);
    let metrics = metrics.text();
    assert!(metrics.contains("# TYPE tailor_batches counter\n"), "{metrics}");
    assert!(metrics.contains("tailor_batches_total{result=\"repeated\"} 4"), "{metrics}");
    assert!(metrics.contains("tailor_batches_refused_total{retryable=\"yes\"} 0"), "{metrics}");
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
}

fn a_batch_is_recognized_in_every_encoding(place: Place) {
    let collector = Collector::start_at(place);
    let plain = batch(&KINDS[0], 1, 1, 200, now_us()).encode().unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&plain).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(&plain[..], 3).unwrap();
    for (encoding, body) in [("gzip", gzip), ("zstd", zstd)] {
        let response = collector.post_batch_with(KEY, &format!("Content-Encoding: {encoding}\r\n"), &body);
        assert_eq!(response.status, 200, "{encoding}: {}", response.text());
    }
    assert_eq!(invocations(&collector), 200);
}

/// A function URL with IAM authentication needs AWS's signature in the `Authorization` header.
#[test]
fn the_key_header_works_with_an_aws_signature() {
    let collector = Collector::start();
    let body = batch(&KINDS[0], 7, 1, 10, now_us()).encode().unwrap();
    let signature = "Authorization: AWS4-HMAC-SHA256 Credential=x, SignedHeaders=host, Signature=0\r\n";
    for (key, status) in [("wrong", 401), (KEY, 200)] {
        let mut request = format!(
            "POST /v1/batches HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\n\
             Connection: close\r\nContent-Length: {}\r\n{signature}X-Tailor-Api-Key: {key}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend(&body);
        assert_eq!(collector.raw(&request).status, status, "{key}");
    }
    assert_eq!(invocations(&collector), 10);
}

#[test]
fn an_unauthenticated_client_is_refused_before_the_body_is_read() {
    let collector = Collector::start();
    for authorization in ["", "Authorization: Bearer wrong\r\n", "Authorization: Basic dGVzdDp0ZXN0\r\n"] {
        // The body is never sent: a response shows that the collector did not wait for it.
        let head = format!(
            "POST /v1/batches HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\n\
             Connection: close\r\nContent-Length: 1000\r\n{authorization}\r\n"
        );
        let start = Instant::now();
        let response = collector.raw(head.as_bytes());
        assert_eq!(response.status, 401);
        assert_eq!(code(&response), "unauthorized");
        assert!(start.elapsed() < Duration::from_secs(5));
    }
    for path in ["/v1/functions", "/v1/changes", "/v1/bill", "/v1/reconciliation", "/metrics"] {
        assert_eq!(collector.get_with(path, "").status, 401, "{path}");
    }
    assert_eq!(collector.get_with("/", "").status, 303);
}

#[test]
fn errors_have_a_code_and_a_status_that_permits_or_forbids_a_retry() {
    /// Decompressed size of small bodies.
    const BOMB_BYTES: usize = 64 * MAX_BATCH_BYTES;
    let collector = Collector::start();
    let good = batch(&KINDS[0], 1, 1, 10, now_us()).encode().unwrap();
    let mut control_characters = batch(&KINDS[0], 1, 1, 10, now_us());
    control_characters.header.environment.function = "a\u{1b}[2J".to_owned();
    let mut many_hours = batch(&KINDS[0], 1, 1, 1_000, now_us());
    for (hour, invocation) in (0u64..).zip(&mut many_hours.invocations) {
        invocation.started_at_us = now_us() - hour * 3_600_000_000;
    }
    let huge = vec![0; MAX_BATCH_BYTES + 1];
    let bomb = {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(&vec![0; BOMB_BYTES]).unwrap();
        gzip.finish().unwrap()
    };
    let zstd_bomb = zstd::encode_all(&vec![0; BOMB_BYTES][..], 1).unwrap();
    let window_bomb = {
        // The frame header declares a window of 2 GiB.
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(31).unwrap();
        encoder.write_all(&good).unwrap();
        encoder.finish().unwrap()
    };
    let encoded = |name: &str| format!("Content-Encoding: {name}\r\n");
    let cases: [(&str, String, &[u8], u16, &str); 10] = [
        ("not protobuf", String::new(), b"hello", 400, "batch"),
        ("empty", String::new(), b"", 400, "batch"),
        ("truncated", String::new(), &good[..good.len() - 1], 400, "batch"),
        ("too large", String::new(), &huge, 413, "too_large"),
        ("gzip bomb", encoded("gzip"), &bomb, 413, "too_large"),
        ("zstd bomb", encoded("zstd"), &zstd_bomb, 413, "too_large"),
        ("zstd window bomb", encoded("zstd"), &window_bomb, 400, "content_encoding"),
        ("not gzip", encoded("gzip"), &good, 400, "content_encoding"),
        ("unknown encoding", encoded("br"), &good, 415, "content_encoding"),
        ("control characters", String::new(), &control_characters.encode().unwrap(), 400, "name"),
    ];
    for (case, headers, body, status, expected) in cases {
        let response = collector.post_batch_with(KEY, &headers, body);
        assert_eq!(
            (response.status, code(&response).as_str()),
            (status, expected),
            "{case}: {}",
            response.text()
        );
    }
    let response = collector.post_batch(&many_hours.encode().unwrap());
    assert_eq!((response.status, code(&response).as_str()), (400, "time"));

    let wrong_type = String::from_utf8_lossy(&post(KEY, "", b"")).replace("x-protobuf", "json");
    assert_eq!(collector.raw(wrong_type.as_bytes()).status, 415);
    let chunked_head = format!(
        "POST /v1/batches HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\nConnection: close\r\n\
         Content-Type: application/x-protobuf\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let mut chunked = chunked_head.into_bytes();
    for _ in 0..40 {
        chunked.extend_from_slice(b"10000\r\n");
        chunked.extend_from_slice(&[0; 0x10000]);
        chunked.extend_from_slice(b"\r\n");
    }
    assert_eq!(collector.raw(&chunked).status, 413);
    assert_eq!(collector.get("/nowhere").status, 404);
    assert_eq!(collector.get("/v1/batches").status, 405);
    assert_eq!(invocations(&collector), 0);
}

#[test]
fn a_slow_body_times_out_and_may_be_sent_again() {
    let collector = Collector::start();
    let body = batch(&KINDS[0], 1, 1, 10, now_us()).encode().unwrap();
    let request = post(KEY, "", &body);
    let mut stream = collector.connect();
    stream.write_all(&request[..request.len() - 10]).unwrap();
    let response = read_response(&mut stream);
    assert_eq!((response.status, code(&response).as_str()), (503, "body_timeout"));
    assert!(response.head.to_ascii_lowercase().contains("retry-after:"), "{}", response.head);
    assert_eq!(collector.raw(&request).status, 200);
    assert_eq!(invocations(&collector), 10);
}

fn tenants_cannot_read_data_of_each_other(place: Place) {
    let collector = Collector::start_at(place);
    let end = now_us();
    for key in [KEY, OTHER_KEY] {
        let body = batch(&KINDS[0], 1, 1, 10, end).encode().unwrap();
        assert_eq!(collector.post_batch_with(key, "X-Tenant: default\r\n", &body).status, 200);
    }
    let more = batch(&KINDS[1], 2, 1, 5, end).encode().unwrap();
    assert_eq!(collector.post_batch_with(OTHER_KEY, "", &more).status, 200);
    assert_eq!(invocations(&collector), 10);
    let other = format!("Authorization: Bearer {OTHER_KEY}\r\n");
    let seen = collector.get_with("/v1/functions", &other).json();
    assert_eq!(seen["total"]["invocations"], 15);
    assert_eq!(collector.get(&format!("/v1/functions/{}", KINDS[1].name)).status, 404);
}

fn cost_is_exact_to_the_pico_dollar(place: Place) {
    let collector = Collector::start_at(place);
    // eu-west-1, x86_64: 16,666,700 pico-dollars a GB-second and 200,000 a request.
    let mut batches = [batch(&KINDS[0], 1, 1, 333, now_us()), batch(&KINDS[0], 2, 1, 77, now_us())];
    batches[1].header.environment.memory = tailor_sizing::units::Megabytes(1_769);
    let mut mb_ms = 0u128;
    for batch in &batches {
        let billed: u64 = batch.invocations.iter().map(|invocation| invocation.billed_ms).sum();
        mb_ms += u128::from(batch.header.environment.memory.0) * u128::from(billed);
        assert_eq!(collector.post_batch(&batch.encode().unwrap()).status, 200);
    }
    let expected = (mb_ms * 16_666_700 + 512_000) / 1_024_000 + 410 * 200_000;
    let report = &collector.get("/v1/functions").json()["functions"][0];
    assert_eq!(report["cost_pico_usd"].as_u64().map(u128::from), Some(expected));
}

#[test]
fn values_that_no_invocation_can_have_are_refused_with_the_name_of_the_field() {
    const HOUR_US: u64 = 3_600_000_000;
    type Change = fn(&mut agent_proto::batch::Batch);
    let cases: [(&str, Change); 12] = [
        ("sequence", |batch| batch.header.sequence = 1 << 63),
        ("lost.invocations", |batch| batch.header.lost.invocations = u64::MAX),
        ("environment.memory_mb", |batch| batch.header.environment.memory.0 = 10_241),
        ("environment.timeout_ms", |batch| batch.header.environment.timeout_ms = 900_001),
        ("environment.ephemeral_mb", |batch| batch.header.environment.ephemeral_mb = 10_241),
        ("invocations[3].billed_ms", |batch| batch.invocations[3].billed_ms = 1_000_000_000),
        ("invocations[3].duration_us", |batch| batch.invocations[3].duration_us = HOUR_US),
        ("invocations[3].init_us", |batch| batch.invocations[3].init_us = HOUR_US),
        ("invocations[3].peak_kib", |batch| batch.invocations[3].peak_kib = 1 << 40),
        ("invocations[3].work.user_us", |batch| {
            batch.invocations[3].work.as_mut().unwrap().user_us = 100 * HOUR_US;
        }),
        ("invocations[3].work", |batch| batch.invocations[3].work.as_mut().unwrap().minor_faults = 1 << 60),
        ("invocations[3].started_at_us", |batch| {
            batch.invocations[3].started_at_us += 5 * 365 * 24 * HOUR_US
        }),
    ];
    let collector = Collector::start();
    for (field, change) in cases {
        let mut batch = batch(&KINDS[0], 1, 1, 10, now_us());
        change(&mut batch);
        let response = collector.post_batch(&batch.encode().unwrap());
        assert_eq!((response.status, code(&response).as_str()), (400, "value"), "{field}");
        let message = response.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(&format!("{field} is ")), "{field}: {message}");
    }
    for name in ["check\u{202e}out", "check\u{200b}out", "check\nout"] {
        let mut batch = batch(&KINDS[0], 1, 1, 10, now_us());
        batch.header.environment.function = name.to_owned();
        let response = collector.post_batch(&batch.encode().unwrap());
        assert_eq!((response.status, code(&response).as_str()), (400, "name"), "{name:?}");
        assert!(response.text().contains("environment.function"), "{}", response.text());
    }
    assert_eq!(invocations(&collector), 0);
}

/// There a function may run for 90 minutes.
#[test]
fn on_managed_instances_an_invocation_may_be_longer() {
    const MINUTE_US: u64 = 60_000_000;
    let collector = Collector::start();
    let send = |sequence, minutes: u64, is_managed_instances: bool| {
        let mut batch = batch(&KINDS[0], 1 + u64::from(is_managed_instances), sequence, 2, now_us());
        let environment = &mut batch.header.environment;
        if is_managed_instances {
            environment.initialization_type = InitializationType::ManagedInstances;
            environment.timeout_ms = 5_400_000;
        }
        batch.invocations[1].duration_us = minutes * MINUTE_US;
        batch.invocations[1].billed_ms = minutes * MINUTE_US / 1_000;
        collector.post_batch(&batch.encode().unwrap()).status
    };
    assert_eq!([send(1, 16, false), send(2, 17, false)], [200, 400]);
    assert_eq!([send(1, 17, true), send(2, 91, true), send(3, 92, true)], [200, 200, 400]);
}

/// The record of a start can be lost, and a clock can be unset.
fn an_unknown_start_is_the_time_at_which_the_batch_came(place: Place) {
    let collector = Collector::start_at(place);
    let mut batch = batch(&KINDS[0], 1, 1, 10, now_us());
    batch.invocations[3].started_at_us = 0;
    batch.invocations[7].started_at_us = 1_000_000;
    let sent_us = now_us();
    let response = collector.post_batch(&batch.encode().unwrap());
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(invocations(&collector), 10);
    let path = format!("/v1/functions/{}/invocations", KINDS[0].name);
    let listed = collector.get(&path).json()["invocations"].as_array().unwrap().clone();
    let began_us = |id: u128| {
        let of_id = |one: &&serde_json::Value| one["request_id"] == RequestId(id).to_string();
        listed.iter().find(of_id).unwrap()["started_at_us"].as_u64().unwrap()
    };
    for index in [3, 7] {
        assert!(began_us(batch.invocations[index].request_id.0) >= sent_us, "{listed:?}");
    }
    assert!(began_us(batch.invocations[5].request_id.0) < sent_us);
}

fn a_clock_that_is_ahead_does_not_keep_the_memory_size(place: Place) {
    let collector = Collector::start_at(place);
    let ahead_us = now_us() + 20 * 3_600_000_000;
    let mut ahead = batch(&KINDS[0], 1, 1, 10, ahead_us);
    ahead.header.environment.memory = tailor_sizing::units::Megabytes(512);
    assert_eq!(collector.post_batch(&ahead.encode().unwrap()).status, 200);
    // Ends now, so it begins after the time at which the collector received the other.
    std::thread::sleep(Duration::from_millis(20));
    let mut later = batch(&KINDS[0], 2, 1, 1, now_us());
    later.header.environment.memory = tailor_sizing::units::Megabytes(1_024);
    later.invocations[0].started_at_us = now_us();
    assert_eq!(collector.post_batch(&later.encode().unwrap()).status, 200);
    let report = collector.get(&format!("/v1/functions/{}", KINDS[0].name)).json();
    assert_eq!(report["memory_mb"], 1_024);
    let path = format!("/v1/functions/{}/invocations", KINDS[0].name);
    let invocations = collector.get(&path).json()["invocations"].as_array().unwrap().clone();
    assert_eq!(invocations[0]["memory_mb"], 1_024, "the latest invocation");
    let newest = invocations.iter().map(|one| one["started_at_us"].as_u64().unwrap()).max().unwrap();
    assert!(newest <= now_us());
}

#[test]
fn a_function_has_a_limited_number_of_versions() {
    let collector = Collector::start();
    let send = |version: u64| {
        let mut batch = batch(&KINDS[0], version, 1, 1, now_us());
        batch.header.environment.version = version.to_string();
        collector.post_batch(&batch.encode().unwrap())
    };
    for version in 1..=200 {
        assert_eq!(send(version).status, 200);
    }
    let refused = send(201);
    assert_eq!((refused.status, code(&refused).as_str()), (400, "too_many"), "{}", refused.text());
}
