//! Storage of measurements: the [`Store`] trait and its implementations.
//!
//! The rest of the collector uses only the trait. [`sqlite`] implements it without any set-up, [`postgres`] in a database
//! that several collectors share. In both, an acknowledgement needs one
//! inserted row, which a repetition does not change. Compaction merges these rows per function in the background, and
//! readers merge what is not compacted yet.

use async_trait::async_trait;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use tailor_sizing::telemetry::invocation::Invocation;
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::{Architecture, Megabytes};

use agent_proto::batch::{Environment, EnvironmentId};

use crate::random::RandomError;

pub mod archive;
mod batch;
mod columns;
pub mod damage;
pub mod environments;
pub mod keys;
pub mod postgres;
mod recent;
mod retention;
mod rows;
pub mod sequences;
pub mod sqlite;
pub mod summary;

pub use archive::{ArchiveStore, SealedFile, Upload};
pub use batch::{NewBatch, Receipt};
pub use damage::{Damage, Findings};
pub use environments::{EndedEnvironments, EnvironmentState, Environments};
pub use keys::{KeyStore, StoredKey};
pub use retention::Retention;
pub use summary::{AdvisedSize, ChangedFunction, RowHint, Summary, SummaryKind, SummaryRow};

/// The width of one rollup, microseconds.
pub use crate::clock::HOUR_US;

/// The owner of data. It is derived from the credential of a request, never from its content.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant(pub String);

impl Tenant {
    /// The tenant of a collector that has only one tenant.
    pub const DEFAULT_NAME: &'static str = "default";
}

impl Default for Tenant {
    fn default() -> Self {
        Self(Self::DEFAULT_NAME.to_owned())
    }
}

/// Identifies a function within a tenant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FunctionKey {
    /// AWS account; empty when the environment did not report it.
    pub account: String,
    /// AWS region.
    pub region: String,
    /// Function name.
    pub name: String,
}

impl FunctionKey {
    /// The function of an environment.
    #[must_use]
    pub fn of(environment: &Environment) -> Self {
        Self {
            account: environment.account.clone(),
            region: environment.region.clone(),
            name: environment.function.clone(),
        }
    }

    /// The region and the account as text for people; empty when neither is known.
    #[must_use]
    pub fn region_and_account(&self) -> String {
        match (self.region.as_str(), self.account.as_str()) {
            (region, "") => region.to_owned(),
            ("", account) => format!("account {account}"),
            (region, account) => format!("{region}, account {account}"),
        }
    }

    /// A form of its name, with region and account in parentheses where they are known.
    #[must_use]
    pub fn with_region_and_account(&self, name: &str) -> String {
        let region_and_account = self.region_and_account();
        if region_and_account.is_empty() { name.to_owned() } else { format!("{name} ({region_and_account})") }
    }
}

/// Identifies a series.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesKey {
    /// The function.
    pub function: FunctionKey,
    /// Its version: `$LATEST` or a number.
    pub version: String,
    /// Memory size of the invocations.
    pub memory: Megabytes,
    /// Instruction set of the invocations.
    pub architecture: Architecture,
}

impl SeriesKey {
    /// The series of an environment's invocations.
    #[must_use]
    pub fn of(environment: &Environment) -> Self {
        Self {
            function: FunctionKey::of(environment),
            version: environment.version.clone(),
            memory: environment.memory,
            architecture: environment.architecture,
        }
    }
}

/// The rollup of one series over a window.
#[derive(Debug, Clone)]
pub struct Series {
    /// The series.
    pub key: SeriesKey,
    /// All rollups in the window, merged.
    pub rollup: Rollup,
}

/// One stored rollup: the invocations of a series that started in one hour or in one day.
#[derive(Debug, Clone)]
pub struct StoredRollup {
    /// The series.
    pub key: SeriesKey,
    /// Its first hour, in hours since the Unix epoch.
    pub from_hour: u64,
    /// Its length: 1 hour or 24 hours.
    pub hours: u64,
    /// The measurements.
    pub rollup: Rollup,
}

/// A range of start times, in whole hours: one rollup covers one hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First hour, in hours since the Unix epoch.
    pub from_hour: u64,
    /// The hour after the last one, in hours since the Unix epoch.
    pub until_hour: u64,
}

