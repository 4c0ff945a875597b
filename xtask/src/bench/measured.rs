//! Runs a program and measures its time, CPU time and memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tailor_test_kit::process::{self, ProcessState};
use tailor_test_kit::workspace::{cargo, target_folder};

/// Time between two looks at the program.
const INTERVAL: Duration = Duration::from_millis(2);

/// What one run of a program used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    /// Time from its start to its end, seconds.
    pub(super) wall_s: f64,
    /// CPU time of all its threads, seconds.
    pub(super) cpu_s: f64,
    /// Highest resident memory, MB.
    pub(super) peak_mb: f64,
}

/// Runs a program to its end, without its output.
///
/// # Errors
/// When it cannot be started, or fails.
pub(super) fn run(command: &mut Command) -> Result<Measured> {
    let name = command.get_program().display().to_string();
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let folder = PathBuf::from(format!("/proc/{}", child.id()));
    let mut peak_kib = 0;
    let cpu_ms = loop {
        let ProcessState { has_ended, cpu_ms } = process::state(&folder)?;
        if has_ended {
            break cpu_ms;
        }
        peak_kib = peak_kib.max(process::status_kib(&folder, "VmHWM").unwrap_or(0));
        thread::sleep(INTERVAL);
    };
    let wall_s = started.elapsed().as_secs_f64();
    let status: ExitStatus = child.wait().with_context(|| format!("cannot wait for {name}"))?;
    ensure!(status.success(), "{name} failed: {status}");
    Ok(Measured { wall_s, cpu_s: cpu_ms as f64 / 1e3, peak_mb: peak_kib as f64 * 1_024.0 / 1e6 })
}

/// Runs programs alike, and keeps the run with the shortest time: the others waited for other processes.
///
/// # Errors
/// As [`run`].
pub(super) fn fastest(runs: u32, command: impl Fn(u32) -> Command) -> Result<Measured> {
    let mut fastest: Option<Measured> = None;
    for number in 0..runs {
        let measured = run(&mut command(number))?;
        if fastest.is_none_or(|known| measured.wall_s < known.wall_s) {
            fastest = Some(measured);
        }
    }
    fastest.context("no run was requested")
}

/// The program to measure: `binary`, or a release build of this source.
///
/// # Errors
/// When the build fails.
pub(super) fn tailor(binary: Option<&Path>) -> Result<PathBuf> {
    if let Some(binary) = binary {
        return Ok(binary.to_owned());
    }
    cargo(&["build", "--release", "--quiet", "-p", "tailor-collector"])?;
    Ok(target_folder()?.join("release/tailor"))
}

/// Calls `work` with a new folder, and deletes the folder.
///
/// # Errors
/// Those of `work`, and when the folder cannot be created or deleted.
pub(super) fn in_folder(name: &str, work: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let folder = target_folder()?.join(format!("{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let result = work(&folder);
    fs::remove_dir_all(&folder).with_context(|| format!("cannot delete {}", folder.display()))?;
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_cpu_and_memory_of_a_program_are_measured() {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "x=$(head -c 30000000 /dev/zero | tr '\\0' x); i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done",
        ]);
        let measured = run(&mut command).unwrap();
        assert!(measured.cpu_s > 0.02 && measured.wall_s > 0.02, "{measured:?}");
        assert!(measured.peak_mb > 30.0, "{measured:?}");
        assert!(run(Command::new("sh").args(["-c", "exit 3"])).is_err());
    }
}
