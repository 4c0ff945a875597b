//! The platform's lines in JSON logs: `{"time": …, "type": "platform.report", "record": {…}}`.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use tailor_sizing::telemetry::invocation::RequestId;

use crate::record::{Init, InitReport, Record, Report};
use crate::text::{Parsed, name, runtime};

#[derive(Debug, Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct PlatformRecord<'a> {
    #[serde(borrow)]
    request_id: Cow<'a, str>,
    #[serde(borrow)]
    version: Option<Cow<'a, str>>,
    #[serde(borrow)]
    status: Option<Cow<'a, str>>,
    #[serde(borrow)]
    error_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    phase: Option<Cow<'a, str>>,
    #[serde(borrow)]
    initialization_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    function_name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    function_version: Option<Cow<'a, str>>,
    #[serde(borrow)]
    runtime_version: Option<Cow<'a, str>>,
    #[serde(borrow)]
    runtime_version_arn: Option<Cow<'a, str>>,
    metrics: Option<Metrics>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Metrics {
    #[serde(rename = "durationMs")]
    duration_ms: Option<f64>,
    #[serde(rename = "billedDurationMs")]
    billed_duration_ms: Option<f64>,
    #[serde(rename = "memorySizeMB")]
    memory_size_mb: Option<f64>,
    #[serde(rename = "maxMemoryUsedMB")]
    max_memory_used_mb: Option<f64>,
    #[serde(rename = "initDurationMs")]
    init_duration_ms: Option<f64>,
    #[serde(rename = "restoreDurationMs")]
    restore_duration_ms: Option<f64>,
    #[serde(rename = "billedRestoreDurationMs")]
    billed_restore_duration_ms: Option<f64>,
    #[serde(rename = "producedBytes")]
    produced_bytes: Option<f64>,
}

/// Reads the record of an event.
pub(crate) fn parse(kind: &str, record: &RawValue) -> Parsed {
    let is_known = matches!(
        kind,
        "platform.report"
            | "platform.start"
            | "platform.runtimeDone"
            | "platform.initStart"
            | "platform.restoreStart"
            | "platform.initReport"
    );
    if !is_known {
        return Parsed::Other;
    }
    let Ok(record) = serde_json::from_str::<PlatformRecord<'_>>(record.get()) else {
        return Parsed::Malformed;
    };
    match kind {
        "platform.report" => report(&record).into(),
        "platform.start" => request_id(&record)
            .map(|request_id| Record::Start { request_id, version: text(&record.version, 64) })
            .into(),
        "platform.runtimeDone" => runtime_done(&record).into(),
        "platform.initReport" => init_report(&record).into(),
        _ => Parsed::Record(Record::InitStart(Init {
            runtime: runtime(
                record.runtime_version.as_deref().unwrap_or_default(),
                record.runtime_version_arn.as_deref().unwrap_or_default(),
            ),
            initialization_type: text(&record.initialization_type, 64),
            function: text(&record.function_name, 140),
            version: text(&record.function_version, 64),
        })),
    }
}

fn request_id(record: &PlatformRecord<'_>) -> Option<RequestId> {
    RequestId::parse(&record.request_id)
}

fn text(value: &Option<Cow<'_, str>>, limit: usize) -> String {
    value.as_deref().map(|value| name(value.as_bytes(), limit)).unwrap_or_default()
}

fn report(record: &PlatformRecord<'_>) -> Option<Record> {
    let metrics = record.metrics.as_ref()?;
    let report = Report {
        request_id: request_id(record)?,
        duration_us: micros(metrics.duration_ms?)?,
        billed_ms: optional(metrics.billed_duration_ms, count)?,
        memory_mb: optional(metrics.memory_size_mb, megabytes)?,
        max_memory_used_mb: optional(metrics.max_memory_used_mb, megabytes)?,
        init_us: optional(metrics.init_duration_ms, micros)?,
        restore_us: optional(metrics.restore_duration_ms, micros)?,
        billed_restore_ms: optional(metrics.billed_restore_duration_ms, count)?,
        status: text(&record.status, 32),
        error_type: text(&record.error_type, 128),
    };
    (report.billed_ms.is_some() == report.memory_mb.is_some()).then_some(Record::Report(report))
}

fn runtime_done(record: &PlatformRecord<'_>) -> Option<Record> {
    let metrics = record.metrics.as_ref();
    Some(Record::RuntimeDone {
        request_id: request_id(record)?,
        duration_us: metrics.and_then(|metrics| micros(metrics.duration_ms?)),
        produced_bytes: metrics.and_then(|metrics| count(metrics.produced_bytes?)),
    })
}

fn init_report(record: &PlatformRecord<'_>) -> Option<Record> {
    Some(Record::InitReport(InitReport {
        duration_us: micros(record.metrics.as_ref()?.duration_ms?)?,
        phase: text(&record.phase, 32),
        status: text(&record.status, 32),
        error_type: text(&record.error_type, 128),
    }))
}

/// A value that may be absent; `None` when it is there and cannot be converted.
fn optional<T>(value: Option<f64>, convert: impl Fn(f64) -> Option<T>) -> Option<Option<T>> {
    value.map_or(Some(None), |value| convert(value).map(Some))
}

/// Microseconds of milliseconds.
fn micros(milliseconds: f64) -> Option<u64> {
    count(milliseconds * 1_000.0)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in the range")]
fn count(value: f64) -> Option<u64> {
    let value = value.round();
    (0.0..9e15).contains(&value).then_some(value as u64)
}

fn megabytes(value: f64) -> Option<u32> {
    u32::try_from(count(value)?).ok()
}
