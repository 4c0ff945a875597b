//! A server that answers late: what an I/O-bound function waits for.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// Longest delay that is served, so that a wrong path cannot hang a function until its timeout.
const LONGEST_DELAY_MS: u64 = 10_000;

/// Starts the server on a free port of the loopback address; it lives as long as the process.
///
/// `GET /N` is answered after N milliseconds with a kilobyte.
///
/// # Errors
/// When no port can be bound.
pub fn start() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A failed exchange is the client's to notice.
            thread::spawn(move || drop(answer_all(&stream)));
        }
    });
    Ok(address)
}

fn answer_all(mut stream: &TcpStream) -> std::io::Result<()> {
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
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        // In one write: in several, the second would wait for the first to be acknowledged, for 40 ms.
        stream.write_all(answer.as_bytes())?;
        if close {
            return Ok(());
        }
    }
}
