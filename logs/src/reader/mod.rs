//! Finds the platform's lines in any input.

use std::io::{self, Read};
use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};
use memchr::{memchr, memchr2};

use crate::decode::decompress;
use crate::origin::Origin;
use crate::prefix::{Layout, split};
use crate::problems::{Problem, Problems};
use crate::record::{Entry, Init, LogBytes};
use crate::text;

mod buffer;
mod document;
mod lines;
mod table;
mod wrapped;

pub(crate) use buffer::Buffer;
use document::refine;

/// Texts of which every line or document that is read contains one.
const CANDIDATES: [&str; 11] = [
    "REPORT",
    "START RequestId",
    "INIT_START",
    "RESTORE_START",
    "\"platform.",
    "Task timed out",
    "Runtime exited",
    "Process exited before",
    "Error: Runtime.",
    "H4sI",
    "@billedDuration",
];

/// Texts at the start of a document that has log events in it, and is not one itself.
const CONTAINERS: [&str; 7] = [
    "\"logEvents\"",
    "\"events\"",
    "\"results\"",
    "\"records\"",
    "\"Records\"",
    "\"awslogs\"",
    "\"kinesis\"",
];

/// Bytes at the start of a document in which the name of the list of events stands.
const CONTAINER_START_BYTES: usize = 512;

/// Maximum size of a line, bytes. A log event has at most 1 MB, and an event of Kinesis 10 MB in base64.
const MAX_LINE_BYTES: usize = 16 << 20;

/// Maximum size of one JSON document, bytes.
const MAX_DOCUMENT_BYTES: usize = 256 << 20;

/// Bytes that CloudWatch Logs adds to the message of each event (CloudWatch Logs quotas, `PutLogEvents`).
const EVENT_BYTES: u64 = 26;

/// Where an input comes from.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// Its name in error messages: a path.
    pub name: String,
    /// What is known of all its lines.
    pub origin: Origin,
}

/// Reads inputs one after the other.
#[derive(Debug)]
pub struct Reader {
    candidates: AhoCorasick,
    containers: AhoCorasick,
    /// What could not be read.
    pub problems: Problems,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            candidates: searcher(&CANDIDATES),
            containers: searcher(&CONTAINERS),
            problems: Problems::default(),
        }
    }
}

/// Only leftmost matches are searched with vector instructions, at several bytes at a time.
fn searcher(patterns: &[&str]) -> AhoCorasick {
    let built = AhoCorasick::builder().match_kind(MatchKind::LeftmostFirst).build(patterns);
    // The patterns are constant, and a test builds them.
    built.unwrap_or_else(|_| unreachable!("the patterns are valid"))
}

impl Reader {
    /// Reads an input to its end and passes on each line of the platform. What cannot be read is counted.
    pub fn read<'a>(&mut self, source: &Source, input: impl Read + 'a, sink: &'a mut dyn FnMut(Entry)) {
        let place = Place { at_us: None, origin: Arc::new(source.origin.clone()) };
        let mut scan = Scan {
            candidates: &self.candidates,
            containers: &self.containers,
            problems: &mut self.problems,
            sink,
            name: &source.name,
            refined: None,
            learned: None,
            log_bytes: None,
            layout: Some(Layout::default()),
            time_before: None,
        };
        scan.stream(Box::new(input), &place, 0);
    }
}

/// When and where a message was logged.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) at_us: Option<u64>,
    pub(crate) origin: Arc<Origin>,
}

/// The latest origin that was refined, and the result.
struct Refined {
    from: Arc<Origin>,
    group: Option<String>,
    stream: Option<String>,
    account: Option<String>,
    to: Arc<Origin>,
}

/// The reading of one input.
pub(crate) struct Scan<'a> {
    candidates: &'a AhoCorasick,
    containers: &'a AhoCorasick,
    pub(crate) problems: &'a mut Problems,
    pub(crate) sink: &'a mut dyn FnMut(Entry),
    name: &'a str,
    refined: Option<Refined>,
    /// The function that an `initStart` named, for lines without any.
    learned: Option<Arc<Origin>>,
    /// The size of the log events since the latest line of the platform; `None` before the first event.
    pub(crate) log_bytes: Option<LogBytes>,
    /// What stands before the messages of text: it is known from the lines of the platform. `None` in a table.
    layout: Option<Layout>,
    /// The time in the last line that was read, when that has nothing else.
    time_before: Option<u64>,
}

