//! The calls to Lambda's control plane that the tuner makes, and what they return. [`super::aws`] implements them.

use std::collections::HashMap;

use async_trait::async_trait;

use tailor_sizing::units::Megabytes;

use crate::changes::Write;
use crate::store::FunctionKey;

/// The status of the last update of a function (`LastUpdateStatus`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// New invocations use the updated configuration.
    Successful,
    /// New invocations still use the previous configuration.
    InProgress,
    /// The update failed.
    Failed,
}

/// Code and configuration of `$LATEST` or of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// Memory size.
    pub memory: Megabytes,
    /// SHA-256 of its code.
    pub code_sha256: String,
    /// Digest of the configuration without memory size and description.
    pub digest: String,
    /// Its description.
    pub description: String,
    /// Whether it can be invoked (`State` is `Active`).
    pub active: bool,
}

/// An alias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// Its version.
    pub version: String,
    /// A second version, and its part of the invocations in hundredths of a percent.
    pub additional: Option<(String, u32)>,
    /// Its description.
    pub description: String,
    /// Changes with every update.
    pub revision_id: String,
}

/// Which of a function's published versions were listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListedVersions {
    /// None: a function without an alias is read without its versions.
    None,
    /// A part: there are more than are read.
    Part,
    /// All.
    All,
}

/// A function, as Lambda returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// Its account, from its ARN; empty when the ARN has none.
    pub account: String,
    /// `$LATEST`.
    pub latest: Configuration,
    /// Changes with every update of `$LATEST`. A write names the revision on which it was decided.
    pub revision_id: String,
    /// Status of the last update.
    pub update: Update,
    /// When `$LATEST` last changed, microseconds since the Unix epoch; zero when unknown.
    pub modified_at_us: u64,
    /// Timeout, ms.
    pub timeout_ms: u64,
    /// Whether SnapStart applies to published versions.
    pub snap_start: bool,
    /// Whether it runs on managed instances.
    pub managed_instances: bool,
    /// Reserved concurrency.
    pub reserved_concurrency: Option<u32>,
    /// Versions and aliases with provisioned concurrency.
    pub provisioned: Vec<String>,
    /// Aliases by name.
    pub aliases: HashMap<String, Alias>,
    /// Published versions by number, as far as they were listed.
    pub versions: HashMap<String, Configuration>,
    /// Which of the published versions were listed.
    pub listed_versions: ListedVersions,
    /// Its tags.
    pub tags: HashMap<String, String>,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LambdaError {
    /// The function does not exist.
    #[error("function `{0}` does not exist in this account and region")]
    NoFunction(String),
    /// The function that Lambda returned is in another account.
    #[error("the measurements are of account {expected}, the credentials are for account {found}")]
    OtherAccount {
        /// The account of the measurements.
        expected: String,
        /// The account of the function.
        found: String,
    },
    /// The function was updated since the named revision, or is being updated.
    #[error("the function was changed in the meantime: {0}")]
    Changed(String),
    /// The call is not permitted or not valid: a repetition has the same result.
    #[error("the Lambda API refused the call: {0}")]
    Refused(String),
    /// Any other error. The call may have taken effect.
    #[error("the Lambda API returned an error: {0}")]
    Other(String),
}

/// The calls that the tuner makes.
#[async_trait]
pub trait Lambda: Send + Sync {
    /// Reads a function: configuration, tags and aliases, and the versions of a function with aliases.
    async fn read(&self, function: &FunctionKey) -> Result<Live, LambdaError>;

    /// Lists the versions of a function that was read without them.
    async fn list_versions(&self, function: &FunctionKey, live: &mut Live) -> Result<(), LambdaError>;

    /// Makes one write, if the function still has the revision that the write names.
    async fn write(&self, function: &FunctionKey, write: &Write) -> Result<(), LambdaError>;
}
