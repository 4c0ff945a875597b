//! A row of named fields, as CloudWatch Logs Insights returns them: in JSON or in CSV.

use crate::numbers::{parse_rounded_up, thousandths};
use crate::record::{Record, Report};
use crate::timestamp;

/// The fields of a row that are used.
#[derive(Debug, Default)]
pub(crate) struct Row {
    pub(crate) at_us: Option<u64>,
    pub(crate) group: Option<String>,
    pub(crate) stream: Option<String>,
    pub(crate) message: Option<String>,
    kind: Option<String>,
    request_id: Option<String>,
    duration: Option<String>,
    billed: Option<String>,
    memory: Option<String>,
    max_memory: Option<String>,
    init: Option<String>,
}

/// A field that is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    Timestamp,
    Group,
    Stream,
    Message,
    Kind,
    RequestId,
    Duration,
    Billed,
    Memory,
    MaxMemory,
    Init,
}

/// The field of a name; `None` when it is not used.
pub(crate) fn field(name: &str) -> Option<Field> {
    let name = name.trim().trim_start_matches('@');
    Some(match name {
        "timestamp" | "Timestamp" | "time" => Field::Timestamp,
        "log" | "logGroup" | "logGroupName" | "log_group" => Field::Group,
        "logStream" | "logStreamName" | "log_stream" => Field::Stream,
        "message" | "Message" => Field::Message,
        "type" => Field::Kind,
        "requestId" => Field::RequestId,
        "duration" => Field::Duration,
        "billedDuration" => Field::Billed,
        "memorySize" => Field::Memory,
        "maxMemoryUsed" => Field::MaxMemory,
        "initDuration" => Field::Init,
        _ => return None,
    })
}

impl Row {
    /// Sets one field.
    pub(crate) fn set(&mut self, field: Field, value: &str) {
        let text = || Some(value.to_owned()).filter(|value| !value.trim().is_empty());
        match field {
            Field::Timestamp => self.at_us = timestamp::parse(value.as_bytes()),
            Field::Group => self.group = text(),
            Field::Stream => self.stream = text(),
            Field::Message => self.message = text(),
            Field::Kind => self.kind = text(),
            Field::RequestId => self.request_id = text(),
            Field::Duration => self.duration = text(),
            Field::Billed => self.billed = text(),
            Field::Memory => self.memory = text(),
            Field::MaxMemory => self.max_memory = text(),
            Field::Init => self.init = text(),
        }
    }

    /// The report in the fields; the outer `None` when the row is not of a `REPORT` line, the inner one when it cannot be
    /// read.
    pub(crate) fn report(&self) -> Option<Option<Record>> {
        let is_report = self.kind.as_deref().is_none_or(|kind| kind == "REPORT") && self.billed.is_some();
        is_report.then(|| self.read_report().map(Record::Report))
    }

    fn read_report(&self) -> Option<Report> {
        let bytes = |field: &Option<String>| field.as_ref().map(|field| field.trim().as_bytes().to_vec());
        let init_us = match bytes(&self.init) {
            Some(init) => Some(thousandths(&init)?),
            None => None,
        };
        let max_memory_used_mb = match bytes(&self.max_memory) {
            Some(value) => Some(megabytes(&value)?),
            None => None,
        };
        Some(Report {
            request_id: tailor_sizing::telemetry::invocation::RequestId::parse(
                self.request_id.as_deref()?.trim(),
            )?,
            duration_us: thousandths(&bytes(&self.duration)?)?,
            billed_ms: Some(parse_rounded_up(&bytes(&self.billed)?)?),
            memory_mb: Some(megabytes(&bytes(&self.memory)?)?),
            max_memory_used_mb,
            init_us,
            ..Report::default()
        })
    }
}

/// Megabytes of a number. Insights has bytes, 1,000,000 for each megabyte.
fn megabytes(value: &[u8]) -> Option<u32> {
    const BYTES: u64 = 1_000_000;
    let value = parse_rounded_up(value)?;
    u32::try_from(if value >= BYTES { value / BYTES } else { value }).ok()
}
