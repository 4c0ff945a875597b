//! The sandbox's end of a supervisor.

use std::io::{self, PipeReader};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::sys::signal::Signal;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use thiserror::Error;

use super::protocol::{Notice, ProcessId, Request, receive, send};
use super::{Setup, launch};

/// A supervisor that cannot be started or reached.
#[derive(Debug, Error)]
pub enum SupervisorError {
    #[error("cannot start the supervisor {helper}")]
    Start { helper: PathBuf, source: io::Error },
    #[error("cannot communicate with the environment's supervisor")]
    Connection { source: io::Error },
}

/// A program to start in the environment.
#[derive(Clone, Debug)]
pub struct Program {
    /// Path or name.
    pub program: String,
    /// Arguments without the program's own name.
    pub arguments: Vec<String>,
    /// All of its environment variables.
    pub environment: Vec<(String, String)>,
    /// Working directory.
    pub directory: PathBuf,
}

/// A running supervisor. Dropping it ends the environment's processes.
pub struct Supervisor {
    socket: OwnedFd,
    child: Mutex<Child>,
    next_id: AtomicU32,
}

/// What comes with [`Notice::Network`], in this order.
#[derive(Debug)]
pub struct NetworkSockets {
    /// The environment's network namespace.
    pub namespace: OwnedFd,
    /// A listener for the APIs.
    pub api: TcpListener,
    /// Accepts the connections that leave the environment.
    pub egress: TcpListener,
    /// Receives the queries for names.
    pub names: UdpSocket,
}

impl NetworkSockets {
    /// `None` if there are not as many descriptors.
    pub fn new(descriptors: Vec<OwnedFd>) -> Option<NetworkSockets> {
        let [namespace, api, egress, names] = <[OwnedFd; 4]>::try_from(descriptors).ok()?;
        Some(NetworkSockets { namespace, api: api.into(), egress: egress.into(), names: names.into() })
    }
}

/// The reading ends of a started process's standard output and standard error.
pub struct Output {
    /// Standard output.
    pub stdout: PipeReader,
    /// Standard error.
    pub stderr: PipeReader,
}

impl Supervisor {
    /// Starts `helper` (the `lambda-sandbox` binary) as a supervisor. `on_notice` is called on a thread of its
    /// own with every notice of the supervisor and its descriptors, and with `None` when it has ended.
    pub fn start(
        helper: &Path,
        setup: &Setup,
        on_notice: impl Fn(Option<Notice>, Vec<OwnedFd>) + Send + 'static,
    ) -> Result<Supervisor, SupervisorError> {
        let failed = |source| SupervisorError::Start { helper: helper.to_owned(), source };
        let (socket, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|error| failed(error.into()))?;
        let text = serde_json::to_string(setup).map_err(|error| failed(error.into()))?;
        let child = Command::new(helper)
            .arg(launch::SUBCOMMAND)
            .env(super::SETUP_VARIABLE, text)
            .stdin(theirs)
            .stdout(Stdio::null())
            // Ctrl-C in a terminal goes to the foreground group; environments must get SHUTDOWN instead.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let reader = socket.try_clone().map_err(failed)?;
        thread::Builder::new()
            .name("supervisor".into())
            .spawn(move || {
                while let Ok(Some((notice, descriptors))) = receive::<Notice>(&reader) {
                    on_notice(Some(notice), descriptors);
                }
                on_notice(None, Vec::new());
            })
            .map_err(failed)?;
        Ok(Supervisor { socket, child: Mutex::new(child), next_id: AtomicU32::new(1) })
    }

    /// A number for the next process, so that its notices can be expected before it is started.
    pub fn next_id(&self) -> ProcessId {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Requests that `program` is started as `id`; [`Notice::Spawned`] or [`Notice::SpawnFailed`] follows.
    pub fn spawn(&self, id: ProcessId, program: Program) -> Result<Output, SupervisorError> {
        let failed = |source| SupervisorError::Connection { source };
        let (stdout, stdout_writer) = io::pipe().map_err(failed)?;
        let (stderr, stderr_writer) = io::pipe().map_err(failed)?;
        let Program { program, arguments, environment, directory } = program;
        let request = Request::Spawn { id, program, arguments, environment, directory };
        send(&self.socket, &request, &[stdout_writer.as_fd(), stderr_writer.as_fd()]).map_err(failed)?;
        Ok(Output { stdout, stderr })
    }

    /// Signals one started process.
    pub fn signal(&self, id: ProcessId, signal: Signal) {
        self.request(&Request::Signal { id, signal: signal as i32 });
    }

    /// Signals every process of the environment.
    pub fn signal_all(&self, signal: Signal) {
        self.request(&Request::SignalAll { signal: signal as i32 });
    }

    /// Kills every process; [`Notice::Empty`] follows.
    pub fn kill_all(&self) {
        self.request(&Request::KillAll);
    }

    /// A supervisor that cannot be reached has ended, and has sent its last notice.
    fn request(&self, request: &Request) {
        if let Err(error) = send(&self.socket, request, &[]) {
            tracing::debug!(%error, "request to an ended supervisor");
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // The reader thread has a clone, so closing this end alone would not be seen.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        if let Ok(child) = self.child.get_mut() {
            let _ = child.wait();
        }
    }
}
