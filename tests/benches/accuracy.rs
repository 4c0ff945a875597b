//! Compares the extension's measurements with the kernel's counters, in five languages:
//!
//! - CPU time of each invocation with the CPU time of its control group, and with the threads' `schedstat` counters from
//!   one freeze to the next;
//! - the peak with `VmHWM`;
//! - starved time with the throttled time of the quota.
//!
//! The control group's value ends with the response. The other two values also contain what a runtime does between the
//! response and the freeze (Node.js collects garbage); on Lambda, this work uses the function's CPU too. The extension
//! reads the counters a short time after the thaw. CPU time that a handler uses before this reading is attributed to the
//! previous invocation, and at the end of an invocation the same happens with the next reading. So the benchmark checks
//! the mean or the median of the differences. The limit is smaller for handlers that begin with a wait.
//!
//! `cargo bench -p tailor-e2e` prints a table and fails when a value is outside its limits. `TAILOR_ACCURACY_LONG=1` adds
//! invocations of ten seconds. The benchmark needs root for CPU quotas, and a machine without other load.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot continue has failed")]

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use agent_proto::batch::Batch;
use serde_json::Value;
use tailor_test_kit::build;
use tailor_test_kit::deployment::{Deployment, Plan, Programs};
use tailor_test_kit::fake::BatchRecorder;
use tailor_test_kit::functions::{Example, Language};
use tailor_test_kit::process::{cpu_ns, is_root, status_kib};
use tailor_test_kit::skip;
use tailor_test_kit::workspace;

/// Invocations of each case. The first is a cold start, and the shutdown interrupts the measurement of the last.
const INVOCATIONS: usize = 14;

/// Allowed relative difference of CPU time. The larger of this and [`CPU_MS`] applies.
const CPU_FRACTION: f64 = 0.01;
/// Allowed absolute difference of CPU time, milliseconds.
const CPU_MS: f64 = 0.1;

/// Allowed absolute difference for handlers that start to compute at once, milliseconds: the time between the thaw and
/// the reading varies with the load of the machine.
const READ_DELAY_MS: f64 = 0.25;

/// Allowed difference of the peak, KiB.
const PEAK_KIB: f64 = 64.0;

/// Allowed relative difference of starved time.
const STARVED_FRACTION: f64 = 0.05;

/// A function and its event.
struct BenchCase {
    language: Language,
    workload: &'static str,
    memory_mb: u32,
    event: &'static str,
    invocations: usize,
    /// Whether the handler waits before it computes.
    waits_first: bool,
}

/// Measurements of one invocation: of the kernel at index 0 and of the extension at index 1. Times are milliseconds,
/// memory is KiB.
#[derive(Debug, Clone, Copy)]
struct Pair {
    cpu: [f64; 2],
    /// CPU time from one freeze to the next, from the threads' `schedstat` counters.
    threads_ms: f64,
    peak: [u64; 2],
    /// The kernel's value contains only throttling by the quota. The extension's value also contains waits for the CPU
    /// behind other processes.
    starved: [f64; 2],
    duration_ms: f64,
}

/// The kernel's counters of the function's processes while they are frozen.
#[derive(Debug, Clone, Copy, Default)]
struct Frozen {
    /// `VmHWM`, KiB.
    peak_kib: u64,
    /// CPU time of all threads that exist since their start, nanoseconds.
    run_ns: u64,
}

fn read_frozen(function: &str) -> Frozen {
    let name = format!("AWS_LAMBDA_FUNCTION_NAME={function}");
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let read = |pid: String| {
        let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
        let mut variables = environment.split(|&byte| byte == 0);
        let is_function = variables.clone().any(|variable| variable == name.as_bytes())
            && variables.any(|variable| variable.starts_with(b"LAMBDA_TASK_ROOT="));
        if !is_function {
            return None;
        }
        let folder = PathBuf::from(format!("/proc/{pid}"));
        Some(Frozen { peak_kib: status_kib(&folder, "VmHWM")?, run_ns: cpu_ns(&folder).ok()? })
    };
    pids.filter_map(read).fold(Frozen::default(), |sum, one| Frozen {
        peak_kib: sum.peak_kib + one.peak_kib,
        run_ns: sum.run_ns + one.run_ns,
    })
}

