//! Tolerant decoder of the Telemetry API's records.
//!
//! Unknown record types are accepted and every field is optional. A request with an unknown record is never rejected,
//! because the platform would repeat the whole request or drop it. A part of a record that cannot be read counts as absent.
//! Records without a readable type, or without the request id that they are about, are counted as undecodable.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{SeqAccess, Visitor};
use serde_json::value::RawValue;
use tailor_sizing::units::round_to_u64;

use super::record_time::RecordTime;
use crate::json::Object;

/// One record. Types that the extension does not use are [`Event::Other`].
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// `platform.initStart`.
    InitStart(InitStart),
    /// `platform.initReport`.
    InitReport {
        /// Its content.
        report: InitReport,
        /// The end of the Init.
        time: RecordTime,
    },
    /// `platform.start`.
    Start {
        /// The id of the invocation.
        request_id: String,
        /// The start of the invocation.
        time: RecordTime,
    },
    /// `platform.runtimeDone`.
    RuntimeDone {
        /// Its content.
        record: EndRecord,
        /// When the runtime was done.
        time: RecordTime,
    },
    /// `platform.report`.
    Report {
        /// Its content.
        record: EndRecord,
        /// The end of the invocation.
        time: RecordTime,
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InitStart {
    /// As in [`InitReport`].
    pub phase: Option<String>,
    /// For example `python:3.13.v50`.
    pub runtime_version: Option<String>,
}

/// The content of `platform.initReport`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct InitReport {
    /// `init`, `snap-start`, or `invoke` for an Init inside an invocation.
    pub phase: Option<String>,
    /// As in [`EndRecord`].
    pub status: Option<String>,
    /// As in [`EndRecord`].
    pub error_type: Option<String>,
    /// Its duration in milliseconds.
    pub duration_ms: Option<f64>,
}

/// The content of `platform.runtimeDone` and `platform.report`.
#[derive(Debug, Clone, Default, PartialEq)]
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

/// Metrics of an invocation; `None` for those that the record does not have.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Metrics {
    /// Duration in milliseconds, with microsecond precision.
    pub duration_ms: Option<f64>,
    /// Billed milliseconds, Init included.
    pub billed_duration_ms: Option<f64>,
    /// The environment's highest memory use so far, MB.
    pub max_memory_used_mb: Option<f64>,
    /// Duration of the Init of a cold start, milliseconds.
    pub init_duration_ms: Option<f64>,
    /// Duration of the SnapStart restore, milliseconds.
    pub restore_duration_ms: Option<f64>,
    /// Size of the response in bytes.
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

/// Decodes the body of one telemetry request: a JSON array of records.
#[must_use]
pub fn decode(body: &[u8]) -> DecodedTelemetry {
    let mut events = vec![];
    let undecodable = decode_each(body, &mut |event| events.push(event));
    DecodedTelemetry { events, undecodable }
}

/// Passes each decoded record to `take`, in the order of the body, so that no list of them is allocated. Returns the number
/// of records that could not be decoded; what follows the place where the array is not valid JSON counts as one.
pub fn decode_each(body: &[u8], take: &mut dyn FnMut(Event)) -> u64 {
    let mut undecodable = 0;
    // From text, as everywhere: a reader of bytes is another copy of the parser. The array ends where it is not UTF-8.
    let text = std::str::from_utf8(body).unwrap_or_else(|error| {
        let valid = body.get(..error.valid_up_to()).unwrap_or_default();
        std::str::from_utf8(valid).unwrap_or_default()
    });
    let mut json = serde_json::Deserializer::from_str(text);
    let whole = json.deserialize_seq(Records { take, undecodable: &mut undecodable });
    let is_whole = whole.is_ok() && json.end().is_ok();
    if is_whole { undecodable } else { undecodable + 1 }
}

struct Records<'a> {
    take: &'a mut dyn FnMut(Event),
    undecodable: &'a mut u64,
}

impl<'de> Visitor<'de> for Records<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut records: A) -> Result<(), A::Error> {
        while let Some(record) = records.next_element::<&RawValue>()? {
            match Object::parse(record.get()).as_ref().and_then(decode_record) {
                Some(event) => (self.take)(event),
                None => *self.undecodable += 1,
            }
        }
        Ok(())
    }
}

/// `None` when the type is unreadable, or what the record is about.
fn decode_record(envelope: &Object<'_>) -> Option<Event> {
    let record = envelope.object("record");
    let time = || envelope.text("time").map_or(RecordTime::UNKNOWN, |text| RecordTime::parse(&text));
    Some(match envelope.text("type")?.as_str() {
        "platform.initStart" => Event::InitStart(InitStart {
            phase: record.text("phase"),
            runtime_version: record.text("runtimeVersion"),
        }),
        "platform.initReport" => Event::InitReport { report: init_report(&record), time: time() },
        "platform.start" => Event::Start { request_id: request_id(&record)?, time: time() },
        "platform.runtimeDone" => Event::RuntimeDone { record: end_record(&record)?, time: time() },
        "platform.report" => Event::Report { record: end_record(&record)?, time: time() },
        "platform.restoreStart" => Event::RestoreStart,
        "platform.logsDropped" => {
            Event::LogsDropped { records: round_to_u64(record.number("droppedRecords")?) }
        }
        _ => Event::Other,
    })
}

fn request_id(record: &Object<'_>) -> Option<String> {
    record.text("requestId").filter(|id| !id.is_empty())
}

