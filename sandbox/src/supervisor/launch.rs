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

use super::{Isolation, Setup, server};

/// Hidden subcommand that runs [`run`].
pub const SUBCOMMAND: &str = "supervise";

/// Makes the namespaces of `setup` and runs the supervisor in them until it ends. Returns its exit code.
pub fn run(setup_json: &str) -> anyhow::Result<i32> {
    let setup: Setup = serde_json::from_str(setup_json)?;
    match setup.isolation {
        Isolation::Processes => {}
        Isolation::Namespaces => unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID)?,
        Isolation::UserNamespaces => enter_user_namespace()?,
    }
    let mut child = Command::new("/proc/self/exe")
        .arg0("lambda-sandbox")
        .arg(server::SUBCOMMAND)
        .arg(setup_json)
        .stdin(Stdio::inherit())
        .spawn()?;
    // This process must not keep the socket open: the sandbox detects the end of the supervisor when the socket closes.
    let _ = nix::unistd::close(0);
    Ok(child.wait()?.code().unwrap_or(1))
}

fn enter_user_namespace() -> io::Result<()> {
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID)?;
    // The kernel requires this before an unprivileged process may map groups.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1"))
}
