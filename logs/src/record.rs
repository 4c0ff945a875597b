//! The content of one line of the platform.

use std::sync::Arc;

use tailor_sizing::telemetry::invocation::RequestId;

use crate::origin::Origin;

/// One line of the platform, with its time and place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it was logged.
    pub origin: Arc<Origin>,
    /// When it was logged, microseconds since the Unix epoch; `None` when the log does not have it.
    pub at_us: Option<u64>,
    /// The size of the log events since the line before in the same input, this one included; `None` when the input does not
    /// have all events.
    pub log_bytes: Option<LogBytes>,
    /// Its content.
    pub record: Record,
}

/// The size of log events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogBytes {
    /// Bytes as CloudWatch Logs counts them: of each event the message and 26 bytes.
    pub bytes: u64,
    /// Whether one of the events is not the platform's. A log that was searched for the platform's lines has none.
    pub has_function_events: bool,
}

impl LogBytes {
    /// Adds other events.
    pub fn add(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.has_function_events |= other.has_function_events;
    }
}

/// A line of the platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// `REPORT` or `platform.report`.
    Report(Report),
    /// `START` or `platform.start`.
    Start {
        /// The request.
        request_id: RequestId,
        /// The function's version; empty when it is not in the line.
        version: String,
    },
    /// `platform.runtimeDone`.
    RuntimeDone {
        /// The request.
        request_id: RequestId,
        /// Duration of the handler, microseconds.
        duration_us: Option<u64>,
        /// Bytes of the response.
        produced_bytes: Option<u64>,
    },
    /// `INIT_START`, `platform.initStart`, `RESTORE_START` or `platform.restoreStart`.
    InitStart(Init),
    /// `INIT_REPORT` or `platform.initReport`.
    InitReport(InitReport),
    /// `Task timed out after 3.00 seconds`.
    TimedOut {
        /// The request.
        request_id: RequestId,
    },
    /// `RequestId: … Error: Runtime exited …`.
    Exited {
        /// The request.
        request_id: RequestId,
        /// Whether the line names an out-of-memory kill.
        is_out_of_memory: bool,
    },
}

/// The numbers of one invocation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// The request.
    pub request_id: RequestId,
    /// `Duration`, microseconds.
    pub duration_us: u64,
    /// `Billed Duration`, milliseconds; `None` on managed instances.
    pub billed_ms: Option<u64>,
    /// `Memory Size`, MB; `None` on managed instances.
    pub memory_mb: Option<u32>,
    /// `Max Memory Used`, MB.
    pub max_memory_used_mb: Option<u32>,
    /// `Init Duration`, microseconds.
    pub init_us: Option<u64>,
    /// `Restore Duration`, microseconds.
    pub restore_us: Option<u64>,
    /// `Billed Restore Duration`, milliseconds. It is part of `billed_ms`.
    pub billed_restore_ms: Option<u64>,
    /// `Status`: `success`, `error`, `failure` or `timeout`; empty when the line has none.
    pub status: String,
    /// `Error Type`; empty without one.
    pub error_type: String,
}

/// The start of an Init or a restore.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Init {
    /// The runtime.
    pub runtime: Runtime,
    /// `initializationType`; empty in text logs.
    pub initialization_type: String,
    /// Function name; empty in text logs.
    pub function: String,
    /// Function version; empty in text logs.
    pub version: String,
}

/// A runtime version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Runtime {
    /// The runtime's identifier as in Lambda's API, such as `python3.13`; empty when unknown.
    pub name: String,
    /// The region of the runtime version's ARN; empty when unknown.
    pub region: String,
}

/// The end of an Init.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InitReport {
    /// Its duration, microseconds.
    pub duration_us: u64,
    /// `init`, `invoke` or `snap-start`; empty when the line has none.
    pub phase: String,
    /// `success`, `error`, `failure` or `timeout`; empty when the line has none.
    pub status: String,
    /// `Error Type`; empty without one.
    pub error_type: String,
}
