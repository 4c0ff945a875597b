//! A caller of `InvokeWithResponseStream` that reads with the decoder of AWS's SDK.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use aws_smithy_eventstream::frame::{DecodedFrame, MessageFrameDecoder};
use bytes::BytesMut;
use serde_json::Value;

/// Events of `InvokeWithResponseStream` as they come: type and payload.
pub struct EventStream {
    connection: BufReader<TcpStream>,
    decoder: MessageFrameDecoder,
    buffered: BytesMut,
}

impl EventStream {
    /// Invokes `name` with an empty event and `headers`, which end in CRLF.
    pub fn open(address: &str, name: &str, headers: &str) -> EventStream {
        EventStream::with_event(address, name, "{}", headers)
    }

    pub fn with_event(address: &str, name: &str, event: &str, headers: &str) -> EventStream {
        let mut connection = TcpStream::connect(address).unwrap();
        let path = format!("/2021-11-15/functions/{name}/response-streaming-invocations");
        let length = event.len();
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n{headers}\r\n{event}");
        connection.write_all(head.as_bytes()).unwrap();
        let mut connection = BufReader::new(connection);
        let head = read_head(&mut connection);
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains("content-type: application/vnd.amazon.eventstream"), "{head}");
        assert!(head.contains("x-amz-executed-version: $LATEST"), "{head}");
        EventStream { connection, decoder: MessageFrameDecoder::new(), buffered: BytesMut::new() }
    }

    /// The next event, when it comes.
    pub fn next(&mut self) -> (String, Vec<u8>) {
        loop {
            if let DecodedFrame::Complete(message) = self.decoder.decode_frame(&mut self.buffered).unwrap() {
                let kind = message.headers().iter().find(|header| header.name().as_str() == ":event-type");
                let kind = kind.unwrap().value().as_string().unwrap().as_str().to_owned();
                return (kind, message.payload().to_vec());
            }
            let mut size = String::new();
            self.connection.read_line(&mut size).unwrap();
            let size = usize::from_str_radix(size.trim(), 16).unwrap();
            assert!(size > 0, "the stream ended without InvokeComplete");
            let mut chunk = vec![0; size + 2];
            self.connection.read_exact(&mut chunk).unwrap();
            self.buffered.extend_from_slice(&chunk[..size]);
        }
    }

    /// Everything up to the end, and how it ended.
    pub fn rest(&mut self) -> (Vec<u8>, Value) {
        let mut all = Vec::new();
        loop {
            match self.next() {
                (kind, payload) if kind == "PayloadChunk" => all.extend(payload),
                (kind, payload) => {
                    assert_eq!(kind, "InvokeComplete");
                    return (all, serde_json::from_slice(&payload).unwrap());
                }
            }
        }
    }
}

/// An HTTP head in lower case, but for what is always in upper case.
pub fn read_head(connection: &mut impl BufRead) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(connection.read_line(&mut head).unwrap() > 0, "closed after {head:?}");
    }
    head.to_ascii_lowercase().replace("http/1.1", "HTTP/1.1").replace("$latest", "$LATEST")
}
