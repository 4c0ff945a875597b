//! Snapshots of the outputs of `tailor` and of the pages.
//!
//! A changed output fails its test. After an intended change, run the tests once with `INSTA_UPDATE=always`, and review
//! the difference in `snapshots/` before you commit it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::process::Command;

use common::Collector;
use common::fleet::{KINDS, batch};

/// 2026-06-01T12:00:00Z, microseconds: a fixed time, so that the outputs do not depend on the time of the test run.
const MEASURED_AT_US: u64 = 1_780_315_200_000_000;

/// A window that includes [`MEASURED_AT_US`] for the next hundred years.
const HOURS: &str = "876000";

fn collector() -> Collector {
    let collector = Collector::start();
    for (kind, id) in KINDS.iter().zip(1..) {
        let body = batch(kind, id, 1, 150, MEASURED_AT_US).encode().unwrap();
        assert_eq!(collector.post_batch(&body).status, 200);
    }
    collector
}

fn tailor(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tailor")).args(arguments).env_clear().output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn command_line_outputs() {
    let collector = collector();
    let folder = collector.folder.path().to_str().unwrap();
    for (name, command) in [
        ("fleet", &["functions"][..]),
        ("function", &["function", KINDS[2].name]),
        ("hints", &["hints"]),
        ("keys", &["keys", "list"]),
    ] {
        for format in ["table", "markdown", "csv", "json", "yaml"] {
            if name == "keys" {
                let place = ["--data", folder, "--format", format];
                insta::assert_snapshot!(format!("{name}.{format}"), tailor(&[command, &place].concat()));
                continue;
            }
            let place = ["--data", folder, "--hours", HOURS, "--format", format];
            let output = tailor(&[command, &place].concat()).replace(folder, "DATA");
            insta::assert_snapshot!(format!("{name}.{format}"), at_any_time(&output));
        }
    }
    insta::assert_snapshot!("changes.table", tailor(&["changes", "--data", folder]));
    insta::assert_snapshot!("check.table", tailor(&["check", "--data", folder]));
}

/// The text with `N` for the time of reception, and for the hours of a bill, which ends now.
fn at_any_time(text: &str) -> String {
    let masked = |line: &str| {
        let depends =
            ["received_at_us", "delivery_ms", " h. Prices of "].iter().any(|part| line.contains(part));
        let (before, rest) = line.split_once(" h. Prices of ").unwrap_or((line, ""));
        match before.rsplit_once(' ') {
            Some((start, _)) if !rest.is_empty() => format!("{start} N h. Prices of {rest}"),
            _ if depends => without_numbers(line),
            _ => line.to_owned(),
        }
    };
    text.lines().map(|line| masked(line) + "\n").collect()
}

/// A page without the section on places, whose figures depend on the time since the invocations. Another test has them.
fn without_places(page: &str) -> String {
    const SECTION: &str = "<section class=\"card\" id=\"places\">";
    let Some((before, rest)) = page.split_once(SECTION) else { return page.to_owned() };
    let (_, after) = rest.split_once("</section>").unwrap();
    format!("{before}{SECTION}…</section>{after}")
}

/// A page without the charts over time: their axis ends today. Tests of time series have the points.
fn without_time_charts(page: &str) -> String {
    const CHART: &str = "<svg class=\"time\"";
    let mut parts = page.split(CHART);
    let mut text = parts.next().unwrap().to_owned();
    for part in parts {
        let (_, after) = part.split_once("</svg>").unwrap();
        text += &format!("{CHART}>…</svg>{after}");
    }
    text
}

/// The text without figures that depend on the time and the machine: `N` for each number, and one space for several.
fn without_numbers(text: &str) -> String {
    let mut result = String::new();
    for character in text.chars() {
        match character {
            '0'..='9' | '.' | '-' if result.ends_with('N') => {}
            '0'..='9' => result.push('N'),
            ' ' if result.ends_with(' ') => {}
            other => result.push(other),
        }
    }
    result
}

#[test]
fn health_and_live_figures() {
    let collector = collector();
    let folder = collector.folder.path().to_str().unwrap();
    for (name, command) in [("doctor", &["doctor"][..]), ("top", &["top", "--sort", "name"])] {
        for format in ["table", "markdown", "csv"] {
            let place = ["--data", folder, "--hours", HOURS, "--format", format];
            let output = tailor(&[command, &place].concat()).replace(folder, "DATA");
            insta::assert_snapshot!(format!("{name}.{format}"), without_numbers(&output));
        }
    }
}

#[test]
fn help_texts() {
    for command in [
        &[][..],
        &["serve"],
        &["functions"],
        &["function"],
        &["doctor"],
        &["top"],
        &["changes"],
        &["keys"],
        &["check"],
        &["backup"],
        &["import", "logs"],
    ] {
        let name = command.last().unwrap_or(&"tailor");
        insta::assert_snapshot!(format!("help.{name}"), tailor(&[command, &["--help"]].concat()));
    }
}

#[test]
fn pages() {
    let collector = collector();
    for (name, path) in
        [("page.fleet", "/".to_owned()), ("page.function", format!("/functions/{}", KINDS[1].name))]
    {
        let response = collector.get(&format!("{path}?hours={HOURS}"));
        assert_eq!(response.status, 200, "{}", response.text());
        // One element per line, so that differences are readable.
        let text = without_time_charts(&without_places(&response.text())).replace("><", ">\n<");
        insta::assert_snapshot!(name, at_any_time(&text));
    }
    let missing = collector.get("/no-such-page");
    assert_eq!(missing.status, 404);
    insta::assert_snapshot!("page.missing", missing.text().replace("><", ">\n<"));
}
