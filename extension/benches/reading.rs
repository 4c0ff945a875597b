//! What one reading of the function's processes costs: CPU microseconds, per number of threads.
//!
//! `cargo bench -p tailor-extension --bench reading` prints a table; ratios are to reading `/proc/self/stat`
//! once, in the same run.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]

use std::io::Write;
use std::process::{Child, Command, Stdio};

use nix::time::{ClockId, clock_gettime};
use tailor_extension::process::Processes;
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

/// A process with `threads` threads that all sleep.
fn sleeper(threads: u32) -> Child {
    let program = "import sys,threading,time\nfor _ in range(int(sys.argv[1])-1): threading.Thread(target=lambda: time.sleep(1000),daemon=True).start()\nprint('ready',flush=True)\nsys.stdin.read()";
    let mut child = Command::new("python3")
        .args(["-c", program, &threads.to_string()])
        .env("LAMBDA_TASK_ROOT", "/var/task")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
        .unwrap();
    child
}

fn main() {
    // `cargo test` runs this too, and asks for nothing.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let base = cost(|| drop(std::fs::read_to_string("/proc/self/stat")));
    let mut out = std::io::stdout();
    writeln!(out, "{:<28}{:>10}{:>10}", "", "CPU us", "ratio").unwrap();
    writeln!(out, "{:<28}{base:>10.1}{:>10.1}", "one small /proc file", 1.0).unwrap();
    for threads in [1, 4, 12, 32] {
        let mut child = sleeper(threads);
        let mut processes = Processes::of_children(Peak::Reset);
        processes.read();
        let read = cost(|| drop(processes.read()));
        let reset = cost(|| processes.reset_peaks());
        let tick = cost(|| processes.tick());
        for (what, cost) in [("read", read), ("reset peaks", reset), ("tick", tick)] {
            writeln!(out, "{:<28}{cost:>10.1}{:>10.1}", format!("{what}, {threads} threads"), cost / base)
                .unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
