//! Runs 100,000 invocations in one environment with delivery over HTTPS. Memory and file descriptors must not grow, and
//! no invocation may be lost.
//!
//! `cargo bench -p tailor-e2e --bench soak` prints a table, and fails when one of these conditions is not met.
//! `SOAK_INVOCATIONS` sets the number of invocations and `SOAK_INTERVAL_MS` the flush interval; 0 delivers at every
//! invocation. The platform and the collector are fakes in this process. The extension is the release build, and reads
//! the real `/proc` and uses real connections. The function is one `cat` process that runs until the end.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot continue has failed")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;

use tailor_test_kit::fake::{Certificate, FakeCollector, FakePlatform, REGISTRATION};
use tailor_test_kit::process::{state, status_kib};
use tailor_test_kit::release;

/// Allowed growth of the extension's resident memory between the first and the last sample, KiB. The allocator may keep
/// freed memory.
const MAX_GROWTH_KIB: u64 = 256;

/// Resource usage of the extension after a number of invocations.
#[derive(Debug, Clone, Copy)]
struct Sample {
    invocations: u64,
    resident_kib: u64,
    descriptors: usize,
    cpu_ms: u64,
}

fn sample(pid: u32, invocations: u64) -> Sample {
    let process = PathBuf::from(format!("/proc/{pid}"));
    Sample {
        invocations,
        resident_kib: status_kib(&process, "VmRSS").unwrap(),
        descriptors: fs::read_dir(process.join("fd")).unwrap().count(),
        cpu_ms: state(&process).unwrap().cpu_ms,
    }
}

fn main() {
    // `cargo test` also runs this program, without `--bench`.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let invocations: u64 =
        std::env::var("SOAK_INVOCATIONS").map_or(100_000, |text| text.parse().expect("a number"));
    let interval_ms = std::env::var("SOAK_INTERVAL_MS").unwrap_or_else(|_| "100".into());
    let mut function = Command::new("cat")
        .env("LAMBDA_TASK_ROOT", "/var/task")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let certificate = Certificate::create(folder.path()).unwrap();
    if certificate.is_none() {
        println!(
            "note: deliveries use HTTP, because openssl is not installed and no certificate can be created"
        );
    }
    let collector = FakeCollector::start(certificate.as_ref()).unwrap();
    let pid = Arc::new(AtomicU32::new(0));
    let (sender, samples) = mpsc::channel();
    let extension_pid = Arc::clone(&pid);
    let before_event = Box::new(move |count: u64| {
        let pid = extension_pid.load(Ordering::Relaxed);
        if count > 0 && (count == 1_000 || count.is_multiple_of((invocations / 10).max(1))) {
            sender.send(sample(pid, count)).unwrap();
        }
    });
    let program = release::build_for_host(&["tailor-extension"]).unwrap().join("tailor-extension");
    let mut command = Command::new(program);
    FakePlatform { invocations, invocations_per_delivery: 50, before_event, registration: REGISTRATION }
        .start(&mut command, 1_769)
        .unwrap();
    command.env("TAILOR_ENDPOINT", &collector.url).env("TAILOR_FLUSH_INTERVAL_MS", interval_ms);
    command.envs(certificate.iter().map(|certificate| ("TAILOR_CA_FILE", &certificate.authority_file)));
    let mut extension = command.spawn().unwrap();
    pid.store(extension.id(), Ordering::Relaxed);
    assert!(extension.wait().unwrap().success());
    function.kill().unwrap();
    function.wait().unwrap();

    println!("{:>12}{:>10}{:>13}{:>16}", "invocations", "RSS KiB", "descriptors", "CPU us each");
    let samples: Vec<Sample> = samples.try_iter().collect();
    for sample in &samples {
        let cpu_us = sample.cpu_ms * 1_000 / sample.invocations;
        println!(
            "{:>12}{:>10}{:>13}{cpu_us:>16}",
            sample.invocations, sample.resident_kib, sample.descriptors
        );
    }
    let received = collector.received();
    println!(
        "{} of {invocations} invocations delivered in {} batches over {} connections, {} lost",
        received.invocations, received.batches, received.connections, received.lost
    );
    assert_eq!((received.invocations, received.lost), (invocations, 0));
    assert_eq!(received.billed_ms, 2 * invocations);
    let (first, last) = (samples[0], samples[samples.len() - 1]);
    assert!(last.resident_kib <= first.resident_kib + MAX_GROWTH_KIB, "memory grows: {first:?} {last:?}");
    assert!(last.descriptors <= first.descriptors + 2, "descriptors grow: {first:?} {last:?}");
}
