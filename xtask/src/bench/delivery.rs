//! What the first delivery over HTTPS costs the extension, handshake included, with and without the CPU quota of a
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
use tailor_test_kit::fake::{Certificate, FakeCollector, FakePlatform};

use super::start::enter;

/// First deliveries of each kind.
const DELIVERIES: u32 = 30;

/// Longer than the quota's period, so that a delivery begins with a fresh one, as an invocation mostly does.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a delivery may take before it counts as failed.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(20);

/// CPU time and time waited for a CPU, throttled time included: microseconds.
#[derive(Debug, Clone, Copy, Default)]
struct Scheduled {
    cpu_us: u64,
    wait_us: u64,
}

/// Of the one thread that the extension is.
fn scheduled(pid: u32) -> Scheduled {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    let mut fields = text.split_whitespace().map(|field| field.parse::<u64>().unwrap_or_default() / 1_000);
    let mut next = || fields.next().unwrap_or_default();
    Scheduled { cpu_us: next(), wait_us: next() }
}

/// One kind's figures, microseconds.
#[derive(Debug, Default)]
struct Figures {
    cpu: Vec<u64>,
    wait: Vec<u64>,
    wall: Vec<u64>,
}

/// Measures and prints; as JSON, too. `small` is a group with the quota of 128 MB, where there are quotas.
pub(super) fn run(extension: &Path, small: Option<&Group>) -> Result<Value> {
    let folder = std::env::temp_dir().join(format!("tailor-bench-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let certificate = Certificate::make(&folder);
    let figures = certificate.and_then(|certificate| match certificate {
        Some(certificate) => measure(extension, small, &certificate),
        None => {
            println!("skipped: the first delivery over HTTPS (needs openssl)");
            Ok(BTreeMap::new())
        }
    });
    let _ = fs::remove_dir_all(&folder);
    let mut rows = vec![];
    for (is_small, mut figures) in figures? {
        if rows.is_empty() {
            println!("\nfirst delivery over HTTPS, handshake included, us: median (95th percentile)");
        }
        let quota = if is_small { "128 MB" } else { "none" };
        let lists =
            [("CPU", &mut figures.cpu), ("wait for CPU", &mut figures.wait), ("wall", &mut figures.wall)];
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
) -> Result<BTreeMap<bool, Figures>> {
    let mut figures = BTreeMap::<bool, Figures>::new();
    for _ in 0..DELIVERIES {
        for group in [Some(None), small.map(Some)].into_iter().flatten() {
            let (used, wall) = once(extension, group, certificate)?;
            let figures = figures.entry(group.is_some()).or_default();
            figures.cpu.push(used.cpu_us);
            figures.wait.push(used.wait_us);
            figures.wall.push(u64::try_from(wall.as_micros())?);
        }
    }
    Ok(figures)
}

/// What the extension used from the second INVOKE to the answer, and from connecting to the answer.
fn once(extension: &Path, group: Option<&Group>, certificate: &Certificate) -> Result<(Scheduled, Duration)> {
    let collector = Arc::new(FakeCollector::start(Some(certificate))?);
    let pid = Arc::new(AtomicU32::new(0));
    let (sender, usage) = channel();
    let watch = watch(Arc::clone(&pid), Arc::clone(&collector), sender);
    let mut command = Command::new(extension);
    FakePlatform { invocations: 2, invocations_per_delivery: 1, watch }.start(&mut command, 128)?;
    command
        .env("TAILOR_ENDPOINT", &collector.url)
        .env("TAILOR_CA_FILE", &certificate.authority)
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
    Ok((used.context("nothing was delivered")?, collector.received().first_answer))
}

fn watch(
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
            // Reading the answer.
            thread::sleep(PAUSE);
            let after = scheduled(pid.load(Ordering::Relaxed));
            let used_now =
                Scheduled { cpu_us: after.cpu_us - before.cpu_us, wait_us: after.wait_us - before.wait_us };
            // Nobody waits any more when it took too long.
            let _ = used.send(used_now);
        }
        _ => {}
    })
}
