//! What the extension measures is what the kernel accounts, in five languages: CPU time of each invocation against
//! its control group and against the threads' own accounts from freeze to freeze, the peak against `VmHWM`, starved
//! time against the time the quota held it back.
//!
//! The control group's account ends with the answer; what a runtime does after it until the freeze (Node.js collects
//! garbage) is in the other two, and on Lambda it uses the function's CPU all the same. The extension reads a moment
//! after the thaw: a handler that is at work by then has that moment counted to the invocation before, and gets as
//! much from the one after. So handlers are judged by what remains of that in the mean or in the median, those that
//! begin by waiting more strictly than the others.
//!
//! `cargo bench -p tailor-e2e` prints a table, and fails where a figure is out of bounds; `TAILOR_ACCURACY_LONG=1` adds
//! invocations of ten seconds. Needs CPU quotas, so root, and a machine with little else to do.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]

use std::collections::HashMap;
use std::fs;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use agent_proto::batch::Batch;
use serde_json::Value;
use tailor_test_kit::build;
use tailor_test_kit::deployment::{Deployment, Plan, Programs};
use tailor_test_kit::fake::BatchRecorder;
use tailor_test_kit::functions::{Example, Language};
use tailor_test_kit::process::is_root;
use tailor_test_kit::skip;
use tailor_test_kit::workspace;

/// Invocations of each kind: the first is a cold start and the last is cut off by the shutdown.
const INVOCATIONS: usize = 14;

/// CPU time may differ by this part, or by this much, whichever is more.
const CPU_PART: f64 = 0.01;
const CPU_MS: f64 = 0.1;

/// What the mean may differ by where handlers work from the start: a moment on a busy machine, spread over all.
const MOMENT_MS: f64 = 0.25;

/// The peak may differ by this much, KiB.
const PEAK_KIB: f64 = 64.0;

/// Starved time may differ by this part.
const STARVED_PART: f64 = 0.05;

/// A function and what it is sent.
struct Kind {
    language: Language,
    workload: &'static str,
    memory_mb: u32,
    event: &'static str,
    invocations: usize,
    /// It waits before it works.
    waits: bool,
}

/// One invocation as the kernel and as the extension tell it. Times are milliseconds, memory KiB.
#[derive(Debug, Clone, Copy)]
struct Pair {
    cpu: [f64; 2],
    /// From freeze to freeze, as the threads' accounts say.
    threads_ms: f64,
    peak: [u64; 2],
    /// By the quota alone; and as the extension says, who else used the machine included.
    starved: [f64; 2],
    duration_ms: f64,
}

/// What the kernel says of the function's processes while they are frozen.
#[derive(Debug, Clone, Copy, Default)]
struct Frozen {
    /// `VmHWM`, KiB.
    peak_kib: u64,
    /// Time on a CPU since they began, all living threads, nanoseconds.
    run_ns: u64,
}

fn frozen(function: &str) -> Frozen {
    let name = format!("AWS_LAMBDA_FUNCTION_NAME={function}");
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let read = |pid: String| {
        let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
        let mut variables = environment.split(|&byte| byte == 0);
        let is_function = variables.clone().any(|variable| variable == name.as_bytes())
            && variables.any(|variable| variable.starts_with(b"LAMBDA_TASK_ROOT="));
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok().filter(|_| is_function)?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.filter_map(|thread| {
            let times = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            times.split(' ').next()?.parse::<u64>().ok()
        });
        Some(Frozen { peak_kib: peak.trim().trim_end_matches(" kB").parse().ok()?, run_ns: threads.sum() })
    };
    pids.filter_map(read).fold(Frozen::default(), |sum, one| Frozen {
        peak_kib: sum.peak_kib + one.peak_kib,
        run_ns: sum.run_ns + one.run_ns,
    })
}

