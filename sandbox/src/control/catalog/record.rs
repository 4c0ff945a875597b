//! Functions as stored by the control plane, and their JSON in responses.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::config::{FunctionConfig, InitializationType, LogFormat};
use crate::time::last_modified;

/// The unpublished, mutable version.
pub const LATEST: &str = "$LATEST";

/// One version of a function: code and configuration.
#[derive(Clone, Debug)]
pub struct Revision {
    /// How it runs.
    pub config: Arc<FunctionConfig>,
    /// Increases with every change of any function.
    pub generation: u64,
    /// `RevisionId`, the optimistic lock.
    pub revision_id: String,
    /// Base64 of the code's SHA-256.
    pub code_sha256: String,
    /// Bytes of code.
    pub code_size: u64,
    /// Last change.
    pub last_modified: SystemTime,
    /// Free text.
    pub description: String,
    /// ARN of the execution role; not checked against anything.
    pub role: String,
}

/// A change of `$LATEST` that does not apply yet.
#[derive(Clone, Debug)]
pub struct Pending {
    /// When it will be.
    pub until: Instant,
    /// What invocations get until then; `None` while the function is created.
    pub previous: Option<Revision>,
}

/// An alias: a name for one version, or for two with weights.
#[derive(Clone, Debug)]
pub struct Alias {
    /// Main version.
    pub version: String,
    /// Second version and the part of invocations it gets, 0 to 1.
    pub additional: Option<(String, f64)>,
    /// Free text.
    pub description: String,
    /// `RevisionId`, the optimistic lock.
    pub revision_id: String,
}

/// One function.
#[derive(Clone, Debug)]
pub struct Record {
    /// Name.
    pub name: String,
    /// Unqualified ARN.
    pub arn: String,
    /// `$LATEST`.
    pub latest: Revision,
    /// A change in progress.
    pub pending: Option<Pending>,
    /// Published versions.
    pub versions: BTreeMap<u64, Revision>,
    /// Number of the next one; never reused.
    pub next_version: u64,
    /// Aliases.
    pub aliases: BTreeMap<String, Alias>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Reserved concurrency.
    pub reserved_concurrency: Option<u32>,
    /// Provisioned concurrency by qualifier.
    pub provisioned_concurrency: BTreeMap<String, u32>,
}

/// A new value for `RevisionId`.
pub fn new_revision_id() -> String {
    Uuid::new_v4().to_string()
}

impl Record {
    /// A function with `$LATEST` only.
    pub fn new(name: &str, arn: String, latest: Revision) -> Record {
        Record {
            name: name.to_owned(),
            arn,
            latest,
            pending: None,
            versions: BTreeMap::new(),
            next_version: 1,
            aliases: BTreeMap::new(),
            tags: BTreeMap::new(),
            reserved_concurrency: None,
            provisioned_concurrency: BTreeMap::new(),
        }
    }

    /// Applies a pending change when its delay is over.
    pub fn settle(&mut self, now: Instant) {
        self.pending.take_if(|pending| pending.until <= now);
    }

    /// `FunctionConfiguration` of one version. `arn_suffix` is what the caller requested.
    pub fn configuration(&self, revision: &Revision, arn_suffix: Option<&str>) -> Value {
        let config = &revision.config;
        let is_latest = config.version == LATEST;
        let pending = self.pending.as_ref().filter(|_| is_latest);
        let is_new = pending.is_some_and(|pending| pending.previous.is_none());
        let arn = arn_suffix.map_or_else(|| self.arn.clone(), |suffix| format!("{}:{suffix}", self.arn));
        let snap_start =
            config.snap_start_versions || config.initialization_type == InitializationType::SnapStart;
        let log_format = if config.log_format == LogFormat::Json { "JSON" } else { "Text" };
        let layers: Vec<Value> = config
            .layers
            .iter()
            .map(|layer| {
                let name = layer.file_stem().unwrap_or_default().to_string_lossy();
                let [_, _, _, region, account, ..] = self.arn.splitn(7, ':').collect::<Vec<_>>()[..] else {
                    return Value::Null;
                };
                json!({"Arn": format!("arn:aws:lambda:{region}:{account}:layer:{name}:1"), "CodeSize": 0})
            })
            .collect();
        let mut configuration = json!({
            "FunctionName": self.name, "FunctionArn": arn, "Version": config.version,
            "Runtime": config.runtime, "Handler": config.handler, "Role": revision.role,
            "Description": revision.description, "Timeout": config.timeout.as_secs(),
            "MemorySize": config.memory_mb, "CodeSize": revision.code_size,
            "CodeSha256": revision.code_sha256, "RevisionId": revision.revision_id,
            "LastModified": last_modified(revision.last_modified),
            "Environment": {"Variables": config.environment},
            "Architectures": [config.architecture.as_str()], "PackageType": "Zip",
            "EphemeralStorage": {"Size": config.ephemeral_storage_mb},
            "TracingConfig": {"Mode": "PassThrough"}, "Layers": layers,
            "SnapStart": {"ApplyOn": if snap_start { "PublishedVersions" } else { "None" },
                          "OptimizationStatus": if snap_start && !is_latest { "On" } else { "Off" }},
            "LoggingConfig": {"LogFormat": log_format, "LogGroup": format!("/aws/lambda/{}", self.name)},
            "State": if is_new { "Pending" } else { "Active" },
            "LastUpdateStatus": if pending.is_some() { "InProgress" } else { "Successful" },
        });
        if config.tenant_isolation {
            configuration["TenancyConfig"] = json!({"TenantIsolationMode": "PER_TENANT"});
        }
        configuration
    }

    /// The JSON of an alias.
    pub fn alias(&self, name: &str, alias: &Alias) -> Value {
        let mut value = json!({
            "AliasArn": format!("{}:{name}", self.arn), "Name": name, "FunctionVersion": alias.version,
            "Description": alias.description, "RevisionId": alias.revision_id,
        });
        if let Some((version, weight)) = &alias.additional {
            value["RoutingConfig"] = json!({"AdditionalVersionWeights": {version: weight}});
        }
        value
    }

    /// The version with this number or `$LATEST`.
    pub fn version(&self, version: &str) -> Option<&Revision> {
        if version == LATEST {
            return Some(&self.latest);
        }
        self.versions.get(&version.parse().ok()?)
    }
}
