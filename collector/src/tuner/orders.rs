//! Requests of people to the running tuner: files in the data folder, so that they need neither AWS nor the network.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::plan::Plan;

/// The folder of the requests in the data folder.
pub const FOLDER: &str = "tuner-requests";

/// One request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Order {
    /// Start no change, and undo the open ones.
    Freeze {
        /// The reason.
        reason: String,
    },
    /// Changes are possible again.
    Unfreeze {
        /// The reason.
        reason: String,
    },
    /// Undo one change.
    Rollback {
        /// The function.
        function: String,
        /// The change; the latest one when absent.
        change_id: Option<String>,
    },
    /// Freeze, and undo all changes that are in force.
    RevertAll {
        /// The reason.
        reason: String,
    },
    /// Make the changes of a plan, if their functions are as they were.
    Apply {
        /// The plan.
        plan: Plan,
    },
}

/// Writes a request into the data folder. It is on disk afterwards.
///
/// # Errors
/// The error of the file system.
pub fn submit(data: &Path, order: &Order, now_us: u64) -> std::io::Result<PathBuf> {
    let folder = data.join(FOLDER);
    fs::create_dir_all(&folder)?;
    let name = format!("{now_us:020}-{}.json", std::process::id());
    let temporary = folder.join(format!("{name}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all(serde_json::to_string_pretty(order)?.as_bytes())?;
    file.sync_all()?;
    let path = folder.join(name);
    fs::rename(&temporary, &path)?;
    File::open(&folder)?.sync_all()?;
    Ok(path)
}

/// The files of the requests that were not carried out, oldest first.
#[must_use]
pub fn pending(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort_unstable();
    files
}

/// Reads a request. A file that cannot be read is renamed, so that it does not block others.
#[must_use]
pub fn read(path: &Path) -> Option<Order> {
    let text = fs::read_to_string(path).ok()?;
    match serde_json::from_str(&text) {
        Ok(order) => Some(order),
        Err(error) => {
            tracing::warn!(%error, "cannot read the request {}", path.display());
            let _ = fs::rename(path, path.with_extension("invalid"));
            None
        }
    }
}

/// Removes a request that was carried out.
pub fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(%error, "cannot remove the request {}", path.display());
    }
}
