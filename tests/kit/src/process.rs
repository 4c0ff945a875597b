//! A server that runs as a child process. It is stopped when its value is dropped, also when a test fails.

use std::fs;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Whether this process runs as root. The sandbox's CPU quotas and memory limits require root.
#[must_use]
pub fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// `text`, an address or URL of this machine's loopback interface, as a function in the sandbox must write it. As root,
/// environments have their own network, in which the machine has the address that `sandbox/README.md` documents.
#[must_use]
pub fn as_seen_by_functions(text: &str) -> String {
    // The sandbox makes the networks with this command.
    let has_own_network = is_root() && Command::new("ip").arg("-V").output().is_ok();
    if has_own_network { text.replace("127.0.0.1:", "169.254.100.5:") } else { text.to_owned() }
}

/// A loopback address with a port that was free at the time of the call, for a server that needs a fixed port.
///
/// # Errors
/// When no port can be bound.
pub fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}

/// Time limit for a server to become ready.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Time limit for a dropped server to stop before it is killed.
const DROP_LIMIT: Duration = Duration::from_secs(10);

/// A running server. Dropping it stops the process.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts `command` with its standard output and standard error in the file `log`, and waits until `ready` returns
    /// true.
    ///
    /// # Errors
    /// When the process cannot be started, exits, or is not ready within 30 seconds. The error contains the end of
    /// its log.
    pub fn start(command: &mut Command, log: &Path, ready: impl Fn() -> bool) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let mut server = Self { child, log: log.to_owned() };
        let deadline = Instant::now() + START_LIMIT;
        while !ready() {
            let exited = server.child.try_wait()?.is_some();
            if exited || Instant::now() > deadline {
                bail!("{program} did not start:\n{}", server.log_tail());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// Sends SIGTERM and waits for the exit of the process.
    ///
    /// # Errors
    /// When the process does not exit within `limit`.
    pub fn stop(&mut self, limit: Duration) -> Result<ExitStatus> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().context("cannot run kill")?;
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("process {pid} did not exit within {limit:?}:\n{}", self.log_tail());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills the process with SIGKILL, which has the effect of a crash.
    ///
    /// # Errors
    /// When waiting for its exit fails.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// The last 30 lines of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Server {
    /// Stops the process with SIGTERM so that it can clean up, and kills it after `DROP_LIMIT`.
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) && self.stop(DROP_LIMIT).is_err() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// The process folder of the extension with this file name in the environment of `function`; `None` when there is none.
#[must_use]
pub fn extension_of(function: &str, extension: &str) -> Option<PathBuf> {
    extensions_of(function, extension).into_iter().next()
}

/// The same of all environments of `function`.
#[must_use]
pub fn extensions_of(function: &str, extension: &str) -> Vec<PathBuf> {
    let variable = format!("AWS_LAMBDA_FUNCTION_NAME={function}");
    let entries = fs::read_dir("/proc").into_iter().flatten();
    let folders = entries.filter_map(|entry| Some(entry.ok()?.path()));
    folders
        .filter(|folder| {
            let executable = fs::read_link(folder.join("exe")).ok();
            executable.is_some_and(|path| path.file_name().is_some_and(|name| name == extension))
        })
        .filter(|folder| {
            fs::read(folder.join("environ"))
                .is_ok_and(|text| text.split(|&byte| byte == 0).any(|one| one == variable.as_bytes()))
        })
        .collect()
}

/// CPU time of the control group of the process in this folder of `/proc`, ended processes included, nanoseconds; `None`
/// without one.
#[must_use]
pub fn group_cpu_ns(process: &Path) -> Option<u64> {
    let groups = fs::read_to_string(process.join("cgroup")).ok()?;
    let path = |controller: &str| {
        groups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers.split(',').any(|one| one == controller).then_some(path)
        })
    };
    if let Some(path) = path("cpuacct") {
        let usage = fs::read_to_string(format!("/sys/fs/cgroup/cpuacct{path}/cpuacct.usage")).ok()?;
        return usage.trim().parse().ok();
    }
    let stat = fs::read_to_string(format!("/sys/fs/cgroup{}/cpu.stat", path("")?)).ok()?;
    let usage_us =
        stat.lines().find_map(|line| line.strip_prefix("usage_usec ")?.trim().parse::<u64>().ok())?;
    Some(usage_us * 1_000)
}

/// CPU time of all threads that exist of the process in this folder of `/proc`, nanoseconds.
///
/// # Errors
/// When the process has ended.
pub fn cpu_ns(process: &Path) -> std::io::Result<u64> {
    let mut sum_ns = 0;
    for thread in fs::read_dir(process.join("task"))? {
        let times = fs::read_to_string(thread?.path().join("schedstat"))?;
        sum_ns += times.split(' ').next().and_then(|time| time.parse::<u64>().ok()).unwrap_or_default();
    }
    Ok(sum_ns)
}

/// A value of the file `status` of a process in its folder of `/proc`, such as `VmHWM`, KiB; `None` when it has ended.
#[must_use]
pub fn status_kib(process: &Path, name: &str) -> Option<u64> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.trim().trim_end_matches("kB").trim().parse().ok()
}

/// Milliseconds in a tick of the kernel's CPU times, which is the same on all machines that Linux supports today.
const MS_PER_TICK: u64 = 10;

/// What the file `stat` of a process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessState {
    /// Whether it has ended. The kernel keeps its file until its parent has asked for the exit status.
    pub has_ended: bool,
    /// CPU time of all its threads, ended ones included, milliseconds. The kernel counts it in steps of 10 ms.
    pub cpu_ms: u64,
}

/// Reads the file `stat` of a process in its folder of `/proc`.
///
/// # Errors
/// When the parent of the process has its exit status, or the file has an unknown form.
pub fn state(process: &Path) -> Result<ProcessState> {
    let path = process.join("stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    parse_state(&text).with_context(|| format!("{} has an unknown form", path.display()))
}

/// The name of the program, in brackets, can have any characters. After it come the state and numbers.
fn parse_state(stat: &str) -> Option<ProcessState> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(ProcessState { has_ended: *fields.first()? == "Z", cpu_ms: (ticks(11)? + ticks(12)?) * MS_PER_TICK })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_and_cpu_time_are_read_after_any_name_of_the_program() {
        let running = "7 (a) b) S 1 7 7 0 -1 4194304 99 0 0 0 150 50 0 0 20 0 1 0 1 1 1";
        assert_eq!(parse_state(running), Some(ProcessState { has_ended: false, cpu_ms: 2_000 }));
        let ended = running.replace(" S ", " Z ");
        assert_eq!(parse_state(&ended), Some(ProcessState { has_ended: true, cpu_ms: 2_000 }));
        assert_eq!(parse_state("7 (a) S 1"), None);
    }
}
