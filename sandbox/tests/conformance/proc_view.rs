//! The files of `/proc` that describe a machine describe the environment, as in a microVM.

use std::collections::BTreeMap;
use std::path::Path;

use crate::sandbox::{Builder, Sandbox, is_root, skip, wait_until};

/// Whether environments can have their own files here. If not, `test` is reported as skipped.
#[track_caller]
fn has_views(test: &str) -> bool {
    if !Path::new("/dev/fuse").exists() {
        skip(&format!("{test}: needs /dev/fuse"));
        return false;
    }
    is_root(test)
}

/// Runs `script` as the runtime of a function of 128 MB. It writes files to the folder `$out`, `done` as the last.
fn run(script: &str) -> Sandbox {
    let builder = Builder::new();
    let out = builder.path().display().to_string();
    let script = format!("#!/bin/sh\nout={out}\n{script}\necho > $out/done\nexec sleep 1000\n");
    let sandbox = builder.function("fn", "memory_mb = 128", &script).start();
    let _caller = sandbox.invoke_later("fn", "{}");
    wait_until("the script", || sandbox.read("done"));
    sandbox
}

/// The fields of the first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal.
fn cpu_ticks(stat: &str) -> Vec<u64> {
    let line = stat.lines().next().unwrap();
    line.split_whitespace().skip(1).map(|field| field.parse().unwrap()).collect()
}

/// CPU time of the shell and its children in the output of `times`, seconds.
fn times_s(text: &str) -> f64 {
    let values = text.split_whitespace().map(|value| {
        let (minutes, seconds) = value.trim_end_matches('s').split_once('m').unwrap();
        minutes.parse::<f64>().unwrap() * 60.0 + seconds.parse::<f64>().unwrap()
    });
    values.sum()
}

fn kilobytes(meminfo: &str) -> BTreeMap<String, i64> {
    let pairs = meminfo.lines().filter_map(|line| line.split_once(':'));
    let number = |value: &str| value.split_whitespace().next().unwrap().parse().unwrap();
    pairs.map(|(name, value)| (name.to_owned(), number(value))).collect()
}

/// `/proc/stat` counts the CPU time of the processes of the environment, and of no other process.
#[test]
fn stat_counts_the_cpu_time_of_the_environment() {
    if !has_views("stat_counts_the_cpu_time_of_the_environment") {
        return;
    }
    let sandbox = run("cat /proc/stat > $out/stat1; times > $out/times1\n\
                       i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done\n\
                       (i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done)\n\
                       cat /proc/stat > $out/stat2; times > $out/times2");
    let read = |name: &str| sandbox.read(name).unwrap();
    let [first, second] = ["stat1", "stat2"].map(|name| cpu_ticks(&read(name)));
    let busy = |ticks: &[u64]| ticks[0] + ticks[2];
    let counted = (busy(&second) - busy(&first)) as f64 / 100.0;
    let expected = times_s(&read("times2")) - times_s(&read("times1"));
    // `times` does not count the processes that read the file, and both are rounded to 10 ms.
    assert!((counted - expected).abs() < 0.05, "{counted} s counted, {expected} s used");
    assert!(expected > 0.1, "the script must use CPU time");
    for (index, (before, after)) in first.iter().zip(&second).enumerate() {
        assert!(after >= before, "field {index} decreased");
    }
    // The time of all CPUs since the environment started.
    let stat = read("stat2");
    let cpus = stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count();
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(cpus, cores.min(2));
    let listed = sandbox.read("stat2").unwrap();
    assert!(listed.contains("\nbtime ") && listed.contains("\nprocesses "));
    let machine = std::fs::read_to_string("/proc/stat").unwrap();
    assert!(cpu_ticks(&machine)[3] > second[3], "idle is the environment's");
}

