//! Measures the acknowledgement of ordinary batches while thousands of slow connections are open.
//!
//! `cargo bench -p tailor-collector --bench slow_clients`. Each kind of slow client keeps 5,000 connections open from another
//! address and opens a closed one again. All clients share the machine with the collector.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

#[path = "../tests/common/fleet.rs"]
mod fleet;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleet::{KINDS, batch};
use tailor_collector::clock::now_us;
use tailor_collector::http::connections::{ConnectionLimits, Connections};
use tailor_collector::http::{self, App};
use tailor_collector::keys::KeyRing;
use tailor_collector::store::Tenant;
use tailor_collector::store::sqlite::SqliteStore;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;

const KEY: &str = "bench-key-0123456789";

/// Slow connections of each kind.
const SLOW: usize = 5_000;

/// Connections that send batches, and the time between two batches of each.
const SENDERS: u64 = 16;
const PAUSE: Duration = Duration::from_millis(50);

/// Duration of the measurement for each kind.
const SPAN: Duration = Duration::from_secs(10);

/// A kind of slow client: what it sends at first, and what it sends each second after that.
struct Kind {
    name: &'static str,
    connections: usize,
    first: String,
    each_second: &'static [u8],
}

fn kinds() -> [Kind; 6] {
    let head =
        |method: &str, path: &str, rest: &str| format!("{method} {path} HTTP/1.1\r\nHost: bench\r\n{rest}");
    let key = format!("Authorization: Bearer {KEY}\r\n");
    let batch_head = format!("{key}Content-Type: application/x-protobuf\r\nContent-Length: 1000000\r\n\r\n");
    let large = format!("/v1/functions/{}/invocations?limit=1000", KINDS[1].name);
    let kind = |name, first, each_second| Kind { name, connections: SLOW, first, each_second };
    [
        Kind { name: "none", connections: 0, first: String::new(), each_second: b"" },
        kind("idle", String::new(), b""),
        kind("slow headers", head("GET", "/", "X-Slow: "), b"x"),
        kind("slow sign-in form", head("POST", "/login", "Content-Length: 4000\r\n\r\nkey="), b"x"),
        kind("slow batch, with a key", head("POST", "/v1/batches", &batch_head), b"x"),
        kind("slow reader, with a key", head("GET", &large, &format!("{key}\r\n")), b""),
    ]
}

fn main() {
    println!("{:>24} {:>10} {:>10} {:>10} {:>12}", "5,000 slow clients", "p50", "p99", "longest", "batches");
    for kind in kinds() {
        measure(kind);
    }
}

fn measure(kind: Kind) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (server, slow, ordinary) =
        (Runtime::new().unwrap(), Runtime::new().unwrap(), Runtime::new().unwrap());
    let store = Arc::new(SqliteStore::open(folder.path()).unwrap());
    let mut keys = KeyRing::default();
    keys.add(KEY, Tenant::default());
    let listener = server.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    // The clients are in this process, too, and need as many descriptors.
    let _ = ConnectionLimits::of(2 * SLOW + 1_000).fitted_to_process();
    let connections = Arc::new(Connections::new(ConnectionLimits::default()));
    let app = Arc::new(App { connections, ..App::new(store, keys, false) });
    let routes = tailor_collector::routes::router(Arc::clone(&app));
    server.spawn(http::run(listener, routes, app, std::future::pending()));

    let large = batch(&KINDS[1], 1_000, 1, 1_000, now_us());
    ordinary.block_on(send(address, &mut None, &large.encode().unwrap()));
    let (name, kind) = (kind.name, Arc::new(kind));
    for _ in 0..kind.connections {
        slow.spawn(keep_open(address, Arc::clone(&kind)));
    }
    std::thread::sleep(Duration::from_secs(2));
    let senders: Vec<_> = (1..=SENDERS).map(|sender| ordinary.spawn(send_batches(address, sender))).collect();
    let mut latencies = Vec::new();
    for sender in senders {
        latencies.extend(ordinary.block_on(sender).unwrap());
    }
    latencies.sort_unstable();
    let at = |share: usize| {
        let index = (latencies.len() * share / 100).min(latencies.len() - 1);
        format!("{:.1} ms", latencies[index].as_secs_f64() * 1e3)
    };
    println!("{name:>24} {:>10} {:>10} {:>10} {:>12}", at(50), at(99), at(100), latencies.len());
    slow.shutdown_timeout(Duration::from_secs(1));
    server.shutdown_timeout(Duration::from_secs(1));
}

/// Keeps one slow connection open.
async fn keep_open(address: SocketAddr, kind: Arc<Kind>) {
    loop {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        if let Ok(mut stream) = socket.connect(address).await {
            let mut is_open = stream.write_all(kind.first.as_bytes()).await.is_ok();
            while is_open {
                tokio::time::sleep(Duration::from_secs(1)).await;
                is_open = stream.write_all(kind.each_second).await.is_ok() && !is_closed(&stream);
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Whether the collector has closed the connection. What it sent stays unread.
fn is_closed(stream: &TcpStream) -> bool {
    let mut byte = [std::mem::MaybeUninit::uninit(); 1];
    let peeked =
        rustix::net::recv(stream, &mut byte, rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT);
    !matches!(peeked, Err(rustix::io::Errno::AGAIN)) && peeked.is_ok_and(|(_, length)| length == 0)
}

/// Sends batches of ten invocations; returns the latency of each.
async fn send_batches(address: SocketAddr, sender: u64) -> Vec<Duration> {
    let mut body = batch(&KINDS[0], sender, 1, 10, now_us());
    let (mut connection, mut latencies) = (None, Vec::new());
    let deadline = Instant::now() + SPAN;
    while Instant::now() < deadline {
        let bytes = body.encode().unwrap();
        body.header.sequence += 1;
        let start = Instant::now();
        send(address, &mut connection, &bytes).await;
        latencies.push(start.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
    latencies
}

/// Sends one batch, on the kept connection or on a new one, until it is acknowledged.
async fn send(address: SocketAddr, connection: &mut Option<TcpStream>, bytes: &[u8]) {
    let mut request = format!(
        "POST /v1/batches HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {KEY}\r\n\
         Content-Type: application/x-protobuf\r\nContent-Length: {}\r\n\r\n",
        bytes.len()
    )
    .into_bytes();
    request.extend_from_slice(bytes);
    loop {
        if connection.is_none() {
            *connection = TcpStream::connect(address).await.ok();
        }
        let Some(stream) = connection.as_mut() else { continue };
        let mut response = [0; 4_096];
        if stream.write_all(&request).await.is_ok()
            && let Ok(length @ 1..) = stream.read(&mut response).await
            && response[..length].starts_with(b"HTTP/1.1 200")
        {
            return;
        }
        *connection = None;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
