//! The process that owns an environment's processes.
//!
//! Each environment has a supervisor: this same binary, started again. Where namespaces are allowed it is pid 1
//! of its environment, so that a scan of `/proc` inside sees the environment and nothing else, and so that
//! no process can outlive it. It mounts, starts, signals and reaps on request of the sandbox, and decides nothing
//! itself.
//!
//! - [`protocol`]: the messages between the two, over a packet socket;
//! - [`client`]: the sandbox's end;
//! - [`server`]: the supervisor's end;
//! - [`network`]: the environment's own network namespace;
//! - [`root`]: the environment's own root file system;
//! - [`proc_view`]: the environment's own `/proc/stat`, `/proc/meminfo` and others;
//! - [`launch`]: from the sandbox's namespaces into the environment's.

pub mod client;
pub mod launch;
pub mod loop_device;
mod mounts;
pub mod network;
pub mod proc_view;
pub mod protocol;
pub mod root;
pub mod server;
mod socket_lookup;
mod tree;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use proc_view::ProcViewSetup;
use root::RootSetup;

/// How an environment's processes are isolated from the machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// Own root file system, user and process ids, made as root.
    Namespaces,
    /// Own mounts and process ids inside an unprivileged user namespace.
    UserNamespaces,
    /// Plain processes: environment variables contain the paths that replace `/opt`, `/var/task` and `/tmp`.
    Processes,
}

impl Isolation {
    /// The strongest isolation that works here. It is tested with `helper`, the `lambda-sandbox` binary.
    pub fn detect(helper: &PathBuf) -> Isolation {
        let candidates: &[Isolation] = if nix::unistd::geteuid().is_root() {
            &[Isolation::Namespaces, Isolation::UserNamespaces]
        } else {
            &[Isolation::UserNamespaces]
        };
        let works = |isolation: &&Isolation| Setup::bare(**isolation).probe(helper).is_ok();
        candidates.iter().find(works).copied().unwrap_or(Isolation::Processes)
    }

    /// Whether environments can have their own network here. The error is the reason why not.
    pub fn check_own_network(self, helper: &PathBuf) -> Result<(), String> {
        if self != Isolation::Namespaces {
            return Err("it needs root".into());
        }
        Setup { own_network: true, ..Setup::bare(self) }.probe(helper)
    }

    /// Whether `/opt`, `/tmp` and `/proc` are the environment's own.
    pub fn has_mounts(self) -> bool {
        self != Isolation::Processes
    }
}

/// Contains the [`Setup`] as JSON. Not an argument, because every process of the environment can read the arguments.
const SETUP_VARIABLE: &str = "LAMBDA_SANDBOX_SETUP";

/// The settings of a supervisor, which it gets before its first request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// Namespaces to make.
    pub isolation: Isolation,
    /// Files that enter the control groups: each started process writes `0` to all of them.
    pub entrances: Vec<PathBuf>,
    /// File and value that thaw the environment when the sandbox has ended.
    pub thaw: Option<(PathBuf, String)>,
    /// The environment's own root file system. Without it, the machine's with `mounts`.
    pub root: Option<RootSetup>,
    /// Bind mounts, in order.
    pub mounts: Vec<BindMount>,
    /// The environment's own files of `/proc`, if it has any.
    pub proc_view: Option<ProcViewSetup>,
    /// Make a network namespace. Its sockets come with [`Notice::Network`](protocol::Notice::Network).
    pub own_network: bool,
    /// Exit immediately: tests whether the isolation works.
    pub probe: bool,
}

impl Setup {
    /// The setup that this process was started with.
    fn from_variable() -> anyhow::Result<Setup> {
        let text = std::env::var(SETUP_VARIABLE).context("the setup of the environment is missing")?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Starts `helper` with this setup, without an environment. The error is its last message.
    fn probe(self, helper: &PathBuf) -> Result<(), String> {
        let probe = Setup { probe: true, ..self };
        let text = serde_json::to_string(&probe).map_err(|error| error.to_string())?;
        let mut command = Command::new(helper);
        command.arg(launch::SUBCOMMAND).env(SETUP_VARIABLE, text).stdin(Stdio::null());
        let output = command.output().map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        let message = String::from_utf8_lossy(&output.stderr);
        Err(message.lines().last().unwrap_or_default().trim_start_matches("lambda-sandbox: ").to_owned())
    }

    /// No groups, no mounts.
    pub fn bare(isolation: Isolation) -> Setup {
        Setup {
            isolation,
            entrances: Vec::new(),
            thaw: None,
            root: None,
            mounts: Vec::new(),
            proc_view: None,
            own_network: false,
            probe: false,
        }
    }
}

/// One bind mount.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BindMount {
    /// What is mounted.
    pub source: PathBuf,
    /// Where; must exist.
    pub target: PathBuf,
    /// Reject writes through it.
    pub read_only: bool,
}
