//! The platform's lines in text logs. `END` has nothing that `START` and `REPORT` do not have, and is ignored.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use tailor_sizing::telemetry::invocation::RequestId;

use crate::numbers::{parse_rounded_up, thousandths};
use crate::origin::parse_stream;
use crate::record::{Init, InitReport, Record, Report, Runtime};

// The preparation of a search takes longer than the search of a line.
static PLATFORM: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"platform."));
static TIMED_OUT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(" Task timed out after "));

/// What a message is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// A line of the platform.
    Record(Record),
    /// It begins as a line of the platform, and its fields cannot be read.
    Malformed,
    /// Something else, such as a line of the function.
    Other,
}

impl From<Option<Record>> for Parsed {
    fn from(record: Option<Record>) -> Self {
        record.map_or(Self::Malformed, Self::Record)
    }
}

/// Reads a message that begins with the platform's text: nothing stands before it.
pub(crate) fn parse(message: &[u8]) -> Parsed {
    let Some(first) = message.first() else { return Parsed::Other };
    match first {
        b'R' => report_or_exit(message),
        b'S' => match after(message, b"START").and_then(|rest| after(rest, b"RequestId:")) {
            Some(rest) => start(rest).into(),
            None => Parsed::Other,
        },
        b'I' => {
            if let Some(rest) = after(message, b"INIT_REPORT") {
                init_report(rest).into()
            } else if let Some(rest) = after(message, b"INIT_START") {
                Parsed::Record(Record::InitStart(init_start(rest)))
            } else {
                Parsed::Other
            }
        }
        byte if byte.is_ascii_hexdigit() => timed_out(message),
        _ => Parsed::Other,
    }
}

/// Whether a message begins as the platform's events do, in text or in JSON. Other events of the platform begin with a time or
/// with a request id.
pub(crate) fn begins_as_platform(message: &[u8]) -> bool {
    const WORDS: [&[u8]; 5] =
        [b"INIT_START", b"INIT_REPORT", b"RESTORE_START", b"RESTORE_REPORT", b"XRAY TraceId:"];
    const PAIRS: [(&[u8], &[u8]); 6] = [
        (b"REPORT", b"RequestId:"),
        (b"START", b"RequestId:"),
        (b"END", b"RequestId:"),
        (b"EXTENSION", b"Name:"),
        (b"LOGS", b"Name:"),
        (b"TELEMETRY", b"Name:"),
    ];
    match message.first() {
        Some(b'{') => return PLATFORM.find(message).is_some(),
        // The first letters of the words below: most messages have another one.
        Some(b'E' | b'I' | b'L' | b'R' | b'S' | b'T' | b'X') => {}
        _ => return false,
    }
    WORDS.iter().any(|word| message.starts_with(word))
        || PAIRS.iter().any(|(word, next)| after(message, word).is_some_and(|rest| rest.starts_with(next)))
}

/// Whether a message is an event of the platform.
pub(crate) fn is_platform(message: &[u8]) -> bool {
    begins_as_platform(message)
        || TIMED_OUT.find(message).is_some()
        || matches!(parse(message), Parsed::Record(_))
}

fn report_or_exit(message: &[u8]) -> Parsed {
    if let Some(rest) = after(message, b"REPORT").and_then(|rest| after(rest, b"RequestId:")) {
        return report(rest).into();
    }
    if let Some(rest) = after(message, b"RESTORE_START") {
        return Parsed::Record(Record::InitStart(init_start(rest)));
    }
    let Some(rest) = after(message, b"RequestId:") else { return Parsed::Other };
    let (id, rest) = token(rest);
    let Some(request_id) = request_id(id) else { return Parsed::Other };
    let contains = |part: &[u8]| memchr::memmem::find(rest, part).is_some();
    if contains(b"Task timed out after") {
        return Parsed::Record(Record::TimedOut { request_id });
    }
    if contains(b"Runtime exited") || contains(b"Error: Runtime.") || contains(b"Process exited before") {
        return Parsed::Record(Record::Exited { request_id, is_out_of_memory: contains(b"OutOfMemory") });
    }
    Parsed::Other
}

/// The rest of `text` after `word` and the white space that follows; `None` when it does not begin with the word.
fn after<'a>(text: &'a [u8], word: &[u8]) -> Option<&'a [u8]> {
    text.strip_prefix(word).map(<[u8]>::trim_ascii_start)
}

/// The text up to the next white space, and what follows it.
fn token(text: &[u8]) -> (&[u8], &[u8]) {
    let text = text.trim_ascii_start();
    let end = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
    (&text[..end], text[end..].trim_ascii_start())
}

fn request_id(text: &[u8]) -> Option<RequestId> {
    RequestId::parse(std::str::from_utf8(text).ok()?)
}

fn start(rest: &[u8]) -> Option<Record> {
    let (id, rest) = token(rest);
    let request_id = request_id(id)?;
    let version = match after(rest, b"Version:") {
        Some(rest) => name(token(rest).0, 64),
        None => String::new(),
    };
    Some(Record::Start { request_id, version })
}

/// `0123…-… Task timed out after 3.00 seconds`.
fn timed_out(message: &[u8]) -> Parsed {
    let (id, rest) = token(message);
    match request_id(id) {
        Some(request_id) if rest.starts_with(b"Task timed out after") => {
            Parsed::Record(Record::TimedOut { request_id })
        }
        _ => Parsed::Other,
    }
}

