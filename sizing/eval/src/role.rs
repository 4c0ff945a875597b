//! Roles of the data sets: what may be fitted to, and what may only be scored.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, bail};

/// The file in a data set's folder that has its role.
const FILE: &str = "ROLE";

/// The data sets of this folder that the model's constants were fitted to. `evaluate` prints them.
pub const FITTED_TO: [&str; 3] =
    ["throttled-functions", "sandbox-functions", "the training functions of truth.json.gz"];

/// What a data set may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Constants of the model are fitted to it. Errors on it are too small.
    Train,
    /// Nothing is fitted to it. Changes of the model are judged on it and on the training data together.
    Validation,
    /// Scored once for a release, and used for no decision.
    Final,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Final => "final",
        })
    }
}

impl FromStr for Role {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        Ok(match text.trim() {
            "train" => Self::Train,
            "validation" => Self::Validation,
            "final" => Self::Final,
            other => bail!("`{other}` is no role: a role is train, validation or final"),
        })
    }
}

/// The role of the data set at `path`: of a folder, what its file `ROLE` has. A single file is a training set.
///
/// # Errors
/// When the folder has no `ROLE`, or another word is in it.
pub fn of(path: &Path) -> anyhow::Result<Role> {
    if !path.is_dir() {
        return Ok(Role::Train);
    }
    let file = path.join(FILE);
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("cannot read {}: write the data set's role into it", file.display()))?;
    text.parse().with_context(|| file.display().to_string())
}
