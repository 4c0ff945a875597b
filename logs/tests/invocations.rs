//! Lines of one request become its invocations, whatever their order, and whatever is repeated.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write;

use proptest::prelude::*;
use tailor_logs::{Assembler, ImportedInvocation, LogBytes, Origin, Problem, Problems, Reader, Source};
use tailor_sizing::telemetry::invocation::{Initialization, Outcome};

const ID: &str = "11111111-2222-4333-8444-555555555555";
const FILE_TIME_US: u64 = 1_767_000_000_000_000;

fn source() -> Source {
    let text = |text: &str| text.to_owned();
    let origin = Origin { region: text("eu-west-1"), function: text("pay"), ..Origin::default() };
    Source { name: text("pay.log"), origin }
}

fn import(inputs: &[&str]) -> (Vec<ImportedInvocation>, Problems) {
    let (mut reader, mut assembler) = (Reader::default(), Assembler::default());
    let (mut invocations, mut problems) = (vec![], Problems::default());
    for input in inputs {
        reader.read(&source(), input.as_bytes(), &mut |entry| {
            assembler.add(entry, FILE_TIME_US, &mut problems, &mut |invocation| invocations.push(invocation));
        });
    }
    assembler.finish(&mut problems, &mut |invocation| invocations.push(invocation));
    problems.merge(reader.problems);
    (invocations, problems)
}

fn one(text: &str) -> ImportedInvocation {
    let (invocations, problems) = import(&[text]);
    assert_eq!((invocations.len(), problems.total()), (1, 0), "{text}: {problems:?}");
    invocations.into_iter().next().unwrap()
}

fn report(rest: &str) -> String {
    format!(
        "REPORT RequestId: {ID}\tDuration: 3000.00 ms\tBilled Duration: 3000 ms\tMemory Size: 128 MB\t{rest}"
    )
}

#[test]
fn start_line_gives_version_and_time() {
    let text = format!(
        "2026-01-02T03:04:05.000Z START RequestId: {ID} Version: 7\n2026-01-02T03:04:08.000Z {}",
        report("Max Memory Used: 70 MB\tInit Duration: 200.00 ms")
    );
    let found = one(&text);
    assert_eq!(found.version, "7");
    assert_eq!(found.invocation.started_at_us, 1_767_323_045_000_000);
    assert_eq!(found.invocation.initialization, Initialization::OnDemand);
    assert_eq!((found.invocation.billed_ms, found.invocation.init_us), (3_000, 200_000));
    assert!(found.has_time);
    let found = one(&report("Max Memory Used: 70 MB"));
    assert_eq!((found.has_time, found.invocation.started_at_us), (false, FILE_TIME_US));
    assert_eq!((found.version.as_str(), found.invocation.initialization), ("$LATEST", Initialization::Warm));
}

#[test]
fn more_requests_than_wait_for_lines_are_kept_apart() {
    const REQUESTS: usize = 70_000;
    let id = |index: usize| format!("{index:08x}-2222-4333-8444-555555555555");
    let mut text = String::new();
    for index in 0..REQUESTS {
        writeln!(text, "START RequestId: {} Version: {}", id(index), 1 + index).unwrap();
    }
    // The latest requests are reported first.
    for index in (0..REQUESTS).rev() {
        writeln!(text, "{}", report("Max Memory Used: 70 MB").replace(ID, &id(index))).unwrap();
    }
    let (invocations, problems) = import(&[&text]);
    assert_eq!((invocations.len(), problems.total()), (REQUESTS, 0));
    let first_known = REQUESTS - 65_536;
    for found in invocations {
        let index = usize::try_from(found.invocation.request_id.0 >> 96).unwrap();
        let expected = if index < first_known { "$LATEST".to_owned() } else { (1 + index).to_string() };
        assert_eq!(found.version, expected, "request {index}");
    }
}

