//! A server that runs as a child process. It is stopped when its value is dropped, also when a test fails.

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
