//! CPU and memory limits, checked with the kernel's counters.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::fakes::{FakeRuntime, request_id};
use crate::sandbox::{Builder, IDLE_SCRIPT, Sandbox, is_root, skip, wait_until};

/// A runtime that uses all CPU it gets, while the test makes its API calls.
const SPIN: &str = "#!/bin/sh\nwhile :; do :; done\n";

/// Runs one invocation of three wall seconds with a spinning process; its trace line.
fn spin(memory_mb: u32) -> Value {
    let settings = format!("memory_mb = {memory_mb}\ntimeout_s = 30");
    let sandbox = Builder::new().function("fn", &settings, SPIN).start();
    raise_cpu_weight(&sandbox);
    let _caller = sandbox.invoke_later("fn", "{}");
    let runtime = FakeRuntime { api: sandbox.api(1) };
    sandbox.await_event("runtime.spawn", 1);
    let invocation = runtime.next();
    std::thread::sleep(std::time::Duration::from_secs(3));
    runtime.respond(&request_id(&invocation), "1");
    let _next = runtime.next_later();
    sandbox.await_event("invocation", 1)
}

/// Gives this sandbox's control group the highest CPU weight: other work on this machine must not take the
/// CPU that the quota allows.
fn raise_cpu_weight(sandbox: &Sandbox) {
    for folder in groups(sandbox) {
        // Whichever version this is; of version 1, whichever controller.
        let _ = std::fs::write(folder.join("cpu.shares"), "262144");
        let _ = std::fs::write(folder.join("cpu.weight"), "10000");
    }
}

/// The outermost control groups of this sandbox.
fn groups(sandbox: &Sandbox) -> Vec<PathBuf> {
    let own = format!("lambda-sandbox.{}-", sandbox.id());
    let (mut folders, mut groups) = (vec![(PathBuf::from("/sys/fs/cgroup"), 0)], vec![]);
    while let Some((folder, depth)) = folders.pop() {
        if folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&own)) {
            groups.push(folder);
        } else if depth < 5 {
            folders.extend(folders_in(&folder).map(|inner| (inner, depth + 1)));
        }
    }
    groups
}

fn folders_in(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let inner = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    inner.map(|entry| entry.path())
}

/// The CPU quota of an environment of this sandbox, in CPUs; `None` when none is limited.
fn quota(sandbox: &Sandbox) -> Option<f64> {
    let mut folders = groups(sandbox);
    while let Some(folder) = folders.pop() {
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        let text = format!("{} {} {}", read("cpu.max"), read("cpu.cfs_quota_us"), read("cpu.cfs_period_us"));
        let numbers: Vec<f64> = text.split_whitespace().filter_map(|text| text.parse().ok()).collect();
        match numbers[..] {
            [quota, period] if quota > 0.0 => return Some(quota / period),
            _ => folders.extend(folders_in(&folder)),
        }
    }
    None
}

/// Idle time of all CPUs since the machine was started, seconds.
fn idle_s() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap();
    let ticks: f64 = text.split_whitespace().nth(4).unwrap().parse().unwrap();
    // 100 ticks per second.
    ticks / 100.0
}

/// CPU time per elapsed time, as counted by the kernel, is memory/1769, within 3 %. Never more; and not less unless
/// other work takes the CPU, so the best of a few attempts counts. At 1,769 MB the quota
/// is a whole CPU, which needs an idle CPU on the machine.
#[test]
fn duty_cycle() {
    if !is_root("duty_cycle") {
        return;
    }
    for memory_mb in [128, 256, 512, 1024, 1769] {
        let share = f64::from(memory_mb) / 1769.0;
        let (mut best, mut had_idle_cpu) = (0.0_f64, false);
        for _ in 0..4 {
            let idle_before_s = idle_s();
            let line = spin(memory_mb);
            had_idle_cpu |= idle_s() - idle_before_s > 1.5;
            let used =
                line["cpu"]["usage_ns"].as_f64().unwrap() / (line["duration_us"].as_f64().unwrap() * 1e3);
            let periods = line["cpu"]["periods"].as_f64().unwrap();
            let throttled = line["cpu"]["throttled_periods"].as_f64().unwrap();
            let ratio = used / share;
            println!(
                "{memory_mb} MB: {used:.4} of {share:.4} vCPU, ratio {ratio:.4}, {throttled} of {periods} periods throttled"
            );
            assert!(ratio < 1.03, "{memory_mb} MB used {ratio} of its share");
            assert!((135.0..=172.0).contains(&periods), "{periods} periods of 20 ms in three seconds");
            best = best.max(ratio);
            if best > 0.97 {
                break;
            }
        }
        if best <= 0.97 && memory_mb == 1769 && !had_idle_cpu {
            skip(&format!("duty_cycle at 1769 MB: needs a CPU without other load; got {best:.3} of one"));
            continue;
        }
        assert!(best > 0.97, "{memory_mb} MB got {best} of its share");
    }
}

