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
use common::send_batch;
use tailor_collector::clock::now_us;

fn key_of(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("api-key")).unwrap().trim().to_owned()
}

#[test]
fn kills_at_any_moment_lose_no_acknowledged_batch_and_count_none_twice() {
    const SENDERS: u64 = 4;
    let rounds = common::count("TAILOR_CRASH_KILLS", 20) as u64;
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
                        match send_batch(&address, &key, &body) {
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
    for round in 0..rounds {
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
    let acknowledged = acknowledged.load(Ordering::Relaxed);
    println!("{rounds} kills, {acknowledged} acknowledged batches");
    assert!(acknowledged > rounds);
}

/// A small file system of its own; `None` without the right to mount.
fn small_disk(megabytes: u32) -> Option<(tempfile::TempDir, std::path::PathBuf, Unmount)> {
    let folder = tempfile::tempdir().unwrap();
    let small = folder.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let size = format!("size={megabytes}m");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&small).status();
    if !mounted.is_ok_and(|status| status.success()) {
        tailor_test_kit::skip("mounting a small tmpfs needs root");
        return None;
    }
    Some((folder, small.clone(), Unmount(small)))
}

#[test]
fn a_full_disk_refuses_writes_and_still_reads() {
    let Some((_folder, small, _unmount)) = small_disk(3) else { return };
    let collector = CollectorProcess::start(&small);
    let key = key_of(&small);
    let filler = small.join("filler");
    std::fs::write(&filler, vec![1; 1_600 << 10]).unwrap();
    assert_eq!(ready(&collector), (200, "ready\n".to_owned()));
    let send = |sequence| {
        send_batch(&collector.address, &key, &batch(&KINDS[0], 1, sequence, 300, now_us()).encode().unwrap())
    };
    let mut sequences = 1..400;
    let refused = sequences.by_ref().find(|sequence| match send(*sequence) {
        Some(200) => false,
        Some(503) => true,
        other => panic!("unexpected response {other:?}"),
    });
    let stored = (refused.unwrap() - 1) * 300;
    assert!(stored > 0);
    assert_eq!(collector.total()["invocations"], stored);
    let (status, message) = ready(&collector);
    assert!(status == 503 && message.contains("disk_full"), "{message}");
    // Compaction returns pages meanwhile, so that a batch can be accepted again.
    let mut accepted = 0;
    for sequence in sequences.by_ref().take(20) {
        match send(sequence) {
            Some(503) => {}
            Some(200) => accepted += 1,
            other => panic!("unexpected response {other:?}"),
        }
    }
    assert!(accepted < 20, "the disk is full");
    let stored = stored + 300 * accepted;
    let log = std::fs::read_to_string(small.with_extension("log")).unwrap();
    let errors = u64::try_from(log.matches("ERROR").count()).unwrap();
    assert!((1..=1 + accepted).contains(&errors), "not one for each refused batch: {log}");

    // It recovers when there is space again.
    std::fs::remove_file(&filler).unwrap();
    assert_eq!(send(refused.unwrap()), Some(200));
    let (status, message) = ready(&collector);
    assert_eq!(status, 200, "{message}");
    assert!(std::fs::read_to_string(small.with_extension("log")).unwrap().contains("storing works again"));
    let stored = stored + 300;

    // Acknowledged batches are also readable after a crash and a restart on the full disk.
    fill(&small.join("more"));
    drop(collector);
    let collector = CollectorProcess::start(&small);
    assert_eq!(collector.total()["invocations"], stored);
    let (status, message) = ready(&collector);
    assert!(status == 503 && message.contains("disk_full"), "{message}");
}

#[test]
fn a_collector_that_starts_on_a_full_disk_reads_and_refuses_batches() {
    let Some((_folder, small, _unmount)) = small_disk(16) else { return };
    let mut collector = CollectorProcess::start(&small);
    let key = key_of(&small);
    let body = batch(&KINDS[0], 1, 1, 300, now_us()).encode().unwrap();
    assert_eq!(send_batch(&collector.address, &key, &body), Some(200));
    assert!(Command::new("kill").arg(collector.child.id().to_string()).status().unwrap().success());
    collector.child.wait().unwrap();
    // After a regular stop the log is empty. SQLite would create both files, for which there is no space.
    for file in ["tailor.sqlite-wal", "tailor.sqlite-shm"] {
        let path = small.join(file);
        assert!(file.ends_with("shm") || std::fs::metadata(&path).map_or(0, |file| file.len()) == 0);
        let _ = std::fs::remove_file(path);
    }
    let _ = std::fs::remove_file(small.join("address"));
    fill(&small.join("filler"));
    let collector = CollectorProcess::start(&small);
    assert_eq!(collector.total()["invocations"], 300);
    let (status, message) = ready(&collector);
    assert!(status == 503 && message.contains("disk_full"), "{message}");
    let body = batch(&KINDS[0], 1, 2, 300, now_us()).encode().unwrap();
    assert_eq!(send_batch(&collector.address, &key, &body), Some(503));
    let log = std::fs::read_to_string(small.with_extension("log")).unwrap();
    assert!(log.contains("batches are refused until there is space again"), "{log}");

    // It stores again when there is space, without a restart.
    std::fs::remove_file(small.join("filler")).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while send_batch(&collector.address, &key, &body) != Some(200) {
        assert!(Instant::now() < deadline, "it does not store again");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(collector.total()["invocations"], 600);
    assert_eq!(ready(&collector).0, 200);
    let address = std::fs::read_to_string(small.join("address"));
    while std::fs::read_to_string(small.join("address")).unwrap_or_default().trim() != collector.address {
        assert!(Instant::now() < deadline, "the address is {address:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Status and body of the readiness check.
fn ready(collector: &CollectorProcess) -> (u16, String) {
    let request =
        ureq::get(format!("{}/readyz", collector.address)).config().http_status_as_error(false).build();
    let mut response = request.call().unwrap();
    (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
}

/// Fills the file system with one file.
fn fill(path: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).unwrap();
    for size in [64 << 10, 4 << 10, 512] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
}

#[test]
fn a_deleted_or_replaced_folder_is_noticed() {
    for is_replaced in [false, true] {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("data");
        let collector = CollectorProcess::start(&folder);
        let key = key_of(&folder);
        let body = batch(&KINDS[0], 1, 1, 10, now_us()).encode().unwrap();
        assert_eq!(send_batch(&collector.address, &key, &body), Some(200));
        assert_eq!(ready(&collector).0, 200);
        std::fs::rename(&folder, parent.path().join("moved")).unwrap();
        if is_replaced {
            std::fs::create_dir(&folder).unwrap();
            std::fs::copy(parent.path().join("moved/tailor.sqlite"), folder.join("tailor.sqlite")).unwrap();
        }
        let (status, message) = ready(&collector);
        assert!(status == 503 && message.contains("tailor.sqlite was"), "{message}");
        let body = batch(&KINDS[0], 1, 2, 10, now_us()).encode().unwrap();
        assert_eq!(send_batch(&collector.address, &key, &body), Some(503));
    }
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
