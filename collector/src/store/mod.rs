//! Where measurements are kept: a small interface, and the embedded engine behind it.
//!
//! The interface is what the rest of the collector may ask of a store; [`sqlite`] is the engine that needs
//! no set-up. It is drawn so that an engine which speaks PostgreSQL's protocol fits behind it: rows are
//! only appended under ids made by the client, a repeated row is dropped rather than updated, and partial
//! rollups are merged when they are read. Prices, advice and pages are not here.

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tailor_sizing::telemetry::invocation::Invocation;
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::{Architecture, Megabytes};

use agent_proto::batch::{Environment, EnvironmentId, Lost, Overhead};

pub mod sqlite;

/// Microseconds in an hour, the width of one rollup.
pub const HOUR_US: u64 = 3_600_000_000;

/// Whose data it is. Comes from the credential of a request, never from its content.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant(pub String);

impl Tenant {
    /// The tenant of a collector that serves one team only.
    pub const DEFAULT_NAME: &'static str = "default";
}

impl Default for Tenant {
    fn default() -> Self {
        Self(Self::DEFAULT_NAME.to_owned())
    }
}

/// Which function, within a tenant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FunctionKey {
    /// AWS account; empty when the environment did not know it.
    pub account: String,
    /// AWS region.
    pub region: String,
    /// Function name.
    pub name: String,
}

impl FunctionKey {
    /// The function an environment belongs to.
    #[must_use]
    pub fn of(environment: &Environment) -> Self {
        Self {
            account: environment.account.clone(),
            region: environment.region.clone(),
            name: environment.function.clone(),
        }
    }
}

/// What one rollup is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesKey {
    /// The function.
    pub function: FunctionKey,
    /// Its version: `$LATEST` or a number.
    pub version: String,
    /// Memory size the invocations ran with.
    pub memory: Megabytes,
    /// Instruction set they ran on.
    pub architecture: Architecture,
}

impl SeriesKey {
    /// What an environment's invocations count towards.
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

/// Invocations of one series, merged over a window.
#[derive(Debug, Clone)]
pub struct Series {
    /// What they have in common.
    pub key: SeriesKey,
    /// Their summary.
    pub rollup: Rollup,
}

/// A span of time, in whole hours of start times: rollups are no finer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First hour, counted from the Unix epoch.
    pub from_hour: u64,
    /// The hour after the last.
    pub until_hour: u64,
}

impl Window {
    /// All of time.
    pub const ALL: Self = Self { from_hour: 0, until_hour: i64::MAX as u64 };

    /// The smallest window that holds every microsecond of `from_us..until_us`.
    #[must_use]
    pub const fn covering(from_us: u64, until_us: u64) -> Self {
        Self { from_hour: from_us / HOUR_US, until_hour: until_us.div_ceil(HOUR_US) }
    }
}

/// A batch on its way to the disk: already authenticated, decoded and summed up.
#[derive(Debug, Clone)]
pub struct NewBatch {
    /// Whose.
    pub tenant: Tenant,
    /// Where it comes from.
    pub environment: Environment,
    /// Its place in the environment's count, from 1.
    pub sequence: u64,
    /// When it arrived, microseconds since the epoch by the collector's clock.
    pub received_at_us: u64,
    /// Running totals of what the environment lost.
    pub lost: Lost,
    /// Running totals of what the extension used.
    pub overhead: Overhead,
    /// One rollup for each hour an invocation began in.
    pub rollups: Vec<(u64, Rollup)>,
    /// When its latest invocation began; `received_at_us` when it has none.
    pub last_at_us: u64,
    /// How many invocations it has.
    pub invocations: u64,
    /// Invocations that had begun and were in no batch yet.
    pub unsent: u64,
    /// The batch itself, as protobuf, kept for a while so that single invocations can be looked at.
    pub body: Bytes,
}

/// What became of a delivery that is now on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receipt {
    /// It was new.
    Stored,
    /// The same batch of the same environment was there already; nothing was counted again.
    Duplicate,
}

