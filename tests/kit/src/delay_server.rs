//! An HTTP server that delays each response. The I/O-bound example functions send requests to it.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// Longest delay, milliseconds. It limits the effect of a wrong path, which could otherwise block a function until
/// its timeout.
const LONGEST_DELAY_MS: u64 = 10_000;

/// Starts the server on a free port of the loopback address. It runs until the process ends.
///
/// The response to `GET /N` is sent after N milliseconds and has a body of 1,024 bytes.
///
/// # Errors
/// When no port can be bound.
pub fn start() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // The client reports a failed request.
            thread::spawn(move || drop(serve(&stream)));
        }
    });
    Ok(address)
}

fn serve(mut stream: &TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).unwrap_or("/");
        let delay_ms = path.trim_start_matches('/').parse().unwrap_or(0).min(LONGEST_DELAY_MS);
        let mut close = false;
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? <= 2 {
                break;
            }
            close |= header.to_ascii_lowercase().starts_with("connection: close");
        }
        thread::sleep(Duration::from_millis(delay_ms));
        let body = "x".repeat(1_024);
        let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        // One write: a second write would wait up to 40 ms for the TCP acknowledgement of the first (Nagle's algorithm).
        stream.write_all(response.as_bytes())?;
        if close {
            return Ok(());
        }
    }
}