/// Runs one case. Returns both measurements of each warm invocation.
fn measure(case: &BenchCase, programs: &Programs) -> Vec<Pair> {
    let folder = tempfile::tempdir().unwrap();
    let recorder = BatchRecorder::start().unwrap();
    // The name must be unique among all sandboxes on this machine.
    let name: &'static str = format!("accuracy-{}", std::process::id()).leak();
    let example = Example {
        name,
        language: case.language,
        memory_mb: case.memory_mb,
        workload: case.workload,
        event: case.event,
        invocations: 0,
        tunable: false,
    };
    let project = workspace::project().unwrap();
    let mut deployment = Deployment::start(&Plan {
        endpoint: Some(recorder.endpoint()),
        flush_interval_ms: 200,
        ..Plan::new(programs.clone(), &project, folder.path(), std::slice::from_ref(&example))
    })
    .unwrap();
    let counters: Vec<Frozen> = (0..case.invocations)
        .map(|_| {
            assert_eq!(deployment.lambda.invoke(name, case.event).unwrap().function_error, None);
            // Wait until the environment is frozen.
            thread::sleep(Duration::from_millis(30));
            read_frozen(name)
        })
        .collect();
    deployment.stop_sandbox().unwrap();
    let batches = recorder.batches();
    let extension_ms = extension_cpu_ms(&batches);
    let rows: HashMap<String, _> = batches
        .iter()
        .flat_map(|batch| &batch.invocations)
        .map(|row| (row.request_id.to_string(), *row))
        .collect();
    let trace = deployment.trace().unwrap();
    // The first invocation is a cold start that contains the scan for processes. The last is measured only in part.
    trace
        .iter()
        .filter(|line| line["event"] == "invocation")
        .skip(1)
        .zip(counters.windows(2))
        .take(case.invocations - 2)
        .filter_map(|(line, counters)| {
            let row = rows.get(line["request_id"].as_str()?)?;
            let ms = |value: &Value| value.as_f64().unwrap_or_default() / 1e6;
            let work = row.work?;
            Some(Pair {
                cpu: [ms(&line["cpu"]["usage_ns"]) - extension_ms, work.busy_us() as f64 / 1e3],
                threads_ms: (counters[1].run_ns - counters[0].run_ns) as f64 / 1e6,
                peak: [counters[1].peak_kib, row.peak_kib],
                duration_ms: line["duration_us"].as_f64().unwrap_or_default() / 1e3,
                starved: [ms(&line["cpu"]["throttled_ns"]), work.starved_us as f64 / 1e3],
            })
        })
        .collect()
}

/// Mean CPU time of the extension for each invocation, milliseconds. The control group's CPU time includes it.
fn extension_cpu_ms(batches: &[Batch]) -> f64 {
    let (Some(first), Some(last)) = (batches.first(), batches.last()) else { return 0.0 };
    let between: usize = batches.iter().skip(1).map(|batch| batch.invocations.len()).sum();
    let used_us = last.header.overhead.cpu_us.saturating_sub(first.header.overhead.cpu_us);
    used_us as f64 / 1e3 / (between.max(1) as f64)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (count, sum) = values.fold((0u32, 0.0), |(count, sum), value| (count + 1, sum + value));
    sum / f64::from(count)
}

