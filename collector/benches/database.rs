//! Measures collectors that share one database: real processes, real HTTP over loopback, every response awaited.
//!
//! `cargo xtask bench collector --database URL`, or `--postgresql` for a PostgreSQL of its own. Senders, collectors and
//! the database share the machine, so the results include the cost of all of them.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

#[path = "../tests/common/fleet.rs"]
mod fleet;
#[allow(dead_code, reason = "tests use the rest")]
#[path = "../tests/common/process.rs"]
mod process;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fleet::{KINDS, batch};
use process::CollectorProcess;
use serde_json::json;
use tailor_collector::clock::now_us;
use tailor_test_kit::postgres::PostgresServer;

const KEY: &str = "bench-key-0123456789";

/// Number of connections over all collectors. Each sends one batch at a time, like an environment.
const SENDERS: u64 = 96;

/// Invocations of a batch.
const INVOCATIONS: u64 = 10;

/// Duration of one measurement.
const SPAN: Duration = Duration::from_secs(10);

/// Every so many batches, one is sent to another collector, too, as after a lost acknowledgement.
const REPEATED: u64 = 20;

fn main() {
    let (mut url, mut json_file) = (None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--database" => url = arguments.next(),
            "--json" => json_file = arguments.next().map(PathBuf::from),
            // `cargo bench` adds it.
            "--bench" => {}
            other => panic!("unknown argument {other}: --database URL, --json FILE"),
        }
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    // With fsync, on a disk.
    let server = if url.is_none() {
        Some(PostgresServer::start_in(Path::new(env!("CARGO_TARGET_TMPDIR")), &[]).unwrap())
    } else {
        None
    };
    let keys = folder.path().join("shared-keys");
    std::fs::write(&keys, format!("{KEY}\n")).unwrap();
    println!("{:>11} {:>12} {:>14} {:>10} {:>10}", "collectors", "batches/s", "invocations/s", "p50", "p99");
    let mut results = vec![];
    for count in [1, 3] {
        let url = url.clone().unwrap_or_else(|| server.as_ref().unwrap().new_database().unwrap());
        results.push(measure(&url, folder.path(), &keys, count));
    }
    if let Some(file) = json_file {
        std::fs::write(file, serde_json::to_string_pretty(&json!({ "database": results })).unwrap()).unwrap();
    }
}

fn total(collector: &CollectorProcess) -> u64 {
    collector.total()["invocations"].as_u64().unwrap_or(0)
}

fn measure(url: &str, folder: &Path, keys: &Path, count: usize) -> serde_json::Value {
    let collectors: Vec<_> = (0..count)
        .map(|number| {
            let mut program = Command::new(env!("CARGO_BIN_EXE_tailor"));
            program.env("TAILOR_DATABASE", url);
            let folder = folder.join(format!("{count}-{number}"));
            CollectorProcess::start_as(program, &folder, &["--api-key-file", keys.to_str().unwrap()])
        })
        .collect();
    let before = total(&collectors[0]);
    let addresses: Vec<_> =
        collectors.iter().map(|collector| collector.address.replace("http://", "")).collect();
    // New environments in each measurement.
    let first_id = now_us();
    let start = Instant::now();
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let addresses = addresses.clone();
            std::thread::spawn(move || send(&addresses, sender, first_id))
        })
        .collect();
    let mut latencies: Vec<Duration> = vec![];
    let mut batches = 0;
    for sender in senders {
        let (sent, mut measured) = sender.join().unwrap();
        batches += sent;
        latencies.append(&mut measured);
    }
    let span = start.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at = |share: usize| latencies[latencies.len() * share / 100].as_secs_f64() * 1e3;
    let rate = batches as f64 / span;
    println!(
        "{count:>11} {rate:>12.0} {:>14.0} {:>7.1} ms {:>7.1} ms",
        rate * INVOCATIONS as f64,
        at(50),
        at(99)
    );
    let stored = total(&collectors[0]) - before;
    assert_eq!(stored, batches * INVOCATIONS, "every acknowledged invocation is stored, once");
    json!({
        "collectors": count, "batches_per_s": rate, "p50_ms": at(50), "p99_ms": at(99),
        "batch_invocations": INVOCATIONS, "senders": SENDERS,
    })
}

/// Sends until the end of the span; returns the number of different batches and the latency of each response.
fn send(addresses: &[String], sender: u64, first_id: u64) -> (u64, Vec<Duration>) {
    let kind = &KINDS[usize::try_from(sender).unwrap() % KINDS.len()];
    let mut streams: Vec<TcpStream> = addresses
        .iter()
        .map(|address| {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_nodelay(true).unwrap();
            stream
        })
        .collect();
    let own = usize::try_from(sender).unwrap() % streams.len();
    let mut body = batch(kind, first_id + sender, 1, INVOCATIONS, now_us());
    let (mut batches, mut latencies) = (0, vec![]);
    let deadline = Instant::now() + SPAN;
    while Instant::now() < deadline {
        let bytes = body.encode().unwrap();
        let start = Instant::now();
        post(&mut streams[own], &bytes);
        latencies.push(start.elapsed());
        if body.header.sequence.is_multiple_of(REPEATED) {
            let other = (own + 1) % streams.len();
            post(&mut streams[other], &bytes);
        }
        batches += 1;
        body.header.sequence += 1;
    }
    (batches, latencies)
}

fn post(stream: &mut TcpStream, bytes: &[u8]) {
    let head = format!(
        "POST /v1/batches HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {KEY}\r\n\
         Content-Type: application/x-protobuf\r\nContent-Length: {}\r\n\r\n",
        bytes.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(bytes).unwrap();
    let mut response = [0; 4_096];
    let read = stream.read(&mut response).unwrap();
    let response = String::from_utf8_lossy(&response[..read]);
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
}
