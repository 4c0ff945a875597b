//! Environment variables of the runtime and of extensions.

use std::collections::BTreeMap;

use crate::config::{FunctionConfig, InitializationType, LogFormat};

/// Variables only the runtime gets (developer guide, "Using the Lambda Extensions API").
const WITHHELD_FROM_EXTENSIONS: [&str; 7] = [
    "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_XRAY_CONTEXT_MISSING",
    "AWS_XRAY_DAEMON_ADDRESS",
    "LAMBDA_RUNTIME_DIR",
    "LAMBDA_TASK_ROOT",
];

/// Placeholder access key.
pub const ACCESS_KEY_ID: &str = "ASIASANDBOXSANDBOX00";

/// Placeholder secret key and session token.
pub const SECRET: &str = "sandbox";

/// Bearer token of the credentials and metadata endpoints; it protects nothing, but is required as on Lambda.
pub fn token(log_stream: &str) -> String {
    let alphanumeric = log_stream.chars().filter(char::is_ascii_alphanumeric);
    alphanumeric.collect()
}

/// Paths and addresses inside an environment.
#[derive(Clone, Debug)]
pub struct EnvironmentPaths {
    /// Host and port of the environment's APIs, as its processes reach them.
    pub api: String,
    /// The same as other programs of the machine reach them.
    pub outer_api: String,
    /// The code folder as processes see it.
    pub task_root: String,
    /// Layers as processes see them: `/opt` where that can be mounted.
    pub opt: String,
    /// Scratch folder: `/tmp` where that can be mounted.
    pub tmp: String,
    /// Log stream name.
    pub log_stream: String,
    /// Whether the environment has a root file system of its own.
    pub has_own_root: bool,
}

/// All variables of the runtime.
pub fn for_runtime(function: &FunctionConfig, places: &EnvironmentPaths) -> BTreeMap<String, String> {
    let EnvironmentPaths { api, task_root, opt, tmp, log_stream, .. } = places;
    let mut variables = BTreeMap::new();
    let mut set = |name: &str, value: String| {
        variables.insert(name.to_owned(), value);
    };
    set("AWS_LAMBDA_RUNTIME_API", api.clone());
    set("AWS_REGION", function.region.clone());
    set("AWS_DEFAULT_REGION", function.region.clone());
    set("AWS_LAMBDA_FUNCTION_NAME", function.name.clone());
    set("AWS_LAMBDA_FUNCTION_VERSION", function.version.clone());
    set("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", function.memory_mb.to_string());
    set("AWS_LAMBDA_INITIALIZATION_TYPE", function.initialization_type.as_str().into());
    set("TZ", ":UTC".into());
    set("LANG", "en_US.UTF-8".into());
    set("PATH", path(places));
    // The credentials are placeholders: only local endpoints accept them.
    if function.initialization_type == InitializationType::SnapStart {
        // A snapshot outlives its credentials, so there are none in it.
        set("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("http://{api}/2021-04-23/credentials"));
        set("AWS_CONTAINER_AUTHORIZATION_TOKEN", token(log_stream));
    } else {
        set("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID.into());
        set("AWS_SECRET_ACCESS_KEY", SECRET.into());
        set("AWS_SESSION_TOKEN", SECRET.into());
    }
    set("AWS_LAMBDA_METADATA_API", api.clone());
    set("AWS_LAMBDA_METADATA_TOKEN", token(log_stream));
    if function.log_format == LogFormat::Json {
        set("AWS_LAMBDA_LOG_FORMAT", "JSON".into());
        set("AWS_LAMBDA_LOG_LEVEL", "INFO".into());
    }
    set("_HANDLER", function.handler.clone());
    set("_X_AMZN_TRACE_ID", String::new());
    set("_AWS_XRAY_DAEMON_ADDRESS", "127.0.0.1".into());
    set("_AWS_XRAY_DAEMON_PORT", "2000".into());
    set("AWS_XRAY_DAEMON_ADDRESS", "127.0.0.1:2000".into());
    set("AWS_XRAY_CONTEXT_MISSING", "LOG_ERROR".into());
    set("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{}", function.name));
    set("AWS_LAMBDA_LOG_STREAM_NAME", log_stream.clone());
    set("LAMBDA_TASK_ROOT", task_root.clone());
    set("LAMBDA_RUNTIME_DIR", "/var/runtime".into());
    set(
        "LD_LIBRARY_PATH",
        format!(
            "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:{task_root}:{task_root}/lib:{opt}/lib"
        ),
    );
    // Of a custom runtime Lambda sets neither, but a `bootstrap` here may start the machine's Python or Node.js.
    set("NODE_PATH", format!("{opt}/nodejs/node_modules:/var/runtime/node_modules:/var/runtime:{task_root}"));
    set("PYTHONPATH", format!("/var/runtime:{task_root}:{opt}/python"));
    if !function.runtime.starts_with("provided") {
        set("AWS_EXECUTION_ENV", format!("AWS_Lambda_{}", function.runtime));
    }
    if tmp != "/tmp" {
        set("TMPDIR", tmp.clone());
    }
    if opt != "/opt" {
        set("LAMBDA_SANDBOX_OPT", opt.clone());
    }
    if function.is_managed_instances() {
        set("AWS_LAMBDA_MAX_CONCURRENCY", crate::environment::MANAGED_CONCURRENCY.to_string());
    }
    // Last: the function's own variables replace these. Reserved names were rejected before.
    variables.extend(function.environment.clone());
    variables
}

/// As on Lambda. Where the machine's file system is visible, its programs are found first in its own folders.
fn path(places: &EnvironmentPaths) -> String {
    let opt = &places.opt;
    if places.has_own_root {
        return format!("/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:{opt}/bin");
    }
    let machine = std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".into());
    format!("{machine}:{opt}/bin")
}

/// The variables of extensions: the runtime's without the withheld ones.
pub fn for_extension(runtime: &BTreeMap<String, String>) -> Vec<(String, String)> {
    runtime
        .iter()
        .filter(|(name, _)| !name.starts_with('_'))
        .filter(|(name, _)| !WITHHELD_FROM_EXTENSIONS.contains(&name.as_str()))
        // Given to the runtime only.
        .filter(|(name, _)| *name != "AWS_LAMBDA_MAX_CONCURRENCY")
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}
