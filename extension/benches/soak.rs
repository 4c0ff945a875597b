//! A hundred thousand invocations in one environment: memory and descriptors must not grow, and nothing be lost.
//!
//! `cargo bench -p tailor-extension --bench soak` prints a table and fails when they do. `SOAK_INVOCATIONS` sets
//! how many, `SOAK_EXTENSION` another build of the extension, such as the layer's. The platform and the collector are
//! puppets in this process; the extension, its reading of `/proc` and its connections are real. The function is one
//! `cat`, which never ends.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]

mod puppet;

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;

/// What the extension may hold more at the end than after a tenth of the invocations, KiB: the allocator's slack.
const MAX_GROWTH_KIB: u64 = 256;

/// What is looked at now and then.
#[derive(Debug, Clone, Copy)]
struct Sample {
    invocations: u64,
    resident_kib: u64,
    descriptors: usize,
    cpu_ticks: u64,
}

fn sample(pid: u32, invocations: u64) -> Sample {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    Sample {
        invocations,
        resident_kib: resident.trim().trim_end_matches(" kB").parse().unwrap(),
        descriptors: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
        cpu_ticks: fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap(),
    }
}

fn main() {
    // `cargo test` runs this too, and asks for nothing.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let invocations: u64 =
        std::env::var("SOAK_INVOCATIONS").map_or(100_000, |text| text.parse().expect("a number"));
    let mut function = Command::new("cat")
        .env("LAMBDA_TASK_ROOT", "/var/task")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let received = Arc::new(puppet::Received::default());
    let collector = puppet::collector(Arc::clone(&received));
    let pid = Arc::new(AtomicU32::new(0));
    let (samples, taken) = mpsc::channel();
    let extension_pid = Arc::clone(&pid);
    let platform = puppet::platform(
        invocations,
        Box::new(move |count| {
            if count > 0 && count.is_multiple_of((invocations / 10).max(1)) {
                samples.send(sample(extension_pid.load(Ordering::Relaxed), count)).unwrap();
            }
        }),
    );
    let program =
        std::env::var("SOAK_EXTENSION").unwrap_or_else(|_| env!("CARGO_BIN_EXE_tailor-extension").to_owned());
    let mut extension = Command::new(program)
        .env_clear()
        .env("AWS_LAMBDA_RUNTIME_API", platform.to_string())
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "1769")
        .env("AWS_REGION", "us-east-1")
        .env("TAILOR_ENDPOINT", format!("http://{collector}"))
        .env("TAILOR_TELEMETRY_PORT", "0")
        .spawn()
        .unwrap();
    pid.store(extension.id(), Ordering::Relaxed);
    assert!(extension.wait().unwrap().success());
    function.kill().unwrap();
    function.wait().unwrap();

    println!("{:>12}{:>10}{:>13}{:>16}", "invocations", "RSS KiB", "descriptors", "CPU us each");
    let samples: Vec<Sample> = taken.try_iter().collect();
    for sample in &samples {
        let cpu_us = sample.cpu_ticks * 10_000 / sample.invocations;
        println!(
            "{:>12}{:>10}{:>13}{cpu_us:>16}",
            sample.invocations, sample.resident_kib, sample.descriptors
        );
    }
    let count = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
    println!(
        "{} of {invocations} invocations delivered in {} batches, {} lost",
        count(&received.invocations),
        count(&received.batches),
        count(&received.lost)
    );
    assert_eq!((count(&received.invocations), count(&received.lost)), (invocations, 0));
    assert_eq!(count(&received.billed_ms), 2 * invocations);
    let (first, last) = (samples[0], samples[samples.len() - 1]);
    assert!(last.resident_kib <= first.resident_kib + MAX_GROWTH_KIB, "memory grows: {first:?} {last:?}");
    assert!(last.descriptors <= first.descriptors + 2, "descriptors grow: {first:?} {last:?}");
}
