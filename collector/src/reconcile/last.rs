//! The last reconciliation of each tenant, in a file of the data folder.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tailor_billing::compare::Status;

use super::Reconciliation;
use crate::files::replace;
use crate::store::Tenant;

/// The file in the data folder.
const FILE_NAME: &str = "reconciliation.json";

/// The version of its form.
const VERSION: u32 = 1;

/// Rows that are kept: those with the largest unexplained difference, then with the largest difference.
const MAX_ROWS: usize = 500;

/// The file.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    version: u32,
    tenants: BTreeMap<String, Reconciliation>,
}

/// The last reconciliations in a data folder.
#[derive(Debug, Clone)]
pub struct LastReconciliations {
    path: PathBuf,
}

impl LastReconciliations {
    /// Those of a data folder.
    #[must_use]
    pub fn of(folder: &Path) -> Self {
        Self { path: folder.join(FILE_NAME) }
    }

    /// Replaces the one of a tenant.
    ///
    /// # Errors
    /// When the file cannot be read or written, or a newer program wrote it.
    pub fn put(&self, tenant: &Tenant, result: &Reconciliation) -> anyhow::Result<()> {
        let lock_path = self.path.with_extension("lock");
        let lock = OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(&lock_path);
        let lock = lock.with_context(|| format!("cannot open {}", lock_path.display()))?;
        lock.lock().with_context(|| format!("cannot lock {}", lock_path.display()))?;
        let mut tenants = self.read()?;
        let mut rows: Vec<_> = result.differing_rows().into_iter().cloned().collect();
        rows.extend(result.rows.iter().filter(|row| row.status == Status::Equal).take(MAX_ROWS).cloned());
        rows.truncate(MAX_ROWS);
        tenants.insert(tenant.0.clone(), Reconciliation { rows, ..result.clone() });
        let text = serde_json::to_string(&Stored { version: VERSION, tenants })?;
        replace(&self.path, &text).with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// The one of a tenant, if there is one.
    ///
    /// # Errors
    /// When the file cannot be read, or a newer program wrote it.
    pub fn get(&self, tenant: &Tenant) -> anyhow::Result<Option<Reconciliation>> {
        Ok(self.read()?.remove(&tenant.0))
    }

    /// All of them, by tenant.
    ///
    /// # Errors
    /// When the file cannot be read, or a newer program wrote it.
    pub fn read(&self) -> anyhow::Result<BTreeMap<String, Reconciliation>> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", self.path.display())),
        };
        let stored: Stored = serde_json::from_slice(&text)
            .with_context(|| format!("{} is damaged: delete it and reconcile again", self.path.display()))?;
        anyhow::ensure!(
            stored.version == VERSION,
            "{} has version {}, and this program reads version {VERSION}: use the program that wrote it",
            self.path.display(),
            stored.version
        );
        Ok(stored.tenants)
    }
}
