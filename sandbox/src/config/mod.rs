//! The configuration of a function that determines how it runs.
//!
//! Versions, aliases, tags and revision ids belong to the `control` module; this is the immutable value that an
//! execution environment is started from.

mod command;
mod file;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use command::{Command, CommandError, Interpreters};
pub use file::{FILE_NAME, FileError, FunctionFile, load_folder};

/// Memory size that corresponds to one vCPU, in MB (AWS Lambda developer guide, "Configure Lambda function memory").
pub const MEMORY_MB_PER_VCPU: u32 = 1769;

/// Memory for each vCPU of an environment on managed instances, in GiB: `ExecutionEnvironmentMemoryGiBPerVCpu` for the instance
/// families that AWS has (compute, general purpose, memory).
pub const GIB_PER_VCPU: [u32; 3] = [2, 4, 8];

/// Smallest and largest memory size in MB of an ordinary function.
pub const MEMORY_MB_RANGE: std::ops::RangeInclusive<u32> = 128..=10_240;

/// Largest function timeout in seconds.
pub const TIMEOUT_S_RANGE: std::ops::RangeInclusive<u32> = 1..=900;

/// How the environment is started, as in `AWS_LAMBDA_INITIALIZATION_TYPE`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InitializationType {
    /// Started by the invocation that needs it.
    #[default]
    OnDemand,
    /// Started ahead of any invocation.
    ProvisionedConcurrency,
    /// Resumed from a snapshot taken after Init.
    SnapStart,
    /// Several concurrent invocations, never frozen.
    LambdaManagedInstances,
}

impl InitializationType {
    /// The value in AWS's APIs.
    pub fn as_str(self) -> &'static str {
        match self {
            InitializationType::OnDemand => "on-demand",
            InitializationType::ProvisionedConcurrency => "provisioned-concurrency",
            InitializationType::SnapStart => "snap-start",
            InitializationType::LambdaManagedInstances => "lambda-managed-instances",
        }
    }
}

/// `LogFormat` of a function's logging configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogFormat {
    /// Lines as the function wrote them.
    #[default]
    Text,
    /// Lines that are JSON objects are delivered as objects.
    #[serde(rename = "JSON")]
    Json,
}

/// Instruction set. Only its name is used; functions run on the machine's CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Architecture {
    /// 64-bit x86.
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit Arm (Graviton).
    #[serde(rename = "arm64")]
    Arm64,
}

impl Architecture {
    /// The value in AWS's APIs.
    pub fn as_str(self) -> &'static str {
        match self {
            Architecture::X86_64 => "x86_64",
            Architecture::Arm64 => "arm64",
        }
    }

    /// The architecture of this machine.
    pub fn current() -> Architecture {
        if cfg!(target_arch = "aarch64") { Architecture::Arm64 } else { Architecture::X86_64 }
    }
}

/// The configuration of a function for its execution environments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionConfig {
    /// Function name without qualifier.
    pub name: String,
    /// `$LATEST` or a version number.
    pub version: String,
    /// Unqualified ARN.
    pub arn: String,
    /// AWS region, for example `us-east-1`.
    pub region: String,
    /// Runtime identifier, for example `python3.12` or `provided.al2023`.
    pub runtime: String,
    /// Handler in the runtime's own notation.
    pub handler: String,
    /// Memory size in MB.
    pub memory_mb: u32,
    /// Function timeout.
    pub timeout: Duration,
    /// Instruction set that the API reports.
    pub architecture: Architecture,
    /// The customer's environment variables.
    pub environment: BTreeMap<String, String>,
    /// Code folder, `LAMBDA_TASK_ROOT`.
    pub code: PathBuf,
    /// Layer folders or zips, in order; files of later layers replace earlier ones.
    pub layers: Vec<PathBuf>,
    /// What to run instead of the runtime's own command.
    pub command: Option<Vec<String>>,
    /// Text or JSON logs.
    pub log_format: LogFormat,
    /// How its environments are started.
    pub initialization_type: InitializationType,
    /// Memory for each vCPU in GiB, one of [`GIB_PER_VCPU`]. Only managed instances use it.
    pub gib_per_vcpu: u32,
    /// Published versions use SnapStart.
    pub snap_start_versions: bool,
    /// Every invocation names a tenant, and each environment serves one tenant.
    pub tenant_isolation: bool,
    /// Size of `/tmp` in MB; reported, and enforced only where `/tmp` can be a file system of its own.
    pub ephemeral_storage_mb: u32,
}

impl FunctionConfig {
    /// CPU share of the memory size, in vCPUs. On managed instances the ratio of memory to vCPUs is a setting, and an environment
    /// has at least one vCPU.
    pub fn share_vcpus(&self) -> f64 {
        if self.is_managed_instances() {
            return (f64::from(self.memory_mb) / f64::from(1_024 * self.gib_per_vcpu)).max(1.0);
        }
        f64::from(self.memory_mb) / f64::from(MEMORY_MB_PER_VCPU)
    }

    /// CPUs that an environment of this memory size sees on Lambda.
    pub fn visible_vcpus(&self) -> u32 {
        if self.is_managed_instances() {
            return self.memory_mb.div_ceil(1_024 * self.gib_per_vcpu).max(1);
        }
        match self.memory_mb {
            ..=3_008 => 2,
            3_009..=5_307 => 3,
            5_308..=7_076 => 4,
            7_077..=8_845 => 5,
            _ => 6,
        }
    }

    /// Managed instances run several invocations at a time and are never frozen.
    pub fn is_managed_instances(&self) -> bool {
        self.initialization_type == InitializationType::LambdaManagedInstances
    }
}
