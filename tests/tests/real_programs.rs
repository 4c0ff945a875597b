//! Real programs under the extension: what is counted is what their environment used, and the advice keeps them working.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue has failed")]

use std::fmt::Write as _;
use std::fs;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tailor_test_kit::build;
use tailor_test_kit::deployment::{Deployment, Plan};
use tailor_test_kit::functions::{Example, Language};
use tailor_test_kit::process::{self, extension_of, is_root};
use tailor_test_kit::skip;
use tailor_test_kit::workspace;

/// The cold start, and warm invocations in which caches fill.
const FIRST: usize = 3;

/// Warm invocations that are compared. One more ends the measurement of the last.
const COMPARED: usize = 8;

/// Invocations at the recommended size.
const CONFIRMED: usize = 3;

/// Programs that run at the same time. Most of them wait for the CPU quota of their memory size.
const PROGRAMS_AT_ONCE: usize = 2;

/// An environment that uses no CPU time for so long is frozen. The period of its CPU quota is shorter.
const QUIET: Duration = Duration::from_millis(120);

/// Time limit until an environment is frozen, long enough for a busy machine.
const FREEZE_LIMIT: Duration = Duration::from_secs(20);

/// Allowed relative difference of CPU time. The larger of this and [`CPU_MS`] applies.
const CPU_FRACTION: f64 = 0.02;

/// Allowed difference of the mean CPU time of an invocation, ms.
const CPU_MS: f64 = 1.0;

/// Allowed relative difference of memory. The larger of this and [`MEMORY_MB`] applies.
const MEMORY_FRACTION: f64 = 0.05;

/// Allowed difference of memory, MB.
const MEMORY_MB: f64 = 8.0;

/// Mapped files, MB, that the machine had in its page cache before: they are resident, and the memory limit of the
/// environment does not count them. On Lambda an environment shares its page cache with no other.
const MAPPED_MB: f64 = 96.0;

/// The module in `tests/functions/programs`, the command that it needs, and the memory size in MB.
const PROGRAMS: [(&str, &str, u32); 14] = [
    ("nginx_daemon", "nginx", 512),
    ("nginx_foreground", "nginx", 512),
    ("php_fpm", "nginx", 1_024),
    ("gunicorn_workers", "gunicorn", 1_024),
    ("apache_prefork", "apache2", 1_024),
    ("chromium", "chromium-headless-shell", 2_048),
    ("ffmpeg", "ffmpeg", 1_769),
    ("images_and_git", "git", 1_769),
    ("redis", "redis-server", 1_024),
    ("postgresql", "psql", 1_024),
    ("node_cluster", "node", 1_769),
    ("processes", "python3", 1_769),
    ("java_agent", "javac", 1_769),
    ("ruby_fork", "ruby", 1_769),
];

/// The control groups' counters of one environment while it is frozen.
#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    /// CPU time of all processes, ended ones included, ns.
    group_ns: u64,
    /// CPU time of the extension, ns.
    extension_ns: u64,
    /// Memory that no file backs, bytes.
    anonymous_bytes: u64,
}

impl Counters {
    /// Of the environment of `function`, after its freeze.
    fn read(function: &str) -> Self {
        let extension = extension_of(function, "tailor-extension").unwrap();
        let groups = fs::read_to_string(extension.join("cgroup")).unwrap();
        let deadline = Instant::now() + FREEZE_LIMIT;
        loop {
            let group_ns = cpu_ns(&groups);
            thread::sleep(QUIET);
            if cpu_ns(&groups) == group_ns {
                let extension_ns = process::cpu_ns(&extension).unwrap();
                return Self { group_ns, extension_ns, anonymous_bytes: anonymous_bytes(&groups) };
            }
            assert!(Instant::now() < deadline, "{function} is not frozen");
        }
    }
}