#[test]
fn outcome_follows_from_status_error_type_and_other_lines() {
    let timeout = format!("2026-01-02T03:04:05.000Z {ID} Task timed out after 3.00 seconds\n");
    let exit = format!("RequestId: {ID} Error: Runtime exited with error: signal: killed\n");
    for (rest, other, expected) in [
        ("Max Memory Used: 70 MB", "", Outcome::Success),
        ("Max Memory Used: 128 MB", "", Outcome::Success),
        ("Max Memory Used: 70 MB\tStatus: success", "", Outcome::Success),
        ("Max Memory Used: 70 MB\tStatus: timeout", "", Outcome::Timeout),
        ("Max Memory Used: 70 MB", timeout.as_str(), Outcome::Timeout),
        ("Max Memory Used: 128 MB\tStatus: timeout", "", Outcome::OutOfMemory),
        ("Max Memory Used: 70 MB\tStatus: error\tError Type: Runtime.ExitError", "", Outcome::Error),
        ("Max Memory Used: 127 MB\tStatus: error\tError Type: Runtime.ExitError", "", Outcome::OutOfMemory),
        ("Max Memory Used: 70 MB\tStatus: error\tError Type: Runtime.OutOfMemory", "", Outcome::OutOfMemory),
        ("Max Memory Used: 128 MB", exit.as_str(), Outcome::OutOfMemory),
        ("Max Memory Used: 70 MB", exit.as_str(), Outcome::Error),
        ("Max Memory Used: 128 MB\tStatus: error\tError Type: Handler.ValueError", "", Outcome::Error),
        ("Max Memory Used: 128 MB\tStatus: error\tError Type: MemoryError", "", Outcome::OutOfMemory),
    ] {
        let before = one(&format!("{other}{}", report(rest)));
        let after = one(&format!("{}\n{other}", report(rest)));
        assert_eq!(before.invocation.outcome, expected, "{rest} {other}");
        assert_eq!(after.invocation.outcome, expected, "{rest} {other}");
    }
}

#[test]
fn retries_of_a_request_are_invocations_of_their_own() {
    let at = |minute: u32| {
        format!("2026-01-02T03:{minute:02}:05.000Z {}", report("Max Memory Used: 70 MB\tStatus: timeout"))
    };
    // Another tool has rounded the time of the first line.
    let rounded = at(1).replace("05.000Z", "05Z");
    let (invocations, _) = import(&[&[at(1), at(3), rounded, at(5), at(3)].join("\n")]);
    let times: Vec<u64> =
        invocations.iter().map(|found| found.invocation.started_at_us / 60_000_000 % 60).collect();
    assert_eq!(times, [1, 3, 5]);
}

#[test]
fn inits_are_classified() {
    let init_start = "2026-01-02T03:04:00.000Z INIT_START Runtime Version: python:3.13.v50\tRuntime Version ARN: arn:aws:lambda:eu-west-1::runtime:0";
    let init_report =
        "2026-01-02T03:04:02.000Z INIT_REPORT Init Duration: 2000.00 ms\tPhase: invoke\tStatus: success";
    let text = |lines: &[&str]| lines.join("\n");
    let line = format!("2026-01-02T03:04:05.000Z {}", report("Max Memory Used: 70 MB"));
    let found = one(&text(&[init_start, init_report, &line]));
    assert_eq!(found.runtime, "python3.13");
    assert_eq!(found.invocation.initialization, Initialization::InsideInvocation);
    assert_eq!(found.invocation.init_us, 2_000_000);
    let late =
        format!("2026-01-02T03:09:05.000Z {}", report("Max Memory Used: 70 MB\tInit Duration: 200.00 ms"));
    assert_eq!(one(&text(&[init_start, &late])).invocation.initialization, Initialization::Proactive);
    let restored =
        report("Max Memory Used: 70 MB\tRestore Duration: 400.00 ms\tBilled Restore Duration: 50 ms");
    assert_eq!(one(&restored).invocation.initialization, Initialization::SnapStart);
}

/// The reports of these environments have no Init duration.
#[test]
fn the_first_report_after_an_init_for_provisioned_concurrency_has_its_class() {
    let init = r#"{"time":"2026-01-02T03:04:00.000Z","type":"platform.initStart","record":{"initializationType":"provisioned-concurrency","functionName":"pay","functionVersion":"7"}}"#;
    let report = |minute: u32| {
        format!(
            r#"{{"time":"2026-01-02T03:{minute:02}:05.000Z","type":"platform.report","record":{{"requestId":"{minute:08}-2222-4333-8444-555555555555","metrics":{{"durationMs":8.5,"billedDurationMs":9,"memorySizeMB":128,"maxMemoryUsedMB":70}}}}}}"#
        )
    };
    let (invocations, _) = import(&[&[init, &report(10), &report(11), init, &report(12)].join("\n")]);
    let classes: Vec<_> = invocations.iter().map(|found| found.invocation.initialization).collect();
    let provisioned = Initialization::ProvisionedConcurrency;
    assert_eq!(classes, [provisioned, Initialization::Warm, provisioned]);
    assert!(invocations.iter().all(|found| found.invocation.init_us == 0));
    let on_demand = format!("{}\n{}", init.replace("provisioned-concurrency", "on-demand"), report(10));
    assert_eq!(one(&on_demand).invocation.initialization, Initialization::Warm);
}

