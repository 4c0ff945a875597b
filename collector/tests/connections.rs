//! Many, slow and hostile connections over real HTTP: every route has limits, and ordinary clients are served meanwhile.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::fleet::{KINDS, batch};
use common::process::CollectorProcess;
use common::{Collector, KEY, post, read_response};
use tailor_collector::clock::now_us;
use tailor_collector::http::connections::{ConnectionLimits, Connections};
use tokio::net::TcpSocket;

fn with_limits(limits: ConnectionLimits) -> Collector {
    Collector::start_configured(|app| app.connections = Arc::new(Connections::new(limits)))
}

/// A client at another address of this machine, which buffers little.
fn connect_from(source: &str, to: SocketAddr) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stream = runtime.block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        socket.connect(to).await.unwrap().into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    stream
}

/// Whether the collector has closed the connection.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let read = stream.read(&mut [0; 1]);
    stream.set_nonblocking(false).unwrap();
    !matches!(read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn every_route_limits_the_body_before_it_is_sent() {
    let collector = Collector::start();
    let paths =
        ["/login", "/", "/nowhere", "/healthz", "/readyz", "/metrics", "/v1/functions", "/assets/style.css"];
    for path in paths {
        for method in ["POST", "GET"] {
            // The body is never sent: a response shows that the collector did not wait for it.
            let head = format!(
                "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                 Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 2000000\r\n\r\n"
            );
            let response = collector.raw(head.as_bytes());
            let code = response.json()["error"]["code"].clone();
            let expected = [(413, "too_large".into()), (405, "method".into())];
            assert!(expected.contains(&(response.status, code)), "{method} {path}: {}", response.text());
        }
        let chunked = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
             2000\r\n{}\r\n",
            "x".repeat(0x2000)
        );
        assert_eq!(collector.raw(chunked.as_bytes()).status, 413, "{path}");
    }
}