/// A file of the control group that `groups` (`/proc/PID/cgroup`) names for `controller`.
fn group_file(groups: &str, controller: &str, v1: &str, v2: &str) -> (String, bool) {
    let line = |controller: &str| {
        groups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            controllers.split(',').any(|one| one == controller).then(|| path.to_owned())
        })
    };
    match line(controller) {
        Some(path) => (fs::read_to_string(format!("/sys/fs/cgroup/{controller}{path}/{v1}")).unwrap(), false),
        None => (fs::read_to_string(format!("/sys/fs/cgroup{}/{v2}", line("").unwrap())).unwrap(), true),
    }
}

fn field(text: &str, name: &str) -> u64 {
    let value = |line: &str| line.strip_prefix(name)?.trim().parse().ok();
    text.lines().find_map(value).unwrap_or_else(|| panic!("{name} in {text}"))
}

fn cpu_ns(groups: &str) -> u64 {
    match group_file(groups, "cpuacct", "cpuacct.usage", "cpu.stat") {
        (text, false) => text.trim().parse().unwrap(),
        (text, true) => field(&text, "usage_usec ") * 1_000,
    }
}

fn anonymous_bytes(groups: &str) -> u64 {
    match group_file(groups, "memory", "memory.stat", "memory.stat") {
        (text, false) => field(&text, "total_rss "),
        (text, true) => field(&text, "anon "),
    }
}

/// What one program did.
struct Observation {
    name: &'static str,
    /// Before and after the compared invocations.
    counters: [Counters; 2],
}

/// Invokes a function. The error names the function and has its response.
fn invoke(deployment: &Deployment, name: &str, count: usize) -> Result<(), String> {
    for _ in 0..count {
        let response = deployment.lambda.invoke(name, "{}").unwrap();
        if response.function_error.is_some() {
            return Err(format!("{name} failed: {}", response.payload));
        }
    }
    Ok(())
}

/// Invokes a program at its size.
fn observe(deployment: &Deployment, name: &'static str) -> Result<Observation, String> {
    invoke(deployment, name, FIRST)?;
    let before = Counters::read(name);
    invoke(deployment, name, COMPARED)?;
    let after = Counters::read(name);
    invoke(deployment, name, 1)?;
    Ok(Observation { name, counters: [before, after] })
}

