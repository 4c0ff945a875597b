//! Stores the invocations that logs show.
//!
//! They are stored as batches, as those of the layer are. The [`ledger`] records each invocation, so that a repeated import
//! counts nothing twice. Invocations of a function that the layer measures are not stored, because they are stored already. The
//! size of its log is counted, because the layer does not measure it.

use std::collections::{BTreeMap, BTreeSet};

use agent_proto::batch::{
    Batch, BatchHeader, Environment, EnvironmentId, InitializationType, Lost, Overhead,
};
use agent_proto::limits::{MAX_BATCH_BYTES, MAX_INVOCATIONS};
use anyhow::Context;
use bytes::Bytes;
use tailor_logs::ImportedInvocation;
use tailor_sizing::telemetry::invocation::{Invocation, Outcome};
use tailor_sizing::units::Architecture;

use crate::random;
use crate::store::{FunctionKey, HOUR_US, NewBatch, SeriesKey, Store, StoreError, Tenant, Window};

pub mod files;
mod filter;
pub mod ledger;
pub mod log_group;
mod log_size;
pub mod progress;

use ledger::{Ledger, Round, Waiting};
use log_size::LogSizes;

/// Invocations that are kept in memory before they are stored.
const MAX_BUFFERED: usize = 50_000;

/// Maximum number of hours in one batch, because each hour is a row.
const MAX_HOURS: usize = 400;

/// What is imported, and as whose.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The owner.
    pub tenant: Tenant,
    /// Instruction set of the functions. Logs do not have it.
    pub architecture: Architecture,
}

/// What an import did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Invocations that were stored.
    pub stored: u64,
    /// Invocations that an earlier import or line had.
    pub repeated: u64,
    /// Invocations without a time in the log, among those that were stored.
    pub without_time: u64,
    /// Invocations of functions that the layer measures, which were not stored.
    pub measured_by_layer: BTreeMap<FunctionKey, NotStored>,
    /// The functions of all other invocations.
    pub functions: BTreeSet<FunctionKey>,
    /// Start of the earliest and of the latest of these, microseconds since the Unix epoch.
    pub span_us: Option<(u64, u64)>,
    /// Functions whose log has only lines of the platform, so that its size is not counted.
    pub without_function_events: BTreeSet<FunctionKey>,
}

/// Invocations of a function that its layer measures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NotStored {
    /// How many.
    pub invocations: u64,
    /// Bytes of their log that were counted.
    pub log_bytes: u64,
}

impl Totals {
    /// Adds the invocations of a function, `count` of them with those that were imported before.
    fn add(&mut self, function: &FunctionKey, new: &[ImportedInvocation], count: u64) {
        self.functions.insert(function.clone());
        self.stored += new.len() as u64;
        self.repeated += count - new.len() as u64;
        self.without_time += new.iter().filter(|found| !found.has_time).count() as u64;
    }

    /// Extends the span to these invocations.
    fn cover(&mut self, found: &[ImportedInvocation]) {
        for found in found {
            let at_us = found.invocation.started_at_us;
            let (first, last) = self.span_us.unwrap_or((at_us, at_us));
            self.span_us = Some((first.min(at_us), last.max(at_us)));
        }
    }
}

/// What is known of a function of the log.
#[derive(Debug, Clone, Default)]
struct Known {
    /// The functions of the store with its name and region that their layers measure. The log may lack the account.
    measured: Vec<FunctionKey>,
    /// The longest timeout that a log has shown, milliseconds; zero without one.
    timeout_ms: u64,
}

impl Known {
    /// The function that the size of the log belongs to; `None` when several accounts have it, and the log lacks the account.
    fn owner(&self, key: &FunctionKey) -> Option<FunctionKey> {
        match self.measured.as_slice() {
            [] => Some(key.clone()),
            [one] => Some(one.clone()),
            several => several.iter().find(|measured| *measured == key).cloned(),
        }
    }
}

/// Stores invocations.
pub struct Importer<'a> {
    store: &'a dyn Store,
    ledger: Ledger,
    settings: Settings,
    /// The random part of the ids of this import's environments.
    id: [u8; 8],
    buffered: BTreeMap<SeriesKey, Vec<ImportedInvocation>>,
    /// The series of the latest invocation, which is not in `buffered`.
    latest: Option<(SeriesKey, Vec<ImportedInvocation>)>,
    buffered_count: usize,
    known: BTreeMap<FunctionKey, Known>,
    log_sizes: LogSizes,
    series_ids: BTreeMap<SeriesKey, (u64, u64)>,
    totals: Totals,
}

impl<'a> Importer<'a> {
    /// Starts an import, and completes one that was interrupted.
    ///
    /// # Errors
    /// When the ledger or the store cannot be used.
    pub async fn start(store: &'a dyn Store, ledger: Ledger, settings: Settings) -> anyhow::Result<Self> {
        let mut importer = Self {
            store,
            ledger,
            settings,
            id: random::bytes()?,
            buffered: BTreeMap::new(),
            latest: None,
            buffered_count: 0,
            known: BTreeMap::new(),
            log_sizes: LogSizes::default(),
            series_ids: BTreeMap::new(),
            totals: Totals::default(),
        };
        let waiting = importer.ledger.waiting()?;
        importer.store_batches(waiting).await?;
        Ok(importer)
    }

