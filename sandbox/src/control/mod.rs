//! The part of the AWS Lambda API that concerns functions: the operations that SDKs, the CLI and deployment tools use.
//!
//! Requests need not be signed: signatures are accepted and ignored.
//!
//! - [`catalog`]: all functions, with the rules for finding and changing them;
//! - `functions`, `code`, [`versions_aliases`], `invoke`: the operations, by subject;
//! - [`server`]: routes, error responses, the request limit and the API of the sandbox itself.

pub mod catalog;
mod code;
mod functions;
mod invoke;
pub mod server;
pub mod versions_aliases;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fleet::{Fleet, Target};
use catalog::Catalog;
use catalog::record::{LATEST, Record};
pub use code::folders::{FolderError, Folders};
pub use invoke::direct::CompletedInvocation;
use server::throttle::Throttle;

/// The control plane of one account in one region.
pub struct ControlPlane {
    fleet: Arc<Fleet>,
    region: String,
    catalog: Mutex<Catalog>,
    layers: OnceLock<Vec<PathBuf>>,
    throttle: Throttle,
}

impl ControlPlane {
    /// A control plane without functions. A change of a function stays `InProgress` for `update_delay`.
    /// `rate` limits requests a second to all operations but Invoke and GetFunction.
    pub fn new(fleet: Arc<Fleet>, region: &str, update_delay: Duration, rate: Option<f64>) -> ControlPlane {
        let catalog = Catalog::new(region, &fleet.platform().account, update_delay);
        ControlPlane {
            fleet,
            region: region.to_owned(),
            catalog: Mutex::new(catalog),
            layers: OnceLock::new(),
            throttle: Throttle::new(rate),
        }
    }

    /// Layers of functions that are created over the API; those of [`Folders`] after the first load.
    fn layers(&self) -> &[PathBuf] {
        self.layers.get().map_or(&[], Vec::as_slice)
    }

    /// Adds every function found by `folders`; their names.
    pub fn load(&self, folders: &Folders, folder: &Path) -> Result<Vec<String>, FolderError> {
        let _ = self.layers.set(folders.layers.clone());
        let records = folders.load(folder, &self.region, &mut self.catalog())?;
        let mut names = Vec::new();
        for (record, provisioned) in records {
            names.push(record.name.clone());
            let (config, generation) = (record.latest.config.clone(), record.latest.generation);
            self.catalog().insert(record);
            if provisioned > 0 {
                let target = Target { config, generation, reserved_concurrency: None };
                self.fleet.provision(&target, provisioned).map_err(FolderError::Provision)?;
            }
        }
        Ok(names)
    }

    fn catalog(&self) -> MutexGuard<'_, Catalog> {
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trace(&self, event: &str, configuration: &Value) {
        self.fleet.platform().trace.event(event, configuration.clone());
    }

    /// Retires the environments of the previous configuration when the new one applies.
    fn retire_when_settled(&self, record: &Record) {
        let (name, generation) = (record.name.clone(), record.latest.generation);
        let fleet = self.fleet.clone();
        let until = record.pending.as_ref().map_or_else(Instant::now, |pending| pending.until);
        tokio::spawn(async move {
            tokio::time::sleep_until(until.into()).await;
            fleet.retire(&name, LATEST, generation);
        });
    }
}