/// Calls `work` with each item, with some at the same time. Returns the results in the order of the items.
fn for_each<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = Mutex::new(items.iter().enumerate());
    let results = Mutex::new(vec![]);
    thread::scope(|threads| {
        for _ in 0..PROGRAMS_AT_ONCE {
            threads.spawn(|| {
                loop {
                    let Some((index, item)) = next.lock().unwrap().next() else { break };
                    let result = work(item);
                    results.lock().unwrap().push((index, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap();
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Compares an observation with what the collector has. Returns a line of the table and what is outside the limits.
fn compare(deployment: &Deployment, observation: &Observation) -> (String, Option<String>) {
    let name = observation.name;
    let rows = invocations(deployment, name);
    let Some(compared) = rows.get(FIRST..FIRST + COMPARED) else {
        return (name.to_owned(), Some(format!("{name}: only {} invocations were delivered", rows.len())));
    };
    let mean = |value: &dyn Fn(&Value) -> f64| compared.iter().map(value).sum::<f64>() / COMPARED as f64;
    let number = |row: &Value, field: &str| row[field].as_f64().unwrap_or_default();
    let counted_ms = mean(&|row| number(row, "busy_ms"));
    let unaccounted_ms = mean(&|row| number(row, "unaccounted_ms"));
    let [before, after] = observation.counters;
    let group_ns = (after.group_ns - before.group_ns) - (after.extension_ns - before.extension_ns);
    let group_ms = group_ns as f64 / 1e6 / COMPARED as f64;
    let peak_mb = compared.iter().map(|row| number(row, "peak_kib") / 1_024.0).fold(0.0, f64::max);
    let platform_mb = compared.iter().map(|row| number(row, "max_memory_used_mb")).fold(0.0, f64::max);
    let at_rest_mb = after.anonymous_bytes as f64 / 1_048_576.0;
    let line = format!(
        "{name:<18}{group_ms:>11.2}{counted_ms:>11.2}{unaccounted_ms:>13.2}{at_rest_mb:>9.0}{peak_mb:>9.0}{platform_mb:>10.0}"
    );
    let allowed_ms = (group_ms * CPU_FRACTION).max(CPU_MS);
    let allowed_mb = (platform_mb * MEMORY_FRACTION).max(MEMORY_MB);
    let is_counted = (group_ms - counted_ms).abs() <= allowed_ms
        || (group_ms - counted_ms - unaccounted_ms).abs() <= allowed_ms && unaccounted_ms > 0.0;
    let fault = if !is_counted {
        Some(format!("{name}: CPU time"))
    } else if peak_mb + allowed_mb < at_rest_mb || peak_mb > platform_mb + allowed_mb + MAPPED_MB {
        Some(format!("{name}: memory"))
    } else {
        None
    };
    (line, fault)
}

/// The invocations of a function in the order of their starts.
fn invocations(deployment: &Deployment, name: &str) -> Vec<Value> {
    let url = format!("{}/v1/functions/{name}/invocations?limit=200", deployment.collector_url());
    let text = ureq::get(&url).call().unwrap().body_mut().read_to_string().unwrap();
    let mut rows = serde_json::from_str::<Value>(&text).unwrap()["invocations"].as_array().unwrap().clone();
    rows.sort_by_key(|row| row["started_at_us"].as_u64());
    rows
}

/// The advised size of every function, by name.
fn advised(deployment: &Deployment) -> Vec<(String, u32)> {
    let summary = deployment.summary().unwrap();
    let functions = summary["functions"].as_array().unwrap().iter();
    functions
        .filter_map(|function| {
            let memory = function["advice"]["memory_mb"].as_u64()?;
            Some((function["name"].as_str()?.to_owned(), u32::try_from(memory).ok()?))
        })
        .collect()
}

#[test]
fn programs_are_counted_in_full_and_work_at_the_advised_size() {
    if !is_root() {
        skip("needs control groups, which need root");
        return;
    }
    let missing =
        |command: &str| !std::process::Command::new("which").arg(command).output().unwrap().status.success();
    let programs: Vec<_> = PROGRAMS
        .into_iter()
        .filter(|&(name, command, _)| {
            let is_missing = missing(command);
            if is_missing {
                skip(&format!("{name} needs {command}"));
            }
            !is_missing
        })
        .collect();
    let examples: Vec<_> = programs
        .iter()
        .map(|&(name, _, memory_mb)| Example {
            name,
            language: Language::Program,
            memory_mb,
            workload: name,
            event: "{}",
            invocations: 0,
            tunable: false,
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let (built, project) = (build::programs().unwrap(), workspace::project().unwrap());
    let plan = Plan { flush_interval_ms: 100, ..Plan::new(built, &project, folder.path(), &examples) };
    let mut deployment = Deployment::start(&plan).unwrap();
    let observed = for_each(&examples, |example| observe(&deployment, example.name));
    // Each must work at the size that is recommended for it.
    let sizes = advised(&deployment);
    let confirmed = for_each(&sizes, |(name, memory_mb)| {
        deployment.lambda.resize(name, *memory_mb).unwrap();
        invoke(&deployment, name, CONFIRMED)
    });
    deployment.stop_sandbox().unwrap();
    let mut faults: Vec<_> = confirmed.into_iter().filter_map(Result::err).collect();
    let mut observations = vec![];
    for observed in observed {
        match observed {
            Ok(observation) => observations.push(observation),
            Err(fault) => faults.push(fault),
        }
    }

    let mut table = format!(
        "{:<18}{:>11}{:>11}{:>13}{:>9}{:>9}{:>10}{:>9}\n",
        "program", "group ms", "busy ms", "unaccounted", "rest MB", "peak MB", "platform", "advised"
    );
    for observation in &observations {
        let (line, fault) = compare(&deployment, observation);
        let advised =
            sizes.iter().find(|(name, _)| name == observation.name).map_or(0, |(_, memory)| *memory);
        writeln!(table, "{line}{advised:>9}").unwrap();
        faults.extend(fault);
    }
    println!("{table}");
    assert!(faults.is_empty(), "{}\n{table}", faults.join("\n"));
    assert_eq!(sizes.len(), programs.len(), "{sizes:?}");
}
