//! Cost of the extension's first delivery over HTTPS, including the TLS handshake, with and without the CPU quota of a
//! small function.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lambda_sandbox::cgroup::Group;
use serde_json::{Value, json};
use tailor_test_kit::fake::{Certificate, FakeCollector, FakePlatform, REGISTRATION};

use super::start::enter;

/// Number of measured deliveries, with and without the quota each.
const DELIVERIES: u32 = 30;

/// Pause before a delivery. It is longer than the quota's period, so that the delivery starts with an unused quota, as
/// most invocations do.
const PAUSE: Duration = Duration::from_millis(100);

/// Time limit for a delivery.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(20);

/// CPU time, and time spent waiting for a CPU including throttled time, microseconds.
#[derive(Debug, Clone, Copy, Default)]
struct Scheduled {
    cpu_us: u64,
    wait_us: u64,
}

/// Scheduler statistics of the extension, which has one thread.
fn scheduled(pid: u32) -> Scheduled {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    let mut fields = text.split_whitespace().map(|field| field.parse::<u64>().unwrap_or_default() / 1_000);
    let mut next = || fields.next().unwrap_or_default();
    Scheduled { cpu_us: next(), wait_us: next() }
}

/// Measured values with one quota, microseconds.
#[derive(Debug, Default)]
struct Samples {
    cpu: Vec<u64>,
    wait: Vec<u64>,
    wall: Vec<u64>,
}

/// Measures, prints the results and returns them as JSON. `small` is a control group with the CPU quota of 128 MB; `None`
/// when CPU quotas are not available.
pub(super) fn run(extension: &Path, small: Option<&Group>) -> Result<Value> {
    let folder = std::env::temp_dir().join(format!("tailor-bench-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let certificate = Certificate::create(&folder);
    let samples = certificate.and_then(|certificate| match certificate {
        Some(certificate) => measure(extension, small, &certificate),
        None => {
            println!("skipped: the first delivery over HTTPS (needs openssl)");
            Ok(BTreeMap::new())
        }
    });
    let _ = fs::remove_dir_all(&folder);
    let mut rows = vec![];
    for (is_small, mut samples) in samples? {
        if rows.is_empty() {
            println!("\nfirst delivery over HTTPS, handshake included, us: median (95th percentile)");
        }
        let quota = if is_small { "128 MB" } else { "none" };
        let lists =
            [("CPU", &mut samples.cpu), ("wait for CPU", &mut samples.wait), ("wall", &mut samples.wall)];
        print!("quota {quota:<8}");
        for (name, list) in lists {
            list.sort_unstable();
            let at = |percent: usize| list.get(list.len() * percent / 100).copied().unwrap_or_default();
            print!("  {name} {} ({})", at(50), at(95));
            rows.push(json!({"cpu_quota": quota, "what": name, "median_us": at(50), "p95_us": at(95)}));
        }
        println!();
    }
    Ok(rows.into())
}

fn measure(
    extension: &Path,
    small: Option<&Group>,
    certificate: &Certificate,
) -> Result<BTreeMap<bool, Samples>> {
    let mut samples = BTreeMap::<bool, Samples>::new();
    for _ in 0..DELIVERIES {
        for group in [Some(None), small.map(Some)].into_iter().flatten() {
            let (used, wall) = measure_once(extension, group, certificate)?;
            let samples = samples.entry(group.is_some()).or_default();
            samples.cpu.push(used.cpu_us);
            samples.wait.push(used.wait_us);
            samples.wall.push(u64::try_from(wall.as_micros())?);
        }
    }
    Ok(samples)
}

/// Runs one delivery. Returns what the extension used from the second INVOKE to the acknowledgement, and the time from
/// connecting to the acknowledgement.
fn measure_once(
    extension: &Path,
    group: Option<&Group>,
    certificate: &Certificate,
) -> Result<(Scheduled, Duration)> {
    let collector = Arc::new(FakeCollector::start(Some(certificate))?);
    let pid = Arc::new(AtomicU32::new(0));
    let (sender, usage) = channel();
    let before_event = measure_usage(Arc::clone(&pid), Arc::clone(&collector), sender);
    let mut command = Command::new(extension);
    FakePlatform { invocations: 2, invocations_per_delivery: 1, before_event, registration: REGISTRATION }
        .start(&mut command, 128)?;
    command
        .env("TAILOR_ENDPOINT", &collector.url)
        .env("TAILOR_CA_FILE", &certificate.authority_file)
        .env("TAILOR_FLUSH_ITEMS", "1")
        .stdin(Stdio::null());
    enter(&mut command, group)?;
    let mut child = command.spawn().with_context(|| format!("cannot start {}", extension.display()))?;
    pid.store(child.id(), Ordering::Relaxed);
    let used = usage.recv_timeout(DELIVERY_TIMEOUT);
    if used.is_err() {
        let _ = child.kill();
    }
    child.wait()?;
    Ok((used.context("nothing was delivered")?, collector.received().first_acknowledgement))
}

/// The platform's callback: sends what the extension used between the two INVOKE events.
fn measure_usage(
    pid: Arc<AtomicU32>,
    collector: Arc<FakeCollector>,
    used: Sender<Scheduled>,
) -> Box<dyn FnMut(u64) + Send> {
    let mut before = Scheduled::default();
    Box::new(move |invocations| match invocations {
        1 => {
            thread::sleep(PAUSE);
            before = scheduled(pid.load(Ordering::Relaxed));
        }
        2 => {
            let deadline = Instant::now() + DELIVERY_TIMEOUT;
            while collector.received().batches == 0 && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(1));
            }
            // Wait until the extension has read the acknowledgement.
            thread::sleep(PAUSE);
            let after = scheduled(pid.load(Ordering::Relaxed));
            let used_now =
                Scheduled { cpu_us: after.cpu_us - before.cpu_us, wait_us: after.wait_us - before.wait_us };
            // The receiver is gone after the time limit.
            let _ = used.send(used_now);
        }
        _ => {}
    })
}
