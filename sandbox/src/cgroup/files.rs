//! Reading and writing the small files of a control group.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{CgroupError, Owner};

pub(super) fn write(directory: &Path, file: &str, value: &str) -> Result<(), CgroupError> {
    let path = directory.join(file);
    // Not `fs::write`: these files cannot be truncated, only written in one call.
    OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut open| open.write_all(value.as_bytes()))
        .map_err(|source| CgroupError::File { action: "write", path, source })
}

pub(super) fn read_u64(directory: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(directory.join(file)).ok()?.trim().parse().ok()
}

/// The value of `key` in a file of `key value` lines.
pub(super) fn read_key(directory: &Path, file: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(directory.join(file)).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
}

pub(super) fn processes(directory: &Path) -> Vec<i32> {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

pub(super) fn make(directory: &Path) -> Result<(), CgroupError> {
    fs::create_dir_all(directory).map_err(|source| CgroupError::File {
        action: "create",
        path: directory.to_owned(),
        source,
    })
}

/// Kills all processes in `directory` and its sub-groups, and removes the groups. Retries for two seconds: a killed
/// process leaves its group only when the kernel has released it. Returns immediately if a group must not be removed.
pub(super) fn remove(directory: &Path) {
    for _ in 0..200 {
        match sweep(directory) {
            Ok(()) => return,
            Err(error) if is_in_use(&error) => thread::sleep(Duration::from_millis(10)),
            Err(error) => {
                tracing::debug!(directory = %directory.display(), %error, "control group is not removed");
                return;
            }
        }
    }
    tracing::warn!(directory = %directory.display(), "cannot remove control group");
}

fn sweep(directory: &Path) -> io::Result<()> {
    // In version 1 a frozen process does not end, so thaw before the kill; only the freezer's tree has the
    // file. In version 2 a frozen process ends immediately.
    let _ = write(directory, "freezer.state", "THAWED");
    for process in processes(directory) {
        let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
    }
    let inner = children(directory).iter().map(|child| sweep(child)).fold(Ok(()), Result::and);
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => inner.and(removed),
    }
}

fn is_in_use(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::DirectoryNotEmpty)
}

/// Removes the groups in `parent` whose sandbox has ended.
pub(super) fn remove_leftovers(parent: &Path) {
    for directory in children(parent) {
        let owner = directory.file_name().and_then(|name| Owner::parse(&name.to_string_lossy()));
        if owner.is_some_and(|owner| !owner.is_alive()) {
            remove(&directory);
        }
    }
}

/// The sub-groups of `directory`.
fn children(directory: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}
