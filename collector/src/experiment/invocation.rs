//! What the log of an invocation states about its duration and its bill, in both log formats of Lambda.

use serde_json::Value;
use tailor_sizing::units::round_to_u64;

/// Measurements of one invocation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Duration without Init and restore, ms.
    pub duration_ms: f64,
    /// Init or restore, ms; `None` for a warm invocation.
    pub start_ms: Option<f64>,
    /// What is billed in all, ms. Lambda includes Init in the billed duration; a billed restore is added.
    pub billed_ms: u64,
}

impl Measured {
    /// The last report in the end of a log.
    #[must_use]
    pub fn of_log(log: &str) -> Option<Self> {
        log.lines().rev().find_map(|line| {
            let line = line.trim();
            if line.starts_with('{') { Self::of_json(line) } else { Self::of_text(line) }
        })
    }

    fn of_text(line: &str) -> Option<Self> {
        let report = &line[line.find("REPORT RequestId:")?..];
        let value = |name: &str| -> Option<f64> {
            let field = report.split('\t').find_map(|field| field.trim().strip_prefix(name))?;
            field.trim().split(' ').next()?.parse().ok()
        };
        Self::new(
            value("Duration:"),
            value("Billed Duration:"),
            value("Init Duration:"),
            value("Restore Duration:"),
            value("Billed Restore Duration:"),
        )
    }

    fn of_json(line: &str) -> Option<Self> {
        let event: Value = serde_json::from_str(line).ok()?;
        if event.get("type")? != "platform.report" {
            return None;
        }
        let metrics = event.pointer("/record/metrics")?;
        let value = |name: &str| metrics.get(name).and_then(Value::as_f64);
        Self::new(
            value("durationMs"),
            value("billedDurationMs"),
            value("initDurationMs"),
            value("restoreDurationMs"),
            value("billedRestoreDurationMs"),
        )
    }

    fn new(
        duration: Option<f64>,
        billed: Option<f64>,
        init: Option<f64>,
        restore: Option<f64>,
        billed_restore: Option<f64>,
    ) -> Option<Self> {
        let billed = billed? + billed_restore.unwrap_or(0.0);
        let is_possible = billed.is_finite() && (0.0..1e9).contains(&billed);
        let billed_ms = is_possible.then_some(round_to_u64(billed))?;
        Some(Self { duration_ms: duration?, start_ms: init.or(restore), billed_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_log_formats_are_read() {
        let text = "END RequestId: 1\nREPORT RequestId: 1\tDuration: 12.34 ms\tBilled Duration: 113 ms\tMemory Size: 128 MB\tMax Memory Used: 40 MB\tInit Duration: 100.50 ms\t\nXRAY TraceId: 1";
        let cold = Measured { duration_ms: 12.34, start_ms: Some(100.5), billed_ms: 113 };
        assert_eq!(Measured::of_log(text), Some(cold));
        let json = r#"{"level":"INFO","message":"REPORT"}
{"time":"2026-01-01T00:00:00Z","type":"platform.report","record":{"requestId":"1","metrics":{"durationMs":12.34,"billedDurationMs":13,"memorySizeMB":128,"maxMemoryUsedMB":40,"restoreDurationMs":50.5,"billedRestoreDurationMs":7},"status":"success"}}"#;
        let restored = Measured { duration_ms: 12.34, start_ms: Some(50.5), billed_ms: 20 };
        assert_eq!(Measured::of_log(json), Some(restored));
        assert_eq!(Measured::of_log("START RequestId: 1\nno report"), None);
    }
}
