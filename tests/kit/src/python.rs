//! Python packages that tests use, in Cargo's target folder.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

use crate::workspace::target_folder;

/// Installs packages, each with its version, unless they are there. Returns the folder for `PYTHONPATH`; its subfolder `bin`
/// has their programs.
///
/// # Errors
/// When Python or its package index cannot be used.
pub fn install(name: &str, packages: &[&str]) -> Result<PathBuf> {
    // The tests of one process run at the same time.
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _installing = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = target_folder()?.join(format!("python-{name}"));
    let marker = folder.join("installed");
    let expected = packages.join("\n");
    if fs::read_to_string(&marker).is_ok_and(|installed| installed == expected) {
        return Ok(folder);
    }
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--upgrade", "--target"]).arg(&folder).args(packages);
    // One package of a test has 50 MB: a slow index is tried again for some minutes.
    pip.env("PIP_RETRIES", "10").env("PIP_DEFAULT_TIMEOUT", "60");
    let output = pip.output().context("cannot start python3")?;
    ensure!(output.status.success(), "pip failed: {}", String::from_utf8_lossy(&output.stderr));
    fs::write(marker, expected)?;
    Ok(folder)
}