impl Window {
    /// All hours.
    pub const ALL: Self = Self { from_hour: 0, until_hour: i64::MAX as u64 };

    /// The smallest window that contains `from_us..until_us`, microseconds since the Unix epoch.
    #[must_use]
    pub const fn covering(from_us: u64, until_us: u64) -> Self {
        Self { from_hour: from_us / HOUR_US, until_hour: until_us.div_ceil(HOUR_US) }
    }

    /// Its start, microseconds since the Unix epoch.
    #[must_use]
    pub const fn from_us(self) -> u64 {
        self.from_hour.saturating_mul(HOUR_US)
    }
}

/// One recent invocation.
#[derive(Debug, Clone)]
pub struct Recent {
    /// Its environment.
    pub environment: EnvironmentId,
    /// Its memory size.
    pub memory: Megabytes,
    /// Its measurements.
    pub invocation: Invocation,
}

/// One step of one change of a function's memory size: an entry of the append-only change log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangeEvent {
    /// The function.
    pub function: FunctionKey,
    /// Id of the change. Ids sort in the order in which the changes were planned.
    pub change_id: String,
    /// Number of the step within its change, from 0.
    pub step: u64,
    /// Time of the step, microseconds since the Unix epoch.
    pub at_us: u64,
    /// The kind of step: a stable code such as `planned`.
    pub kind: String,
    /// The details, as JSON.
    pub detail: serde_json::Value,
}

/// Why a request to the store failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The disk is full. Nothing of the request was stored.
    #[error("cannot store: no space left in {0}; free disk space (stored data can still be read)")]
    Full(String),
    /// The database failed. Nothing of the request was stored.
    #[error("cannot use the store: {0}")]
    Engine(String),
    /// The data folder was written by a newer program.
    #[error("the store has schema {found}, this program supports up to {known}: use a newer `tailor`")]
    NewerSchema {
        /// The schema found.
        found: i64,
        /// The newest schema that this program supports.
        known: i64,
    },
    /// Stored data cannot be decoded.
    #[error("the store is damaged: {0}; `tailor check` lists the damage")]
    Damaged(String),
    /// The database files are not those that were opened. Nothing of the request was stored.
    #[error("{0}: restore the data folder from a backup, then restart `tailor serve`")]
    FilesChanged(String),
    /// The same step of the same change is already in the log.
    #[error(
        "step {step} of change {change_id} is already logged: another collector is working on this change"
    )]
    StepTaken {
        /// The change.
        change_id: String,
        /// The step.
        step: u64,
    },
    /// The store is shutting down.
    #[error("cannot store: the collector is stopping")]
    Stopping,
}

impl From<RandomError> for StoreError {
    fn from(error: RandomError) -> Self {
        Self::Engine(error.to_string())
    }
}

/// What only one of several collectors with one store does at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lease {
    /// Compaction and retention.
    Maintenance,
    /// The computation of summaries.
    Summaries,
    /// The rounds of the tuner.
    Tuner,
    /// The events of the webhook.
    Webhook,
    /// The uploads of the archive.
    Archive,
}

impl Lease {
    /// Its name in the database.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Maintenance => "maintenance",
            Self::Summaries => "summaries",
            Self::Tuner => "tuner",
            Self::Webhook => "webhook",
            Self::Archive => "archive",
        }
    }
}

/// The kind of a store, and the version of its schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schema {
    /// `sqlite` or `postgresql`.
    pub store: &'static str,
    /// Version of the schema that this program reads and writes.
    pub version: i64,
}

/// The operations that the collector needs from a store.
///
/// A write is on disk when its future resolves to `Ok`. When it resolves to `Err`, nothing was written.
#[async_trait]
pub trait Store: KeyStore {
    /// Stores one batch, unless it was stored before.
    async fn append(&self, batch: NewBatch) -> Result<Receipt, StoreError>;

    /// The functions of a tenant that sent batches, sorted; with a name, those of this name. At most `limit`.
    async fn functions(
        &self,
        tenant: &Tenant,
        name: Option<&str>,
        limit: usize,
    ) -> Result<Vec<FunctionKey>, StoreError>;

    /// The merged rollups of all functions of a tenant, or of one function, sorted by key.
    async fn series(
        &self,
        tenant: &Tenant,
        function: Option<&FunctionKey>,
        window: Window,
    ) -> Result<Vec<Series>, StoreError>;