impl Scan<'_> {
    /// Reads a stream, compressed or not, to its end.
    pub(crate) fn stream(&mut self, input: Box<dyn Read + '_>, place: &Place, depth: u32) {
        let (input, is_compressed) = match decompress(input) {
            Ok(decompressed) => decompressed,
            Err(error) => return self.unreadable(&error, false),
        };
        if let Some(error) = self.plain(input, place, depth) {
            self.unreadable(&error, is_compressed || depth > 0);
        }
    }

    fn unreadable(&mut self, error: &io::Error, is_compressed: bool) {
        let problem = if is_compressed { Problem::DamagedData } else { Problem::UnreadableFile };
        self.problems.add(problem, format!("{}: {error}", self.name).as_bytes());
    }

    /// Reads uncompressed data. Returns the error that ended it early; what stands before it is read.
    fn plain(&mut self, input: Box<dyn Read + '_>, place: &Place, depth: u32) -> Option<io::Error> {
        const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
        let mut input = Buffer::new(input);
        input.fill();
        if input.bytes().starts_with(BYTE_ORDER_MARK) {
            input.consume(BYTE_ORDER_MARK.len());
        }
        let start = input.bytes();
        let line = &start[..memchr(b'\n', start).unwrap_or(start.len())];
        if is_json(start.trim_ascii_start()) {
            self.documents(&mut input, place, depth);
        } else if table::is_header(line) {
            self.table(&mut input, place);
        } else {
            self.lines(&mut input, place, depth);
        }
        input.error
    }

    /// Reads one message.
    pub(crate) fn message(&mut self, message: &[u8], place: &Place, depth: u32) {
        if self.is_candidate(message) {
            self.candidate(message, place, depth);
        }
    }

    /// Reads a message with a candidate, or the message of a line with one.
    fn candidate(&mut self, message: &[u8], place: &Place, depth: u32) {
        let message = message.trim_ascii();
        if is_json(message) {
            if !self.document(message, place, depth + 1)
                && memchr::memmem::find(message, b"platform.").is_some()
            {
                self.problems.add(Problem::MalformedJson, message);
            }
            return;
        }
        // The line of a timeout begins with a time.
        match text::parse(split(message).message) {
            text::Parsed::Other if memchr::memmem::find(message, b"REPORT RequestId:").is_some() => {
                self.problems.add(Problem::Embedded, message);
            }
            parsed => self.parsed(parsed, place, message),
        }
    }

    /// Reads JSON documents, one after the other with any white space between them. Other lines between them are text.
    fn documents(&mut self, input: &mut Buffer<'_>, place: &Place, depth: u32) {
        let mut extent = Extent::default();
        loop {
            let is_end = !input.fill();
            while let Some(&first) = input.bytes().first() {
                let bytes = input.bytes();
                if first.is_ascii_whitespace() || first == b',' {
                    input.consume(1);
                    continue;
                }
                if !is_json(bytes) {
                    match memchr(b'\n', bytes) {
                        None if !is_end && bytes.len() <= MAX_LINE_BYTES => break,
                        newline => {
                            let end = newline.unwrap_or(bytes.len());
                            self.text(&bytes[..end], place, depth);
                            input.consume(end);
                            continue;
                        }
                    }
                }
                let end = match extent.find(bytes) {
                    Some(end) => end,
                    None if is_end || bytes.len() > MAX_DOCUMENT_BYTES => {
                        if !is_end {
                            self.problems.add(Problem::TooLarge, bytes);
                        } else if memchr(b'\n', bytes).is_some() {
                            self.problems.add(Problem::MalformedJson, bytes);
                        }
                        bytes.len()
                    }
                    None => break,
                };
                extent = Extent::default();
                let document = &bytes[..end];
                let counted = self.log_bytes;
                if !self.is_container(document) {
                    self.count_document(document);
                }
                let is_candidate = self.candidates.is_match(document);
                if is_candidate && !self.document(document, place, depth) {
                    // The lines in it are counted instead.
                    self.log_bytes = counted;
                    self.broken(document, place, depth);
                }
                input.consume(end);
            }
            if is_end && input.bytes().is_empty() {
                return;
            }
        }
    }

    /// Reads the lines of what is not a valid document, because a line was cut off.
    fn broken(&mut self, document: &[u8], place: &Place, depth: u32) {
        if memchr(b'\n', document).is_some() {
            self.text(document, place, depth);
        } else {
            self.problems.add(Problem::MalformedJson, document);
        }
    }

    /// Whether a text may contain a line of the platform.
    pub(crate) fn is_candidate(&self, text: &[u8]) -> bool {
        self.candidates.is_match(text)
    }

    /// Whether a document of an input has log events in it, and is not one itself.
    fn is_container(&self, document: &[u8]) -> bool {
        let start = &document[..document.len().min(CONTAINER_START_BYTES)];
        // Fields of Insights begin with `@`.
        let mut signs = memchr::memchr_iter(b'@', start);
        start.starts_with(b"[")
            || signs.any(|at| at > 0 && start[at - 1] == b'"')
            || self.containers.is_match(start)
    }

    /// The origin with what a wrapper names. Lines of one origin usually follow each other.
    pub(crate) fn origin(
        &mut self,
        from: &Arc<Origin>,
        group: Option<&str>,
        stream: Option<&str>,
        account: Option<&str>,
    ) -> Arc<Origin> {
        if group.is_none() && stream.is_none() && account.is_none() {
            return Arc::clone(from);
        }
        if let Some(refined) = &self.refined
            && Arc::ptr_eq(&refined.from, from)
            && refined.group.as_deref() == group
            && refined.stream.as_deref() == stream
            && refined.account.as_deref() == account
        {
            return Arc::clone(&refined.to);
        }
        let to = Arc::new(refine(from, group, stream, account));
        self.refined = Some(Refined {
            from: Arc::clone(from),
            group: group.map(str::to_owned),
            stream: stream.map(str::to_owned),
            account: account.map(str::to_owned),
            to: Arc::clone(&to),
        });
        to
    }

    /// Records the function that an Init names, for the lines that follow in the same input.
    pub(crate) fn learn(&mut self, origin: &Arc<Origin>, init: &Init) -> Arc<Origin> {
        let named =
            Origin { function: init.function.clone(), version: init.version.clone(), ..(**origin).clone() };
        let named = Arc::new(named);
        self.learned = Some(Arc::clone(&named));
        named
    }

    /// The function that an Init named before, if it has the same log stream.
    pub(crate) fn learned(&self, origin: &Arc<Origin>) -> Arc<Origin> {
        match &self.learned {
            Some(learned) if learned.stream == origin.stream => Arc::clone(learned),
            _ => Arc::clone(origin),
        }
    }
}