fn init_report(record: &Object<'_>) -> InitReport {
    InitReport {
        phase: record.text("phase"),
        status: record.text("status"),
        error_type: record.text("errorType"),
        duration_ms: record.object("metrics").number("durationMs"),
    }
}

fn end_record(record: &Object<'_>) -> Option<EndRecord> {
    let metrics = record.object("metrics");
    Some(EndRecord {
        request_id: request_id(record)?,
        status: record.text("status"),
        error_type: record.text("errorType"),
        metrics: Metrics {
            duration_ms: metrics.number("durationMs"),
            billed_duration_ms: metrics.number("billedDurationMs"),
            max_memory_used_mb: metrics.number("maxMemoryUsedMB"),
            init_duration_ms: metrics.number("initDurationMs"),
            restore_duration_ms: metrics.number("restoreDurationMs"),
            produced_bytes: metrics.number("producedBytes"),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: RecordTime = RecordTime::exact(1_767_323_045_160_000);

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
        assert_eq!(telemetry.events[0], Event::Start { request_id: "a".into(), time: TIME });
        assert_eq!(telemetry.events[1..3], [Event::Other, Event::Other]);
        let Event::Report { record: report, .. } = &telemetry.events[3] else {
            panic!("{:?}", telemetry.events)
        };
        assert_eq!(report.metrics.duration_ms, Some(1.148));
        assert_eq!(report.metrics.billed_duration_ms, None);
        // What is not UTF-8 ends the array: the records before it are read.
        let mut not_utf8 = body.to_vec();
        let at = body.windows(5).position(|part| part == b"plain").unwrap();
        not_utf8[at] = 0xff;
        let telemetry = decode(&not_utf8);
        assert_eq!((telemetry.events.len(), telemetry.undecodable), (2, 2));
    }

    /// The report of `record` and `time`, both JSON.
    fn report(time: &str, record: &str) -> (EndRecord, RecordTime) {
        let body = format!(r#"[{{{time}"type":"platform.report","record":{record}}}]"#);
        match &decode(body.as_bytes()).events[..] {
            [Event::Report { record, time }] => (record.clone(), *time),
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn an_unreadable_part_costs_only_itself() {
        for metrics in ["null", "[]", "\"none\"", "7", "{}"] {
            let json = format!(r#"{{"requestId":"a","status":"error","metrics":{metrics}}}"#);
            let (record, _) = report("", &json);
            assert_eq!((record.status.as_deref(), record.metrics), (Some("error"), Metrics::default()));
        }
        for (duration, expected) in [
            ("\"12.3\"", Some(12.3)),
            ("\" 7 \"", Some(7.0)),
            ("1e3", Some(1_000.0)),
            ("null", None),
            ("\"soon\"", None),
            ("\"NaN\"", None),
            ("-1", None),
            ("1e999", None),
            ("{\"ms\":1}", None),
        ] {
            let json = format!(
                r#"{{"requestId":"a","status":7,"errorType":[],"metrics":{{"durationMs":{duration},"billedDurationMs":13}}}}"#
            );
            let (record, _) = report("", &json);
            assert_eq!(record.metrics.duration_ms, expected, "{duration}");
            assert_eq!(record.metrics.billed_duration_ms, Some(13.0), "{duration}");
            assert_eq!((record.status, record.error_type), (None, None));
        }
    }

    #[test]
    fn an_unreadable_time_costs_only_itself() {
        let of = |time: &str| report(time, r#"{"requestId":"a"}"#).1;
        assert_eq!(of(r#""time":"2026-01-02T03:04:05.160Z","#), TIME);
        assert_eq!(of(r#""time":"2026-01-02T03:04:05Z","#).earliest_us(), 1_767_323_045_000_000);
        for time in ["", "\"time\":null,", "\"time\":17,", "\"time\":\"noon\",", "\"time\":{},"] {
            assert_eq!(of(time), RecordTime::UNKNOWN, "{time}");
        }
    }

    #[test]
    fn a_record_without_its_request_is_counted() {
        for record in [r#"{}"#, r#"{"requestId":null}"#, r#"{"requestId":""}"#, "null"] {
            for kind in ["start", "runtimeDone", "report"] {
                let body = format!(r#"[{{"type":"platform.{kind}","record":{record}}}]"#);
                assert_eq!(decode(body.as_bytes()), DecodedTelemetry { events: vec![], undecodable: 1 });
            }
        }
    }

    #[test]
    fn the_end_of_an_init_is_decoded() {
        let body = br#"[{"time":"2026-01-02T03:04:05.160Z","type":"platform.initReport","record":
            {"initializationType":"on-demand","phase":"invoke","status":"error","errorType":"Runtime.ExitError",
             "metrics":{"durationMs":350.5}}}]"#;
        let expected = InitReport {
            phase: Some("invoke".into()),
            status: Some("error".into()),
            error_type: Some("Runtime.ExitError".into()),
            duration_ms: Some(350.5),
        };
        assert_eq!(decode(body).events, [Event::InitReport { report: expected, time: TIME }]);
    }

    #[test]
    fn invalid_telemetry_is_counted() {
        assert_eq!(decode(b"not json").undecodable, 1);
        assert_eq!(decode(b"{}").undecodable, 1);
        let cut = decode(br#"[{"type":"platform.restoreStart","record":{}},{"type":"pl"#);
        assert_eq!(cut, DecodedTelemetry { events: vec![Event::RestoreStart], undecodable: 1 });
        assert_eq!(decode(b"[] []").undecodable, 1);
        assert_eq!(decode(b"").undecodable, 1);
        assert_eq!(decode(b"[]"), DecodedTelemetry::default());
    }
}
