//! Tolerant decoding of what the Telemetry API delivers.
//!
//! Every enum is open and every field optional: a batch is never refused over a record of a kind or shape
//! that is not known, because the platform would deliver it again, or drop what is good in it. Records
//! that cannot be read are counted instead.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::timestamp;

/// One record that matters to us; all else is [`Event::Other`].
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// `platform.initStart`.
    InitStart(InitStart),
    /// `platform.initReport`.
    InitReport {
        /// What it says.
        report: InitReport,
        /// As in [`Event::Start`]: when the Init ended.
        time_us: u64,
    },
    /// `platform.start`.
    Start {
        /// The request.
        request_id: String,
        /// Microseconds since the Unix epoch; zero when the timestamp is not readable.
        time_us: u64,
    },
    /// `platform.runtimeDone`.
    RuntimeDone {
        /// What it says.
        done: Done,
        /// As in [`Event::Start`].
        time_us: u64,
    },
    /// `platform.report`.
    Report {
        /// What it says.
        done: Done,
        /// As in [`Event::Start`].
        time_us: u64,
    },
    /// `platform.restoreStart`: a SnapStart restore, so this is another environment than before.
    RestoreStart,
    /// `platform.logsDropped`.
    LogsDropped {
        /// Records the platform threw away.
        records: u64,
    },
    /// A kind that does not concern us, or one to come.
    Other,
}

/// What `platform.initStart` says of the runtime.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InitStart {
    /// For example `python:3.13.v50`.
    pub runtime_version: Option<String>,
}

/// What `platform.initReport` says.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct InitReport {
    /// `init`, `invoke` for one inside an invocation, after the runtime crashed ("suppressed"), or `snap-start`.
    pub phase: Option<String>,
    /// The measures: `duration_ms`.
    pub metrics: Metrics,
}

/// What `platform.runtimeDone` and `platform.report` have in common, and all of their measures.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Done {
    /// The request.
    pub request_id: String,
    /// `success`, `failure`, `error`, `timeout` or one to come.
    pub status: Option<String>,
    /// For example `Runtime.OutOfMemory`.
    pub error_type: Option<String>,
    /// The measures.
    pub metrics: Metrics,
}

/// Measures of an invocation; those that a kind does not carry are `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Metrics {
    /// Milliseconds with microsecond precision.
    #[serde(rename = "durationMs")]
    pub duration_ms: Option<f64>,
    /// Milliseconds billed, init included.
    #[serde(rename = "billedDurationMs")]
    pub billed_duration_ms: Option<f64>,
    /// The environment's high-water mark.
    #[serde(rename = "maxMemoryUsedMB")]
    pub max_memory_used_mb: Option<f64>,
    /// Init of a cold start.
    #[serde(rename = "initDurationMs")]
    pub init_duration_ms: Option<f64>,
    /// SnapStart restore.
    #[serde(rename = "restoreDurationMs")]
    pub restore_duration_ms: Option<f64>,
    /// Bytes of the response.
    #[serde(rename = "producedBytes")]
    pub produced_bytes: Option<f64>,
}

/// The events of one delivery.
#[derive(Debug, Default, PartialEq)]
pub struct Delivery {
    /// Those that could be read, in the order delivered.
    pub events: Vec<Event>,
    /// How many could not.
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

/// Decodes the body of one delivery: a JSON array of records.
#[must_use]
pub fn decode(body: &[u8]) -> Delivery {
    let Ok(records) = serde_json::from_slice::<Vec<&RawValue>>(body) else {
        return Delivery { events: vec![], undecodable: 1 };
    };
    let mut delivery = Delivery::default();
    for record in records {
        match serde_json::from_str::<Envelope<'_>>(record.get()).and_then(decode_record) {
            Ok(event) => delivery.events.push(event),
            Err(_) => delivery.undecodable += 1,
        }
    }
    delivery
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
    let record = envelope.record.get();
    let time_us = envelope.time.and_then(timestamp::unix_us).unwrap_or(0);
    Ok(match envelope.kind {
        "platform.initStart" => Event::InitStart(serde_json::from_str(record)?),
        "platform.initReport" => Event::InitReport { report: serde_json::from_str(record)?, time_us },
        "platform.start" => {
            Event::Start { request_id: serde_json::from_str::<Start>(record)?.request_id, time_us }
        }
        "platform.runtimeDone" => Event::RuntimeDone { done: serde_json::from_str(record)?, time_us },
        "platform.report" => Event::Report { done: serde_json::from_str(record)?, time_us },
        "platform.restoreStart" => Event::RestoreStart,
        "platform.logsDropped" => {
            Event::LogsDropped { records: serde_json::from_str::<Dropped>(record)?.dropped_records }
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
        let delivery = decode(body);
        assert_eq!(delivery.undecodable, 3);
        assert_eq!(
            delivery.events[0],
            Event::Start { request_id: "a".into(), time_us: 1_767_323_045_160_000 }
        );
        assert_eq!(delivery.events[1..3], [Event::Other, Event::Other]);
        let Event::Report { done: report, .. } = &delivery.events[3] else { panic!("{:?}", delivery.events) };
        assert_eq!(report.metrics.duration_ms, Some(1.148));
        assert_eq!(report.metrics.billed_duration_ms, None);
    }

    #[test]
    fn an_init_says_in_what_phase_it_was() {
        let body = br#"[{"time":"2026-01-02T03:04:05.160Z","type":"platform.initReport","record":
            {"initializationType":"on-demand","phase":"invoke","status":"success","metrics":{"durationMs":350.5}}}]"#;
        let Event::InitReport { report, time_us } = &decode(body).events[0] else { panic!() };
        assert_eq!((report.phase.as_deref(), report.metrics.duration_ms), (Some("invoke"), Some(350.5)));
        assert_eq!(*time_us, 1_767_323_045_160_000);
    }

    #[test]
    fn rubbish_is_counted() {
        assert_eq!(decode(b"not json").undecodable, 1);
        assert_eq!(decode(b"{}").undecodable, 1);
        assert_eq!(decode(b"").undecodable, 1);
        assert_eq!(decode(b"[]"), Delivery::default());
    }
}