/// Runs one kind and pairs what the two say of each warm invocation.
fn measure(kind: &Kind, programs: &Programs) -> Vec<Pair> {
    let folder = tempfile::tempdir().unwrap();
    let recorder = BatchRecorder::start().unwrap();
    // Other sandboxes on this machine must not have functions of this name.
    let name: &'static str = format!("accuracy-{}", std::process::id()).leak();
    let example = Example {
        name,
        language: kind.language,
        memory_mb: kind.memory_mb,
        workload: kind.workload,
        event: kind.event,
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
    let left: Vec<Frozen> = (0..kind.invocations)
        .map(|_| {
            assert_eq!(deployment.lambda.invoke(name, kind.event).unwrap().function_error, None);
            // Until it is frozen.
            thread::sleep(Duration::from_millis(30));
            frozen(name)
        })
        .collect();
    deployment.stop_sandbox().unwrap();
    let batches = recorder.batches();
    let own_ms = own_cpu_ms(&batches);
    let rows: HashMap<String, _> = batches
        .iter()
        .flat_map(|batch| &batch.invocations)
        .map(|row| (row.request_id.to_string(), *row))
        .collect();
    let trace = deployment.trace().unwrap();
    // The first was a cold start, with the scan for processes in it; of the last only a part was seen.
    trace
        .iter()
        .filter(|line| line["event"] == "invocation")
        .skip(1)
        .zip(left.windows(2))
        .take(kind.invocations - 2)
        .filter_map(|(line, left)| {
            let row = rows.get(line["request_id"].as_str()?)?;
            let ms = |value: &Value| value.as_f64().unwrap_or_default() / 1e6;
            let work = row.work?;
            Some(Pair {
                cpu: [ms(&line["cpu"]["usage_ns"]) - own_ms, work.busy_us() as f64 / 1e3],
                threads_ms: (left[1].run_ns - left[0].run_ns) as f64 / 1e6,
                peak: [left[1].peak_kib, row.peak_kib],
                duration_ms: line["duration_us"].as_f64().unwrap_or_default() / 1e3,
                starved: [ms(&line["cpu"]["throttled_ns"]), work.starved_us as f64 / 1e3],
            })
        })
        .collect()
}

/// What the extension itself used for an invocation, on average: the control group has that in it, too.
fn own_cpu_ms(batches: &[Batch]) -> f64 {
    let (Some(first), Some(last)) = (batches.first(), batches.last()) else { return 0.0 };
    let between: usize = batches.iter().skip(1).map(|batch| batch.invocations.len()).sum();
    let used_us = last.overhead.cpu_us.saturating_sub(first.overhead.cpu_us);
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

/// CPU time and peaks; what is not as the kernel has it.
fn cpu_and_peaks() -> Vec<String> {
    let kind = |language, workload, event, waits| Kind {
        language,
        workload,
        memory_mb: 1_769,
        event,
        invocations: INVOCATIONS,
        waits,
    };
    let mut kinds = vec![
        kind(Language::Rust, "mixed", r#"{"delay_ms":30,"rounds":1000000}"#, true),
        kind(Language::Rust, "mixed", r#"{"delay_ms":30,"rounds":100000000}"#, true),
        kind(Language::Python, "mixed", r#"{"delay_ms":30,"items":20000}"#, true),
        kind(Language::Node, "wait", r#"{"delay_ms":60,"items":2000}"#, true),
        kind(Language::Go, "mixed", "{}", true),
        kind(Language::Rust, "cpu", r#"{"rounds":1000000}"#, false),
        kind(Language::Rust, "memory", r#"{"mb":200}"#, false),
        kind(Language::Python, "allocate", "{}", false),
        kind(Language::Node, "compute", "{}", false),
        kind(Language::Java, "compute", "{}", false),
        kind(Language::Go, "single", "{}", false),
    ];
    if std::env::var_os("TAILOR_ACCURACY_LONG").is_some() {
        let long = kind(Language::Rust, "mixed", r#"{"delay_ms":30,"rounds":6000000000}"#, true);
        kinds.push(Kind { invocations: 3, ..long });
    }
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
    let mut wrong = vec![];
    for kind in &kinds {
        let name = format!("{} {}", kind.language.name(), kind.workload);
        if let Some(missing) = kind.language.missing_command() {
            skip(&format!("{name} needs {missing}"));
            continue;
        }
        let pairs = measure(kind, &programs);
        assert!(
            pairs.len() * 4 >= (kind.invocations - 2) * 3,
            "{name}: too few were measured: {}",
            pairs.len()
        );
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
        let allowed = |ms: f64| (ms * CPU_PART).max(if kind.waits { CPU_MS } else { MOMENT_MS });
        // Long moments at the ends of the run move the mean, moments that alternate the median.
        let judged = |all: Vec<f64>| {
            let (median, mean) = (median(all.iter().copied()), mean(all.into_iter()));
            if median.abs() < mean.abs() { median } else { mean }
        };
        let is_right = judged(to_threads().collect()).abs() <= allowed(threads_ms)
            // What came after the answer is not in the control group's account.
            && judged(to_group().collect()) >= -allowed(group_ms);
        if !is_right || peak_kib > PEAK_KIB {
            wrong.push(name);
        }
    }
    wrong
}

/// One thread that never waits is on a CPU or has none: what it was without is its duration less its CPU time. On a
/// machine of its own, that is what the quota held it back.
fn starved_time_of_a_spin() -> bool {
    let kind = Kind {
        language: Language::Rust,
        workload: "cpu",
        memory_mb: 256,
        event: r#"{"rounds":60000000}"#,
        invocations: INVOCATIONS,
        waits: false,
    };
    let pairs = measure(&kind, &build::programs().unwrap());
    let off_cpu = |pair: &Pair| pair.duration_ms - pair.cpu[0];
    let differs = median(pairs.iter().map(|pair| (pair.starved[1] - off_cpu(pair)) / off_cpu(pair)));
    let to_throttled = |pair: &Pair| (pair.starved[1] - pair.starved[0]) / pair.starved[0].max(1e-3);
    // A reading that comes a period late, since the spin had the quota, moves waits between neighbours and loses none.
    let sum = |which: usize| pairs.iter().map(|pair| pair.starved[which]).sum::<f64>();
    let in_all = (sum(1) - sum(0)) / sum(0).max(1e-3);
    println!(
        "duration less CPU {:.1} ms, starved {:.1} ms: {:.1} % off; throttled {:.1} ms: {:.1} % off in all, {:.1} % at worst",
        median(pairs.iter().map(off_cpu)),
        median(pairs.iter().map(|pair| pair.starved[1])),
        100.0 * differs,
        median(pairs.iter().map(|pair| pair.starved[0])),
        100.0 * in_all,
        100.0 * pairs.iter().map(to_throttled).fold(f64::INFINITY, f64::min)
    );
    differs.abs() <= STARVED_PART && in_all.abs() <= STARVED_PART
}

fn main() -> ExitCode {
    if !is_root() {
        skip("needs control groups, which need root");
        return ExitCode::SUCCESS;
    }
    let mut wrong = cpu_and_peaks();
    if !starved_time_of_a_spin() {
        wrong.push("starved time of a spin".into());
    }
    if wrong.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("not as the kernel has it: {}", wrong.join(", "));
    ExitCode::FAILURE
}
