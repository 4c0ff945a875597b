//! What the extension of each function reports.

use std::collections::BTreeSet;

use tailor_sizing::model::accounting::MAX_UNACCOUNTED_SHARE;

use super::{Finding, Level};
use crate::clock::DAY_US;
use crate::report::{FunctionReport, NotMeasured};

/// A function whose extension sent nothing for so many days is named.
const SILENT_DAYS: u64 = 2;

/// The findings about all functions, at `now_us` (microseconds since the Unix epoch).
#[must_use]
pub fn functions(reports: &[FunctionReport], now_us: u64) -> Vec<Finding> {
    if reports.is_empty() {
        return vec![Finding::new(
            Level::Warning,
            "functions",
            "all functions",
            "no invocation was measured in the window",
            "add the layer to a function, set TAILOR_ENDPOINT and TAILOR_API_KEY, and invoke it; its log has the errors of the extension",
        )];
    }
    let versions: BTreeSet<&str> =
        reports.iter().flat_map(|report| &report.extension.versions).map(String::as_str).collect();
    let newest = versions.iter().max_by_key(|version| numbers(version)).copied().unwrap_or_default();
    let mut findings: Vec<Finding> =
        reports.iter().flat_map(|report| of_function(report, newest, now_us)).collect();
    if findings.is_empty() {
        let versions: Vec<&str> = versions.into_iter().collect();
        let finding = format!("all {} are measured, extension {}", reports.len(), versions.join(", "));
        findings.push(Finding::ok("functions", "all functions", finding));
    }
    findings
}

/// The numbers of a version, so that 0.10 is newer than 0.9.
fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0)).collect()
}

/// The level, the finding and the action for a function whose CPU time and memory are not measured.
const fn not_measured(reason: NotMeasured) -> (Level, &'static str, &'static str) {
    match reason {
        NotMeasured::Unreadable => (
            Level::Warning,
            "CPU time and memory are not measured: the extension cannot read the processes of the function",
            "read the extension's lines in the log of the function; advice needs these measurements",
        ),
        NotMeasured::ManagedInstances => (
            Level::Info,
            "CPU and memory of the environments on managed instances are not measured",
            "attach the newest version of the layer",
        ),
        NotMeasured::Logs => (
            Level::Info,
            "CPU time and memory are not measured: the invocations were imported from logs",
            "add the layer to the function to get advice",
        ),
    }
}

fn of_function(report: &FunctionReport, newest: &str, now_us: u64) -> Vec<Finding> {
    let extension = &report.extension;
    let subject = if report.region.is_empty() {
        report.name.clone()
    } else {
        format!("{} ({})", report.name, report.region)
    };
    let finding =
        |level, check, what: String, action: &str| Finding::new(level, check, subject.clone(), what, action);
    let mut findings = Vec::new();
    let silent_days = now_us.saturating_sub(extension.received_at_us) / DAY_US;
    if extension.received_at_us > 0 && silent_days >= SILENT_DAYS {
        findings.push(finding(
            Level::Info,
            "silent",
            format!("its extension sent nothing for {silent_days} days"),
            "if the function is invoked: check its layer, TAILOR_ENABLED, its key, and the extension's lines in its log",
        ));
    }
    let old: Vec<&str> =
        extension.versions.iter().map(String::as_str).filter(|version| *version != newest).collect();
    if !old.is_empty() && silent_days < SILENT_DAYS {
        let versions = old.join(", ");
        findings.push(finding(
            Level::Info,
            "version",
            format!("extension {versions} runs, others have {newest}"),
            "attach the newest version of the layer",
        ));
    }
    if let Some(reason) = extension.not_measured {
        let (level, what, action) = not_measured(reason);
        findings.push(finding(level, "measuring", what.to_owned(), action));
    }
    if f64::from(extension.unaccounted_percent) > MAX_UNACCOUNTED_SHARE * 100.0 {
        findings.push(finding(
            Level::Warning,
            "unaccounted",
            format!("no known process accounts for {} % of the CPU time", extension.unaccounted_percent),
            "wait for the processes that the function starts; no smaller size is recommended until then",
        ));
    }
    let lost = report.lost.sentences();
    if !lost.is_empty() {
        findings.push(finding(
            Level::Warning,
            "losses",
            lost.join("; "),
            "check that the function reaches the collector, and that its timeout leaves time for a delivery",
        ));
    }
    findings
}
