//! Finds the function's processes.
//!
//! On Lambda the platform's process starts both the runtime and the extensions. So the function's processes are the
//! descendants of our own parent, except extensions and their descendants. An extension may be a script that runs a
//! program in any folder; it is recognized because Lambda sets some variables for the runtime only. A runtime may have
//! removed these variables. When no process has them, all processes except extensions are measured.

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

#[derive(Debug)]
pub(super) struct Scanner {
    own_pid: i32,
    platform_pid: i32,
    /// The folder of extensions: that of our own executable.
    extensions: Option<PathBuf>,
    /// By process id: whether the process belongs to the function. Removed when the process ends.
    decisions: HashMap<i32, bool>,
    /// Only a process with a runtime's variables is a runtime.
    requires_variables: bool,
    /// A process was excluded only because it has no such variable.
    rejected_any: bool,
    /// The only children of the platform to read: other tests have children, too.
    #[cfg(test)]
    only: Option<Vec<i32>>,
}

impl Scanner {
    pub(super) fn of_this_process() -> Self {
        let executable = std::env::current_exe().ok();
        Self {
            own_pid: nix::unistd::getpid().as_raw(),
            platform_pid: nix::unistd::getppid().as_raw(),
            extensions: executable.and_then(|path| path.parent().map(Path::to_owned)),
            decisions: HashMap::new(),
            requires_variables: true,
            rejected_any: false,
            #[cfg(test)]
            only: None,
        }
    }

    /// Uses this process as the platform.
    pub(super) fn of_children() -> Self {
        let own_pid = nix::unistd::getpid().as_raw();
        Self {
            own_pid,
            platform_pid: own_pid,
            extensions: None,
            decisions: HashMap::new(),
            requires_variables: true,
            rejected_any: false,
            #[cfg(test)]
            only: None,
        }
    }

    /// Reads only these processes and their descendants.
    #[cfg(test)]
    pub(super) fn restrict_to(&mut self, pids: Vec<i32>) {
        self.only = Some(pids);
    }

    /// At most `room` of the function's processes that are not `known` (in ascending order), and whether there may be more.
    pub(super) fn new_pids(&mut self, known: &[i32], room: usize) -> (Vec<i32>, bool) {
        let Ok(entries) = fs::read_dir("/proc") else { return (vec![], false) };
        let mut pids: Vec<i32> =
            entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        pids.sort_unstable();
        self.decisions.retain(|pid, _| pids.binary_search(pid).is_ok());
        let mut found = vec![];
        for pid in pids {
            if known.binary_search(&pid).is_err() && self.belongs_to_function(pid, MAX_GENERATIONS) {
                if found.len() == room {
                    return (found, true);
                }
                found.push(pid);
            }
        }
        (found, false)
    }

    /// From now on accepts processes without a runtime's variables. `true` when one was excluded before.
    pub(super) fn accept_without_variables(&mut self) -> bool {
        self.requires_variables = false;
        self.decisions.clear();
        std::mem::take(&mut self.rejected_any)
    }

    fn belongs_to_function(&mut self, pid: i32, generations: usize) -> bool {
        if pid == self.own_pid || pid == self.platform_pid || generations == 0 {
            return false;
        }
        if let Some(&decision) = self.decisions.get(&pid) {
            return decision;
        }
        let Some(parent) = parent_of(pid) else { return false };
        let decision = if parent == self.platform_pid {
            self.is_of_this_environment(pid) && !self.is_extension(pid) && self.is_runtime(pid)
        } else {
            self.belongs_to_function(parent, generations - 1) && !self.is_extension(pid)
        };
        self.decisions.insert(pid, decision);
        decision
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

    fn is_runtime(&mut self, pid: i32) -> bool {
        let is_runtime = !self.requires_variables || has_runtime_variables(pid);
        self.rejected_any |= !is_runtime;
        is_runtime
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

/// Whether the process has a variable that extensions do not have. `true` when its variables cannot be read.
fn has_runtime_variables(pid: i32) -> bool {
    fs::read(format!("/proc/{pid}/environ")).map_or(true, |environment| {
        let variables = environment.split(|&byte| byte == 0);
        variables
            .into_iter()
            .any(|variable| RUNTIME_ONLY_VARIABLES.iter().any(|name| variable.starts_with(name)))
    })
}

fn parent_of(pid: i32) -> Option<i32> {
    Some(read_once(&format!("/proc/{pid}/stat"), parse::stat)?.parent)
}