#[test]
fn invocations_that_cannot_be_stored_are_counted() {
    let impossible = report("Max Memory Used: 70 MB").replace("128 MB", "64 MB");
    let managed = format!(
        r#"{{"time":"2026-01-02T03:04:05.000Z","type":"platform.report","record":{{"requestId":"{ID}","metrics":{{"durationMs":1.5}}}}}}"#
    );
    for (text, problem) in [(impossible, Problem::ImpossibleValue), (managed, Problem::ManagedInstances)] {
        let (invocations, problems) = import(&[&text]);
        assert_eq!((invocations.len(), problems.count(problem)), (0, 1), "{text}");
        assert!(problem != Problem::ManagedInstances || problem.explanation().contains("attach the layer"));
    }
    for (origin, problem) in [
        (Origin { function: "pay".into(), ..Origin::default() }, Problem::UnknownRegion),
        (Origin { region: "eu-west-1".into(), ..Origin::default() }, Problem::UnknownFunction),
    ] {
        let (mut reader, mut assembler, mut problems) =
            (Reader::default(), Assembler::default(), Problems::default());
        let source = Source { origin, ..Source::default() };
        reader.read(&source, report("Max Memory Used: 70 MB").as_bytes(), &mut |entry| {
            assembler.add(entry, FILE_TIME_US, &mut problems, &mut |_| {});
        });
        assembler.finish(&mut problems, &mut |_| unreachable!("it is not passed on"));
        assert_eq!(problems.count(problem), 1);
    }
}

/// A log of requests, as lines. Every request has a time of its own.
fn log(requests: &[(u32, u16, bool, bool)]) -> Vec<String> {
    let mut lines = vec![];
    for (index, (id, duration, is_cold, is_timeout)) in requests.iter().enumerate() {
        let uuid = format!("{id:08x}-2222-4333-8444-{index:012x}");
        let (minute, second) = (index / 60 % 60, index % 60);
        let time = |ms: u32| format!("2026-01-02T03:{minute:02}:{second:02}.{ms:03}Z");
        let mut report = format!(
            "{} REPORT RequestId: {uuid}\tDuration: {duration}.25 ms\tBilled Duration: {} ms\tMemory Size: 128 MB\tMax Memory Used: 70 MB\t",
            time(900),
            u32::from(*duration) + 1
        );
        if *is_cold {
            write!(report, "Init Duration: 12.50 ms\t").unwrap();
        }
        lines.push(format!("{} START RequestId: {uuid} Version: {}", time(0), id % 3));
        lines.push(format!("{} INFO paid", time(1)));
        lines.push(format!("{} END RequestId: {uuid}", time(899)));
        lines.push(report);
        if *is_timeout {
            lines.push(format!("{} {} {uuid} Task timed out after 3.00 seconds", time(900), time(900)));
        }
    }
    lines
}

fn sorted(inputs: &[&str]) -> Vec<ImportedInvocation> {
    let (mut invocations, problems) = import(inputs);
    assert_eq!(problems.total(), 0, "{problems:?}");
    invocations.sort_by_key(|found| found.invocation.request_id);
    // The lines between two reports depend on the order of the lines.
    invocations.iter_mut().for_each(|found| found.log_bytes = None);
    invocations
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn order_splitting_and_repetition_change_nothing(
        requests in prop::collection::vec((any::<u32>(), 1u16..3_000, any::<bool>(), any::<bool>()), 1..40),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..200),
        cut in any::<prop::sample::Index>(),
    ) {
        let lines = log(&requests);
        let expected = sorted(&[&lines.join("\n")]);
        prop_assert_eq!(expected.len(), requests.len());
        let mut mixed = lines.clone();
        for (at, index) in order.iter().enumerate() {
            let (a, b) = (at % mixed.len(), index.index(mixed.len()));
            mixed.swap(a, b);
            let repeated = mixed[b].clone();
            mixed.push(repeated);
        }
        let (first, second) = mixed.split_at(cut.index(mixed.len()));
        prop_assert_eq!(sorted(&[&first.join("\n"), &second.join("\n")]), expected);
    }

    #[test]
    fn no_input_fails(text in "(?s).{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut reader = Reader::default();
        for input in [text.as_bytes(), &bytes, format!("{{\"message\":\"REPORT {text}").as_bytes(), format!("REPORT RequestId: {ID} {text}").as_bytes()] {
            reader.read(&source(), input, &mut |_| {});
        }
    }
}

/// The size of a log with events of the function.
fn log_bytes(bytes: usize) -> LogBytes {
    LogBytes { bytes: bytes as u64, has_function_events: true }
}

