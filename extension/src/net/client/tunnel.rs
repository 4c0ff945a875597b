//! A tunnel through an HTTP proxy, with the method CONNECT.

use std::io::{Error, ErrorKind};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Stream;
use crate::net::proxy::Proxy;

/// The longest head of a proxy's response in bytes. Usual ones have less than one thousand.
const MAX_HEAD_BYTES: usize = 8 * 1024;

/// Why there is no tunnel.
#[derive(Debug)]
pub(super) enum TunnelError {
    /// The connection to the proxy failed.
    Io(Error),
    /// The proxy rejected the request, with this status.
    Rejected(u16),
}

impl From<Error> for TunnelError {
    fn from(error: Error) -> Self {
        Self::Io(error)
    }
}

/// Requests from the proxy at the other end of `stream` for a tunnel to `server` (`host:port`).
pub(super) async fn open(stream: &mut dyn Stream, proxy: &Proxy, server: &str) -> Result<(), TunnelError> {
    let mut request = format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n");
    if let Some(authorization) = &proxy.authorization {
        request.extend(["Proxy-Authorization: ", authorization, "\r\n"]);
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::with_capacity(512);
    // Nothing follows the head in a tunnel for TLS, where the client sends first.
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_HEAD_BYTES {
            return Err(Error::new(ErrorKind::InvalidData, "the proxy's response is too long").into());
        }
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            // A rejection may end without a complete head.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof && !head.is_empty() => break,
            Err(error) => return Err(error.into()),
        }
    }
    match status(&head) {
        Some(200..300) => Ok(()),
        Some(status) => Err(TunnelError::Rejected(status)),
        None => Err(Error::new(ErrorKind::InvalidData, "the proxy's response is not HTTP").into()),
    }
}

/// The status in the first line of a response.
fn status(head: &[u8]) -> Option<u16> {
    let line = head.strip_prefix(b"HTTP/1.")?.get(..8)?;
    std::str::from_utf8(line).ok()?.split(' ').nth(1)?.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_a_response_is_read() {
        assert_eq!(status(b"HTTP/1.1 200 Connection established\r\n\r\n"), Some(200));
        assert_eq!(status(b"HTTP/1.0 407 Proxy Authentication Required\r\n"), Some(407));
        for head in [&b"HTTP/1.1"[..], b"HTTP/2 200 OK\r\n", b"SSH-2.0-OpenSSH\r\n\r\n", b""] {
            assert_eq!(status(head), None, "{head:?}");
        }
    }
}
