//! Functions from folders.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::config::{
    Architecture, FileError, FunctionConfig, FunctionFile, GIB_PER_VCPU, InitializationType, load_folder,
};
use crate::control::catalog::Catalog;
use crate::control::catalog::record::{LATEST, Record, Revision, new_revision_id};
use crate::fleet::FleetError;

/// Why functions cannot be loaded.
#[derive(Debug, Error)]
pub enum FolderError {
    #[error("cannot read the functions folder {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot start provisioned environments")]
    Provision(#[source] FleetError),
    #[error(transparent)]
    File(#[from] FileError),
}

/// Settings for all functions that are loaded from folders.
#[derive(Clone, Debug, Default)]
pub struct Folders {
    /// Layers of every function, before its own.
    pub layers: Vec<PathBuf>,
}

/// A function from a folder, and its provisioned concurrency.
pub(in crate::control) type Loaded = (Record, u32);

impl Folders {
    /// The functions in `folder`: itself, if it has a `function.toml`, else its sub-folders that have one.
    pub(in crate::control) fn load(
        &self,
        folder: &Path,
        region: &str,
        catalog: &mut Catalog,
    ) -> Result<Vec<Loaded>, FolderError> {
        let read = |source| FolderError::Read { path: folder.to_owned(), source };
        let folder = folder.canonicalize().map_err(read)?;
        let mut candidates = vec![folder.clone()];
        if load_folder(&folder)?.is_none() {
            let entries = fs::read_dir(&folder).map_err(read)?;
            candidates = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
            candidates.sort();
        }
        let mut records = Vec::new();
        for candidate in candidates {
            if let Some(file) = load_folder(&candidate)? {
                let requested = match file.initialization_type {
                    InitializationType::ProvisionedConcurrency => file.provisioned_concurrency.max(1),
                    _ => 0,
                };
                records.push((self.record(&candidate, file, region, catalog), requested));
            }
        }
        Ok(records)
    }

    fn record(&self, folder: &Path, file: FunctionFile, region: &str, catalog: &mut Catalog) -> Record {
        let own_name = || folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = file.name.clone().unwrap_or_else(own_name);
        let arn = catalog.function_arn(&name);
        let code = file.code.as_ref().map_or_else(|| folder.to_owned(), |code| folder.join(code));
        let layers = self.layers.iter().cloned().chain(file.layers.iter().map(|layer| folder.join(layer)));
        let command = file.command.or_else(|| file.bootstrap.map(|bootstrap| vec![format!("./{bootstrap}")]));
        let (code_sha256, code_size) = fingerprint(&code);
        let config = FunctionConfig {
            name: name.clone(),
            version: LATEST.into(),
            arn: arn.clone(),
            region: region.to_owned(),
            runtime: file.runtime,
            handler: file.handler,
            memory_mb: file.memory_mb,
            timeout: Duration::from_secs(file.timeout_s.into()),
            architecture: file.architecture.unwrap_or_else(Architecture::current),
            environment: file.environment,
            layers: layers.collect(),
            code,
            command,
            log_format: file.log_format,
            // The fleet starts provisioned environments; additional ones are on demand.
            initialization_type: match file.initialization_type {
                InitializationType::ProvisionedConcurrency => InitializationType::OnDemand,
                other => other,
            },
            gib_per_vcpu: file.gib_per_vcpu.unwrap_or(GIB_PER_VCPU[0]),
            snap_start_versions: false,
            tenant_isolation: file.tenant_isolation,
            ephemeral_storage_mb: file.ephemeral_storage_mb,
        };
        let account = arn.split(':').nth(4).unwrap_or_default();
        let latest = Revision {
            config: Arc::new(config),
            generation: catalog.next_generation(),
            revision_id: new_revision_id(),
            code_sha256,
            code_size,
            last_modified: SystemTime::now(),
            description: file.description,
            role: format!("arn:aws:iam::{account}:role/sandbox"),
        };
        let mut record = Record::new(&name, arn, latest);
        record.tags = file.tags;
        record
    }
}

/// Base64 of a SHA-256 over names and contents of all files, and their total size in bytes. Lambda hashes
/// the uploaded zip; a folder has none. Unreadable files are left out.
pub(in crate::control) fn fingerprint(folder: &Path) -> (String, u64) {
    let mut files = Vec::new();
    collect(folder, &mut files);
    files.sort();
    let mut hash = Sha256::new();
    let mut size = 0;
    for file in files {
        let Ok(contents) = fs::read(&file) else { continue };
        let name = file.strip_prefix(folder).unwrap_or(&file).to_string_lossy().into_owned();
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update((contents.len() as u64).to_le_bytes());
        hash.update(&contents);
        size += contents.len() as u64;
    }
    (STANDARD.encode(hash.finalize()), size)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => collect(&entry.path(), files),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
}
