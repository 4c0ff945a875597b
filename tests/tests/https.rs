//! Deliveries over TLS, by the extension as it is shipped: to a collector of the company's own, and to nobody else.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::process::{Command, Stdio};

use tailor_e2e::puppet::{Certificate, Collector, Platform, Received};
use tailor_e2e::shipped;

const INVOCATIONS: u64 = 20;

/// Runs the extension to its end; what the collector received, and what the extension said.
fn run(certificate: &Certificate, trusted: Option<&str>) -> (Received, String) {
    let collector = Collector::start(Some(certificate)).unwrap();
    let program = shipped::build_for_here(&["tailor-extension"]).unwrap().join("tailor-extension");
    let mut command = Command::new(program);
    let platform = Platform { invocations: INVOCATIONS, to_a_delivery: 5, watch: Box::new(|_| {}) };
    platform.start(&mut command, 1_769).unwrap();
    command.env("TAILOR_ENDPOINT", &collector.url).env("TAILOR_LOG_LEVEL", "info");
    command.envs(trusted.map(|file| ("TAILOR_CA_FILE", file)));
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "it ends as it should, whatever becomes of its deliveries: {said}");
    (collector.received(), said)
}

#[test]
fn only_a_collector_that_is_trusted_receives_anything() {
    let folder = tempfile::tempdir().unwrap();
    let Some(certificate) = Certificate::make(folder.path()).unwrap() else {
        println!("skipped: only_a_collector_that_is_trusted_receives_anything (needs openssl)");
        return;
    };
    let (received, said) = run(&certificate, certificate.authority.to_str());
    assert_eq!((received.invocations, received.lost), (INVOCATIONS, 0), "{said}");

    let (received, said) = run(&certificate, None);
    assert_eq!(received.invocations, 0);
    assert!(said.contains("invalid peer certificate: UnknownIssuer"), "{said}");

    // A file that is of no use is said, and changes nothing else.
    let nonsense = folder.path().join("nonsense");
    for (text, complaint) in [(Some("nonsense"), "it has no certificate"), (None, "No such file")] {
        if let Some(text) = text {
            std::fs::write(&nonsense, text).unwrap();
        }
        let (received, said) = run(&certificate, nonsense.to_str());
        assert_eq!(received.invocations, 0);
        assert!(said.contains("TAILOR_CA_FILE") && said.contains(complaint), "{said}");
        assert!(said.contains("invalid peer certificate: UnknownIssuer"), "{said}");
        let _ = std::fs::remove_file(&nonsense);
    }
}
