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
    /// What stands before the message; `None` in a row of a table.
    pub(crate) layout: Option<Layout>,
    /// The message, or from the first unknown word on.
    pub(crate) message: &'a [u8],
}

/// Maximum number of words before a message.
const MAX_WORDS: usize = 8;

/// The first byte of an escape sequence for colours.
pub(crate) const ESCAPE: u8 = 0x1b;

/// The words before a message, by their kinds. A program puts words of the same kinds before each message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Layout {
    words: [Option<Kind>; MAX_WORDS],
}

/// The kind of a word before a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Time,
    Stream,
    Name,
    Marker,
}

/// A word before a message.
enum Word<'a> {
    /// A timestamp, microseconds since the Unix epoch.
    Time(u64),
    /// The name of a log stream.
    Stream(&'a [u8]),
    /// The name of a container, and the bar after it.
    Name,
    /// See [`is_marker`].
    Marker(&'a [u8]),
}

impl Word<'_> {
    const fn kind(&self) -> Kind {
        match self {
            Self::Time(_) => Kind::Time,
            Self::Stream(_) => Kind::Stream,
            Self::Name => Kind::Name,
            Self::Marker(_) => Kind::Marker,
        }
    }
}

impl Layout {
    /// Whether nothing stands before messages.
    pub(crate) fn is_empty(&self) -> bool {
        self.words[0].is_none()
    }

    /// The message of a line with this layout; `None` when the line has another one.
    pub(crate) fn message<'a>(&self, line: &'a [u8]) -> Option<&'a [u8]> {
        let mut rest = line;
        for kind in self.words.iter().map_while(Option::as_ref) {
            let (word, after) = first_word(rest.trim_ascii_start())?;
            if word.kind() != *kind {
                return None;
            }
            rest = after;
        }
        Some(match rest {
            [b' ' | b'\t', message @ ..] if !self.is_empty() => message,
            _ => rest,
        })
    }
}

/// The first word of a text, when it stands before a message, and what follows it.
fn first_word(text: &[u8]) -> Option<(Word<'_>, &[u8])> {
    if let Some((at_us, length)) = parse_iso(text) {
        return Some((Word::Time(at_us), &text[length..]));
    }
    let end = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
    let (word, after) = text.split_at(end);
    if is_stream(word) {
        Some((Word::Stream(word), after))
    } else if let Some(message) = after.trim_ascii_start().strip_prefix(b"|") {
        // Docker Compose: `name-1  | message`.
        Some((Word::Name, message))
    } else if is_marker(word) {
        Some((Word::Marker(word), after))
    } else {
        None
    }
}

/// Separates a line. Known are the formats of `sam logs`, `aws logs tail`, exports of CloudWatch Logs, Docker, Docker Compose,
/// Kubernetes and the Runtime Interface Emulator.
pub(crate) fn split(line: &[u8]) -> Line<'_> {
    if let Some(row) = line.trim_ascii().strip_prefix(b"|") {
        return split_row(row);
    }
    let mut split = Line { message: line.trim_ascii(), ..Line::default() };
    let mut layout = Layout::default();
    for place in &mut layout.words {
        let Some((word, after)) = first_word(split.message) else { break };
        *place = Some(word.kind());
        match word {
            Word::Time(at_us) => {
                split.at_us.get_or_insert(at_us);
            }
            Word::Stream(name) => split.stream = split.stream.or_else(|| std::str::from_utf8(name).ok()),
            Word::Name => {}
            // A count since the Unix epoch, or the number of the line.
            Word::Marker(word) => split.at_us = split.at_us.or_else(|| timestamp::parse(word)),
        }
        split.message = after.trim_ascii_start();
    }
    split.layout = Some(layout);
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
            // Another line of the same program.
            let layout = split.layout.unwrap();
            let other = String::from_utf8_lossy(&plain).replace("REPORT x", " a b");
            assert_eq!(layout.message(other.trim_end_matches('\r').as_bytes()), Some(&b" a b"[..]), "{line}");
            assert_eq!(layout.message(b"    at f (a.js:1:2)").is_none(), line != "REPORT x", "{line}");
        }
        let forwarded = b"2026-01-02T03:04:05.678Z INFO received REPORT x";
        assert_eq!(split(forwarded).message, b"INFO received REPORT x");
    }
}
