//! `function.toml`: a folder that is a function.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

use super::{Architecture, GIB_PER_VCPU, InitializationType, LogFormat, MEMORY_MB_RANGE, TIMEOUT_S_RANGE};

/// Name of the file that makes a folder a function.
pub const FILE_NAME: &str = "function.toml";

/// Why a folder is not a function.
#[derive(Debug, Error)]
pub enum FileError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot parse {path}")]
    Parse { path: PathBuf, source: Box<toml::de::Error> },
    #[error("{path}: {field} is {value}, but must be {allowed}")]
    OutOfRange { path: PathBuf, field: &'static str, value: u32, allowed: String },
    #[error("{path}: tenant_isolation works with initialization_type on-demand only")]
    TenantIsolation { path: PathBuf },
    #[error("{path}: gib_per_vcpu works with initialization_type lambda-managed-instances only")]
    GibPerVcpu { path: PathBuf },
}

/// `function.toml` as written. Unknown keys are rejected, so that a misspelt limit is not silently ignored;
/// build notes go under `[build]`, which is not read.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FunctionFile {
    /// Function name; the folder's name when absent.
    pub name: Option<String>,
    /// Runtime identifier.
    pub runtime: String,
    /// Handler; `bootstrap` when absent.
    #[serde(default = "default_handler")]
    pub handler: String,
    /// Memory size in MB.
    #[serde(default = "default_memory_mb")]
    pub memory_mb: u32,
    /// Timeout in seconds.
    #[serde(default = "default_timeout_s")]
    pub timeout_s: u32,
    /// Instruction set; the machine's when absent.
    pub architecture: Option<Architecture>,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// The customer's environment variables.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Layer folders or zips, relative to the function's folder.
    #[serde(default)]
    pub layers: Vec<PathBuf>,
    /// Tags of the function.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Code folder, relative to the function's folder; the folder itself when absent.
    pub code: Option<PathBuf>,
    /// Executable to run instead of `bootstrap`, relative to the code folder.
    pub bootstrap: Option<String>,
    /// Program and arguments to run instead of the runtime's own.
    pub command: Option<Vec<String>>,
    /// `Text` or `JSON`.
    #[serde(default)]
    pub log_format: LogFormat,
    /// `on-demand`, `provisioned-concurrency`, `snap-start` or `lambda-managed-instances`.
    #[serde(default)]
    pub initialization_type: InitializationType,
    /// Memory for each vCPU with `lambda-managed-instances`, GiB: 2, 4 or 8. 2 when absent.
    pub gib_per_vcpu: Option<u32>,
    /// Environments kept ready with `provisioned-concurrency`.
    #[serde(default)]
    pub provisioned_concurrency: u32,
    /// Every invocation names a tenant, and each environment serves one tenant.
    #[serde(default)]
    pub tenant_isolation: bool,
    /// Size of `/tmp` in MB.
    #[serde(default = "default_ephemeral_storage_mb")]
    pub ephemeral_storage_mb: u32,
    /// Notes on how the folder was built; ignored.
    #[serde(default)]
    pub build: toml::Table,
}

fn default_handler() -> String {
    "bootstrap".into()
}

/// Lambda's own default.
fn default_memory_mb() -> u32 {
    128
}

/// Lambda's own default.
fn default_timeout_s() -> u32 {
    3
}

/// Lambda's own default.
fn default_ephemeral_storage_mb() -> u32 {
    512
}

/// Reads `folder/function.toml`. `Ok(None)` when the folder has none.
pub fn load_folder(folder: &Path) -> Result<Option<FunctionFile>, FileError> {
    let path = folder.join(FILE_NAME);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(FileError::Read { path, source }),
    };
    let file: FunctionFile = toml::from_str(&text)
        .map_err(|source| FileError::Parse { path: path.clone(), source: Box::new(source) })?;
    for (field, value, range) in
        [("memory_mb", file.memory_mb, MEMORY_MB_RANGE), ("timeout_s", file.timeout_s, TIMEOUT_S_RANGE)]
    {
        if !range.contains(&value) {
            let allowed = format!("{} to {}", range.start(), range.end());
            return Err(FileError::OutOfRange { path, field, value, allowed });
        }
    }
    if file.tenant_isolation && file.initialization_type != InitializationType::OnDemand {
        return Err(FileError::TenantIsolation { path });
    }
    if let Some(value) = file.gib_per_vcpu {
        if file.initialization_type != InitializationType::LambdaManagedInstances {
            return Err(FileError::GibPerVcpu { path });
        }
        if !GIB_PER_VCPU.contains(&value) {
            let allowed = GIB_PER_VCPU.map(|gib| gib.to_string()).join(" or ");
            return Err(FileError::OutOfRange { path, field: "gib_per_vcpu", value, allowed });
        }
    }
    Ok(Some(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Option<FunctionFile>, FileError> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE_NAME), text).unwrap();
        load_folder(dir.path())
    }

    #[test]
    fn defaults_are_those_of_lambda() {
        let file = load("runtime = 'provided.al2023'").unwrap().unwrap();
        assert_eq!((file.memory_mb, file.timeout_s, file.ephemeral_storage_mb), (128, 3, 512));
        assert_eq!(file.log_format, LogFormat::Text);
    }

    #[test]
    fn a_folder_without_function_toml_is_not_a_function() {
        assert!(load_folder(tempfile::tempdir().unwrap().path()).unwrap().is_none());
    }

    #[test]
    fn misspelt_and_out_of_range_settings_are_rejected() {
        assert!(matches!(load("runtime = 'x'\nmemory = 1"), Err(FileError::Parse { .. })));
        assert!(matches!(load("runtime = 'x'\nmemory_mb = 127"), Err(FileError::OutOfRange { .. })));
        let both = "runtime = 'x'\ntenant_isolation = true\ninitialization_type = 'snap-start'";
        assert!(matches!(load(both), Err(FileError::TenantIsolation { .. })));
        let ratio = "runtime = 'x'\ngib_per_vcpu = 3";
        assert!(matches!(load(ratio), Err(FileError::GibPerVcpu { .. })));
        let ratio = format!("{ratio}\ninitialization_type = 'lambda-managed-instances'");
        let error = load(&ratio).unwrap_err().to_string();
        assert!(error.ends_with("gib_per_vcpu is 3, but must be 2 or 4 or 8"), "{error}");
        assert!(load(&ratio.replace('3', "4")).is_ok());
    }
}
