//! `application/vnd.amazon.eventstream`, the framing in which AWS streams responses: one direction, events only.
//!
//! A message is a prelude (total length, length of headers, CRC of both), headers, payload, and the CRC of all
//! that. Numbers are big-endian; a header is a length and name, a type and a length and value.

use bytes::{BufMut, Bytes, BytesMut};

/// Prelude with its CRC.
const PRELUDE_BYTES: usize = 12;

/// The CRC at the end.
const END_BYTES: usize = 4;

/// Header values are strings.
const STRING: u8 = 7;

/// Largest payload of one message. Decoders take 16 MiB a message; AWS sends far smaller ones.
pub(in crate::control) const MAX_PAYLOAD_BYTES: usize = 1024 * 1024;

/// One event called `event_type`; `payload` must not exceed [`MAX_PAYLOAD_BYTES`].
pub(in crate::control) fn event(event_type: &str, content_type: &str, payload: &[u8]) -> Bytes {
    debug_assert!(payload.len() <= MAX_PAYLOAD_BYTES);
    let mut headers = BytesMut::new();
    for (name, value) in
        [(":event-type", event_type), (":content-type", content_type), (":message-type", "event")]
    {
        // Both are short words of ours.
        headers.put_u8(u8::try_from(name.len()).unwrap_or(u8::MAX));
        headers.put_slice(name.as_bytes());
        headers.put_u8(STRING);
        headers.put_u16(u16::try_from(value.len()).unwrap_or(u16::MAX));
        headers.put_slice(value.as_bytes());
    }
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    let mut message = BytesMut::new();
    message.put_u32(length(PRELUDE_BYTES + headers.len() + payload.len() + END_BYTES));
    message.put_u32(length(headers.len()));
    message.put_u32(crc32fast::hash(&message));
    message.put_slice(&headers);
    message.put_slice(payload);
    message.put_u32(crc32fast::hash(&message));
    message.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_smithy_eventstream::frame::read_message_from;

    #[test]
    fn the_decoder_of_awss_sdk_reads_what_is_written() {
        for payload in [&b""[..], b"some bytes", &[0xFF; MAX_PAYLOAD_BYTES]] {
            let message =
                read_message_from(event("PayloadChunk", "application/octet-stream", payload)).unwrap();
            assert_eq!(&message.payload()[..], payload);
            let header = |name: &str| {
                let found = message.headers().iter().find(|header| header.name().as_str() == name);
                found.unwrap().value().as_string().unwrap().as_str().to_owned()
            };
            assert_eq!(header(":message-type"), "event");
            assert_eq!(header(":event-type"), "PayloadChunk");
            assert_eq!(header(":content-type"), "application/octet-stream");
        }
    }
}
