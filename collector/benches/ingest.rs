//! Measures stored invocations per second: real HTTP over loopback, SQLite on a real disk, every response awaited.
//!
//! `cargo bench -p tailor-collector`. Senders and collector share the machine, so the result includes the cost of the
//! senders. The data folder is in the target folder, because `fsync` costs nothing on a memory disk.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

#[path = "../tests/common/fleet.rs"]
mod fleet;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleet::{KINDS, batch};
use tailor_collector::clock::now_us;
use tailor_collector::http::{self, App};
use tailor_collector::keys::KeyRing;
use tailor_collector::store::sqlite::SqliteStore;
use tailor_collector::store::{Store, Tenant, Window};
use tokio::net::TcpListener;

const KEY: &str = "bench-key-0123456789";

/// Number of connections. Each sends one batch at a time, like an environment.
const SENDERS: u64 = 64;

/// Duration of the measurement for each batch size.
const SPAN: Duration = Duration::from_secs(5);

fn main() {
    println!("{:>12} {:>14} {:>12} {:>10} {:>10}", "batch", "invocations/s", "batches/s", "p50", "p99");
    for size in [1, 10, 100, 1_000] {
        measure(size);
    }
}

fn measure(size: u64) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = Arc::new(SqliteStore::open(folder.path()).unwrap());
    let mut keys = KeyRing::default();
    keys.add(KEY, Tenant::default());
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let app = Arc::new(App::new(Arc::clone(&store) as Arc<dyn Store>, keys, false));
    runtime.spawn(http::run(
        listener,
        tailor_collector::routes::router(Arc::clone(&app)),
        app,
        std::future::pending(),
    ));

    let start = Instant::now();
    let senders: Vec<_> =
        (0..SENDERS).map(|sender| std::thread::spawn(move || send(address, sender, size))).collect();
    let mut latencies: Vec<Duration> =
        senders.into_iter().flat_map(|sender| sender.join().unwrap()).collect();
    let span = start.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at = |share: usize| format!("{:.1} ms", latencies[latencies.len() * share / 100].as_secs_f64() * 1e3);
    let batches = latencies.len() as f64;
    println!(
        "{size:>12} {:>14.0} {:>12.0} {:>10} {:>10}",
        batches * size as f64 / span,
        batches / span,
        at(50),
        at(99)
    );
    let stored = runtime.block_on(store.series(&Tenant::default(), None, Window::ALL)).unwrap();
    let counted: u64 = stored.iter().map(|series| series.rollup.invocations).sum();
    assert_eq!(counted, latencies.len() as u64 * size, "every acknowledged invocation is stored, once");
    runtime.shutdown_timeout(Duration::from_secs(1));
}

/// Sends until the deadline; returns the latency of each response.
fn send(address: SocketAddr, sender: u64, size: u64) -> Vec<Duration> {
    let kind = &KINDS[usize::try_from(sender).unwrap() % KINDS.len()];
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut latencies = Vec::new();
    let mut response = [0; 4_096];
    let mut body = batch(kind, sender + 1, 1, size, now_us());
    let deadline = Instant::now() + SPAN;
    while Instant::now() < deadline {
        // Only the sequence differs between batches, so that the result does not include the generation of test data.
        let bytes = body.encode().unwrap();
        body.header.sequence += 1;
        let head = format!(
            "POST /v1/batches HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {KEY}\r\n\
             Content-Type: application/x-protobuf\r\nContent-Length: {}\r\n\r\n",
            bytes.len()
        );
        let start = Instant::now();
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&bytes).unwrap();
        let read = stream.read(&mut response).unwrap();
        assert!(
            response[..read].starts_with(b"HTTP/1.1 200"),
            "{}",
            String::from_utf8_lossy(&response[..read])
        );
        latencies.push(start.elapsed());
    }
    latencies
}
