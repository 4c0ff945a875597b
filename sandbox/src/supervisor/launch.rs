//! Enters new namespaces and starts the supervisor in them.
//!
//! A process cannot move itself into a new PID namespace, only its children: so this short-lived process makes
//! the namespaces, starts the supervisor as their pid 1, and waits for it.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};
use rustix::time::{ClockId, clock_gettime};

use super::protocol::{Notice, send};
use super::{Isolation, Setup, network, server};

/// Hidden subcommand that runs [`run`].
pub const SUBCOMMAND: &str = "supervise";

/// Makes the namespaces of `setup` and runs the supervisor in them until it ends. Returns its exit code.
pub fn run() -> anyhow::Result<i32> {
    let setup = Setup::from_variable()?;
    // First: it runs programs, and a process that has left its PID namespace can start only the new one's first.
    let network = if setup.own_network { Some(network::enter()) } else { None };
    let network = match network.transpose() {
        Ok(network) => network,
        Err(error) => {
            if !setup.probe {
                send(io::stdin(), &Notice::SetupFailed { message: format!("{error:#}") }, &[])?;
            }
            return Err(error);
        }
    };
    match setup.isolation {
        Isolation::Processes => {}
        Isolation::Namespaces => {
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID)?;
            if let Err(error) = enter_time_namespace() {
                tracing::debug!(%error, "environments see the machine's uptime");
            }
        }
        Isolation::UserNamespaces => enter_user_namespace()?,
    }
    if let Some(network) = network.as_ref().filter(|_| !setup.probe) {
        send(io::stdin(), &Notice::Network, &network.descriptors())?;
    }
    let mut child = Command::new("/proc/self/exe")
        .arg0("lambda-sandbox")
        .arg(server::SUBCOMMAND)
        .stdin(Stdio::inherit())
        .spawn()?;
    // This process must not keep the socket open: the sandbox detects the end of the supervisor when the socket closes.
    let _ = nix::unistd::close(0);
    Ok(child.wait()?.code().unwrap_or(1))
}

/// The clocks that count from the start of the machine begin at 0, as in a new microVM. The start times of processes in
/// `/proc` count from there too.
fn enter_time_namespace() -> io::Result<()> {
    const CLONE_NEWTIME: CloneFlags = CloneFlags::from_bits_retain(0x80);
    unshare(CLONE_NEWTIME)?;
    let mut offsets = String::new();
    for (name, clock) in [("monotonic", ClockId::Monotonic), ("boottime", ClockId::Boottime)] {
        let now = clock_gettime(clock);
        // Rounded towards now, because the clock must not be negative.
        offsets += &format!("{name} -{} 0\n", now.tv_sec);
    }
    fs::write("/proc/self/timens_offsets", offsets)
}

fn enter_user_namespace() -> io::Result<()> {
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID)?;
    // The kernel requires this before an unprivileged process may map groups.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1"))
}