#[test]
fn a_body_that_does_not_arrive_times_out_on_every_route() {
    let collector = Collector::start();
    let mut streams: Vec<_> = ["/login", "/nowhere", "/v1/functions"]
        .iter()
        .map(|path| {
            let mut stream = collector.connect();
            let head = format!(
                "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 100\r\n\r\nkey="
            );
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    for stream in &mut streams {
        assert_eq!(read_response(stream).status, 503);
    }
}

#[test]
fn slow_bodies_do_not_keep_others_from_sending() {
    let collector = Collector::start();
    // Each declares a batch of the maximum size. Memory for all of them would be many times the budget.
    let slow: Vec<_> = (0..200)
        .map(|_| {
            let mut stream = collector.connect();
            stream.write_all(&post(KEY, "", &vec![0; 1 << 20])[..300]).unwrap();
            stream
        })
        .collect();
    for sequence in 1..20 {
        let body = batch(&KINDS[0], 1, sequence, 10, now_us()).encode().unwrap();
        assert_eq!(collector.post_batch(&body).status, 200);
    }
    drop(slow);
}

#[test]
fn a_body_in_many_small_parts_needs_no_more_memory_than_its_size() {
    let collector = Collector::start();
    let body = batch(&KINDS[0], 1, 1, 3_000, now_us()).encode().unwrap();
    assert!(body.len() > 60_000, "more than the budget has kilobytes: {}", body.len());
    let mut request = format!(
        "POST /v1/batches HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {KEY}\r\n\
         Content-Type: application/x-protobuf\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    .into_bytes();
    for byte in body {
        request.extend_from_slice(&[b'1', b'\r', b'\n', byte, b'\r', b'\n']);
    }
    request.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(collector.raw(&request).status, 200);
}

#[test]
fn the_longest_idle_connection_makes_room_for_a_new_one() {
    let limits = ConnectionLimits { max_per_address: 1_000, ..ConnectionLimits::of(32) };
    let collector = with_limits(limits);
    let mut idle: Vec<_> = (0..100)
        .map(|_| {
            // The collector accepts in order: after the response it has accepted all before.
            let mut stream = collector.connect();
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            stream.read_exact(&mut [0; 12]).unwrap();
            stream
        })
        .collect();
    let body = batch(&KINDS[0], 1, 1, 10, now_us()).encode().unwrap();
    assert_eq!(collector.post_batch(&body).status, 200);
    wait_until("at most 32 connections stay open", || collector.app.connections.counts().0 <= 32);
    for stream in &mut idle {
        // The rest of the response to /healthz.
        let _ = stream.read(&mut [0; 4_096]);
    }
    let closed: Vec<_> = idle.iter_mut().map(is_closed).collect();
    assert!(closed[..60].iter().all(|closed| *closed), "{closed:?}");
    assert!(!closed[99], "{closed:?}");
}

#[test]
fn one_address_cannot_take_the_connections_of_others() {
    let collector = with_limits(ConnectionLimits { max_per_address: 8, ..ConnectionLimits::of(64) });
    let mut ordinary = connect_from("127.0.0.2", collector.address);
    let many: Vec<_> = (0..100).map(|_| collector.connect()).collect();
    wait_until("all are accepted", || collector.app.connections.counts().1 >= 92);
    ordinary.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    assert_eq!(read_response(&mut ordinary).status, 200);
    assert_eq!(collector.get("/v1/functions").status, 200, "the address with too many is served, too");
    drop(many);
}

#[test]
fn slow_headers_and_idle_connections_time_out() {
    let short = Duration::from_millis(700);
    let collector = with_limits(ConnectionLimits {
        idle_timeout: short,
        head_timeout: short,
        ..ConnectionLimits::of(64)
    });
    let mut silent = collector.connect();
    let mut slow_head = collector.connect();
    let mut idle = collector.connect();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    for byte in b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: 1234567890\r\n" {
        if slow_head.write_all(&[*byte]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    for (name, stream) in [("silent", &mut silent), ("slow head", &mut slow_head), ("idle", &mut idle)] {
        let mut received = Vec::new();
        let _ = stream.read_to_end(&mut received);
        assert_eq!(received.is_empty(), name != "idle", "{name}");
    }
    wait_until("all are closed", || collector.app.connections.counts().0 == 0);
}

#[test]
fn a_reader_that_does_not_read_is_cut_off() {
    let long = Duration::from_secs(600);
    let collector = with_limits(ConnectionLimits {
        send_timeout: Duration::from_secs(1),
        min_send_rate: 10 << 20,
        // Only the time limit of the response closes a connection.
        idle_timeout: long,
        head_timeout: long,
        ..ConnectionLimits::of(64)
    });
    let batch = batch(&KINDS[0], 1, 1, 1_000, now_us());
    assert_eq!(collector.post_batch(&batch.encode().unwrap()).status, 200);
    let path = format!("/v1/functions/{}/invocations?limit=1000", KINDS[0].name);
    let mut slow = connect_from("127.0.0.1", collector.address);
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\r\n");
    slow.write_all(request.as_bytes()).unwrap();
    slow.read_exact(&mut [0; 100]).unwrap();
    wait_until("it is closed", || collector.app.connections.counts().2 == 1);
    wait_until("it is gone", || collector.app.connections.counts().0 == 0);
    // A client that reads gets all of it.
    let response = collector.get(&path);
    assert!(response.body.len() > 400_000, "more than the buffers of both sides: {}", response.body.len());
    assert_eq!(response.json()["invocations"].as_array().unwrap().len(), 1_000);
}

#[test]
fn health_and_login_are_served_when_all_connections_work() {
    let collector = with_limits(ConnectionLimits { max_per_address: 1_000, ..ConnectionLimits::of(2) });
    // While another process writes to the database, a batch waits.
    let other = rusqlite::Connection::open(collector.folder.path().join("tailor.sqlite")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let body = batch(&KINDS[0], 1, 1, 10, now_us()).encode().unwrap();
    let working: Vec<_> = (0..2)
        .map(|_| {
            let mut stream = collector.connect();
            stream.write_all(&post(KEY, "", &body)).unwrap();
            stream
        })
        .collect();
    wait_until("both are open", || collector.app.connections.counts().0 == 2);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(collector.get_with("/healthz", "").status, 200);
    assert_eq!(collector.get_with("/login", "").status, 200);
    let busy = collector.get("/v1/functions");
    assert_eq!((busy.status, busy.json()["error"]["code"].as_str()), (429, Some("busy")));
    other.execute_batch("ROLLBACK").unwrap();
    for mut stream in working {
        assert_eq!(read_response(&mut stream).status, 200);
    }
}

#[test]
fn the_limit_of_open_files_is_raised_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -S -n 256 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_tailor")]);
    let collector = CollectorProcess::start_as(limited, &folder.path().join("data"), &[]);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", collector.child.id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let values: Vec<u64> = line.split_whitespace().filter_map(|value| value.parse().ok()).collect();
    assert!(values[0] >= 8_192.min(values[1]), "{line}");
}
