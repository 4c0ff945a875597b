//! Every kind of line and wrapper with the records that it must give.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write;

use base64::Engine;
use tailor_logs::{Entry, Origin, Reader, Record, Report, Source};

#[derive(Debug, Default)]
struct Case {
    name: String,
    source: Source,
    input: Vec<u8>,
    expected: Vec<String>,
}

fn cases() -> Vec<Case> {
    let text = include_str!("data/corpus.txt");
    let mut cases: Vec<Case> = vec![];
    for line in text.lines() {
        let (key, rest) = line.split_once(' ').unwrap_or((line, ""));
        if key == "case" {
            cases.push(Case { name: rest.to_owned(), ..Case::default() });
            continue;
        }
        let Some(case) = cases.last_mut() else { continue };
        match key {
            "path" => case.source.origin.set_path(rest),
            "function" => case.source.origin.function = rest.to_owned(),
            "|" => {
                if !case.input.is_empty() {
                    case.input.push(b'\n');
                }
                case.input.extend(unescape(rest).into_bytes());
            }
            "@" => case.input = base64::engine::general_purpose::STANDARD.decode(rest).unwrap(),
            "=" => case.expected.push(rest.to_owned()),
            _ => {}
        }
    }
    cases
}

fn unescape(text: &str) -> String {
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, if c == '\\' { chars.next() } else { None }) {
            ('\\', Some('t')) => plain.push('\t'),
            ('\\', Some('r')) => plain.push('\r'),
            ('\\', Some('e')) => plain.push('\x1b'),
            ('\\', Some(other)) => plain.push(other),
            _ => plain.push(c),
        }
    }
    plain
}

fn milliseconds(us: u64) -> String {
    let text = format!("{}.{:03}", us / 1_000, us % 1_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The record in the notation of the corpus. Empty and unknown fields are left out.
fn describe(entry: &Entry) -> String {
    let mut text = match &entry.record {
        Record::Report(report) => describe_report(report),
        Record::Start { request_id, version } => format!("start {request_id}{}", field("version", version)),
        Record::RuntimeDone { request_id, duration_us, produced_bytes } => {
            let duration = duration_us.map(milliseconds).unwrap_or_default();
            let bytes = produced_bytes.map(|bytes| bytes.to_string()).unwrap_or_default();
            format!("runtime-done {request_id}{}{}", field("duration", &duration), field("bytes", &bytes))
        }
        Record::InitStart(init) => format!(
            "init-start{}{}{}{}",
            field("runtime", &init.runtime.name),
            field("runtime_region", &init.runtime.region),
            field("type", &init.initialization_type),
            field("name", &init.function)
        ),
        Record::InitReport(report) => format!(
            "init-report duration={}{}{}{}",
            milliseconds(report.duration_us),
            field("phase", &report.phase),
            field("status", &report.status),
            field("error", &report.error_type)
        ),
        Record::TimedOut { request_id } => format!("timeout {request_id}"),
        Record::Exited { request_id, is_out_of_memory } => {
            format!("exit {request_id}{}", if *is_out_of_memory { " out-of-memory" } else { "" })
        }
    };
    let Origin { account, region, function, version, stream } = &*entry.origin;
    let at = entry.at_us.map(time).unwrap_or_default();
    for (name, value) in [
        ("at", &at),
        ("account", account),
        ("region", region),
        ("function", function),
        ("version", version),
        ("stream", stream),
    ] {
        text += &field(name, value);
    }
    text
}

fn describe_report(report: &Report) -> String {
    let mut text = format!("report {} duration={}", report.request_id, milliseconds(report.duration_us));
    let number = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
    for (name, value) in [
        ("billed", number(report.billed_ms)),
        ("memory", number(report.memory_mb.map(u64::from))),
        ("used", number(report.max_memory_used_mb.map(u64::from))),
        ("init", report.init_us.map(milliseconds).unwrap_or_default()),
        ("restore", report.restore_us.map(milliseconds).unwrap_or_default()),
        ("billed_restore", number(report.billed_restore_ms)),
        ("status", report.status.clone()),
        ("error", report.error_type.clone()),
    ] {
        text += &field(name, &value);
    }
    text
}

fn field(name: &str, value: &str) -> String {
    if value.is_empty() { String::new() } else { format!(" {name}={value}") }
}

/// The corpus has times of one hour only.
fn time(us: u64) -> String {
    const HOUR_US: u64 = 1_767_322_800_000_000;
    let ms = (us - HOUR_US) / 1_000;
    format!("2026-01-02T03:{:02}:{:02}.{:03}Z", ms / 60_000, ms / 1_000 % 60, ms % 1_000)
}

fn read(case: &Case, input: &[u8]) -> Vec<String> {
    let mut reader = Reader::default();
    let mut records = vec![];
    reader.read(&case.source, input, &mut |entry| records.push(describe(&entry)));
    for (problem, count) in reader.problems.iter() {
        for _ in 0..count.count {
            records.push(format!("problem {}", problem.code()));
        }
        assert!(!count.example.is_empty(), "{}", case.name);
    }
    records.sort();
    records
}

#[test]
fn every_line_and_wrapper_gives_the_expected_records() {
    let cases = cases();
    assert!(cases.len() >= 200, "{}", cases.len());
    let mut failures = String::new();
    for mut case in cases {
        case.expected.sort();
        let found = read(&case, &case.input);
        if found != case.expected {
            writeln!(failures, "{}:\n  expected {:#?}\n  found {found:#?}", case.name, case.expected)
                .unwrap();
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

/// A compressed input gives the same as a plain one, for every case.
#[test]
fn compression_changes_nothing() {
    for case in cases() {
        if case.expected.iter().any(|line| line == "problem damaged_data") {
            continue;
        }
        let plain = read(&case, &case.input);
        let zstd = zstd::encode_all(case.input.as_slice(), 1).unwrap();
        assert_eq!(read(&case, &zstd), plain, "{} in zstd", case.name);
        let mut gzip = flate2::read::GzEncoder::new(case.input.as_slice(), flate2::Compression::fast());
        let mut bytes = vec![];
        std::io::Read::read_to_end(&mut gzip, &mut bytes).unwrap();
        assert_eq!(read(&case, &bytes), plain, "{} in gzip", case.name);
    }
}