    /// Adds one invocation. Returns whether [`Self::flush`] should be called.
    pub fn add(&mut self, found: ImportedInvocation) -> bool {
        // Invocations of one series usually follow each other.
        match &mut self.latest {
            Some((key, buffered)) if is_of(key, &found) => buffered.push(found),
            _ => {
                self.buffer_latest();
                let key = SeriesKey {
                    function: FunctionKey {
                        account: found.origin.account.clone(),
                        region: found.region.clone(),
                        name: found.origin.function.clone(),
                    },
                    version: found.version.clone(),
                    memory: found.memory,
                    architecture: self.settings.architecture,
                };
                let mut buffered = self.buffered.remove(&key).unwrap_or_default();
                buffered.push(found);
                self.latest = Some((key, buffered));
            }
        }
        self.buffered_count += 1;
        self.buffered_count >= MAX_BUFFERED
    }

    fn buffer_latest(&mut self) {
        self.buffered.extend(self.latest.take());
    }

    /// Stores what was added.
    ///
    /// # Errors
    /// When the ledger or the store cannot be used. What was stored stays stored and is not counted twice by the next import.
    pub async fn flush(&mut self, now_us: u64) -> anyhow::Result<()> {
        self.buffered_count = 0;
        self.buffer_latest();
        let mut groups = vec![];
        for (key, found) in std::mem::take(&mut self.buffered) {
            let known = self.known(&key.function).await?;
            known.timeout_ms = known.timeout_ms.max(longest_timeout_ms(&found));
            groups.push((key, found));
        }
        let mut round = self.ledger.begin()?;
        let mut batches = vec![];
        for (key, mut found) in groups {
            let count = found.len() as u64;
            let known = self.known.entry(key.function.clone()).or_default();
            let is_measured = !known.measured.is_empty();
            if !is_measured {
                self.totals.cover(&found);
            }
            let owner = known.owner(&key.function);
            let log_bytes =
                record(&mut round, &self.settings.tenant, owner.as_ref(), &mut self.log_sizes, &mut found)?;
            if is_measured {
                let sum = self.totals.measured_by_layer.entry(key.function).or_default();
                sum.invocations += count;
                sum.log_bytes = sum.log_bytes.saturating_add(log_bytes);
                continue;
            }
            self.totals.add(&key.function, &found, count);
            let next = self.series_ids.len() as u64;
            let (series, sequence) = self.series_ids.entry(key.clone()).or_insert((next, 0));
            let id = environment_id(self.id, *series);
            for batch in split(&key, id, known.timeout_ms, sequence, found, now_us)? {
                let (tenant, body) = (self.settings.tenant.clone(), Bytes::from(batch.encode()?));
                let waiting = Waiting { tenant, received_at_us: now_us, batch, body };
                round.keep(&waiting)?;
                batches.push(waiting);
            }
        }
        round.commit()?;
        self.totals.without_function_events = self.log_sizes.without_function_events().cloned().collect();
        self.store_batches(batches).await
    }

    /// Stores batches that the ledger has, and then removes them from it.
    async fn store_batches(&mut self, batches: Vec<Waiting>) -> anyhow::Result<()> {
        /// Batches that wait for the same write to disk.
        const TOGETHER: usize = 64;
        for some in batches.chunks(TOGETHER) {
            let mut appends = vec![];
            for waiting in some {
                appends.push(self.store.append(new_batch(waiting)));
            }
            for result in futures_in_order(appends).await {
                result.context("cannot store the imported invocations")?;
            }
            self.ledger.remove(some)?;
        }
        Ok(())
    }

    /// What is known of a function, from the store at first.
    async fn known(&mut self, key: &FunctionKey) -> Result<&mut Known, StoreError> {
        if !self.known.contains_key(key) {
            let known = self.look_up(key).await?;
            self.known.insert(key.clone(), known);
        }
        Ok(self.known.entry(key.clone()).or_default())
    }

    /// What the store has of a function. A log may lack the account.
    async fn look_up(&self, key: &FunctionKey) -> Result<Known, StoreError> {
        let tenant = &self.settings.tenant;
        let mut known = Known::default();
        for stored in self.store.functions(tenant, Some(&key.name), usize::MAX).await? {
            let is_same = stored.region == key.region
                && (stored.account == key.account || stored.account.is_empty() || key.account.is_empty());
            if !is_same {
                continue;
            }
            let environments = self.store.environments(tenant, Some(&stored), Window::ALL).await?;
            let is_measured = environments.headers().any(|(_, header)| !header.environment.is_imported());
            let timeouts = environments.headers().map(|(_, header)| header.environment.timeout_ms);
            known.timeout_ms = timeouts.fold(known.timeout_ms, u64::max);
            if is_measured {
                known.measured.push(stored);
            }
        }
        Ok(known)
    }

