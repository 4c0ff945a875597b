//! A puppet of Lambda: the extensions API, the Telemetry API and a collector in a few threads, so that a hundred
//! thousand invocations take a minute.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use agent_proto::batch::{Batch, encode_ack};

/// Invocations between two deliveries of telemetry, each awaited. On Lambda it is what fits into 25 ms.
const A_DELIVERY: u64 = 50;

/// What the collector of the puppet received.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) invocations: AtomicU64,
    pub(crate) billed_ms: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) batches: AtomicU64,
}

/// Called before each invocation, with how many there were.
pub(crate) type Watch = Box<dyn FnMut(u64) + Send>;

/// One request: its method and path, and its body.
struct Request {
    line: String,
    body: Vec<u8>,
}

fn read(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        if header.trim().is_empty() {
            break;
        }
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { line, body })
}

fn write(mut stream: &TcpStream, headers: &str, body: &[u8]) {
    let mut answer =
        format!("HTTP/1.1 200 OK\r\n{headers}content-length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend(body);
    // One that hung up has no use for it.
    let _ = stream.write_all(&answer);
}

/// A collector that takes everything; returns where it listens.
pub(crate) fn collector(received: Arc<Received>) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let received = Arc::clone(&received);
            thread::spawn(move || {
                let mut reader = BufReader::new(&stream);
                while let Some(request) = read(&mut reader) {
                    let batch = Batch::decode(&request.body).unwrap();
                    let billed_ms = batch.invocations.iter().map(|row| row.billed_ms).sum();
                    received.invocations.fetch_add(batch.invocations.len() as u64, Ordering::Relaxed);
                    received.billed_ms.fetch_add(billed_ms, Ordering::Relaxed);
                    received.batches.fetch_add(1, Ordering::Relaxed);
                    received.lost.store(batch.lost.invocations, Ordering::Relaxed);
                    write(&stream, "", &encode_ack(batch.sequence));
                }
            });
        }
    });
    address
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

/// The APIs, which send `invocations` INVOKE events and then SHUTDOWN; returns where they listen.
pub(crate) fn platform(invocations: u64, mut watch: Watch) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(&stream);
        let mut telemetry = None;
        let mut events = vec![];
        let mut sent = 0u64;
        while let Some(request) = read(&mut reader) {
            if request.line.contains("/register") {
                let body = br#"{"functionName":"soaked","functionVersion":"1","handler":"h"}"#;
                write(&stream, "Lambda-Extension-Identifier: soaked\r\n", body);
            } else if request.line.contains("/telemetry") {
                telemetry = Some(TcpStream::connect(destination(&request.body)).unwrap());
                write(&stream, "", b"OK");
            } else {
                if sent > 0 && (sent.is_multiple_of(A_DELIVERY) || sent == invocations) && !events.is_empty()
                {
                    deliver(telemetry.as_ref().unwrap(), &events);
                    events.clear();
                }
                if sent == invocations {
                    let deadline = now_ms() + 2_000;
                    let event = format!(
                        r#"{{"eventType":"SHUTDOWN","shutdownReason":"spindown","deadlineMs":{deadline}}}"#
                    );
                    write(&stream, "", event.as_bytes());
                    continue;
                }
                watch(sent);
                sent += 1;
                let id = format!("00000000-0000-4000-8000-{sent:012x}");
                let deadline = now_ms() + 3_000;
                write(
                    &stream,
                    "",
                    format!(r#"{{"eventType":"INVOKE","deadlineMs":{deadline},"requestId":"{id}"}}"#)
                        .as_bytes(),
                );
                events.extend(telemetry_of(&id));
            }
        }
    });
    address
}

/// Where telemetry is wanted: the port in the subscription.
fn destination(subscription: &[u8]) -> SocketAddr {
    let subscription: serde_json::Value = serde_json::from_slice(subscription).unwrap();
    let uri = subscription["destination"]["URI"].as_str().unwrap();
    let port = uri.rsplit(':').next().unwrap().trim_end_matches('/').parse().unwrap();
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn deliver(stream: &TcpStream, events: &[String]) {
    let body = format!("[{}]", events.join(","));
    let head =
        format!("POST / HTTP/1.1\r\nhost: sandbox.localdomain\r\ncontent-length: {}\r\n\r\n", body.len());
    let mut stream = stream;
    stream.write_all((head + &body).as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    assert!(read(&mut reader).unwrap().line.contains("200"));
}

/// The three events of an invocation that was billed 2 ms, now.
fn telemetry_of(id: &str) -> [String; 3] {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    // Within one day of a soak the date may be any: repetitions are told by the order of times.
    let (seconds, ms) = (now.as_secs() % 86_400, now.subsec_millis());
    let time =
        format!("2026-01-02T{:02}:{:02}:{:02}.{ms:03}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let event = |kind: &str, more: &str| {
        format!(r#"{{"time":"{time}","type":"platform.{kind}","record":{{"requestId":"{id}"{more}}}}}"#)
    };
    [
        event("start", r#","version":"1""#),
        event("runtimeDone", r#","status":"success","metrics":{"durationMs":1.2,"producedBytes":12}"#),
        event(
            "report",
            r#","status":"success","metrics":{"durationMs":1.4,"billedDurationMs":2,"memorySizeMB":128,"maxMemoryUsedMB":40}"#,
        ),
    ]
}