/// The latest word of one environment.
#[derive(Debug, Clone, PartialEq)]
pub struct EnvironmentState {
    /// Its facts.
    pub environment: Environment,
    /// Highest sequence received.
    pub sequence: u64,
    /// Batches that it counted in the window of the query and that never arrived.
    pub missing_batches: u64,
    /// When the highest sequence was received, microseconds since the epoch.
    pub received_at_us: u64,
    /// Running totals of what it lost.
    pub lost: Lost,
    /// Invocations that had begun and were in no batch yet.
    pub unsent: u64,
    /// Running totals of what the extension used.
    pub overhead: Overhead,
}

/// One recent invocation, for a closer look.
#[derive(Debug, Clone)]
pub struct Recent {
    /// The environment it ran in.
    pub environment: EnvironmentId,
    /// The memory size it ran with.
    pub memory: Megabytes,
    /// What was measured.
    pub invocation: Invocation,
}

/// One step of one change of a function's memory size: a line of the append-only log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangeEvent {
    /// The function.
    pub function: FunctionKey,
    /// Which change: ids sort by the time they were planned.
    pub change_id: String,
    /// Place of this event within its change, from 0.
    pub step: u64,
    /// When, microseconds since the epoch.
    pub at_us: u64,
    /// What happened: a stable code such as `planned`.
    pub kind: String,
    /// The details, as JSON.
    pub detail: serde_json::Value,
}

/// Why a store could not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The disk has no room; nothing of the request was kept.
    #[error("cannot store: no space left for {0}; free some, what is stored can still be read")]
    Full(String),
    /// The engine failed; nothing of the request was kept.
    #[error("cannot use the store: {0}")]
    Engine(String),
    /// The data folder was written by a newer program.
    #[error("the store has schema {found}, this program knows {known}: use a newer `tailor`")]
    NewerSchema {
        /// The schema found.
        found: i64,
        /// The newest one known.
        known: i64,
    },
    /// Stored bytes that cannot be read back.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// The same step of the same change is already in the log.
    #[error("step {step} of change {change_id} is already logged: another collector works on it")]
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

/// What the collector asks of a store.
///
/// Every write is on disk when its future resolves to `Ok`, and not at all when it resolves to `Err`.
#[async_trait]
pub trait Store: Send + Sync {
    /// Stores one batch, or recognises it as stored.
    async fn append(&self, delivery: NewBatch) -> Result<Receipt, StoreError>;

    /// The functions of a tenant that anything was ever measured of, in order.
    async fn functions(&self, tenant: &Tenant) -> Result<Vec<FunctionKey>, StoreError>;

    /// The merged rollups of a tenant's functions, or of one, in order of their keys.
    async fn series(
        &self,
        tenant: &Tenant,
        function: Option<&FunctionKey>,
        window: Window,
    ) -> Result<Vec<Series>, StoreError>;

    /// The latest state of every environment heard from in the window, in no particular order.
    async fn environments(
        &self,
        tenant: &Tenant,
        function: Option<&FunctionKey>,
        window: Window,
    ) -> Result<Vec<EnvironmentState>, StoreError>;

    /// The most recent invocations of one function that are still kept one by one, newest first.
    async fn recent(
        &self,
        tenant: &Tenant,
        function: &FunctionKey,
        limit: usize,
    ) -> Result<Vec<Recent>, StoreError>;

    /// Appends one step to the change log; [`StoreError::StepTaken`] when that step is there already.
    async fn log_change(&self, tenant: &Tenant, event: &ChangeEvent) -> Result<(), StoreError>;

    /// The change log of a tenant, or of one function, oldest change first.
    async fn changes(
        &self,
        tenant: &Tenant,
        function: Option<&FunctionKey>,
    ) -> Result<Vec<ChangeEvent>, StoreError>;

    /// Whether the store answers.
    async fn check(&self) -> Result<(), StoreError>;
}