/// The functions of which CPU time and peaks are checked.
fn cases() -> Vec<BenchCase> {
    let case = |language, workload, event, waits_first| BenchCase {
        language,
        workload,
        memory_mb: 1_769,
        event,
        invocations: INVOCATIONS,
        waits_first,
    };
    let mut cases = vec![
        case(Language::Rust, "mixed", r#"{"delay_ms":30,"rounds":1000000}"#, true),
        case(Language::Rust, "mixed", r#"{"delay_ms":30,"rounds":100000000}"#, true),
        case(Language::Python, "mixed", r#"{"delay_ms":30,"items":20000}"#, true),
        case(Language::Node, "wait", r#"{"delay_ms":60,"items":2000}"#, true),
        case(Language::Go, "mixed", "{}", true),
        case(Language::Rust, "cpu", r#"{"rounds":1000000}"#, false),
        case(Language::Rust, "memory", r#"{"mb":200}"#, false),
        case(Language::Python, "allocate", "{}", false),
        case(Language::Node, "compute", "{}", false),
        case(Language::Java, "compute", "{}", false),
        case(Language::Go, "single", "{}", false),
    ];
    if std::env::var_os("TAILOR_ACCURACY_LONG").is_some() {
        let long = case(Language::Rust, "mixed", r#"{"delay_ms":30,"rounds":6000000000}"#, true);
        cases.push(BenchCase { invocations: 3, ..long });
    }
    cases
}

/// Checks CPU time and peaks. Returns the names of the cases that are outside the limits.
fn check_cpu_and_peaks() -> Vec<String> {
    println!(
        "{:<17}{:>3}{:>11}{:>8}{:>8}{:>11}{:>8}{:>8}{:>10}{:>8}{:>8}",
        "CPU ms, peak KiB",
        "n",
        "cgroup",
        "median",
        "mean",
        "threads",
        "median",
        "mean",
        "VmHWM",
        "median",
        "worst"
    );
    let programs = build::programs().unwrap();
    let mut failed = vec![];
    for case in cases() {
        let name = format!("{} {}", case.language.name(), case.workload);
        if let Some(missing) = case.language.missing_command() {
            skip(&format!("{name} needs {missing}"));
            continue;
        }
        let pairs = measure(&case, &programs);
        assert!(
            pairs.len() * 4 >= (case.invocations - 2) * 3,
            "{name}: too few invocations were measured: {}",
            pairs.len()
        );
        if !is_within_limits(&name, &case, &pairs) {
            failed.push(name);
        }
    }
    failed
}

/// Prints the line of a case. Returns whether its CPU time and its peaks are within the limits.
fn is_within_limits(name: &str, case: &BenchCase, pairs: &[Pair]) -> bool {
    let of = |value: fn(&Pair) -> f64| mean(pairs.iter().map(value));
    let (group_ms, threads_ms) = (of(|pair| pair.cpu[0]), of(|pair| pair.threads_ms));
    let to_group = || pairs.iter().map(|pair| pair.cpu[1] - pair.cpu[0]);
    let to_threads = || pairs.iter().map(|pair| pair.cpu[1] - pair.threads_ms);
    let peak_differs = || pairs.iter().map(|pair| pair.peak[0].abs_diff(pair.peak[1]));
    let peak_kib = median(peak_differs().map(|kib| kib as f64));
    println!(
        "{name:<17}{:>3}{group_ms:>11.3}{:>8.3}{:>8.3}{threads_ms:>11.3}{:>8.3}{:>8.3}{:>10.0}{peak_kib:>8.0}{:>8}",
        pairs.len(),
        median(to_group()),
        mean(to_group()),
        median(to_threads()),
        mean(to_threads()),
        of(|pair| pair.peak[0] as f64),
        peak_differs().max().unwrap_or(0),
    );
    let allowed = |ms: f64| (ms * CPU_FRACTION).max(if case.waits_first { CPU_MS } else { READ_DELAY_MS });
    // A long read delay at the start or the end of the run changes the mean, and alternating delays change the median.
    let typical = |all: Vec<f64>| {
        let (median, mean) = (median(all.iter().copied()), mean(all.into_iter()));
        if median.abs() < mean.abs() { median } else { mean }
    };
    let has_right_cpu_time = typical(to_threads().collect()).abs() <= allowed(threads_ms)
        // The control group's CPU time does not contain work after the response.
        && typical(to_group().collect()) >= -allowed(group_ms);
    has_right_cpu_time && peak_kib <= PEAK_KIB
}

/// Checks the starved time of one thread that never waits. Its time without a CPU is its duration minus its CPU time. On
/// a machine without other load, this is the throttled time.
fn check_starved_time() -> bool {
    let case = BenchCase {
        language: Language::Rust,
        workload: "cpu",
        memory_mb: 256,
        event: r#"{"rounds":60000000}"#,
        invocations: INVOCATIONS,
        waits_first: false,
    };
    let pairs = measure(&case, &build::programs().unwrap());
    let off_cpu = |pair: &Pair| pair.duration_ms - pair.cpu[0];
    let difference = median(pairs.iter().map(|pair| (pair.starved[1] - off_cpu(pair)) / off_cpu(pair)));
    let to_throttled = |pair: &Pair| (pair.starved[1] - pair.starved[0]) / pair.starved[0].max(1e-3);
    // A reading can be one period late because the function used up the quota. This moves starved time from one invocation
    // to the next, but the sum stays the same.
    let sum = |which: usize| pairs.iter().map(|pair| pair.starved[which]).sum::<f64>();
    let total_difference = (sum(1) - sum(0)) / sum(0).max(1e-3);
    println!(
        "duration minus CPU {:.1} ms, starved {:.1} ms: difference {:.1} %; throttled {:.1} ms: difference of the sums {:.1} %, minimum {:.1} %",
        median(pairs.iter().map(off_cpu)),
        median(pairs.iter().map(|pair| pair.starved[1])),
        100.0 * difference,
        median(pairs.iter().map(|pair| pair.starved[0])),
        100.0 * total_difference,
        100.0 * pairs.iter().map(to_throttled).fold(f64::INFINITY, f64::min)
    );
    difference.abs() <= STARVED_FRACTION && total_difference.abs() <= STARVED_FRACTION
}

fn main() -> ExitCode {
    if !is_root() {
        skip("needs control groups, which need root");
        return ExitCode::SUCCESS;
    }
    let mut failed = check_cpu_and_peaks();
    if !check_starved_time() {
        failed.push("starved time".into());
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("outside the limits: {}", failed.join(", "));
    ExitCode::FAILURE
}
