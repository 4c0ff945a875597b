//! Lines of text: the search for those of the platform, and the size of their log events.

use std::borrow::Cow;

use aho_corasick::Input;
use memchr::{memchr, memchr_iter, memrchr};

use super::wrapped::{Wrapped, join};
use super::{Buffer, EVENT_BYTES, MAX_LINE_BYTES, Place, Scan, is_json};
use crate::decode::GZIP_IN_BASE64;
use crate::prefix::{ESCAPE, Layout, Line, split, without_colours};
use crate::problems::Problem;
use crate::text::{begins_as_platform, is_platform};
use crate::timestamp::parse_iso;

impl Scan<'_> {
    /// Reads lines of text.
    pub(super) fn lines(&mut self, input: &mut Buffer<'_>, place: &Place, depth: u32) {
        loop {
            let is_end = !input.fill();
            let bytes = input.bytes();
            let end = match memrchr(b'\n', bytes) {
                _ if is_end => bytes.len(),
                Some(newline) => newline + 1,
                None if bytes.len() > MAX_LINE_BYTES => {
                    self.problems.add(Problem::TooLarge, bytes);
                    input.skip_line();
                    continue;
                }
                None => continue,
            };
            self.text(&bytes[..end], place, depth);
            input.consume(end);
            if is_end {
                return;
            }
        }
    }

    /// Reads complete lines. Only those with a candidate are examined.
    pub(super) fn text(&mut self, text: &[u8], place: &Place, depth: u32) {
        let mut from = 0;
        while let Some(found) = self.candidates.find(Input::new(text).span(from..text.len())) {
            let start = memrchr(b'\n', &text[from..found.start()]).map_or(from, |newline| from + newline + 1);
            let end = memchr(b'\n', &text[found.end()..]).map_or(text.len(), |newline| found.end() + newline);
            let plain = without_colours(&text[start..end]);
            let line = split(&plain);
            let wrapped = join(&line, &text[end..]);
            let (line, end) = match &wrapped {
                Some(Wrapped { message, used }) => (Line { message: message.as_slice(), ..line }, end + used),
                None => (line, end),
            };
            if begins_as_platform(line.message) {
                self.layout = line.layout;
            }
            self.count_lines(&text[from..start]);
            if wrapped.is_some() {
                self.count_event(line.message);
            } else if !self.has_events(line.message) {
                self.count_lines(&text[start..end]);
            }
            self.line(&line, &text[..start], place, depth);
            from = (end + 1).min(text.len());
        }
        self.count_lines(&text[from..]);
        if !text.is_empty() {
            self.time_before = time_of_last_line(text);
        }
    }

    /// Whether a message has log events in it, and is not one itself.
    fn has_events(&self, message: &[u8]) -> bool {
        message.starts_with(GZIP_IN_BASE64) || is_json(message) && self.is_container(message)
    }

    /// Reads one line with a candidate. `before` is the text before it, which may have its time.
    fn line(&mut self, line: &Line<'_>, before: &[u8], place: &Place, depth: u32) {
        let origin = self.origin(&place.origin, line.group, line.stream, None);
        let above = || if before.is_empty() { self.time_before } else { time_of_last_line(before) };
        let place = Place { at_us: line.at_us.or(place.at_us).or_else(above), origin };
        if line.message.starts_with(GZIP_IN_BASE64) {
            self.base64(line.message, &place, depth);
        } else {
            self.candidate(line.message, &place, depth);
        }
    }

    /// Counts the bytes of the log events in lines of text.
    fn count_lines(&mut self, text: &[u8]) {
        // A table has only some of the events.
        let Some(layout) = self.layout else { return };
        let mut from = 0;
        for newline in memchr_iter(b'\n', text) {
            self.count_line(&text[from..newline], &layout);
            from = newline + 1;
        }
        if from < text.len() {
            self.count_line(&text[from..], &layout);
        }
    }

    /// Counts one line: an event without what stands before its message, or one more line of the event before.
    fn count_line(&mut self, line: &[u8], layout: &Layout) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let is_coloured = !layout.is_empty() && line.first() == Some(&ESCAPE);
        let plain = if is_coloured { without_colours(line) } else { Cow::Borrowed(line) };
        let message = layout.message(&plain).filter(|message| !layout.is_empty() || !continues(message));
        match message {
            // The console shows the time of an event above its message.
            Some(message) if layout.is_empty() && time_alone(message).is_some() => {}
            Some(message) => self.count_event(message),
            None => {
                let counted = self.log_bytes.get_or_insert_default();
                // Its newline is a part of the message.
                counted.bytes = counted.bytes.saturating_add(plain.len() as u64).saturating_add(1);
            }
        }
    }

    /// Counts a log event.
    pub(super) fn count_event(&mut self, message: &[u8]) {
        let counted = self.log_bytes.get_or_insert_default();
        counted.bytes = counted.bytes.saturating_add(message.len() as u64).saturating_add(EVENT_BYTES);
        if !counted.has_function_events {
            counted.has_function_events = !message.trim_ascii().is_empty() && !is_platform(message);
        }
    }
}

/// Whether a line is a part of the event before it, in a log with nothing before the messages.
fn continues(line: &[u8]) -> bool {
    line.first().is_none_or(|byte| matches!(byte, b' ' | b'\t')) || line.starts_with(b"XRAY TraceId:")
}

/// The time in the last line of a text, when that has nothing else: the console shows the time of an event above its message.
fn time_of_last_line(text: &[u8]) -> Option<u64> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let start = memrchr(b'\n', text).map_or(0, |newline| newline + 1);
    time_alone(&text[start..])
}

/// The time in a line that has nothing else.
fn time_alone(line: &[u8]) -> Option<u64> {
    let line = line.trim_ascii();
    parse_iso(line).filter(|(_, length)| *length == line.len()).map(|(at_us, _)| at_us)
}
