//! A fake Lambda platform and fake collectors, in threads of the calling process. The extension is a real process and
//! uses real connections.
//!
//! Compared with the sandbox, the fakes are faster (100,000 invocations take a minute), and the measurements contain
//! only the extension.

use std::io::{BufRead, BufReader, Read, Write};

mod collector;
mod platform;
mod recorder;

pub use collector::{Certificate, FakeCollector, Received};
pub use platform::{FakePlatform, REGISTRATION};
pub use recorder::BatchRecorder;

/// One HTTP request or response: its first line, its `Authorization` header and its body.
struct Message {
    line: String,
    authorization: Option<String>,
    body: Vec<u8>,
}

/// One end of an HTTP connection.
struct Connection<S> {
    stream: BufReader<S>,
}

impl<S: Read + Write> Connection<S> {
    fn new(stream: S) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    /// Reads the next request or response. Returns `None` when the peer closed the connection or the message is invalid.
    fn read(&mut self) -> Option<Message> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let mut length = 0;
        let mut authorization = None;
        loop {
            let mut header = String::new();
            self.stream.read_line(&mut header).ok()?;
            if header.trim().is_empty() {
                break;
            }
            let (name, value) = header.split_once(':').unwrap_or_default();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().ok()?,
                "authorization" => authorization = Some(value.trim().to_owned()),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).ok()?;
        Some(Message { line, authorization, body })
    }

    fn respond(&mut self, headers: &str, body: &[u8]) {
        self.respond_with("200 OK", headers, body);
    }

    fn respond_with(&mut self, status: &str, headers: &str, body: &[u8]) {
        let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n", body.len());
        // The client may have closed the connection.
        let _ = self.write(&[head.as_bytes(), body].concat());
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let stream = self.stream.get_mut();
        stream.write_all(bytes)?;
        stream.flush()
    }
}
