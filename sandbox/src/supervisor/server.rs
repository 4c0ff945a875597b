//! The supervisor itself: serves requests until the sandbox closes the socket, then kills the remaining processes.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::{set_child_subreaper, set_no_new_privs};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid, fchown, setgroups, setresgid, setresuid};

use super::proc_view::ProcView;
use super::protocol::{ExitStatus, Notice, ProcessId, Request, receive, send};
use super::root::User;
use super::{Isolation, Setup, mounts, tree};

/// Hidden subcommand that runs [`run`].
pub const SUBCOMMAND: &str = "environment-init";

/// File descriptors a Lambda environment may have open per process.
const MAX_OPEN_FILES: u64 = 1024;

/// Processes and threads of a Lambda environment.
const MAX_PROCESSES: u64 = 1024;

/// A program that was just written may still be open for writing in a process that is being forked
/// elsewhere. This ends within milliseconds.
const BUSY_ATTEMPTS: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(2);

/// Runs the supervisor on standard input, which is its socket.
pub fn run() -> anyhow::Result<()> {
    let setup = Setup::from_variable()?;
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let mut supervisor = match Supervisor::set_up(&setup, socket.try_clone()?) {
        Ok(supervisor) => supervisor,
        Err(error) => {
            if !setup.probe {
                send(&socket, &Notice::SetupFailed { message: format!("{error:#}") }, &[])?;
            }
            return Err(error);
        }
    };
    if setup.probe {
        return Ok(());
    }
    send(&socket, &Notice::Ready, &[])?;
    let outcome = supervisor.serve();
    supervisor.kill_all();
    match outcome {
        // The sandbox ended while a notice was sent to it.
        Err(error) if is_broken_pipe(&error) => Ok(()),
        other => other,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// Gives up root for good.
fn become_user(user: User) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    setgroups(&[gid])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    Ok(set_no_new_privs()?)
}

struct Supervisor {
    socket: OwnedFd,
    signals: SignalFd,
    /// Opened before the mounts changed. Each child writes to them before `execve`.
    entrances: Vec<File>,
    processes: HashMap<i32, ProcessId>,
    has_pid_namespace: bool,
    /// Opened before the mounts changed.
    thaw: Option<(File, String)>,
    user: Option<User>,
}

impl Supervisor {
    fn set_up(setup: &Setup, socket: OwnedFd) -> anyhow::Result<Supervisor> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let entrances = setup
            .entrances
            .iter()
            .map(|path| OpenOptions::new().write(true).open(path))
            .collect::<io::Result<Vec<File>>>()?;
        let thaw = match &setup.thaw {
            Some((path, value)) => Some((OpenOptions::new().write(true).open(path)?, value.clone())),
            None => None,
        };
        if setup.isolation == Isolation::Processes {
            set_child_subreaper(true)?;
        } else {
            let view = setup.proc_view.as_ref().map(ProcView::open).transpose()?;
            mounts::make(setup, view)?;
        }
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let limit = MAX_OPEN_FILES.min(hard);
        setrlimit(Resource::RLIMIT_NOFILE, limit, limit)?;
        if setup.root.is_some() {
            // Counts the processes of the user, which is the environment's own.
            setrlimit(Resource::RLIMIT_NPROC, MAX_PROCESSES, MAX_PROCESSES)?;
        }
        Ok(Supervisor {
            socket,
            signals,
            entrances,
            processes: HashMap::new(),
            has_pid_namespace: setup.isolation != Isolation::Processes,
            thaw,
            user: setup.root.as_ref().map(|root| root.user),
        })
    }

    fn serve(&mut self) -> anyhow::Result<()> {
        loop {
            let (request, child) = {
                let mut fds = [
                    PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
                    PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
                ];
                match poll(&mut fds, PollTimeout::NONE) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(error) => return Err(error.into()),
                }
                (fds[0].any().unwrap_or(false), fds[1].any().unwrap_or(false))
            };
            if child {
                while self.signals.read_signal()?.is_some() {}
                self.reap()?;
            }
            if request {
                match receive::<Request>(&self.socket)? {
                    Some((request, descriptors)) => self.handle(request, descriptors)?,
                    None => return Ok(()),
                }
            }
        }
    }

    fn handle(&mut self, request: Request, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        match request {
            Request::Spawn { id, program, arguments, environment, directory } => {
                let mut command = Command::new(program);
                command.args(arguments).env_clear().envs(environment).current_dir(directory);
                let notice = match self.spawn(command, descriptors) {
                    Ok(pid) => {
                        self.processes.insert(pid, id);
                        Notice::Spawned { id, pid }
                    }
                    Err(error) => {
                        Notice::SpawnFailed { id, errno: error.raw_os_error(), message: error.to_string() }
                    }
                };
                send(&self.socket, &notice, &[])
            }
            Request::Signal { id, signal } => {
                let target = self.processes.iter().find(|(_, known)| **known == id).map(|(pid, _)| *pid);
                if let (Some(pid), Ok(signal)) = (target, Signal::try_from(signal)) {
                    // The process may have ended, which the next reap reports.
                    let _ = kill(Pid::from_raw(pid), signal);
                }
                Ok(())
            }
            Request::SignalAll { signal } => {
                if let Ok(signal) = Signal::try_from(signal) {
                    self.signal_all(signal);
                }
                Ok(())
            }
            Request::KillAll => {
                self.kill_all();
                send(&self.socket, &Notice::Empty, &[])
            }
        }
    }

    fn spawn(&self, mut command: Command, descriptors: Vec<OwnedFd>) -> io::Result<i32> {
        let Ok([output, error]) = <[OwnedFd; 2]>::try_from(descriptors) else {
            return Err(io::Error::other("a process needs two descriptors"));
        };
        if let Some(User { uid, gid }) = self.user {
            // Programs open /dev/stdout by its path, which needs the permission of the pipe.
            fchown(&output, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            fchown(&error, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        command.stdin(Stdio::null()).stdout(output).stderr(error).process_group(0);
        let entrances = self.entrances.iter().map(File::try_clone).collect::<io::Result<Vec<File>>>()?;
        let user = self.user;
        // SAFETY: between fork and exec the closure only makes system calls; it neither allocates nor takes locks.
        unsafe {
            command.pre_exec(move || {
                for mut entrance in &entrances {
                    entrance.write_all(b"0")?;
                }
                // The supervisor blocks SIGCHLD, which must not be inherited.
                SigSet::empty().thread_set_mask()?;
                user.map_or(Ok(()), become_user)
            });
        }
        let mut attempts = 0;
        let child = loop {
            match command.spawn() {
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && attempts < BUSY_ATTEMPTS => {
                    attempts += 1;
                    thread::sleep(BUSY_PAUSE);
                }
                outcome => break outcome?,
            }
        };
        // Reaped by `reap`, which has all children and not only those started here.
        i32::try_from(child.id()).map_err(io::Error::other)
    }

    fn reap(&mut self) -> io::Result<()> {
        loop {
            let status = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(status) => status,
                Err(Errno::ECHILD) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let (pid, status) = match status {
                WaitStatus::Exited(pid, code) => (pid, ExitStatus::Code(code)),
                WaitStatus::Signaled(pid, signal, _) => (pid, ExitStatus::Signal(signal as i32)),
                WaitStatus::StillAlive => return Ok(()),
                _ => continue,
            };
            if let Some(id) = self.processes.remove(&pid.as_raw()) {
                send(&self.socket, &Notice::Exited { id, status }, &[])?;
            }
        }
    }

    fn signal_all(&self, signal: Signal) {
        if self.has_pid_namespace {
            // To all processes in the namespace except pid 1, which is this process.
            let _ = kill(Pid::from_raw(-1), signal);
        } else {
            for pid in tree::descendants() {
                let _ = kill(pid, signal);
            }
        }
    }

    /// Kills and reaps until no process is left. A process may fork while the list is read, hence the loop.
    fn kill_all(&mut self) {
        if let Some((file, value)) = &mut self.thaw {
            let _ = file.write_all(value.as_bytes());
        }
        loop {
            self.signal_all(Signal::SIGKILL);
            match waitpid(None, None) {
                Ok(WaitStatus::Exited(pid, code)) => self.report(pid, ExitStatus::Code(code)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    self.report(pid, ExitStatus::Signal(signal as i32));
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }

    fn report(&mut self, pid: Pid, status: ExitStatus) {
        if let Some(id) = self.processes.remove(&pid.as_raw()) {
            // The sandbox may have ended; then the notice is not needed.
            let _ = send(&self.socket, &Notice::Exited { id, status }, &[]);
        }
    }
}
