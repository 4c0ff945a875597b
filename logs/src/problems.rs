//! What could not be read, counted by kind.

use std::collections::BTreeMap;

/// Why a line, a document or a file was not imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Problem {
    /// A line begins as a platform's line does, and its fields cannot be read.
    MalformedLine,
    /// A JSON document that contains a platform's line cannot be read.
    MalformedJson,
    /// A row of CSV cannot be read.
    MalformedRow,
    /// Base64 or compressed data is damaged or cut off.
    DamagedData,
    /// A line or document is larger than the limit.
    TooLarge,
    /// A `REPORT` line is inside another message, as programs that forward logs print it.
    Embedded,
    /// An invocation has a value that Lambda cannot report.
    ImpossibleValue,
    /// The name of the function is unknown.
    UnknownFunction,
    /// The region of the function is unknown.
    UnknownRegion,
    /// An invocation of a function on managed instances, which are not billed by duration.
    ManagedInstances,
    /// A file cannot be opened or read.
    UnreadableFile,
    /// A request to AWS for an object or a log group failed.
    FailedRequest,
}

impl Problem {
    /// A stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::MalformedLine => "malformed_line",
            Self::MalformedJson => "malformed_json",
            Self::MalformedRow => "malformed_row",
            Self::DamagedData => "damaged_data",
            Self::TooLarge => "too_large",
            Self::Embedded => "embedded",
            Self::ImpossibleValue => "impossible_value",
            Self::UnknownFunction => "unknown_function",
            Self::UnknownRegion => "unknown_region",
            Self::ManagedInstances => "managed_instances",
            Self::UnreadableFile => "unreadable_file",
            Self::FailedRequest => "failed_request",
        }
    }

    /// What it means and what to do.
    #[must_use]
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::MalformedLine => "lines of the platform that cannot be read",
            Self::MalformedJson => "JSON documents that cannot be read",
            Self::MalformedRow => "rows of CSV that cannot be read",
            Self::DamagedData => "compressed or base64 data that is damaged or cut off: copy the file again",
            Self::TooLarge => "lines or documents above the size limit",
            Self::Embedded => "REPORT lines inside other messages, which are not imported",
            Self::ImpossibleValue => "invocations with values that Lambda cannot report",
            Self::UnknownFunction => {
                "invocations of an unknown function: state its name with --function, or keep the path `aws/lambda/NAME`"
            }
            Self::UnknownRegion => "invocations in an unknown region: state it with --region",
            Self::ManagedInstances => {
                "invocations on managed instances, which are not imported, because they are billed by instance and not by \
                 duration: attach the layer, which measures the CPU, memory and concurrency of their environments"
            }
            Self::UnreadableFile => "files that cannot be read",
            Self::FailedRequest => "requests to AWS that failed",
        }
    }
}

/// Number of one kind of problem, and the first example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProblemCount {
    /// How many.
    pub count: u64,
    /// The first one, at most [`MAX_EXAMPLE_BYTES`] long.
    pub example: String,
}

/// Maximum length of an example, bytes.
pub const MAX_EXAMPLE_BYTES: usize = 160;

/// What could not be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems {
    by_kind: BTreeMap<Problem, ProblemCount>,
}

impl Problems {
    /// Counts one, with the text that shows it.
    pub fn add(&mut self, problem: Problem, example: &[u8]) {
        let entry = self
            .by_kind
            .entry(problem)
            .or_insert_with(|| ProblemCount { count: 0, example: shorten(example) });
        entry.count = entry.count.saturating_add(1);
    }

    /// Adds the counts of `other`, which came later.
    pub fn merge(&mut self, other: Self) {
        for (problem, count) in other.by_kind {
            match self.by_kind.entry(problem) {
                std::collections::btree_map::Entry::Vacant(place) => {
                    place.insert(count);
                }
                std::collections::btree_map::Entry::Occupied(mut own) => {
                    own.get_mut().count = own.get().count.saturating_add(count.count);
                }
            }
        }
    }

    /// The kinds that occurred, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Problem, &ProblemCount)> {
        self.by_kind.iter().map(|(problem, count)| (*problem, count))
    }

    /// How many of one kind.
    #[must_use]
    pub fn count(&self, problem: Problem) -> u64 {
        self.by_kind.get(&problem).map_or(0, |count| count.count)
    }

    /// How many of all kinds.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.by_kind.values().map(|count| count.count).fold(0, u64::saturating_add)
    }
}

/// The start of a text for an error message, without control characters.
fn shorten(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(MAX_EXAMPLE_BYTES)]);
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    plain.trim().to_owned()
}
