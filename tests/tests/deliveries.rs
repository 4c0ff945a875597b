//! Deliveries of the release build of the extension: TLS with a private certificate authority, and the behaviour when
//! the collector is not trusted, not reachable or sends invalid responses.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue has failed")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tailor_test_kit::fake::{Certificate, FakeCollector, FakePlatform, REGISTRATION, Received};
use tailor_test_kit::process::{free_address, is_root};
use tailor_test_kit::{release, skip};

const INVOCATIONS: u64 = 20;

fn extension() -> PathBuf {
    release::build_for_host(&["tailor-extension"]).unwrap().join("tailor-extension")
}

/// Runs `extension` on a fake platform with these environment variables until it exits. Returns its log and the time
/// from SHUTDOWN to its exit.
fn run(mut extension: Command, variables: &[(&str, &str)]) -> (String, Duration) {
    let (sender, shut_down) = std::sync::mpsc::channel();
    let before_event = move |invocations| {
        if invocations == INVOCATIONS {
            sender.send(Instant::now()).unwrap();
        }
    };
    let platform = FakePlatform {
        invocations: INVOCATIONS,
        invocations_per_delivery: 5,
        before_event: Box::new(before_event),
        registration: REGISTRATION,
    };
    platform.start(&mut extension, 1_769).unwrap();
    extension.envs(variables.iter().copied());
    let output = extension.stdin(Stdio::null()).output().unwrap();
    let shutdown_time = shut_down.recv().unwrap().elapsed();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "the exit status does not depend on the deliveries: {log}");
    (log, shutdown_time)
}

#[test]
fn only_a_trusted_collector_receives_batches() {
    let folder = tempfile::tempdir().unwrap();
    let Some(certificate) = Certificate::create(folder.path()).unwrap() else {
        skip("needs openssl");
        return;
    };
    let deliver = |trusted: Option<&str>| -> (Received, String) {
        let collector = FakeCollector::start(Some(&certificate)).unwrap();
        let mut variables = vec![("TAILOR_ENDPOINT", collector.url.as_str())];
        variables.extend(trusted.map(|file| ("TAILOR_CA_FILE", file)));
        let (log, _) = run(Command::new(extension()), &variables);
        (collector.received(), log)
    };
    let (received, log) = deliver(certificate.authority_file.to_str());
    assert_eq!((received.invocations, received.lost, log.as_str()), (INVOCATIONS, 0, ""));

    let (received, log) = deliver(None);
    assert_eq!(received.invocations, 0);
    assert!(log.contains("invalid peer certificate: UnknownIssuer"), "{log}");

    // The extension logs an invalid file and continues without it.
    let invalid_file = folder.path().join("invalid.pem");
    for (text, message) in [(Some("no PEM data"), "it has no certificate"), (None, "No such file")] {
        if let Some(text) = text {
            fs::write(&invalid_file, text).unwrap();
        }
        let (received, log) = deliver(invalid_file.to_str());
        assert_eq!(received.invocations, 0);
        assert!(log.contains("TAILOR_CA_FILE") && log.contains(message), "{log}");
        assert!(log.contains("invalid peer certificate: UnknownIssuer"), "{log}");
        let _ = fs::remove_file(&invalid_file);
    }
}

/// When nothing listens on the endpoint, the extension logs the failure once, and logs the number of lost invocations at
/// shutdown.
#[test]
fn an_unreachable_collector_is_logged_once() {
    let unused = format!("http://{}", free_address().unwrap());
    let (log, shutdown_time) =
        run(Command::new(extension()), &[("TAILOR_ENDPOINT", &unused), ("TAILOR_FLUSH_ITEMS", "1")]);
    assert_eq!(log.matches("delivery failed").count(), 1, "{log}");
    let last = log.lines().last().unwrap();
    assert!(last.contains(&format!("undelivered={INVOCATIONS}")), "{log}");
    assert!(shutdown_time < Duration::from_secs(2), "{shutdown_time:?}");
}

/// Some servers respond to every request with an empty 200. The extension must not take it for an acknowledgement, and
/// must not retry without limit.
#[test]
fn a_response_without_acknowledgement_is_not_retried_without_limit() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&requests);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            if lines.by_ref().map_while(Result::ok).any(|line| line.is_empty()) {
                counted.fetch_add(1, Ordering::Relaxed);
                let _ =
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            }
        }
    });
    let (log, _) = run(Command::new(extension()), &[("TAILOR_ENDPOINT", &url), ("TAILOR_FLUSH_ITEMS", "1")]);
    assert!(log.contains("200 without an acknowledgement"), "{log}");
    let requests = requests.load(Ordering::Relaxed);
    assert!((1..=6).contains(&requests), "{requests} requests");
}

/// A name server that does not respond must not delay the exit beyond the deadline: Lambda would kill the extension.
#[test]
fn an_unresponsive_name_server_does_not_delay_the_exit() {
    let server = UdpSocket::bind(("127.0.0.153", 53));
    let (true, Ok(server)) = (is_root(), server) else {
        skip("needs root and a free port 53");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let resolver = folder.path().join("resolv.conf");
    fs::write(&resolver, "nameserver 127.0.0.153\noptions timeout:10 attempts:3\n").unwrap();
    let mut command = Command::new("unshare");
    let script = "mount --bind \"$0\" /etc/resolv.conf && exec \"$1\"";
    command.args(["-m", "sh", "-c", script]).arg(&resolver).arg(extension());
    let (log, shutdown_time) = run(
        command,
        &[("TAILOR_ENDPOINT", "https://collector.example.com"), ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")],
    );
    server.set_nonblocking(true).unwrap();
    assert!(server.recv(&mut [0; 512]).is_ok(), "the name server received no query: {log}");
    assert!(log.contains(&format!("undelivered={INVOCATIONS}")), "{log}");
    assert!(shutdown_time < Duration::from_secs(2), "{shutdown_time:?}");
}
