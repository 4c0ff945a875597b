//! The billing of an invocation, and its log with the lines START, END and REPORT.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::config::LogFormat;
use crate::time::{iso_ms, millis, now};

/// Lambda returns the last 4 KB of a log.
const TAIL_BYTES: usize = 4096;

/// Maximum number of lines kept during an invocation; more than fit into the tail.
const TAIL_LINES: usize = 4096;

const MEBIBYTE: u64 = 1024 * 1024;

/// The numbers of a `platform.report`.
#[derive(Clone, Debug)]
pub struct Report {
    /// `requestId` of the invocation.
    pub request_id: String,
    /// `success`, `error`, `failure` or `timeout`.
    pub status: &'static str,
    /// With any status but success.
    pub error_type: Option<String>,
    /// Whether the invocation timed out or a process failed. Lambda's text logs have no errors that the handler returned.
    pub has_failed: bool,
    /// From release until runtime and extensions are done, at most the timeout.
    pub duration: Duration,
    /// Init, in the first report of an on-demand environment.
    pub init: Option<Duration>,
    /// Restore and its billed part, in the first report of a SnapStart environment.
    pub restore: Option<(Duration, u64)>,
    /// Memory size in MB.
    pub memory_mb: u32,
    /// Highest memory since the environment started, bytes.
    pub peak_bytes: Option<u64>,
    /// Managed instances report the duration only.
    pub managed_instances: bool,
    /// `spans`.
    pub spans: Vec<Value>,
    /// X-Ray header.
    pub tracing: Option<Value>,
    /// With tenant isolation.
    pub tenant_id: Option<String>,
}

impl Report {
    /// Whole milliseconds, init included (billed since 2025-08), restore's billed part included.
    pub fn billed_ms(&self) -> u64 {
        let billed = ceil_ms(self.duration + self.init.unwrap_or_default());
        billed + self.restore.map_or(0, |(_, billed)| billed)
    }

    /// `maxMemoryUsedMB`: rounded up, at most the memory size.
    pub fn max_memory_used_mb(&self) -> u64 {
        self.peak_bytes.unwrap_or_default().div_ceil(MEBIBYTE).min(u64::from(self.memory_mb))
    }

    /// The record of `platform.report`.
    pub fn record(&self) -> Value {
        let mut metrics = Map::new();
        metrics.insert("durationMs".into(), json!(millis(self.duration)));
        if !self.managed_instances {
            metrics.insert("billedDurationMs".into(), json!(self.billed_ms()));
            metrics.insert("memorySizeMB".into(), json!(self.memory_mb));
            metrics.insert("maxMemoryUsedMB".into(), json!(self.max_memory_used_mb()));
            if let Some(init) = self.init {
                metrics.insert("initDurationMs".into(), json!(millis(init)));
            }
            if let Some((restore, billed)) = self.restore {
                metrics.insert("restoreDurationMs".into(), json!(millis(restore)));
                metrics.insert("billedRestoreDurationMs".into(), json!(billed));
            }
        }
        let mut record = json!({"requestId": self.request_id, "status": self.status, "metrics": metrics});
        if let Some(error_type) = &self.error_type {
            record["errorType"] = error_type.clone().into();
        }
        if !self.spans.is_empty() {
            record["spans"] = self.spans.clone().into();
        }
        if let Some(tracing) = &self.tracing {
            record["tracing"] = tracing.clone();
        }
        if let Some(tenant_id) = &self.tenant_id {
            record["tenantId"] = tenant_id.as_str().into();
        }
        record
    }

    /// The REPORT line of a text log.
    pub fn line(&self) -> String {
        let mut line = format!(
            "REPORT RequestId: {}\tDuration: {:.2} ms\tBilled Duration: {} ms\tMemory Size: {} MB\tMax Memory Used: {} MB\t",
            self.request_id,
            millis(self.duration),
            self.billed_ms(),
            self.memory_mb,
            self.max_memory_used_mb()
        );
        if let Some(init) = self.init {
            line += &format!("Init Duration: {:.2} ms\t", millis(init));
        }
        if let Some((restore, billed)) = self.restore {
            line += &format!(
                "Restore Duration: {:.2} ms\tBilled Restore Duration: {billed} ms\t",
                millis(restore)
            );
        }
        if self.has_failed {
            line += &format!("Status: {}\t", self.status);
        }
        if let Some(error_type) = self.error_type.as_ref().filter(|_| self.has_failed) {
            line += &format!("Error Type: {error_type}\t");
        }
        line
    }
}

/// Billing granularity is one millisecond, rounded up.
pub fn ceil_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// The log of an environment: a file, and the tail of the current invocation's log.
pub struct LogTail {
    format: LogFormat,
    inner: Mutex<Inner>,
}

