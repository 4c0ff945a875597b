//! Finding the function's processes among all that can be seen.
//!
//! On Lambda the platform's process starts both the runtime and the extensions, so the function's processes
//! are the descendants of our own parent, except extensions and what extensions started. An extension may be a
//! script that runs a program from anywhere; what gives it away is that Lambda withholds variables from extensions that
//! it gives the runtime. A runtime may have overwritten or dropped all of them, and then nothing would be measured:
//! where no process shows any, none is asked for.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::files::read_once;
use super::parse;

/// Generations that are followed upwards; deeper trees are not the function's business, and a bound keeps a
/// process that re-parents while we look from sending us round in circles.
const MAX_GENERATIONS: usize = 32;

/// What Lambda tells every runtime and no extension. Source: "Augment Lambda functions using Lambda extensions",
/// the variables that extensions do not have.
const TOLD_TO_RUNTIMES: [&[u8]; 4] =
    [b"LAMBDA_TASK_ROOT=", b"_HANDLER=", b"LAMBDA_RUNTIME_DIR=", b"AWS_LAMBDA_LOG_GROUP_NAME="];

#[derive(Debug)]
pub(super) struct Scanner {
    own_pid: i32,
    platform_pid: i32,
    /// Where extensions live: the folder of our own executable.
    extensions: Option<PathBuf>,
    /// Whether a process is the function's, by id. Forgotten when the process is.
    verdicts: HashMap<i32, bool>,
    /// Only what shows that it is a runtime is taken for one.
    asks_for_signs: bool,
    /// Something was refused for want of signs alone.
    refused: bool,
    /// The platform's children that are looked at; other tests have some, too.
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
            verdicts: HashMap::new(),
            asks_for_signs: true,
            refused: false,
            #[cfg(test)]
            only: None,
        }
    }

    /// Takes this process for the platform.
    pub(super) fn of_children() -> Self {
        let own_pid = nix::unistd::getpid().as_raw();
        Self {
            own_pid,
            platform_pid: own_pid,
            extensions: None,
            verdicts: HashMap::new(),
            asks_for_signs: true,
            refused: false,
            #[cfg(test)]
            only: None,
        }
    }

    /// Takes these and their descendants for the function's, and nothing else.
    #[cfg(test)]
    pub(super) fn forget_all_but(&mut self, pids: Vec<i32>) {
        self.only = Some(pids);
    }

    /// So many of the function's processes that are not `known` (by rising id) yet, and whether there may be more.
    pub(super) fn new_pids(&mut self, known: &[i32], room: usize) -> (Vec<i32>, bool) {
        let Ok(entries) = fs::read_dir("/proc") else { return (vec![], false) };
        let mut pids: Vec<i32> =
            entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        pids.sort_unstable();
        self.verdicts.retain(|pid, _| pids.binary_search(pid).is_ok());
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

    /// From now on takes what shows no sign, too; whether that makes a difference.
    pub(super) fn ask_for_no_signs(&mut self) -> bool {
        self.asks_for_signs = false;
        self.verdicts.clear();
        std::mem::take(&mut self.refused)
    }

    fn belongs_to_function(&mut self, pid: i32, generations: usize) -> bool {
        if pid == self.own_pid || pid == self.platform_pid || generations == 0 {
            return false;
        }
        if let Some(&verdict) = self.verdicts.get(&pid) {
            return verdict;
        }
        let Some(parent) = parent_of(pid) else { return false };
        let verdict = if parent == self.platform_pid {
            self.is_of_this_environment(pid) && !self.is_extension(pid) && self.is_runtime(pid)
        } else {
            self.belongs_to_function(parent, generations - 1) && !self.is_extension(pid)
        };
        self.verdicts.insert(pid, verdict);
        verdict
    }

    #[cfg(test)]
    fn is_of_this_environment(&self, pid: i32) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(&pid))
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "tests share a machine")]
    const fn is_of_this_environment(&self, _: i32) -> bool {
        true
    }

    fn is_runtime(&mut self, pid: i32) -> bool {
        let is_runtime = !self.asks_for_signs || is_told_of_the_function(pid);
        self.refused |= !is_runtime;
        is_runtime
    }

    /// Whether the process runs an executable, or a script, of the folder extensions live in.
    fn is_extension(&self, pid: i32) -> bool {
        let Some(folder) = &self.extensions else { return false };
        let runs = |path: &Path| path.parent() == Some(folder.as_path());
        fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|path| runs(&path))
            || fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
                line.split(|&byte| byte == 0).take(2).any(|word| runs(Path::new(OsStr::from_bytes(word))))
            })
    }
}

/// Whether the process has a variable that extensions do not have; one whose environment cannot be read has the
/// benefit of the doubt.
fn is_told_of_the_function(pid: i32) -> bool {
    fs::read(format!("/proc/{pid}/environ")).map_or(true, |environment| {
        let variables = environment.split(|&byte| byte == 0);
        variables.into_iter().any(|variable| TOLD_TO_RUNTIMES.iter().any(|name| variable.starts_with(name)))
    })
}

fn parent_of(pid: i32) -> Option<i32> {
    Some(read_once(&format!("/proc/{pid}/stat"), parse::stat)?.parent)
}
