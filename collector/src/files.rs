//! Small files of the data folder.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Replaces a file in one step, so that a reader, also after a crash, sees the old or the new content. It is on disk afterwards,
/// and only its owner may read it.
///
/// # Errors
/// When the new content cannot be written.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    replace_with_mode(path, text, 0o600)
}

/// [`replace`] with an access mode, of which the process's umask removes bits.
///
/// # Errors
/// When the new content cannot be written.
pub(crate) fn replace_with_mode(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(mode).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(path.parent().unwrap_or_else(|| Path::new(".")))?.sync_all()
}
