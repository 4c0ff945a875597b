//! A server as a child process: started, awaited, and ended with the test or the demo, however that ends.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Whether this process is root: the sandbox's CPU quotas and memory limits need it.
#[must_use]
pub fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// A loopback address whose port was free a moment ago, for a server that must be told one.
///
/// # Errors
/// When the system has no port to give.
pub fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}

/// How long a server may take to say that it is ready.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How long a dropped server may take to end by itself.
const DROP_LIMIT: Duration = Duration::from_secs(10);

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts `command` with its output and log going to `log`, and waits until `ready` finds it so.
    ///
    /// # Errors
    /// When it cannot be started, ends, or is not ready within half a minute; with the end of its log.
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
            let ended = server.child.try_wait()?.is_some();
            if ended || Instant::now() > deadline {
                bail!("{program} did not start:\n{}", server.log_tail());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// Asks it to end as an operator would (SIGTERM) and waits for it.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop(&mut self, limit: Duration) -> Result<ExitStatus> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().context("cannot run kill")?;
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("process {pid} did not end within {limit:?}:\n{}", self.log_tail());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it as a crash would (SIGKILL).
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Server {
    /// Lets it clean up after itself, but not for ever.
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) && self.stop(DROP_LIMIT).is_err() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