    /// What was done so far.
    #[must_use]
    pub const fn totals(&self) -> &Totals {
        &self.totals
    }
}

/// Records invocations, and the size of their log for `owner`. Only new ones stay in `found`. Returns the bytes that were
/// counted.
fn record(
    round: &mut Round<'_>,
    tenant: &Tenant,
    owner: Option<&FunctionKey>,
    log_sizes: &mut LogSizes,
    found: &mut Vec<ImportedInvocation>,
) -> anyhow::Result<u64> {
    if let Some(owner) = owner {
        log_sizes.note(owner, found);
    }
    let mut is_new = round.add(tenant, found)?.into_iter();
    found.retain(|_| is_new.next().unwrap_or(false));
    let Some(owner) = owner else { return Ok(0) };
    log_sizes.add(owner, found);
    let by_hour = log_sizes.take(owner);
    round.add_log_bytes(tenant, owner, &by_hour)?;
    Ok(by_hour.values().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes)))
}

/// The longest duration of an invocation that ran into the timeout, milliseconds, to the second, as timeouts are; zero without
/// one. Logs do not have the timeout.
fn longest_timeout_ms(found: &[ImportedInvocation]) -> u64 {
    let invocations = found.iter().map(|found| &found.invocation);
    let timeouts = invocations.filter(|invocation| invocation.outcome == Outcome::Timeout);
    let longest_us = timeouts.map(|invocation| invocation.duration_us).max().unwrap_or(0);
    longest_us.saturating_add(500_000) / 1_000_000 * 1_000
}

/// Whether an invocation belongs to a series. All of an import have the same instruction set.
fn is_of(key: &SeriesKey, found: &ImportedInvocation) -> bool {
    key.memory == found.memory
        && key.version == found.version
        && key.function.name == found.origin.function
        && key.function.region == found.region
        && key.function.account == found.origin.account
}

/// Runs some writes at the same time, so that they share a transaction, and returns their results in order.
async fn futures_in_order<T>(futures: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut running: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut results: Vec<Option<T>> = running.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        let mut is_done = true;
        for (future, result) in running.iter_mut().zip(&mut results) {
            if result.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *result = Some(value),
                    std::task::Poll::Pending => is_done = false,
                }
            }
        }
        if is_done { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    results.into_iter().flatten().collect()
}

/// The id of the environment that stands for one series of one import.
fn environment_id(import: [u8; 8], series: u64) -> EnvironmentId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&import);
    id[8..].copy_from_slice(&series.to_be_bytes());
    EnvironmentId(id)
}

/// The batches of one series, each within the limits of a batch.
fn split(
    key: &SeriesKey,
    id: EnvironmentId,
    timeout_ms: u64,
    sequence: &mut u64,
    mut found: Vec<ImportedInvocation>,
    now_us: u64,
) -> anyhow::Result<Vec<Batch>> {
    found.sort_by_key(|found| (found.invocation.started_at_us, found.invocation.request_id));
    let runtime = found.iter().rev().map(|found| found.runtime.clone()).find(|runtime| !runtime.is_empty());
    let environment = Environment {
        id,
        account: key.function.account.clone(),
        region: key.function.region.clone(),
        function: key.function.name.clone(),
        version: key.version.clone(),
        memory: key.memory,
        architecture: key.architecture,
        runtime: runtime.unwrap_or_default(),
        initialization_type: InitializationType::Other(String::new()),
        extension_version: Environment::imported_by(env!("CARGO_PKG_VERSION")),
        ephemeral_mb: 0,
        timeout_ms,
    };
    let mut batches = vec![];
    let mut rest = found.iter().map(|found| found.invocation).peekable();
    while rest.peek().is_some() {
        let mut invocations: Vec<Invocation> = vec![];
        let mut hours = BTreeSet::new();
        while let Some(next) = rest.next_if(|next| {
            hours.insert(next.started_at_us / HOUR_US);
            invocations.len() < MAX_INVOCATIONS && hours.len() <= MAX_HOURS
        }) {
            invocations.push(next);
        }
        *sequence += 1;
        let header = BatchHeader {
            environment: environment.clone(),
            sequence: *sequence,
            sent_at_us: now_us,
            lost: Lost::default(),
            overhead: Overhead::default(),
            unsent: 0,
            interval: None,
        };
        batches.push(Batch { header, invocations });
    }
    Ok(batches)
}

/// The batch with everything that is stored of it.
fn new_batch(waiting: &Waiting) -> NewBatch {
    const { assert!(MAX_INVOCATIONS * 100 <= MAX_BATCH_BYTES, "a batch without CPU counters fits") };
    let Waiting { tenant, received_at_us, batch, body } = waiting;
    NewBatch::new(tenant.clone(), batch.header.clone(), &batch.invocations, body.clone(), *received_at_us)
}
