//! The files of the data folder: the lock, the identity of the database, and whether the files are still the same.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension};

use crate::files::cause;
use crate::random;
use crate::store::StoreError;

/// Name of the database file in the data folder.
pub(in crate::store) const FILE_NAME: &str = "tailor.sqlite";

/// Name of the lock file, which the writing collector holds.
pub(super) const LOCK_NAME: &str = "serve.lock";

/// Name of the file with the id of the folder's database.
const ID_NAME: &str = "store-id";

/// Small files of the data folder that a backup has in its table `meta`: what other tools recommend, the last comparisons with
/// AWS's bill, and the tags that pipelines sent.
pub(super) const COPIED_FILES: [&str; 3] = ["recommendations.json", "reconciliation.json", "sent-tags.json"];

/// Begins the names of these values.
pub(super) const COPIED_PREFIX: &str = "file/";

/// The database and its write-ahead log, as they were opened.
pub(super) struct OpenFiles {
    files: Vec<(PathBuf, (u64, u64))>,
}

impl OpenFiles {
    pub(super) fn of(folder: &Path) -> Result<Self, StoreError> {
        let names = [FILE_NAME.to_owned(), format!("{FILE_NAME}-wal")];
        let files = names.map(|name| folder.join(name)).into_iter().map(|path| {
            let identity = identity(&path).map_err(|error| unreadable(&path, &error))?;
            Ok::<_, StoreError>((path, identity))
        });
        Ok(Self { files: files.collect::<Result<_, _>>()? })
    }

    /// Fails when a file was deleted or replaced. Writes would then go to a file that cannot be opened again.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        for (path, opened) in &self.files {
            match identity(path) {
                Ok(found) if found == *opened => {}
                Ok(_) => {
                    return Err(StoreError::FilesChanged(format!("{} was replaced", path.display())));
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    return Err(StoreError::FilesChanged(format!("{} was deleted", path.display())));
                }
                Err(error) => return Err(unreadable(path, &error)),
            }
        }
        Ok(())
    }
}

fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    std::fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// The error for a file that cannot be read.
pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Engine(format!("cannot read {}: {error}", path.display()))
}

/// Rejects a database that is missing or empty in a folder that had one. Called before the database is opened.
pub(super) fn check_not_emptied(folder: &Path) -> Result<(), StoreError> {
    let Some(id) = read_id(folder)? else { return Ok(()) };
    let path = folder.join(FILE_NAME);
    let length = match std::fs::metadata(&path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == ErrorKind::NotFound => 0,
        Err(error) => return Err(unreadable(&path, &error)),
    };
    if length > 0 { Ok(()) } else { Err(missing(folder, &id)) }
}

fn missing(folder: &Path, id: &str) -> StoreError {
    StoreError::FilesChanged(format!(
        "{} is missing, empty or another database than {id}; to begin with an empty store, remove {}",
        folder.join(FILE_NAME).display(),
        folder.join(ID_NAME).display()
    ))
}

/// The id of the store in `folder`; `None` before its first start.
///
/// # Errors
/// [`StoreError::Engine`] when the file with it cannot be read.
pub fn store_id(folder: &Path) -> Result<Option<String>, StoreError> {
    read_id(folder)
}

pub(super) fn read_id(folder: &Path) -> Result<Option<String>, StoreError> {
    let path = folder.join(ID_NAME);
    match std::fs::read_to_string(&path) {
        // The file is empty when the first start ended between its creation and its content.
        Ok(id) => Ok(Some(id.trim().to_owned()).filter(|id| !id.is_empty())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(&path, &error)),
    }
}

/// Compares the id in the database with that in the folder, after the schema is current. Both are written at the first
/// start.
pub(super) fn check_id(connection: &Connection, folder: &Path) -> Result<(), StoreError> {
    let stored: Option<String> =
        connection.query_row("SELECT value FROM meta WHERE name = 'id'", [], |row| row.get(0)).optional()?;
    match (read_id(folder)?, stored) {
        (Some(expected), Some(stored)) if expected == stored => Ok(()),
        (Some(expected), _) => Err(missing(folder, &expected)),
        (None, Some(stored)) => write_id(folder, &stored),
        (None, None) => {
            let id = random::hex::<8>()?;
            connection.execute("INSERT INTO meta (name, value) VALUES ('id', ?1)", [&id])?;
            write_id(folder, &id)
        }
    }
}

/// Copies the small files of `folder` into the table `meta` of a backup.
pub(super) fn copy_into(backup: &Connection, folder: &Path) -> Result<(), StoreError> {
    for name in COPIED_FILES {
        let path = folder.join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let sql = "INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)";
                backup.execute(sql, [format!("{COPIED_PREFIX}{name}"), text])?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(&path, &error)),
        }
    }
    Ok(())
}

/// Writes the small files that a restored backup has into its folder, unless the folder has them, and removes them from the
/// database. Called at the start.
pub(super) fn restore(connection: &Connection, folder: &Path) -> Result<(), StoreError> {
    for name in COPIED_FILES {
        let (key, path) = (format!("{COPIED_PREFIX}{name}"), folder.join(name));
        let sql = "SELECT value FROM meta WHERE name = ?1";
        let text: Option<String> = connection.query_row(sql, [&key], |row| row.get(0)).optional()?;
        let Some(text) = text else { continue };
        if !path.exists() {
            // A start that ends here writes it again.
            crate::files::replace(&path, &text)
                .map_err(|error| StoreError::Engine(format!("cannot write {}: {error}", path.display())))?;
        }
        connection.execute("DELETE FROM meta WHERE name = ?1", [&key])?;
    }
    Ok(())
}

fn write_id(folder: &Path, id: &str) -> Result<(), StoreError> {
    let path = folder.join(ID_NAME);
    let written =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path).and_then(
            |mut file| {
                writeln!(file, "{id}")?;
                file.sync_all()?;
                File::open(folder)?.sync_all()
            },
        );
    written.map_err(|error| match error.kind() {
        ErrorKind::StorageFull => StoreError::Full(folder.display().to_string()),
        _ => StoreError::Engine(format!("cannot write {}: {error}", path.display())),
    })
}

/// Whether nothing is only in the write-ahead log, as after a regular stop.
pub(super) fn is_log_empty(folder: &Path) -> bool {
    !std::fs::metadata(folder.join(format!("{FILE_NAME}-wal"))).is_ok_and(|log| log.len() > 0)
}

/// Whether a collector has this folder open for writing.
#[must_use]
pub fn is_served(folder: &Path) -> bool {
    File::open(folder.join(LOCK_NAME)).is_ok_and(|file| file.try_lock_shared().is_err())
}

pub(in crate::store) fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join(LOCK_NAME);
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(|error| {
            StoreError::Engine(format!("cannot open {}: {}", path.display(), cause(&error)))
        })?;
    // The kernel releases the lock when the process ends, also after a crash.
    file.try_lock().map_err(|_| {
        StoreError::Engine(format!("{} is in use by another `tailor serve`", folder.display()))
    })?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::SqliteStore;

    #[test]
    fn an_empty_id_is_that_of_an_unfinished_first_start() {
        let folder = tempfile::tempdir().unwrap();
        drop(SqliteStore::open(folder.path()).unwrap());
        let id = read_id(folder.path()).unwrap();
        std::fs::write(folder.path().join(ID_NAME), "").unwrap();
        drop(SqliteStore::open(folder.path()).unwrap());
        assert!(id.is_some() && read_id(folder.path()).unwrap() == id);
    }
}
