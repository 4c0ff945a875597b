//! The durable record of a running experiment. It is written before the first change of the function and removed when
//! everything that was made is removed, so another process can finish the clean-up after a kill.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::store::FunctionKey;

/// What an experiment changes, and what was there before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Function name.
    pub function: String,
    /// AWS account; empty when not known.
    pub account: String,
    /// AWS region.
    pub region: String,
    /// URL of the Lambda API, if it is not AWS.
    pub endpoint: Option<String>,
    /// The description of `$LATEST` and of all versions of this experiment begins with this text.
    pub marker: String,
    /// Memory size of `$LATEST` before, MB.
    pub memory_mb: u32,
    /// Description of `$LATEST` before.
    pub description: String,
}

impl Record {
    /// The key of the function.
    #[must_use]
    pub fn key(&self) -> FunctionKey {
        FunctionKey {
            account: self.account.clone(),
            region: self.region.clone(),
            name: self.function.clone(),
        }
    }
}

/// The file with the record.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
}

/// Why the state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// There is one already.
    #[error("{0} exists: an experiment runs, or was killed; `tailor tune --cleanup` removes what it made")]
    Exists(PathBuf),
    /// It cannot be read or written.
    #[error("cannot access {0}")]
    Access(PathBuf, #[source] io::Error),
    /// It has another form.
    #[error("{0} is not the record of an experiment: name its file with --state")]
    Invalid(PathBuf, #[source] serde_json::Error),
}

impl StateFile {
    /// Writes the record. The file is on disk when this returns.
    ///
    /// # Errors
    /// When there is a record already, or the file cannot be written.
    pub fn create(path: &Path, record: &Record) -> Result<Self, StateError> {
        let access = |error| StateError::Access(path.to_owned(), error);
        let text = serde_json::to_vec_pretty(record).map_err(|error| access(error.into()))?;
        // A record that is half written by a crash must not block the next experiment, so it gets its name last.
        let new = path.with_extension(format!("{}.new", std::process::id()));
        let mut file = File::create(&new).map_err(access)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(access)?;
        let linked = fs::hard_link(&new, path);
        let _ = fs::remove_file(&new);
        match linked {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(StateError::Exists(path.to_owned()));
            }
            other => other.map_err(access)?,
        }
        let folder =
            path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        OpenOptions::new().read(true).open(folder).and_then(|folder| folder.sync_all()).map_err(access)?;
        Ok(Self { path: path.to_owned() })
    }

    /// Reads the record of an earlier experiment; `None` when there is none.
    ///
    /// # Errors
    /// When the file cannot be read or has another form.
    pub fn open(path: &Path) -> Result<Option<(Self, Record)>, StateError> {
        let text = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|error| StateError::Access(path.to_owned(), error))?,
        };
        let record =
            serde_json::from_slice(&text).map_err(|error| StateError::Invalid(path.to_owned(), error))?;
        Ok(Some((Self { path: path.to_owned() }, record)))
    }

    /// Removes the record: nothing is left to clean up.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn remove(self) -> Result<(), StateError> {
        fs::remove_file(&self.path).map_err(|error| StateError::Access(self.path.clone(), error))
    }
}
