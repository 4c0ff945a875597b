//! Measures the time of extensions from exec to their first `next`, with and without the CPU quota of a small function.
//!
//! A fake platform in this process accepts registration and subscription at once and never sends an event. So the times
//! contain only the extension.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::Router;
use axum::routing::{get, post, put};
use lambda_sandbox::cgroup::{Group, Hierarchy};

/// The smallest memory size, and so the smallest CPU quota, MB.
const SMALLEST_MB: f64 = 128.0;

/// Memory size with one vCPU, MB.
const VCPU_MB: f64 = 1_769.0;

/// Time limit for a start.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A fake platform for any number of extension starts.
pub(super) struct Platform {
    address: SocketAddr,
    ready: Receiver<Instant>,
    hierarchy: Hierarchy,
}

impl Platform {
    /// Starts the platform.
    pub(super) fn start() -> Result<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (sender, ready) = channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let routes = routes(sender);
        thread::spawn(move || {
            runtime
                .block_on(async { axum::serve(tokio::net::TcpListener::from_std(listener)?, routes).await })
        });
        Ok(Self { address, ready, hierarchy: Hierarchy::detect() })
    }

    /// A control group with the CPU quota of the smallest function; `None` when CPU quotas are not available.
    pub(super) fn small_group(&self) -> Result<Option<Group>> {
        if self.hierarchy.missing().contains(&"cpu") {
            return Ok(None);
        }
        let group = self.hierarchy.create("start")?;
        group.limit_cpu(Some(SMALLEST_MB / VCPU_MB))?;
        Ok(Some(group))
    }

    /// Starts `program` in `group`, waits for its first `next` and kills it. Returns the time from just before exec.
    pub(super) fn time(&self, program: &Path, group: Option<&Group>) -> Result<Duration> {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("AWS_LAMBDA_RUNTIME_API", self.address.to_string())
            .env("AWS_LAMBDA_FUNCTION_NAME", "start")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
            .env("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")
            .env("AWS_REGION", "us-east-1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        enter(&mut command, group)?;
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let child = KillOnDrop(child);
        let ready = self.ready.recv_timeout(START_TIMEOUT);
        drop(child);
        let ready = ready.with_context(|| format!("{} did not request an event", program.display()))?;
        Ok(ready.duration_since(started))
    }
}

/// Configures `command` to enter `group` before exec, so that the whole program runs in it.
pub(super) fn enter(command: &mut Command, group: Option<&Group>) -> Result<()> {
    let entrances = group.map(Group::entrances).unwrap_or_default();
    let files: Vec<_> = entrances
        .iter()
        .map(|path| std::fs::File::options().write(true).open(path))
        .collect::<std::io::Result<_>>()?;
    // SAFETY: between fork and exec the closure only writes to open files, which is async-signal-safe; it
    // neither allocates nor takes locks.
    unsafe {
        command.pre_exec(move || {
            for mut file in &files {
                std::io::Write::write_all(&mut file, b"0")?;
            }
            Ok(())
        });
    }
    Ok(())
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.hierarchy.remove();
    }
}

/// A process that is killed when its value is dropped.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn routes(ready: Sender<Instant>) -> Router {
    let registered = || async {
        let identifier = [("lambda-extension-identifier", "b0a5a7f4-2f0b-4c0e-9d53-000000000001")];
        (identifier, r#"{"functionName":"start","functionVersion":"$LATEST","handler":"bootstrap"}"#)
    };
    let next = move || {
        // The receiver is gone after the time limit.
        let _ = ready.send(Instant::now());
        std::future::pending::<()>()
    };
    Router::new()
        .route("/2020-01-01/extension/register", post(registered))
        .route("/2022-07-01/telemetry", put(|| async { "\"OK\"" }))
        .route("/2020-01-01/extension/event/next", get(next))
}