/// `/proc/meminfo` shows the memory size and what the environment uses of it.
#[test]
fn meminfo_shows_the_memory_of_the_environment() {
    if !has_views("meminfo_shows_the_memory_of_the_environment") {
        return;
    }
    let sandbox = run("cat /proc/meminfo > $out/mem1\n\
                       x=$(head -c 16777216 /dev/zero | tr '\\0' x); cat /proc/meminfo > $out/mem2");
    let [first, second] = ["mem1", "mem2"].map(|name| kilobytes(&sandbox.read(name).unwrap()));
    assert_eq!(first["MemTotal"], 128 * 1024);
    assert!(first["MemFree"] > 90 * 1024 && first["MemFree"] < 128 * 1024, "{first:?}");
    assert!(first["MemAvailable"] >= first["MemFree"]);
    let grown = |name: &str| second[name] - first[name];
    assert!(grown("AnonPages") >= 16 * 1024, "{second:?}");
    // The rest is page cache and kernel memory that the two programs needed.
    assert!((grown("MemFree") + grown("AnonPages")).abs() < 8 * 1024, "{first:?} {second:?}");
}

/// `/proc/pressure` counts the waits of the environment.
#[test]
fn pressure_is_that_of_the_environment() {
    if !has_views("pressure_is_that_of_the_environment") {
        return;
    }
    let Ok(machine) = std::fs::read_to_string("/proc/pressure/cpu") else {
        skip("pressure_is_that_of_the_environment: needs a kernel with pressure information");
        return;
    };
    let sandbox = run("ls /proc/pressure > $out/names; cat /proc/pressure/cpu > $out/cpu1\n\
                       for i in 1 2 3 4; do (j=0; while [ $j -lt 200000 ]; do j=$((j+1)); done) & done; wait\n\
                       cat /proc/pressure/cpu > $out/cpu2");
    let names = sandbox.read("names").unwrap();
    if names.is_empty() {
        skip("pressure_is_that_of_the_environment: needs control groups of version 2");
        return;
    }
    assert_eq!(names, "cpu\nio\nmemory\n");
    let total = |text: &str| -> u64 {
        let some = text.lines().find(|line| line.starts_with("some")).unwrap();
        some.rsplit_once("total=").unwrap().1.parse().unwrap()
    };
    let (first, second) = (sandbox.read("cpu1").unwrap(), sandbox.read("cpu2").unwrap());
    assert!(total(&second) > total(&first), "four busy processes wait for {}", second);
    assert!(total(&first) < total(&machine) / 2, "{first} is the machine's {machine}");
}

/// The other files that programs use to find the size of the machine.
#[test]
fn cpus_uptime_and_load_are_those_of_the_environment() {
    if !has_views("cpus_uptime_and_load_are_those_of_the_environment") {
        return;
    }
    let sandbox = run("for f in cpuinfo uptime loadavg; do cat /proc/$f > $out/$f; done");
    let cpus = sandbox.read("cpuinfo").unwrap().matches("processor\t").count();
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(cpus, cores.min(2));
    let uptime = sandbox.read("uptime").unwrap();
    let up: f64 = uptime.split_whitespace().next().unwrap().parse().unwrap();
    assert!(up < 40.0, "{uptime}");
    let load = sandbox.read("loadavg").unwrap();
    assert_eq!(load.split_whitespace().count(), 5, "{load}");
}

/// `/proc/vmstat` counts the processes of the environment that the kernel killed for memory.
#[test]
fn vmstat_counts_the_kills_of_the_environment() {
    if !has_views("vmstat_counts_the_kills_of_the_environment") {
        return;
    }
    let sandbox = run("cat /proc/vmstat > $out/vm1; (exec tail /dev/zero); cat /proc/vmstat > $out/vm2");
    let kills = ["vm1", "vm2"].map(|name| {
        let text = sandbox.read(name).unwrap();
        text.lines().find(|line| line.starts_with("oom_kill ")).unwrap().to_owned()
    });
    assert_eq!(kills, ["oom_kill 0", "oom_kill 1"]);
}
