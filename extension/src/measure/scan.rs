//! Finds the function's processes.
//!
//! On Lambda the platform's process starts both the runtime and the extensions, and is process 1 of a namespace that has
//! the processes of one environment only. There every process is the function's except the platform's, our own, and
//! extensions with what they started. This includes a server that runs in the background and has replaced its variables
//! by a title.
//!
//! Where the environment shares its process namespace with others, the function's processes are the descendants of our own
//! parent that have a runtime's variables, except extensions and their descendants.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::files::read_once;
use super::parse;

/// The most generations between a process and the platform's process. The limit also ends a loop that a process with a
/// changing parent could cause.
const MAX_GENERATIONS: usize = 32;

/// Variables that Lambda sets for every runtime and no extension. Source: "Augment Lambda functions using Lambda
/// extensions".
const RUNTIME_ONLY_VARIABLES: [&[u8]; 4] =
    [b"LAMBDA_TASK_ROOT=", b"_HANDLER=", b"LAMBDA_RUNTIME_DIR=", b"AWS_LAMBDA_LOG_GROUP_NAME="];

/// A variable that Lambda sets for every runtime and every extension.
const COMMON_VARIABLE: &[u8] = b"AWS_LAMBDA_RUNTIME_API=";

/// The first process of a namespace.
const FIRST_PID: i32 = 1;

/// What the process namespace of this process contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Namespace {
    /// The processes of one environment.
    Environment,
    /// Other processes, too.
    Shared,
}

/// Whose process it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Function,
    /// An extension, or what it started.
    Extension,
    /// The kernel, or a process from outside the environment.
    Outside,
    /// It has no variables of a runtime. It is the function's if no process has them.
    MayBeRuntime,
}

#[derive(Debug)]
pub(super) struct Scanner {
    own_pid: i32,
    platform_pid: i32,
    namespace: Namespace,
    /// The folder of extensions: that of our own executable.
    extensions: Option<PathBuf>,
    /// By process id. Removed when the process ends.
    owners: HashMap<i32, Owner>,
    /// When the first runtime began, in clock ticks since the system started.
    runtime_started_ticks: Option<u64>,
    /// No process has a runtime's variables, so others count as runtimes.
    accepts_any: bool,
    /// A process was between `fork` and `exec`, so that its owner is not known yet.
    is_undecided: bool,
    /// The only children of the platform to read: other tests have children, too.
    #[cfg(test)]
    only: Option<Vec<i32>>,
}

impl Scanner {
    pub(super) fn of_this_process() -> Self {
        let parent = nix::unistd::getppid().as_raw();
        let namespace = if parent == FIRST_PID { Namespace::Environment } else { Namespace::Shared };
        let executable = std::env::current_exe().ok();
        Self {
            extensions: executable.and_then(|path| path.parent().map(Path::to_owned)),
            ..Self::with(parent, namespace)
        }
    }

    /// Uses this process as the platform.
    pub(super) fn of_children() -> Self {
        Self::with(nix::unistd::getpid().as_raw(), Namespace::Shared)
    }

    fn with(platform_pid: i32, namespace: Namespace) -> Self {
        Self {
            own_pid: nix::unistd::getpid().as_raw(),
            platform_pid,
            namespace,
            extensions: None,
            owners: HashMap::new(),
            runtime_started_ticks: None,
            accepts_any: false,
            is_undecided: false,
            #[cfg(test)]
            only: None,
        }
    }

    /// Reads only these processes and their descendants.
    #[cfg(test)]
    pub(super) fn restrict_to(&mut self, pids: Vec<i32>) {
        self.only = Some(pids);
    }

    #[cfg(test)]
    pub(super) fn set_namespace(&mut self, namespace: Namespace) {
        self.namespace = namespace;
    }

    /// What the process namespace contains.
    pub(super) const fn namespace(&self) -> Namespace {
        self.namespace
    }

    /// The platform's process.
    pub(super) const fn platform_pid(&self) -> i32 {
        self.platform_pid
    }