/// On managed instances the memory size and its ratio to vCPUs set the quota, and an environment has at least one vCPU.
#[test]
fn managed_instances_have_the_vcpus_of_their_ratio() {
    if !is_root("managed_instances_have_the_vcpus_of_their_ratio") {
        return;
    }
    for (memory_mb, ratio, vcpus) in [
        (8_192, "gib_per_vcpu = 2", 4.0),
        (8_192, "gib_per_vcpu = 4", 2.0),
        (8_192, "gib_per_vcpu = 8", 1.0),
        (5_120, "", 2.5),
        (2_048, "gib_per_vcpu = 8", 1.0),
    ] {
        let settings =
            format!("memory_mb = {memory_mb}\n{ratio}\ninitialization_type = 'lambda-managed-instances'");
        let sandbox = Builder::new().function("fn", &settings, IDLE_SCRIPT).start();
        let caller = sandbox.invoke_later("fn", "{}");
        let runtime = FakeRuntime { api: sandbox.api(1) };
        let invocation = runtime.next();
        let quota = wait_until("the quota", || quota(&sandbox));
        assert!((quota - vcpus).abs() < 1e-6, "{memory_mb} MB, {ratio}: {quota} vCPUs");
        runtime.respond(&request_id(&invocation), "1");
        caller.join().unwrap();
    }
}

/// Init is not throttled.
#[test]
fn init_is_boosted() {
    if !is_root("init_is_boosted") {
        return;
    }
    let sandbox = Builder::new().function("fn", "memory_mb = 128", SPIN).start();
    let _caller = sandbox.invoke_later("fn", "{}");
    sandbox.await_event("runtime.spawn", 1);
    std::thread::sleep(std::time::Duration::from_millis(700));
    let runtime = FakeRuntime { api: sandbox.api(1) };
    let _invocation = runtime.next_later();
    let line = sandbox.await_event("init", 1);
    let ratio = line["cpu_ns"].as_f64().unwrap() / (line["init_us"].as_f64().unwrap() * 1000.0);
    // 128 MB would be 0.07; other tests share this machine's cores.
    assert!(ratio > 0.2, "{ratio} vCPU in Init");
}

/// A process that needs more than the memory size is killed; the invocation fails, reports the size as its peak,
/// and the next one starts fresh.
#[test]
fn out_of_memory() {
    if !is_root("out_of_memory") {
        return;
    }
    for (runtime, error_type) in
        [("provided.al2023", "Runtime.ExitError"), ("python3.12", "Runtime.OutOfMemory")]
    {
        let builder = Builder::new();
        let go = builder.path().join("go");
        // Grows only inside the invocation: tail keeps the line that never ends. It takes the runtime's place,
        // and little of the small CPU quota.
        let script = format!(
            "#!/bin/sh\nwhile [ ! -e {0} ]; do sleep 0.02; done\nrm {0}\nexec tail /dev/zero\n",
            go.display()
        );
        let builder = builder.function("fn", "timeout_s = 120", &script);
        let toml = builder.path().join("functions/fn/function.toml");
        std::fs::write(toml, format!("runtime = '{runtime}'\ntimeout_s = 120")).unwrap();
        let sandbox = builder.start();
        let caller = sandbox.invoke_later("fn", "{}");
        let _invocation = FakeRuntime { api: sandbox.api(1) }.next();
        std::fs::write(&go, "").unwrap();
        let response = caller.join().unwrap();
        assert_eq!(response.error_type(), error_type);
        assert!(response.json()["errorMessage"].as_str().unwrap().ends_with("signal: killed"));
        let report = sandbox.await_telemetry("platform.report", 1);
        assert_eq!(report["errorType"], error_type);
        assert_eq!(report["metrics"]["maxMemoryUsedMB"], 128);
        sandbox.await_event("shutdown.end", 1);
        let _caller = sandbox.invoke_later("fn", "{}");
        sandbox.await_event("runtime.spawn", 2);
        let again = FakeRuntime { api: sandbox.api(1) }.next();
        assert_eq!(again.status, 200);
    }
}