/// The labels of `REPORT` and `INIT_REPORT`, each with the field that its value belongs to.
const LABELS: [(&[u8], Field); 10] = [
    (b"Duration:", Field::Duration),
    (b"Billed Duration:", Field::Billed),
    (b"Memory Size:", Field::Memory),
    (b"Max Memory Used:", Field::MaxMemory),
    (b"Init Duration:", Field::Init),
    (b"Restore Duration:", Field::Restore),
    (b"Billed Restore Duration:", Field::BilledRestore),
    (b"Status:", Field::Status),
    (b"Error Type:", Field::ErrorType),
    (b"Phase:", Field::Phase),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Duration,
    Billed,
    Memory,
    MaxMemory,
    Init,
    Restore,
    BilledRestore,
    Status,
    ErrorType,
    Phase,
}

/// Calls `use_field` with each labelled value, in their order. Labels may be separated by any white space, and unknown text
/// between them is skipped.
fn fields<'a>(mut rest: &'a [u8], mut use_field: impl FnMut(Field, &'a [u8]) -> Option<()>) -> Option<()> {
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return Some(());
        }
        let first = rest[0];
        match LABELS.iter().find(|(label, _)| label[0] == first && rest.starts_with(label)) {
            Some((label, field)) => {
                let (value, next) = token(&rest[label.len()..]);
                use_field(*field, value)?;
                rest = next;
            }
            None => rest = token(rest).1,
        }
    }
}

/// A number without its unit, when no space stands between them.
fn without_unit(value: &[u8]) -> &[u8] {
    value.strip_suffix(b"ms").or_else(|| value.strip_suffix(b"MB")).unwrap_or(value)
}

fn report(rest: &[u8]) -> Option<Record> {
    let (id, rest) = token(rest);
    let mut report = Report { request_id: request_id(id)?, ..Report::default() };
    let mut has_duration = false;
    fields(rest, |field, value| {
        let us = || thousandths(without_unit(value));
        let megabytes = || u32::try_from(parse_rounded_up(without_unit(value))?).ok();
        match field {
            Field::Duration => {
                report.duration_us = us()?;
                has_duration = true;
            }
            Field::Billed => report.billed_ms = Some(parse_rounded_up(without_unit(value))?),
            Field::Memory => report.memory_mb = Some(megabytes()?),
            Field::MaxMemory => report.max_memory_used_mb = Some(megabytes()?),
            Field::Init => report.init_us = Some(us()?),
            Field::Restore => report.restore_us = Some(us()?),
            Field::BilledRestore => report.billed_restore_ms = Some(parse_rounded_up(without_unit(value))?),
            Field::Status => report.status = name(value, 32),
            Field::ErrorType => report.error_type = name(value, 128),
            Field::Phase => {}
        }
        Some(())
    })?;
    // Functions on managed instances have neither, and log JSON only.
    let is_complete = has_duration && report.billed_ms.is_some() && report.memory_mb.is_some();
    is_complete.then_some(Record::Report(report))
}

fn init_report(rest: &[u8]) -> Option<Record> {
    let mut report = InitReport::default();
    let mut has_duration = false;
    fields(rest, |field, value| {
        match field {
            Field::Init => {
                report.duration_us = thousandths(without_unit(value))?;
                has_duration = true;
            }
            Field::Phase => report.phase = name(value, 32),
            Field::Status => report.status = name(value, 32),
            Field::ErrorType => report.error_type = name(value, 128),
            _ => {}
        }
        Some(())
    })?;
    has_duration.then_some(Record::InitReport(report))
}

/// `Runtime Version: python:3.13.v50`, a tab, `Runtime Version ARN: arn:aws:lambda:eu-west-1::runtime:…`.
fn init_start(rest: &[u8]) -> Init {
    let value = |label: &[u8]| {
        let at = memchr::memmem::find(rest, label)?;
        std::str::from_utf8(token(&rest[at + label.len()..]).0).ok()
    };
    let version = value(b"Runtime Version:").unwrap_or_default();
    let arn = value(b"Runtime Version ARN:").unwrap_or_default();
    Init { runtime: runtime(version, arn), ..Init::default() }
}

/// A runtime from its version (`python:3.13.v50`) and the ARN of that version.
pub(crate) fn runtime(version: &str, arn: &str) -> Runtime {
    let (language, number) = version.split_once(':').unwrap_or((version, ""));
    let number = number.split(".v").next().unwrap_or_default();
    let identifier = match language {
        // Node.js's identifiers end in `.x`.
        "nodejs" => format!("nodejs{number}.x"),
        "provided" => format!("provided.{number}"),
        _ => format!("{language}{number}"),
    };
    let region = match arn.split(':').collect::<Vec<_>>().as_slice() {
        ["arn", _, "lambda", region, ..] => name(region.as_bytes(), 32),
        _ => String::new(),
    };
    Runtime {
        name: if language.is_empty() { String::new() } else { name(identifier.as_bytes(), 64) },
        region,
    }
}

/// A word of at most `limit` bytes; empty when it is none.
pub(crate) fn name(value: &[u8], limit: usize) -> String {
    match std::str::from_utf8(value) {
        Ok(text) if text.len() <= limit && text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            text.to_owned()
        }
        _ => String::new(),
    }
}

/// Whether a word is the name of a log stream.
pub(crate) fn is_stream(word: &[u8]) -> bool {
    std::str::from_utf8(word).is_ok_and(|word| parse_stream(word).is_some())
}