    /// The other extensions and what they started. What may be a runtime is one of them while a runtime is known: a script
    /// in the folder of extensions that ended with `exec` has the variables of an extension, and another executable.
    pub(super) fn extension_pids(&self) -> impl Iterator<Item = i32> + '_ {
        let is_other = |owner| matches!(owner, Owner::Extension | Owner::MayBeRuntime);
        self.owners.iter().filter(move |&(_, owner)| is_other(*owner)).map(|(&pid, _)| pid)
    }

    /// At most `room` of the function's processes that are not `known` (in ascending order), and whether there may be more.
    pub(super) fn new_pids(&mut self, known: &[i32], room: usize) -> (Vec<i32>, bool) {
        let Ok(entries) = fs::read_dir("/proc") else { return (vec![], false) };
        let mut pids: Vec<i32> =
            entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        pids.sort_unstable();
        self.owners.retain(|pid, _| pids.binary_search(pid).is_ok());
        self.is_undecided = false;
        if self.namespace == Namespace::Environment && self.runtime_started_ticks.is_none() {
            self.runtime_started_ticks = pids.iter().filter_map(|&pid| self.runtime_start(pid)).min();
        }
        let mut found = vec![];
        for pid in pids {
            if known.binary_search(&pid).is_err() && self.owner(pid, MAX_GENERATIONS) == Owner::Function {
                if found.len() == room {
                    return (found, true);
                }
                found.push(pid);
            }
        }
        (found, self.is_undecided)
    }

    /// From now on a process without a runtime's variables may be a runtime. `true` when there is one. Only where every
    /// process is of this environment.
    pub(super) fn accept_any_runtime(&mut self) -> bool {
        if self.namespace == Namespace::Shared || self.accepts_any {
            return false;
        }
        let found = self.owners.values().any(|owner| *owner == Owner::MayBeRuntime);
        self.accepts_any = found;
        if found {
            self.owners.clear();
        }
        found
    }

    /// When this process began, if it is a runtime: in clock ticks since the system started.
    fn runtime_start(&self, pid: i32) -> Option<u64> {
        let stat = read_once(&format!("/proc/{pid}/stat"), parse::stat)?;
        let is_runtime = stat.parent == self.platform_pid
            && self.is_of_this_environment(pid)
            && !self.is_not_executed(pid)
            && !self.is_extension(pid)
            && variables_of(pid) == Variables::Runtime;
        is_runtime.then_some(stat.started_ticks)
    }

    fn owner(&mut self, pid: i32, generations: usize) -> Owner {
        if pid == self.own_pid {
            return Owner::Extension;
        }
        if pid == self.platform_pid || generations == 0 {
            return Owner::Outside;
        }
        if let Some(&owner) = self.owners.get(&pid) {
            return owner;
        }
        let Some(stat) = read_once(&format!("/proc/{pid}/stat"), parse::stat) else { return Owner::Outside };
        let owner = if stat.parent == self.platform_pid {
            if self.is_not_executed(pid) {
                self.is_undecided = true;
                return Owner::Outside;
            }
            self.owner_of_child(pid, stat.started_ticks)
        } else if stat.parent == 0 {
            Owner::Outside
        } else {
            match self.owner(stat.parent, generations - 1) {
                Owner::Function if self.is_extension(pid) => Owner::Extension,
                owner => owner,
            }
        };
        self.owners.insert(pid, owner);
        owner
    }

    /// The owner of a child of the platform's process: a runtime, an extension, or a process whose parent ended.
    fn owner_of_child(&mut self, pid: i32, started_ticks: u64) -> Owner {
        if !self.is_of_this_environment(pid) {
            return Owner::Outside;
        }
        if self.is_extension(pid) {
            return Owner::Extension;
        }
        match variables_of(pid) {
            Variables::Runtime | Variables::Unreadable => Owner::Function,
            _ if self.accepts_any => Owner::Function,
            Variables::Extension => Owner::MayBeRuntime,
            Variables::Other => match self.namespace {
                Namespace::Shared => Owner::Outside,
                // Extensions start before the runtime.
                Namespace::Environment
                    if self.runtime_started_ticks.is_some_and(|ticks| started_ticks < ticks) =>
                {
                    Owner::Extension
                }
                Namespace::Environment => Owner::Function,
            },
        }
    }

    #[cfg(test)]
    fn is_of_this_environment(&self, pid: i32) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(&pid))
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "the test variant uses it")]
    const fn is_of_this_environment(&self, _: i32) -> bool {
        true
    }

    /// Whether the process still runs the platform's executable: it is between `fork` and `exec`.
    fn is_not_executed(&self, pid: i32) -> bool {
        let executable = |pid: i32| fs::read_link(format!("/proc/{pid}/exe")).ok();
        executable(pid).is_some_and(|path| executable(self.platform_pid) == Some(path))
    }

    /// Whether the process runs an executable or a script in the folder of extensions.
    fn is_extension(&self, pid: i32) -> bool {
        let Some(folder) = &self.extensions else { return false };
        let runs = |path: &Path| path.parent() == Some(folder.as_path());
        fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|path| runs(&path))
            || fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
                line.split(|&byte| byte == 0).take(2).any(|word| runs(Path::new(OsStr::from_bytes(word))))
            })
    }
}

/// What the variables of a process show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variables {
    /// One that only runtimes have.
    Runtime,
    /// Those of an extension, or of a runtime that removed some.
    Extension,
    /// None of Lambda: they were removed or overwritten.
    Other,
    Unreadable,
}

fn variables_of(pid: i32) -> Variables {
    let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else { return Variables::Unreadable };
    let has = |name: &[u8]| environment.split(|&byte| byte == 0).any(|variable| variable.starts_with(name));
    if RUNTIME_ONLY_VARIABLES.iter().any(|name| has(name)) {
        Variables::Runtime
    } else if has(COMMON_VARIABLE) {
        Variables::Extension
    } else {
        Variables::Other
    }
}