/// Whether a text begins as a JSON object or list does. Lines of text begin with brackets too, such as `[INFO]`.
fn is_json(text: &[u8]) -> bool {
    let Some((first, rest)) = text.split_first() else { return false };
    let next = rest.iter().find(|byte| !byte.is_ascii_whitespace());
    match first {
        b'{' => matches!(next, Some(b'"' | b'}') | None),
        b'[' => matches!(next, Some(b'{' | b'[' | b']') | None),
        _ => false,
    }
}

/// Finds the end of a JSON value.
#[derive(Debug, Default)]
struct Extent {
    at: usize,
    depth: u32,
    is_in_string: bool,
}

impl Extent {
    /// The end of the value at the start of `bytes`; `None` when it is not complete. A later call has the same bytes and more.
    fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        while self.at < bytes.len() {
            if self.is_in_string {
                match memchr2(b'"', b'\\', &bytes[self.at..]) {
                    Some(offset) if bytes[self.at + offset] == b'"' => {
                        self.at += offset + 1;
                        self.is_in_string = false;
                    }
                    // The escaped byte may be missing yet.
                    Some(offset) if self.at + offset + 1 >= bytes.len() => {
                        self.at += offset;
                        return None;
                    }
                    Some(offset) => self.at += offset + 2,
                    None => self.at = bytes.len(),
                }
                continue;
            }
            match bytes[self.at] {
                b'"' => self.is_in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(self.at + 1);
                    }
                }
                _ => {}
            }
            self.at += 1;
        }
        None
    }
}
