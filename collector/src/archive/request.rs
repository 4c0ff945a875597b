//! The request to flush: a file in the data folder, so that it needs neither a key nor the network.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The file. The collector removes it when everything is uploaded.
pub const FILE_NAME: &str = "archive-flush";

/// Requests that a running collector uploads everything that it has stored.
///
/// # Errors
/// The error of the file system.
pub fn submit(folder: &Path) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(folder.join(FILE_NAME))
        .map(drop)
}

/// Whether there is a request.
#[must_use]
pub fn pending(folder: &Path) -> bool {
    folder.join(FILE_NAME).exists()
}

/// Removes the request.
pub fn finish(folder: &Path) {
    if let Err(error) = fs::remove_file(folder.join(FILE_NAME)) {
        tracing::warn!(%error, "cannot remove {FILE_NAME} in {}", folder.display());
    }
}