/// CloudWatch Logs bills the message of each event and 26 bytes.
#[test]
fn log_bytes_are_counted_up_to_each_report() {
    let report = report("Max Memory Used: 70 MB");
    let text = format!("hello\nworld!\n{report}\nafter the last report\n");
    let expected = log_bytes(5 + 6 + report.len() + 3 * 26);
    assert_eq!(one(&text).log_bytes, Some(expected));
    // The same events in a document have the same bytes, whatever is around them.
    let events: Vec<String> = ["hello", "world!", &report]
        .iter()
        .map(|message| format!("{{\"id\":\"1\",\"timestamp\":1767323045000,\"message\":{message:?}}}"))
        .collect();
    let document = format!("{{\"logGroup\":\"/aws/lambda/pay\",\"logEvents\":[{}]}}", events.join(","));
    assert_eq!(one(&document).log_bytes, Some(expected));
    // Each line of a log in JSON is an event.
    let lines = format!(
        "{{\"level\":\"INFO\"}}\n{{\"time\":\"2026-01-02T03:04:05.000Z\",\"type\":\"platform.report\",\"record\":{{\"requestId\":\"{ID}\",\
         \"metrics\":{{\"durationMs\":1.0,\"billedDurationMs\":1,\"memorySizeMB\":128,\"maxMemoryUsedMB\":60}}}}}}\n"
    );
    assert_eq!(one(&lines).log_bytes, Some(log_bytes(lines.trim_end().len() - 1 + 2 * 26)));
    // A row of Insights is not the log.
    let row = format!("@timestamp,@message\n2026-01-02 03:04:05.000,\"{report}\"\n");
    assert_eq!(one(&row).log_bytes, None);
}

/// Times, log streams and other words that a program put before the messages are no part of the log.
#[test]
fn what_stands_before_messages_is_not_counted() {
    let report = report("Max Memory Used: 70 MB");
    let start = format!("START RequestId: {ID} Version: 7");
    // A message of several lines is one event, and its newlines are parts of it.
    let error = "2026-01-02T03:04:05.678Z\tid\tERROR\tfailed\n    at f (a.js:1:2)\n    at g (a.js:3:4)";
    let events = [start.as_str(), "hello", error, &report];
    let expected = log_bytes(events.iter().map(|event| event.len() + 26).sum());
    for prefix in [
        "2026-01-02T03:04:05.678Z ",
        "2026-01-02T03:04:05.678000+00:00 2026/01/02/[$LATEST]0123abcd ",
        "2026/01/02/[$LATEST]0123abcd 2026-01-02T03:04:05.678000 ",
        "\x1b[36m2026/01/02/[$LATEST]0123abcd\x1b[0m \x1b[33m2026-01-02T03:04:05.678000\x1b[0m ",
        "2026-01-02T03:04:05.678123456Z stdout F ",
        "lambda-1  | ",
        "",
    ] {
        let lines: Vec<String> = events.iter().map(|event| format!("{prefix}{event}")).collect();
        assert_eq!(one(&lines.join("\n")).log_bytes, Some(expected), "{prefix}");
        assert_eq!(one(&lines.join("\n").replace('\n', "\r\n")).log_bytes, Some(expected), "{prefix}");
    }
    // The console shows the time above each message. The empty lines between count one byte.
    let lines: Vec<String> = [start.as_str(), "hello", &report]
        .iter()
        .map(|event| format!("2026-01-02T03:04:05.678Z\n{event}"))
        .collect();
    let expected = log_bytes(start.len() + 5 + report.len() + 3 * 26 + 2);
    assert_eq!(one(&lines.join("\n\n")).log_bytes, Some(expected));
    // Docker and log shippers put an object around each message.
    let document = |message: &str| format!("{{\"log\":{message:?},\"time\":\"2026-01-02T03:04:05.678Z\"}}");
    let expected = log_bytes(5 + report.len() + 2 * 26);
    assert_eq!(one(&[document("hello"), document(&report)].join("\n")).log_bytes, Some(expected));
    let document = |message: &str| format!("{{\"logGroup\":\"/aws/lambda/pay\",\"message\":{message:?}}}");
    assert_eq!(one(&[document("hello"), document(&report)].join("\n")).log_bytes, Some(expected));
}

/// As `grep REPORT` and `aws logs filter-log-events --filter-pattern REPORT` write them.
#[test]
fn a_log_with_only_lines_of_the_platform_has_no_events_of_the_function() {
    let report = report("Max Memory Used: 70 MB");
    let all = format!(
        "INIT_START Runtime Version: python:3.13.v50\n2026-01-02T03:04:05.678Z {ID} Task timed out after 3.00 seconds\n\
         EXTENSION\tName: tailor\tState: Ready\tEvents: [INVOKE]\nSTART RequestId: {ID} Version: 7\nEND RequestId: {ID}\n{report}\n"
    );
    let event = format!("{{\"timestamp\":1767323045000,\"message\":{report:?}}}");
    let documents = format!("{{\"events\":[{event}]}}");
    for text in [&report, &all, &documents] {
        let found = one(text).log_bytes.unwrap();
        assert!(found.bytes > 26 && !found.has_function_events, "{text}: {found:?}");
    }
    let other = documents.replace("[{", "[{\"timestamp\":1767323045000,\"message\":\"paid\"},{");
    assert!(one(&other).log_bytes.unwrap().has_function_events);
}