struct Inner {
    file: Option<File>,
    tail: Option<Vec<String>>,
}

impl LogTail {
    /// Logs to `path`; without a file if it cannot be created.
    pub fn new(path: &Path, format: LogFormat) -> LogTail {
        let file = path
            .parent()
            .and_then(|parent| std::fs::create_dir_all(parent).ok())
            .and_then(|()| File::options().create(true).append(true).open(path).ok());
        LogTail { format, inner: Mutex::new(Inner { file, tail: None }) }
    }

    /// A line of the function or an extension.
    pub fn line(&self, line: &str) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &mut inner.file {
            // A log line that cannot be written (disk full) must not stop the function.
            let _ = writeln!(file, "{line}");
        }
        if let Some(tail) = &mut inner.tail {
            if tail.len() == TAIL_LINES {
                tail.remove(0);
            }
            tail.push(line.to_owned());
        }
    }

    /// A line of the platform: `text`, or the event itself where logs are JSON.
    pub fn platform(&self, text: &str, kind: &str, record: &Value) {
        match self.format {
            LogFormat::Text => self.line(text),
            LogFormat::Json => {
                let time = iso_ms(now());
                self.line(&json!({"time": time, "type": kind, "record": record}).to_string());
            }
        }
    }

    /// Starts a new tail.
    pub fn begin(&self) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).tail = Some(Vec::new());
    }

    /// Ends the tail; its last 4 KB.
    pub fn end(&self) -> String {
        let lines = self.inner.lock().unwrap_or_else(PoisonError::into_inner).tail.take().unwrap_or_default();
        let mut text = lines.join("\n");
        text.push('\n');
        let mut start = text.len().saturating_sub(TAIL_BYTES);
        while !text.is_char_boundary(start) {
            start += 1;
        }
        text.split_off(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            request_id: "id".into(),
            status: "success",
            error_type: None,
            has_failed: false,
            duration: Duration::from_micros(133_610),
            init: Some(Duration::from_millis(80)),
            restore: None,
            memory_mb: 128,
            peak_bytes: Some(70 * MEBIBYTE + 1),
            managed_instances: false,
            spans: Vec::new(),
            tracing: None,
            tenant_id: None,
        }
    }

    #[test]
    fn billed_duration_contains_init() {
        // The example of the developer guide: 133.61 + 80.00 is billed as 214.
        assert_eq!(report().billed_ms(), 214);
        assert_eq!(Report { init: None, ..report() }.billed_ms(), 134);
    }

    #[test]
    fn billed_duration_contains_the_billed_part_of_restore() {
        let restore = Some((Duration::from_micros(500_795), 53));
        let report = Report { duration: Duration::from_micros(147_156), init: None, restore, ..report() };
        assert_eq!(report.billed_ms(), 201);
        assert_eq!(report.record()["metrics"]["billedRestoreDurationMs"], 53);
    }

    #[test]
    fn memory_is_rounded_up_and_never_above_the_size() {
        assert_eq!(report().max_memory_used_mb(), 71);
        assert_eq!(Report { peak_bytes: Some(u64::MAX), ..report() }.max_memory_used_mb(), 128);
    }

    #[test]
    fn managed_instances_report_the_duration_only() {
        let record = Report { managed_instances: true, init: None, ..report() }.record();
        assert_eq!(record["metrics"], json!({"durationMs": 133.61}));
    }

    #[test]
    fn text_logs_have_no_error_that_the_handler_returned() {
        let returned = Report { status: "error", error_type: Some("ValueError".into()), ..report() };
        assert_eq!(returned.record()["errorType"], "ValueError");
        assert!(!returned.line().contains("rror"), "{}", returned.line());
        let failed = Report { has_failed: true, error_type: Some("Runtime.ExitError".into()), ..returned };
        assert!(
            failed.line().ends_with("Status: error\tError Type: Runtime.ExitError\t"),
            "{}",
            failed.line()
        );
    }

    #[test]
    fn the_tail_is_the_last_4_kb() {
        let dir = tempfile::tempdir().unwrap();
        let log = LogTail::new(&dir.path().join("a/b.log"), LogFormat::Text);
        log.line("before");
        log.begin();
        (0..1000).for_each(|number| log.line(&format!("line {number}")));
        let tail = log.end();
        assert_eq!(tail.len(), TAIL_BYTES);
        assert!(tail.ends_with("line 999\n"));
        assert!(std::fs::read_to_string(dir.path().join("a/b.log")).unwrap().starts_with("before\nline 0\n"));
    }
}
