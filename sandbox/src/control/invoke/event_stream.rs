//! Events of `application/vnd.amazon.eventstream`, the format in which AWS streams responses.

use aws_smithy_eventstream::error::Error;
use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use bytes::{Bytes, BytesMut};

/// Largest payload of one message, in bytes. Decoders accept 16 MiB per message; AWS sends far smaller ones.
pub(in crate::control) const MAX_PAYLOAD_BYTES: usize = 1024 * 1024;

/// Encodes one event of type `event_type`. `payload` must not exceed [`MAX_PAYLOAD_BYTES`]. Fails only on headers
/// or payloads that are too long for the format.
pub(in crate::control) fn event(
    event_type: &'static str,
    content_type: &'static str,
    payload: Bytes,
) -> Result<Bytes, Error> {
    debug_assert!(payload.len() <= MAX_PAYLOAD_BYTES);
    let header =
        |name: &'static str, value: &'static str| Header::new(name, HeaderValue::String(value.into()));
    let message = Message::new(payload)
        .add_header(header(":event-type", event_type))
        .add_header(header(":content-type", content_type))
        .add_header(header(":message-type", "event"));
    let mut encoded = BytesMut::new();
    write_message_to(&message, &mut encoded)?;
    Ok(encoded.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_smithy_eventstream::frame::read_message_from;

    #[test]
    fn the_aws_decoder_reads_an_encoded_event() {
        for payload in [Bytes::new(), Bytes::from("some bytes"), vec![0xFF; MAX_PAYLOAD_BYTES].into()] {
            let encoded = event("PayloadChunk", "application/octet-stream", payload.clone()).unwrap();
            let message = read_message_from(encoded).unwrap();
            assert_eq!(*message.payload(), payload);
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
