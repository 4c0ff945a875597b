//! Deliveries by the extension as it is shipped: over TLS to a collector of the company's own and to nobody else, and
//! what it says and does where none is to be had.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tailor_test_kit::fake::{Certificate, FakeCollector, FakePlatform, Received};
use tailor_test_kit::process::{free_address, is_root};
use tailor_test_kit::{release, skip};

const INVOCATIONS: u64 = 20;

fn extension() -> PathBuf {
    release::build_for_host(&["tailor-extension"]).unwrap().join("tailor-extension")
}

/// Runs `extension` on a platform to its end, with these variables; returns what it said, and how long it took from
/// SHUTDOWN.
fn run(mut extension: Command, variables: &[(&str, &str)]) -> (String, Duration) {
    let (sender, shut_down) = std::sync::mpsc::channel();
    let watch = move |invocations| {
        if invocations == INVOCATIONS {
            sender.send(Instant::now()).unwrap();
        }
    };
    let platform =
        FakePlatform { invocations: INVOCATIONS, invocations_per_delivery: 5, watch: Box::new(watch) };
    platform.start(&mut extension, 1_769).unwrap();
    extension.envs(variables.iter().copied());
    let output = extension.stdin(Stdio::null()).output().unwrap();
    let took = shut_down.recv().unwrap().elapsed();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "it ends as it should, whatever becomes of its deliveries: {said}");
    (said, took)
}

#[test]
fn only_a_collector_that_is_trusted_receives_anything() {
    let folder = tempfile::tempdir().unwrap();
    let Some(certificate) = Certificate::make(folder.path()).unwrap() else {
        skip("needs openssl");
        return;
    };
    let deliver = |trusted: Option<&str>| -> (Received, String) {
        let collector = FakeCollector::start(Some(&certificate)).unwrap();
        let mut variables = vec![("TAILOR_ENDPOINT", collector.url.as_str())];
        variables.extend(trusted.map(|file| ("TAILOR_CA_FILE", file)));
        let (said, _) = run(Command::new(extension()), &variables);
        (collector.received(), said)
    };
    let (received, said) = deliver(certificate.authority.to_str());
    assert_eq!((received.invocations, received.lost, said.as_str()), (INVOCATIONS, 0, ""));

    let (received, said) = deliver(None);
    assert_eq!(received.invocations, 0);
    assert!(said.contains("invalid peer certificate: UnknownIssuer"), "{said}");

    // A file that is of no use is said, and changes nothing else.
    let nonsense = folder.path().join("nonsense");
    for (text, complaint) in [(Some("nonsense"), "it has no certificate"), (None, "No such file")] {
        if let Some(text) = text {
            fs::write(&nonsense, text).unwrap();
        }
        let (received, said) = deliver(nonsense.to_str());
        assert_eq!(received.invocations, 0);
        assert!(said.contains("TAILOR_CA_FILE") && said.contains(complaint), "{said}");
        assert!(said.contains("invalid peer certificate: UnknownIssuer"), "{said}");
        let _ = fs::remove_file(&nonsense);
    }
}

/// Where nobody listens it is said once, and in the end what was lost by it.
#[test]
fn a_collector_that_is_not_there_is_complained_of_once() {
    let nobody = format!("http://{}", free_address().unwrap());
    let (said, took) =
        run(Command::new(extension()), &[("TAILOR_ENDPOINT", &nobody), ("TAILOR_FLUSH_ITEMS", "1")]);
    assert_eq!(said.matches("delivery failed").count(), 1, "{said}");
    let last = said.lines().last().unwrap();
    assert!(last.contains(&format!("undelivered={INVOCATIONS}")), "{said}");
    assert!(took < Duration::from_secs(2), "{took:?}");
}

/// Many a server answers everything with an empty 200. That is no acknowledgement.
#[test]
fn an_answer_that_acknowledges_nothing_is_not_asked_for_again_and_again() {
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
    let (said, _) = run(Command::new(extension()), &[("TAILOR_ENDPOINT", &url), ("TAILOR_FLUSH_ITEMS", "1")]);
    assert!(said.contains("200 without an acknowledgement"), "{said}");
    let requests = requests.load(Ordering::Relaxed);
    assert!((1..=6).contains(&requests), "{requests} requests");
}

/// A name server that keeps silent must not keep the extension past the deadline: Lambda would kill it.
#[test]
fn a_silent_name_server_does_not_hold_it_at_the_end() {
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
    let (said, took) = run(
        command,
        &[("TAILOR_ENDPOINT", "https://collector.example.com"), ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")],
    );
    server.set_nonblocking(true).unwrap();
    assert!(server.recv(&mut [0; 512]).is_ok(), "nobody asked it: {said}");
    assert!(said.contains(&format!("undelivered={INVOCATIONS}")), "{said}");
    assert!(took < Duration::from_secs(2), "{took:?}");
}
