//! `CreateFunction` and `UpdateFunctionCode`: functions from uploaded zips.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::config::{Architecture, FunctionConfig, GIB_PER_VCPU, InitializationType, LogFormat};
use crate::control::ControlPlane;
use crate::control::catalog::check_change;
use crate::control::catalog::function_ref::FunctionRef;
use crate::control::catalog::record::{LATEST, Pending, Record, Revision, new_revision_id};
use crate::control::catalog::update::ConfigurationUpdate;
use crate::control::server::error::AwsError;
use crate::control::versions_aliases::versions::Publication;
use crate::layers;

/// Largest direct upload, bytes.
const MAX_ZIP_BYTES: usize = 50 * 1024 * 1024;

/// An unpacked upload.
struct Code {
    folder: PathBuf,
    sha256: String,
    size: u64,
}

fn unpack(base64: Option<&str>, run_directory: &FilePath) -> Result<Code, AwsError> {
    let Some(base64) = base64 else {
        return Err(AwsError::invalid("this sandbox accepts code only as ZipFile"));
    };
    let bytes = STANDARD.decode(base64).map_err(|_| AwsError::malformed("ZipFile is not valid Base64"))?;
    if bytes.len() > MAX_ZIP_BYTES {
        return Err(AwsError::too_large(format!(
            "the zip file has {} bytes, but at most {MAX_ZIP_BYTES} are allowed",
            bytes.len()
        )));
    }
    let digest = Sha256::digest(&bytes);
    let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let folder = run_directory.join(format!("code-{name}"));
    if !folder.is_dir() {
        let archive = run_directory.join(format!("code-{name}.zip"));
        let failed = |error: std::io::Error| AwsError::service(format!("cannot store the code: {error}"));
        fs::write(&archive, &bytes).map_err(failed)?;
        layers::unpack(&archive, &folder).map_err(|_| {
            let _ = fs::remove_dir_all(&folder);
            AwsError::invalid(
                "Could not unzip uploaded file. Please check your file, then try to upload again.",
            )
        })?;
    }
    Ok(Code { folder, sha256: STANDARD.encode(digest), size: bytes.len() as u64 })
}

/// The request body of `CreateFunction`, besides what `UpdateFunctionConfiguration` takes too.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Creation {
    function_name: String,
    code: CodeBody,
    #[serde(default)]
    publish: bool,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    architectures: Option<Vec<Architecture>>,
    /// Can be set at creation only.
    tenancy_config: Option<TenancyConfig>,
    #[serde(flatten)]
    configuration: ConfigurationUpdate,
}

/// The only supported mode.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TenancyConfig {
    #[serde(rename = "TenantIsolationMode")]
    _mode: TenantIsolationMode,
}

#[derive(Deserialize)]
enum TenantIsolationMode {
    #[serde(rename = "PER_TENANT")]
    PerTenant,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CodeBody {
    zip_file: Option<String>,
}

pub(in crate::control) async fn create(
    State(plane): State<Arc<ControlPlane>>,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), AwsError> {
    let creation: Creation =
        serde_json::from_slice(&body).map_err(|error| AwsError::malformed(error.to_string()))?;
    let name = FunctionRef::parse(&creation.function_name, None)?.name;
    let now = Instant::now();
    let mut catalog = plane.catalog();
    if catalog.record(&name, now).is_ok() {
        return Err(AwsError::conflict(format!("Function already exist: {name}")));
    }
    let code = unpack(creation.code.zip_file.as_deref(), &plane.fleet.platform().run_directory)?;
    let arn = catalog.function_arn(&name);
    let blank = FunctionConfig {
        name: name.clone(),
        version: LATEST.into(),
        arn: arn.clone(),
        region: plane.region.clone(),
        runtime: String::new(),
        handler: String::new(),
        memory_mb: 128,
        timeout: Duration::from_secs(3),
        architecture: Architecture::X86_64,
        environment: BTreeMap::new(),
        code: code.folder,
        layers: plane.layers().to_vec(),
        command: None,
        log_format: LogFormat::Text,
        initialization_type: InitializationType::OnDemand,
        gib_per_vcpu: GIB_PER_VCPU[0],
        snap_start_versions: false,
        tenant_isolation: creation.tenancy_config.is_some(),
        ephemeral_storage_mb: 512,
    };
    let mut config = creation.configuration.apply(&blank)?;
    if let Some([architecture, ..]) = creation.architectures.as_deref() {
        config.architecture = *architecture;
    }
    if config.runtime.is_empty() || config.handler.is_empty() {
        return Err(AwsError::invalid(
            "Runtime and Handler are mandatory parameters for functions created with deployment packages.",
        ));
    }
    let latest = Revision {
        config: Arc::new(config),
        generation: catalog.next_generation(),
        revision_id: new_revision_id(),
        code_sha256: code.sha256,
        code_size: code.size,
        last_modified: SystemTime::now(),
        description: creation.configuration.description.unwrap_or_default(),
        role: creation.configuration.role.unwrap_or_default(),
    };
    let pending = Pending { until: now + catalog.update_delay(), previous: None };
    let mut record = Record::new(&name, arn, latest);
    record.tags = creation.tags;
    catalog.insert(record);
    if creation.publish {
        catalog.publish(&name, &Publication::default(), now, SystemTime::now())?;
    }
    let record = catalog.record(&name, now)?;
    record.pending = Some(pending);
    let version = creation.publish.then_some("1");
    let shown = record.version(version.unwrap_or(LATEST)).unwrap_or(&record.latest);
    let configuration = record.configuration(shown, version);
    plane.trace("control.create_function", &configuration);
    Ok((StatusCode::CREATED, Json(configuration)))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CodeUpdate {
    zip_file: Option<String>,
    revision_id: Option<String>,
    #[serde(default)]
    publish: bool,
    #[serde(default)]
    dry_run: bool,
    architectures: Option<Vec<Architecture>>,
}

pub(in crate::control) async fn update(
    State(plane): State<Arc<ControlPlane>>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, AwsError> {
    let function = FunctionRef::parse(&name, None)?;
    let update: CodeUpdate =
        serde_json::from_slice(&body).map_err(|error| AwsError::malformed(error.to_string()))?;
    let mut catalog = plane.catalog();
    let now = Instant::now();
    let record = catalog.record(&function.name, now)?;
    check_change(record, update.revision_id.as_deref())?;
    let code = unpack(update.zip_file.as_deref(), &plane.fleet.platform().run_directory)?;
    let mut config = FunctionConfig::clone(&record.latest.config);
    config.code = code.folder;
    // The settings of function.toml belong to the folder that is replaced.
    config.command = None;
    if let Some([architecture, ..]) = update.architectures.as_deref() {
        config.architecture = *architecture;
    }
    let latest = Revision {
        config: Arc::new(config),
        code_sha256: code.sha256,
        code_size: code.size,
        ..record.latest.clone()
    };
    if update.dry_run {
        return Ok(Json(record.configuration(&latest, None)));
    }
    catalog.replace_latest(&function.name, latest, now, SystemTime::now())?;
    if update.publish {
        let record = catalog.record(&function.name, now)?;
        let pending = record.pending.take();
        catalog.publish(&function.name, &Publication::default(), now, SystemTime::now())?;
        catalog.record(&function.name, now)?.pending = pending;
    }
    let record = catalog.record(&function.name, now)?;
    let configuration = record.configuration(&record.latest, None);
    plane.trace("control.update_code", &configuration);
    plane.retire_when_settled(record);
    Ok(Json(configuration))
}
