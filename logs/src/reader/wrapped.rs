//! `REPORT` lines that a terminal or a web console broke into several lines.

use std::sync::LazyLock;

use memchr::memmem::{self, Finder};

use crate::prefix::Line;
use crate::record::{Record, Report};
use crate::text::{self, Parsed, begins_as_platform};

/// Lines that may belong to a broken one.
const MAX_LINES: usize = 3;

/// Maximum size of each of them, bytes. A `REPORT` has less than 400.
const MAX_BYTES: usize = 1_024;

/// A message that was joined.
pub(super) struct Wrapped {
    /// The whole message.
    pub(super) message: Vec<u8>,
    /// Bytes of the text after the line that belong to it.
    pub(super) used: usize,
}

/// Joins a broken `REPORT` with the lines that complete it. `following` is the text from the end of the line on. `None` when the
/// line is whole, is no `REPORT`, or is not completed.
pub(super) fn join(line: &Line<'_>, following: &[u8]) -> Option<Wrapped> {
    let Line { message, layout: Some(layout), .. } = line else { return None };
    let is_report = message.starts_with(b"REPORT") && begins_as_platform(message);
    if !is_report || has_memory(message) || message.len() > MAX_BYTES {
        return None;
    }
    let is_other = |next: &[u8]| {
        next.len() > MAX_BYTES
            || !layout.is_empty() && layout.message(next).is_some()
            || next.starts_with(b"{")
            || begins_as_platform(next)
            || memmem::find(next, b"RequestId:").is_some()
    };
    let mut parts = vec![message.to_vec()];
    let mut whole: Option<(Wrapped, Report)> = None;
    let mut used = 0;
    for next in following.split(|byte| *byte == b'\n').skip(1).take(MAX_LINES) {
        if is_other(next) {
            break;
        }
        used += 1 + next.len();
        let next = next.strip_suffix(b"\r").unwrap_or(next);
        if let Some((wrapped, report)) = &whole {
            // Fields such as the duration of the Init come after the memory.
            let longer = both(&wrapped.message, next).into_iter().find_map(|text| {
                let longer = report_of(&text).filter(|longer| is_more(report, longer))?;
                Some((Wrapped { message: text, used }, longer))
            });
            match longer {
                Some(longer) => whole = Some(longer),
                None => break,
            }
        } else {
            parts = parts.iter().flat_map(|part| both(part, next)).collect();
            whole = parts.iter().find_map(|text| {
                let report = report_of(text)?;
                Some((Wrapped { message: text.clone(), used }, report))
            });
        }
    }
    whole.map(|(wrapped, _)| wrapped)
}

/// Two parts of a line: it was broken inside a word, or between two.
fn both(part: &[u8], next: &[u8]) -> [Vec<u8>; 2] {
    [[part, next].concat(), [part, &b" "[..], next].concat()]
}

/// The report of a whole line.
fn report_of(text: &[u8]) -> Option<Report> {
    match text::parse(text) {
        Parsed::Record(Record::Report(report)) if has_memory(text) && report.max_memory_used_mb.is_some() => {
            Some(report)
        }
        _ => None,
    }
}

/// Whether a line has the last field that every report has, with its unit.
fn has_memory(text: &[u8]) -> bool {
    const LABEL: &[u8] = b"Max Memory Used:";
    static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(LABEL));
    FINDER.find(text).is_some_and(|at| memmem::find(&text[at + LABEL.len()..], b"MB").is_some())
}

/// Whether the second report has what the first one has, and more.
fn is_more(report: &Report, longer: &Report) -> bool {
    let same = Report {
        init_us: report.init_us,
        restore_us: report.restore_us,
        billed_restore_ms: report.billed_restore_ms,
        status: report.status.clone(),
        error_type: report.error_type.clone(),
        ..longer.clone()
    };
    same == *report && longer != report
}
