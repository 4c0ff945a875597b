//! The cost of one reading of the function's processes: CPU microseconds by number of threads and of processes.
//!
//! `cargo bench -p tailor-extension --bench reading` prints a table. The ratio is to one read of `/proc/self/stat` in the
//! same run.

#![allow(clippy::unwrap_used, reason = "a failed benchmark may panic")]

use std::io::Write;
use std::process::{Child, Command, Stdio};

use nix::time::{ClockId, clock_gettime};
use tailor_extension::measure::Processes;
use tailor_extension::settings::Peak;

const ROUNDS: u32 = 2_000;

fn cpu_us() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap();
    time.tv_sec() as f64 * 1e6 + time.tv_nsec() as f64 / 1e3
}

/// Mean CPU microseconds of one call.
fn cost(mut action: impl FnMut()) -> f64 {
    (0..ROUNDS / 10).for_each(|_| action());
    let before = cpu_us();
    (0..ROUNDS).for_each(|_| action());
    (cpu_us() - before) / f64::from(ROUNDS)
}

/// The same for a call after `child` ran for a moment.
fn cost_after(child: &mut Child, mut action: impl FnMut()) -> f64 {
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut answer = [0];
    let mut spent = 0.0;
    for _ in 0..ROUNDS / 10 {
        stdin.write_all(b"x").unwrap();
        std::io::Read::read_exact(&mut stdout, &mut answer).unwrap();
        let before = cpu_us();
        action();
        spent += cpu_us() - before;
    }
    (child.stdin, child.stdout) = (Some(stdin), Some(stdout));
    spent / f64::from(ROUNDS / 10)
}

/// A process whose threads sleep, except the first, which answers each byte with a byte.
fn sleeper(threads: u32) -> Child {
    let program = "import sys,threading,time\nfor _ in range(int(sys.argv[1])-1): threading.Thread(target=lambda: time.sleep(1000),daemon=True).start()\n\nimport os\nos.write(1,b'x')\nwhile True: os.write(1,os.read(0,1))";
    let mut child = Command::new("python3")
        .args(["-c", program, &threads.to_string()])
        .env("LAMBDA_TASK_ROOT", "/var/task")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    child
}

fn main() {
    // `cargo test` starts this program, too; then it does nothing.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let base = cost(|| drop(std::fs::read_to_string("/proc/self/stat")));
    let mut out = std::io::stdout();
    writeln!(out, "{:<28}{:>10}{:>10}", "", "CPU us", "ratio").unwrap();
    writeln!(out, "{:<28}{base:>10.1}{:>10.1}", "one small /proc file", 1.0).unwrap();
    let mut report = |what: &str, threads: u32, cost: f64| {
        writeln!(out, "{:<28}{cost:>10.1}{:>10.1}", format!("{what}, {threads} threads"), cost / base)
            .unwrap();
    };
    for threads in [1, 4, 12, 32, 100, 500] {
        let mut child = sleeper(threads);
        let mut processes = Processes::of_children(Peak::Reset);
        processes.read();
        report("read at rest", threads, cost(|| drop(processes.read())));
        report(
            "read, reset",
            threads,
            cost_after(&mut child, || {
                processes.read();
                processes.reset_peaks();
            }),
        );
        report("sample", threads, cost_after(&mut child, || _ = processes.sample()));
        report("quick sample", threads, cost_after(&mut child, || _ = processes.quick_sample()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let mut children: Vec<Child> = (0..60).map(|_| sleeper(1)).collect();
    let mut processes = Processes::of_children(Peak::Reset);
    (0..10).for_each(|_| drop(processes.read()));
    let rest = cost(|| drop(processes.read()));
    writeln!(out, "{:<28}{rest:>10.1}{:>10.1}", "60 processes at rest", rest / base).unwrap();
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
