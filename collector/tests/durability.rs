//! Acknowledged batches stay stored when the real binary is killed at any moment and when the disk is full.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::fleet::{KINDS, batch};
use common::process::CollectorProcess;
use tailor_collector::clock::now_us;

/// Posts once; `None` when there was no response.
fn post(address: &str, key: &str, body: &[u8]) -> Option<u16> {
    let sent = ureq::post(format!("{address}/v1/batches"))
        .config()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(10)))
        .build()
        .header("Authorization", format!("Bearer {key}"))
        .header("Content-Type", agent_proto::CONTENT_TYPE)
        .send(body);
    sent.ok().map(|response| response.status().as_u16())
}

fn key_of(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("api-key")).unwrap().trim().to_owned()
}

#[test]
fn kills_at_any_moment_lose_no_acknowledged_batch_and_count_none_twice() {
    const ROUNDS: u64 = 60;
    const SENDERS: u64 = 4;
    let folder = tempfile::tempdir().unwrap();
    let mut collector = CollectorProcess::start(folder.path());
    let key = key_of(folder.path());
    let address = Arc::new(Mutex::new(collector.address.clone()));
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (address, stop) = (Arc::clone(&address), Arc::clone(&stop));
            let (acknowledged, key) = (Arc::clone(&acknowledged), key.clone());
            // Like an environment, send the next batch only after this one was acknowledged.
            std::thread::spawn(move || {
                let mut billed_ms = 0;
                let mut invocations = 0;
                for sequence in 1.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let kind = &KINDS[usize::try_from(sequence % 3).unwrap()];
                    let batch = batch(kind, sender + 1, sequence, 1 + sequence % 7, now_us());
                    let body = batch.encode().unwrap();
                    loop {
                        let address = address.lock().unwrap().clone();
                        match post(&address, &key, &body) {
                            Some(200) => break,
                            // Connections are refused while the collector is down; 503 while it stops.
                            None | Some(503) => std::thread::sleep(Duration::from_millis(2)),
                            Some(status) => panic!("refused with {status}"),
                        }
                    }
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                    invocations += batch.invocations.len() as u64;
                    billed_ms += batch.invocations.iter().map(|invocation| invocation.billed_ms).sum::<u64>();
                }
                (invocations, billed_ms)
            })
        })
        .collect();
    let mut before = 0;
    for round in 0..ROUNDS {
        // Kill at a different moment each time, after at least one acknowledged batch since the last kill.
        let deadline = Instant::now() + Duration::from_secs(20);
        while acknowledged.load(Ordering::Relaxed) == before && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(round * 37 % 61));
        before = acknowledged.load(Ordering::Relaxed);
        collector.kill();
        collector = CollectorProcess::start(folder.path());
        *address.lock().unwrap() = collector.address.clone();
    }
    stop.store(true, Ordering::Relaxed);
    let mut sent = (0, 0);
    for sender in senders {
        let (invocations, billed_ms) = sender.join().unwrap();
        sent = (sent.0 + invocations, sent.1 + billed_ms);
    }
    let total = collector.total();
    // Every batch was acknowledged; some were sent more than once.
    assert_eq!((total["invocations"].as_u64(), total["billed_ms"].as_u64()), (Some(sent.0), Some(sent.1)));
    assert!(acknowledged.load(Ordering::Relaxed) > ROUNDS);
}

#[test]
fn a_full_disk_refuses_writes_and_still_reads() {
    let folder = tempfile::tempdir().unwrap();
    let small = folder.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(&small).status();
    if !mounted.is_ok_and(|status| status.success()) {
        tailor_test_kit::skip("mounting a small tmpfs needs root");
        return;
    }
    let _unmount = Unmount(small.clone());
    let collector = CollectorProcess::start(&small);
    let key = key_of(&small);
    let mut stored = 0;
    let mut refused = false;
    for sequence in 1..400 {
        let body = batch(&KINDS[0], 1, sequence, 300, now_us()).encode().unwrap();
        match post(&collector.address, &key, &body) {
            Some(200) => stored += 300,
            Some(503) => {
                refused = true;
                break;
            }
            other => panic!("unexpected response {other:?}"),
        }
    }
    assert!(refused && stored > 0);
    assert_eq!(collector.total()["invocations"], stored);
    drop(collector);
    // Acknowledged batches are also readable after a restart on the full disk.
    let collector = CollectorProcess::start(&small);
    assert_eq!(collector.total()["invocations"], stored);
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