    /// The rollups of one function, in any order. There may be several of one series and hour. A day belongs to the
    /// window when its last hour does.
    async fn rollups(
        &self,
        tenant: &Tenant,
        function: &FunctionKey,
        window: Window,
    ) -> Result<Vec<StoredRollup>, StoreError>;

    /// The environments that sent a batch since the start of the window, unsorted.
    async fn environments(
        &self,
        tenant: &Tenant,
        function: Option<&FunctionKey>,
        window: Window,
    ) -> Result<Environments, StoreError>;

    /// The latest single invocations of one function that are still stored, newest first.
    async fn recent(
        &self,
        tenant: &Tenant,
        function: &FunctionKey,
        limit: usize,
    ) -> Result<Vec<Recent>, StoreError>;

    /// Appends one step to the change log; [`StoreError::StepTaken`] when that step exists.
    async fn log_change(&self, tenant: &Tenant, event: &ChangeEvent) -> Result<(), StoreError>;

    /// The change log of all functions of a tenant, or of one function, oldest change first.
    async fn changes(
        &self,
        tenant: &Tenant,
        function: Option<&FunctionKey>,
    ) -> Result<Vec<ChangeEvent>, StoreError>;

    /// The functions of all tenants whose summaries are out of date, the one that waits for the longest time first.
    async fn changed_functions(&self, limit: usize) -> Result<Vec<ChangedFunction>, StoreError>;

    /// Replaces the summaries of functions. A crash may lose them; then the functions are out of date again.
    async fn put_summaries(&self, functions: Vec<(ChangedFunction, Vec<Summary>)>) -> Result<(), StoreError>;

    /// The summaries of all functions of a tenant, of one kind, without their reports.
    async fn summaries(&self, tenant: &Tenant, kind: &SummaryKind) -> Result<Vec<SummaryRow>, StoreError>;

    /// The reports of some functions, in their order; `None` for a function without one.
    async fn summary_reports(
        &self,
        tenant: &Tenant,
        functions: &[FunctionKey],
        kind: &SummaryKind,
    ) -> Result<Vec<Option<Vec<u8>>>, StoreError>;

    /// Whether this collector may do now what only one collector should do at a time. A store that only one collector can
    /// open always permits it.
    async fn hold(&self, lease: Lease) -> Result<bool, StoreError> {
        let _ = lease;
        Ok(true)
    }

    /// Keeps a request to the tuner under a name. Only a store that several processes can write to keeps requests.
    async fn put_request(&self, tenant: &Tenant, name: &str, text: &str) -> Result<(), StoreError> {
        let _ = (tenant, name, text);
        Err(StoreError::Engine("this store keeps no requests".to_owned()))
    }

    /// The names and texts of the requests to the tuner, sorted by name.
    async fn requests(&self, tenant: &Tenant) -> Result<Vec<(String, String)>, StoreError> {
        let _ = tenant;
        Ok(Vec::new())
    }

    /// Removes a request to the tuner.
    async fn remove_request(&self, tenant: &Tenant, name: &str) -> Result<(), StoreError> {
        let _ = (tenant, name);
        Ok(())
    }

    /// Replaces the text that is kept under a name. Only a store that several processes can write to keeps texts.
    async fn put_text(&self, tenant: &Tenant, name: &str, text: &str) -> Result<(), StoreError> {
        let _ = (tenant, name, text);
        Err(StoreError::Engine("this store keeps no texts".to_owned()))
    }

    /// The text that is kept under a name.
    async fn text(&self, tenant: &Tenant, name: &str) -> Result<Option<String>, StoreError> {
        let _ = (tenant, name);
        Ok(None)
    }

    /// Checks that the store can read and write.
    async fn check(&self) -> Result<(), StoreError>;

    /// The damaged rows that were found since the start.
    fn damage(&self) -> Damage;

    /// Number of writes that wait for the store.
    fn queued_writes(&self) -> usize;

    /// Number of stored batches that are not compacted yet.
    async fn pending_batches(&self) -> Result<u64, StoreError>;

    /// The kind of store, and the version of its schema.
    fn schema(&self) -> Schema;

    /// Registers the store's own metrics. A store without any registers nothing.
    fn register_metrics(&self, _registry: &mut Registry) {}
}
