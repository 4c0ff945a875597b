//! What other programs put before a message: colours, timestamps, log streams, names of containers.

use std::borrow::Cow;

use crate::text::is_stream;
use crate::timestamp::{self, parse_iso};

/// A line without what stands before the message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// The first timestamp, microseconds since the Unix epoch.
    pub(crate) at_us: Option<u64>,
    /// The name of a log stream.
    pub(crate) stream: Option<&'a str>,
    /// The name of a log group, in a row of a table.
    pub(crate) group: Option<&'a str>,
    /// The message, or from the first unknown word on.
    pub(crate) message: &'a [u8],
}

/// Maximum number of words before a message.
const MAX_WORDS: usize = 8;

/// Separates a line. Known are the formats of `sam logs`, `aws logs tail`, exports of CloudWatch Logs, Docker, Docker Compose,
/// Kubernetes and the Runtime Interface Emulator.
pub(crate) fn split(line: &[u8]) -> Line<'_> {
    if let Some(row) = line.trim_ascii().strip_prefix(b"|") {
        return split_row(row);
    }
    let mut split = Line { message: line.trim_ascii(), ..Line::default() };
    for _ in 0..MAX_WORDS {
        let rest = split.message;
        if let Some((at_us, length)) = parse_iso(rest) {
            split.at_us.get_or_insert(at_us);
            split.message = rest[length..].trim_ascii_start();
            continue;
        }
        let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
        let (word, after) = (&rest[..end], rest[end..].trim_ascii_start());
        if is_stream(word) {
            split.stream = split.stream.or_else(|| std::str::from_utf8(word).ok());
            split.message = after;
        } else if let Some(message) = after.strip_prefix(b"|") {
            // Docker Compose: `name-1  | message`.
            split.message = message.trim_ascii_start();
        } else if is_marker(word) {
            // A count since the Unix epoch, or the number of the line.
            split.at_us = split.at_us.or_else(|| timestamp::parse(word));
            split.message = after;
        } else {
            break;
        }
    }
    split
}

/// Separates a row of a table in text, without its first bar: `2026-01-02 03:04:05.678 | 123456789012:/aws/lambda/pay | message |`.
/// Known are the tables that CloudWatch Logs Insights copies as Markdown, and those of the AWS CLI. The cells may be in any order.
fn split_row(row: &[u8]) -> Line<'_> {
    const GROUP: &[u8] = b"/aws/lambda/";
    let mut split = Line::default();
    let cells = row.split(|byte| *byte == b'|').map(<[u8]>::trim_ascii).filter(|cell| !cell.is_empty());
    for cell in cells {
        let text = std::str::from_utf8(cell).ok();
        let is_word = !cell.iter().any(u8::is_ascii_whitespace);
        if is_word && is_stream(cell) {
            split.stream = split.stream.or(text);
        } else if is_word && memchr::memmem::find(cell, GROUP).is_some() {
            split.group = split.group.or(text);
        } else if let Some((at_us, length)) = parse_iso(cell)
            && length == cell.len()
        {
            split.at_us.get_or_insert(at_us);
        } else if is_word && let Some(at_us) = timestamp::parse(cell) {
            split.at_us.get_or_insert(at_us);
        } else if cell.len() > split.message.len() {
            // Other columns, such as a number or a request id, are shorter than a line of the platform.
            split.message = cell;
        }
    }
    split
}

/// Words of container logs (the stream and whether the line is complete, or `[pod/name]`), of the AWS CLI's text output, and
/// numbers.
fn is_marker(word: &[u8]) -> bool {
    let is_pod = word.starts_with(b"[") && word.ends_with(b"]") && word.contains(&b'/');
    let is_number = !word.is_empty() && word.iter().all(u8::is_ascii_digit);
    is_number || is_pod || matches!(word, b"stdout" | b"stderr" | b"F" | b"P" | b"EVENTS")
}

/// The text without escape sequences for colours.
pub(crate) fn without_colours(line: &[u8]) -> Cow<'_, [u8]> {
    const ESCAPE: u8 = 0x1b;
    if memchr::memchr(ESCAPE, line).is_none() {
        return Cow::Borrowed(line);
    }
    let mut plain = Vec::with_capacity(line.len());
    let mut bytes = line.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != ESCAPE {
            plain.push(byte);
        } else if bytes.next() == Some(b'[') {
            // A sequence ends with its first letter.
            bytes.by_ref().find(u8::is_ascii_alphabetic);
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_prefixes_are_removed() {
        for line in [
            "REPORT x",
            "2026-01-02T03:04:05.678Z REPORT x",
            "2026-01-02T03:04:05.678000+00:00 2026/01/02/[$LATEST]0123abcd REPORT x",
            "2026/01/02/[$LATEST]0123abcd 2026-01-02T03:04:05.678000 REPORT x",
            "\x1b[36m2026/01/02/[$LATEST]0123abcd\x1b[0m \x1b[33m2026-01-02T03:04:05.678000\x1b[0m REPORT x\r",
            "lambda-1  | REPORT x",
            "lambda-1  | 2026-01-02T03:04:05.678123456Z REPORT x",
            "2026-01-02T03:04:05.678123456Z stdout F REPORT x",
            "[pod/lambda-0/app] REPORT x",
        ] {
            let plain = without_colours(line.as_bytes());
            let split = split(&plain);
            assert_eq!(split.message, b"REPORT x", "{line}");
            assert_eq!(split.at_us.is_some(), line.contains("03:04:05"), "{line}");
            assert_eq!(split.stream.is_some(), line.contains("LATEST"), "{line}");
        }
        let forwarded = b"2026-01-02T03:04:05.678Z INFO received REPORT x";
        assert_eq!(split(forwarded).message, b"INFO received REPORT x");
    }
}
