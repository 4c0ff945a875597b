//! `UpdateFunctionConfiguration`: what may change, and within which limits.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::config::{FunctionConfig, LogFormat, MEMORY_MB_RANGE, TIMEOUT_S_RANGE};
use crate::control::server::error::AwsError;

/// Total size of environment variables in bytes.
const MAX_ENVIRONMENT_BYTES: usize = 4096;

/// The request body. Absent fields stay as they are; unknown ones (VPC, tracing and the like) are ignored.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ConfigurationUpdate {
    pub(in crate::control) revision_id: Option<String>,
    pub(in crate::control) description: Option<String>,
    pub(in crate::control) role: Option<String>,
    memory_size: Option<u32>,
    timeout: Option<u32>,
    handler: Option<String>,
    runtime: Option<String>,
    environment: Option<Environment>,
    logging_config: Option<LoggingConfig>,
    ephemeral_storage: Option<EphemeralStorage>,
    snap_start: Option<SnapStart>,
}

/// `Environment`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Environment {
    #[serde(default)]
    variables: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct LoggingConfig {
    log_format: Option<LogFormat>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SnapStart {
    apply_on: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EphemeralStorage {
    size: u32,
}

impl ConfigurationUpdate {
    /// A change of the memory size only.
    pub fn memory(memory_mb: u32) -> ConfigurationUpdate {
        ConfigurationUpdate { memory_size: Some(memory_mb), ..ConfigurationUpdate::default() }
    }

    /// `config` with this change. Environment variables are replaced as a whole.
    pub fn apply(&self, config: &FunctionConfig) -> Result<FunctionConfig, AwsError> {
        let mut config = config.clone();
        if let Some(memory_mb) = self.memory_size {
            within("memorySize", memory_mb, &MEMORY_MB_RANGE)?;
            config.memory_mb = memory_mb;
        }
        if let Some(timeout_s) = self.timeout {
            within("timeout", timeout_s, &TIMEOUT_S_RANGE)?;
            config.timeout = Duration::from_secs(timeout_s.into());
        }
        if let Some(environment) = &self.environment {
            check_environment(&environment.variables)?;
            config.environment = environment.variables.clone();
        }
        if let Some(handler) = &self.handler {
            config.handler = handler.clone();
        }
        if let Some(runtime) = &self.runtime {
            config.runtime = runtime.clone();
        }
        if let Some(format) = self.logging_config.as_ref().and_then(|logging| logging.log_format) {
            config.log_format = format;
        }
        if let Some(snap_start) = &self.snap_start {
            config.snap_start_versions = snap_start.apply_on == "PublishedVersions";
        }
        if config.tenant_isolation && config.snap_start_versions {
            return Err(AwsError::invalid("SnapStart is not supported for functions with tenant isolation"));
        }
        if let Some(storage) = &self.ephemeral_storage {
            within("ephemeralStorage.size", storage.size, &(512..=10_240))?;
            config.ephemeral_storage_mb = storage.size;
        }
        Ok(config)
    }
}

fn within(field: &str, value: u32, range: &std::ops::RangeInclusive<u32>) -> Result<(), AwsError> {
    if range.contains(&value) {
        return Ok(());
    }
    let (constraint, bound) =
        if value < *range.start() { ("greater", range.start()) } else { ("less", range.end()) };
    Err(AwsError::invalid(format!(
        "1 validation error detected: Value '{value}' at '{field}' failed to satisfy constraint: Member must have value {constraint} than or equal to {bound}"
    )))
}

/// Customer variables may not exceed 4 KB, nor be named like Lambda's own.
pub(in crate::control) fn check_environment(variables: &BTreeMap<String, String>) -> Result<(), AwsError> {
    const RESERVED: [&str; 14] = [
        "_HANDLER",
        "_X_AMZN_TRACE_ID",
        "AWS_DEFAULT_REGION",
        "AWS_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_LAMBDA_RUNTIME_API",
        "LAMBDA_TASK_ROOT",
    ];
    if let Some(name) = variables.keys().find(|name| RESERVED.contains(&name.as_str())) {
        let message = format!(
            "Lambda was unable to configure your environment variables because the environment variables you have provided contains reserved keys that are currently not supported for modification. Reserved keys used in this request: {name}"
        );
        return Err(AwsError::invalid(message));
    }
    let bytes: usize = variables.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > MAX_ENVIRONMENT_BYTES {
        let message = format!(
            "Lambda was unable to configure your environment variables because the environment variables you have provided exceeded the 4KB limit. Bytes used: {bytes}"
        );
        return Err(AwsError::invalid(message));
    }
    Ok(())
}
