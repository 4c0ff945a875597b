//! The file with the usage that measurements do not show.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tailor_sizing::pricing::full_bill::GivenUsage;

use crate::files::read_text;
use crate::store::FunctionKey;
use crate::tags::file::key_of;

/// Maximum size of the file, bytes.
const MAX_BYTES: u64 = 16 << 20;

/// The usage of functions, as the user gives it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UsageTable {
    by_key: BTreeMap<FunctionKey, GivenUsage>,
    by_name: BTreeMap<String, GivenUsage>,
}

/// Why a usage file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// It cannot be read.
    #[error("cannot read the usage file {0}: {1}")]
    Io(PathBuf, std::io::Error),
    /// It is too large.
    #[error("{0} has more than {MAX_BYTES} bytes, the limit of a usage file")]
    TooLarge(PathBuf),
    /// It is not JSON of the documented form.
    #[error(
        "{0}: {1}; the file is JSON such as {{\"FUNCTION\": {{\"log_bytes\": 5000000000}}}}, see docs/bill.md"
    )]
    Form(PathBuf, String),
}

impl UsageTable {
    /// Reads a usage file: JSON with an object for each function, by name or ARN.
    ///
    /// # Errors
    /// [`UsageError`] with the place.
    pub fn read(path: &Path) -> Result<Self, UsageError> {
        let io = |error| UsageError::Io(path.to_owned(), error);
        if std::fs::metadata(path).map_err(io)?.len() > MAX_BYTES {
            return Err(UsageError::TooLarge(path.to_owned()));
        }
        let text = read_text(path).map_err(io)?;
        let form = |message: String| UsageError::Form(path.to_owned(), message);
        let entries: BTreeMap<String, GivenUsage> =
            serde_json::from_str(&text).map_err(|error| form(error.to_string()))?;
        let mut table = Self::default();
        for (function, usage) in entries {
            if function.starts_with("arn:") {
                let key = key_of(&function)
                    .ok_or_else(|| form(format!("`{function}` is not the ARN of a function")))?;
                table.by_key.insert(key, usage);
            } else {
                table.by_name.insert(function, usage);
            }
        }
        Ok(table)
    }

    /// The usage of a function. An entry with its ARN counts before one with its name.
    #[must_use]
    pub fn of(&self, function: &FunctionKey) -> GivenUsage {
        let entry = self.by_key.get(function).or_else(|| self.by_name.get(&function.name));
        entry.cloned().unwrap_or_default()
    }
}
