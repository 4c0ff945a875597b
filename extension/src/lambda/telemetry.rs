//! Tolerant decoder of the Telemetry API's records.
//!
//! Unknown record types are accepted and every field is optional. A request with an unknown record is never refused,
//! because the platform would repeat the whole request or drop it. Records that cannot be decoded are counted.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::timestamp;

/// One record. Types that the extension does not use are [`Event::Other`].
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// `platform.initStart`.
    InitStart(InitStart),
    /// `platform.initReport`.
    InitReport {
        /// Its content.
        report: InitReport,
        /// The end of the Init; unit as in [`Event::Start`].
        time_us: u64,
    },
    /// `platform.start`.
    Start {
        /// The id of the invocation.
        request_id: String,
        /// Microseconds since the Unix epoch; zero when the timestamp is invalid.
        time_us: u64,
    },
    /// `platform.runtimeDone`.
    RuntimeDone {
        /// Its content.
        record: EndRecord,
        /// As in [`Event::Start`].
        time_us: u64,
    },
    /// `platform.report`.
    Report {
        /// Its content.
        record: EndRecord,
        /// As in [`Event::Start`].
        time_us: u64,
    },
    /// `platform.restoreStart`: a SnapStart restore, which makes this a new environment.
    RestoreStart,
    /// `platform.logsDropped`.
    LogsDropped {
        /// The number of records that the platform dropped.
        records: u64,
    },
    /// A type that is not used or not known.
    Other,
}

/// The content of `platform.initStart`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InitStart {
    /// For example `python:3.13.v50`.
    pub runtime_version: Option<String>,
}

/// The content of `platform.initReport`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct InitReport {
    /// `init`, `snap-start`, or `invoke` for a suppressed Init: one during an invocation, after the runtime crashed.
    pub phase: Option<String>,
    /// Only `duration_ms` is set.
    pub metrics: Metrics,
}

/// The content of `platform.runtimeDone` and `platform.report`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndRecord {
    /// The id of the invocation.
    pub request_id: String,
    /// `success`, `failure`, `error`, `timeout` or an unknown value.
    pub status: Option<String>,
    /// For example `Runtime.OutOfMemory`.
    pub error_type: Option<String>,
    /// The metrics.
    pub metrics: Metrics,
}

/// Metrics of an invocation; `None` for those that the record type does not have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Metrics {
    /// Duration in milliseconds, with microsecond precision.
    #[serde(rename = "durationMs")]
    pub duration_ms: Option<f64>,
    /// Billed milliseconds, Init included.
    #[serde(rename = "billedDurationMs")]
    pub billed_duration_ms: Option<f64>,
    /// The environment's highest memory use so far, MB.
    #[serde(rename = "maxMemoryUsedMB")]
    pub max_memory_used_mb: Option<f64>,
    /// Duration of the Init of a cold start, milliseconds.
    #[serde(rename = "initDurationMs")]
    pub init_duration_ms: Option<f64>,
    /// Duration of the SnapStart restore, milliseconds.
    #[serde(rename = "restoreDurationMs")]
    pub restore_duration_ms: Option<f64>,
    /// Size of the response in bytes.
    #[serde(rename = "producedBytes")]
    pub produced_bytes: Option<f64>,
}

/// The decoded body of one telemetry request.
#[derive(Debug, Default, PartialEq)]
pub struct DecodedTelemetry {
    /// The decoded records, in the order of the body.
    pub events: Vec<Event>,
    /// The number of records that could not be decoded.
    pub undecodable: u64,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(default)]
    time: Option<&'a str>,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    record: &'a RawValue,
}

/// Decodes the body of one telemetry request: a JSON array of records.
#[must_use]
pub fn decode(body: &[u8]) -> DecodedTelemetry {
    let Ok(records) = serde_json::from_slice::<Vec<&RawValue>>(body) else {
        return DecodedTelemetry { events: vec![], undecodable: 1 };
    };
    let mut telemetry = DecodedTelemetry::default();
    for record in records {
        match serde_json::from_str::<Envelope<'_>>(record.get()).and_then(decode_record) {
            Ok(event) => telemetry.events.push(event),
            Err(_) => telemetry.undecodable += 1,
        }
    }
    telemetry
}

fn decode_record(envelope: Envelope<'_>) -> serde_json::Result<Event> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Start {
        request_id: String,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Dropped {
        dropped_records: u64,
    }
    let json = envelope.record.get();
    let time_us = envelope.time.and_then(timestamp::unix_us).unwrap_or(0);
    Ok(match envelope.kind {
        "platform.initStart" => Event::InitStart(serde_json::from_str(json)?),
        "platform.initReport" => Event::InitReport { report: serde_json::from_str(json)?, time_us },
        "platform.start" => {
            Event::Start { request_id: serde_json::from_str::<Start>(json)?.request_id, time_us }
        }
        "platform.runtimeDone" => Event::RuntimeDone { record: serde_json::from_str(json)?, time_us },
        "platform.report" => Event::Report { record: serde_json::from_str(json)?, time_us },
        "platform.restoreStart" => Event::RestoreStart,
        "platform.logsDropped" => {
            Event::LogsDropped { records: serde_json::from_str::<Dropped>(json)?.dropped_records }
        }
        _ => Event::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_record_costs_only_itself() {
        let body = br#"[
            {"time":"2026-01-02T03:04:05.160Z","type":"platform.start","record":{"requestId":"a"}},
            {"time":"x","type":"platform.report","record":"not an object"},
            {"time":"x","type":"platform.somethingNew","record":{"x":[1,2,3]}},
            {"time":"x","type":"function","record":"plain text line\n"},
            {"no":"type"},
            7,
            {"time":"x","type":"platform.report","record":{"requestId":"a","metrics":{"durationMs":1.148}}}
        ]"#;
        let telemetry = decode(body);
        assert_eq!(telemetry.undecodable, 3);
        assert_eq!(
            telemetry.events[0],
            Event::Start { request_id: "a".into(), time_us: 1_767_323_045_160_000 }
        );
        assert_eq!(telemetry.events[1..3], [Event::Other, Event::Other]);
        let Event::Report { record: report, .. } = &telemetry.events[3] else {
            panic!("{:?}", telemetry.events)
        };
        assert_eq!(report.metrics.duration_ms, Some(1.148));
        assert_eq!(report.metrics.billed_duration_ms, None);
    }

    #[test]
    fn the_phase_of_an_init_is_decoded() {
        let body = br#"[{"time":"2026-01-02T03:04:05.160Z","type":"platform.initReport","record":
            {"initializationType":"on-demand","phase":"invoke","status":"success","metrics":{"durationMs":350.5}}}]"#;
        let Event::InitReport { report, time_us } = &decode(body).events[0] else { panic!() };
        assert_eq!((report.phase.as_deref(), report.metrics.duration_ms), (Some("invoke"), Some(350.5)));
        assert_eq!(*time_us, 1_767_323_045_160_000);
    }

    #[test]
    fn invalid_telemetry_is_counted() {
        assert_eq!(decode(b"not json").undecodable, 1);
        assert_eq!(decode(b"{}").undecodable, 1);
        assert_eq!(decode(b"").undecodable, 1);
        assert_eq!(decode(b"[]"), DecodedTelemetry::default());
    }
}
