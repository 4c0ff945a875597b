//! The extension measures whatever the answer to its registration contains: environment variables have the rest.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue has failed")]

use std::process::{Command, Stdio};

use tailor_test_kit::fake::{BatchRecorder, FakePlatform};
use tailor_test_kit::release;

const INVOCATIONS: u64 = 3;

/// Runs the extension for some invocations with this answer to its registration and these variables. Returns its log and the `account`,
/// `function`, `version` and number of invocations that it delivered.
fn run(invocations: u64, registration: &'static str, variables: &[(&str, &str)]) -> (String, Vec<String>) {
    let collector = BatchRecorder::start().unwrap();
    let extension = release::build_for_host(&["tailor-extension"]).unwrap().join("tailor-extension");
    let mut command = Command::new(extension);
    let platform = FakePlatform {
        invocations,
        invocations_per_delivery: 1,
        before_event: Box::new(|_| ()),
        registration,
    };
    platform.start(&mut command, 512).unwrap();
    command.env("TAILOR_ENDPOINT", collector.endpoint()).envs(variables.iter().copied());
    let output = command.stdin(Stdio::null()).output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{registration}: {log}");
    let batches = collector.batches();
    let invocations: usize = batches.iter().map(|batch| batch.invocations.len()).sum();
    let delivered = batches.first().map(|batch| {
        let environment = &batch.header.environment;
        let texts = [&environment.account, &environment.function, &environment.version].map(Clone::clone);
        texts.into_iter().chain([invocations.to_string()]).collect()
    });
    (log, delivered.unwrap_or_default())
}

#[test]
fn an_unusual_answer_to_the_registration_costs_only_what_it_lacks() {
    let variables = [("AWS_LAMBDA_FUNCTION_NAME", "named"), ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")];
    for (registration, expected) in [
        ("", ["", "named", "$LATEST", "3"]),
        ("{}", ["", "named", "$LATEST", "3"]),
        (r#"{"functionName":"fn"}"#, ["", "fn", "$LATEST", "3"]),
        (
            r#"{"functionName":"fn","functionVersion":7,"accountId":111122223333}"#,
            ["111122223333", "fn", "7", "3"],
        ),
        (r#"{"functionName":["fn"],"functionVersion":{},"accountId":[1]}"#, ["", "named", "$LATEST", "3"]),
        (r#"["fn","7"]"#, ["", "named", "$LATEST", "3"]),
        ("<html>", ["", "named", "$LATEST", "3"]),
    ] {
        let (log, delivered) = run(INVOCATIONS, registration, &variables);
        assert_eq!(
            (delivered.as_slice(), log.as_str()),
            (expected.map(String::from).as_slice(), ""),
            "{registration}"
        );
    }
    // Without any name nothing can be delivered, but the function still works.
    let (log, delivered) = run(0, "{}", &[]);
    assert!(delivered.is_empty() && log.contains("AWS_LAMBDA_FUNCTION_NAME is missing"), "{log}");
}
