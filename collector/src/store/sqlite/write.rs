//! The writer thread: group commit, and maintenance in between.
//!
//! While one transaction is being written to disk, the next requests queue up. All of them go into the next
//! transaction. Maintenance has a transaction of its own with a time budget, and no `fsync`: the next commit of requests
//! also makes it durable, and until then a crash only repeats it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::checkpoint::LogState;
use super::files::OpenFiles;
use super::maintenance::Maintenance;
use super::phases::{Phase, Phases};
use super::rows::{FUNCTION, PENDING, insert_change};
use super::status::WriteStatus;
use super::summaries;
use super::{checkpoint, compaction};
use crate::store::columns;
use crate::store::damage::DamageLog;
use crate::store::{ChangeEvent, FunctionKey, NewBatch, Receipt, StoreError, Tenant};

/// Maximum number of requests in one transaction. More would only delay the first of them.
const MAX_GROUP: usize = 512;

/// Maximum size of the batches in one transaction, bytes: well under the 10 MiB limit of some distributed databases.
const MAX_GROUP_BYTES: usize = 4 << 20;

/// Maximum number of functions whose rows are known to exist. Above it, all are looked up again.
const MAX_KNOWN_FUNCTIONS: usize = 65_536;

/// The channel for the result of a request.
pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// A request to the writer.
pub(super) enum Job {
    Append(Append),
    LogChange(LogChange),
    PutSummaries(summaries::Put, Reply<()>),
    /// A transaction of the archive, with a sync.
    Archive(Box<dyn FnOnce(&mut Writer) + Send>),
    /// One step of maintenance. The sender requests the next one after the reply.
    Maintain(oneshot::Sender<()>),
    /// All maintenance that is due.
    MaintainAll(Reply<()>),
}

/// A batch to store.
pub(super) struct Append {
    pub(super) batch: Box<NewBatch>,
    pub(super) reply: Reply<Receipt>,
}

/// A step of the change log to store.
pub(super) struct LogChange {
    pub(super) tenant: Tenant,
    pub(super) event: ChangeEvent,
    pub(super) reply: Reply<()>,
}

/// The requests that share one transaction.
#[derive(Default)]
struct Group {
    appends: Vec<Append>,
    log_changes: Vec<LogChange>,
}

impl Group {
    fn len(&self) -> usize {
        self.appends.len() + self.log_changes.len()
    }

    /// One group for each request.
    fn split(self) -> impl Iterator<Item = Self> {
        let appends =
            self.appends.into_iter().map(|append| Self { appends: vec![append], ..Self::default() });
        let log_changes = self
            .log_changes
            .into_iter()
            .map(|log_change| Self { log_changes: vec![log_change], ..Self::default() });
        appends.chain(log_changes)
    }

    fn reply_ok(self, results: GroupResults) {
        // A requester that has gone away sends the batch again and gets `Duplicate`.
        for (append, receipt) in self.appends.into_iter().zip(results.receipts) {
            drop(append.reply.send(Ok(receipt)));
        }
        for (log_change, result) in self.log_changes.into_iter().zip(results.logged) {
            drop(log_change.reply.send(result));
        }
    }

    fn reply_error(self, error: &StoreError) {
        for append in self.appends {
            drop(append.reply.send(Err(error.clone())));
        }
        for log_change in self.log_changes {
            drop(log_change.reply.send(Err(error.clone())));
        }
    }
}

/// The results of a committed group, in the order of its requests.
struct GroupResults {
    receipts: Vec<Receipt>,
    logged: Vec<Result<(), StoreError>>,
}

/// The writer's connection and what it needs besides.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) files: OpenFiles,
    pub(super) status: WriteStatus,
    pub(super) damage: DamageLog,
    pub(super) maintenance: Maintenance,
    /// Functions that have a row.
    pub(super) known: HashSet<(Tenant, FunctionKey)>,
    /// What the checkpoint thread requests.
    pub(super) log: Arc<LogState>,
    /// Whether the last step of maintenance left something to do.
    pub(super) is_behind: Arc<AtomicBool>,
    /// How long its phases take.
    pub(super) phases: Phases,
}

impl Writer {
    /// Writes until the channel closes.
    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(job) = jobs.blocking_recv() {
            let (mut group, mut bytes, mut other) = (Group::default(), 0, None);
            let mut next = Some(job);
            while let Some(job) = next.take() {
                match job {
                    Job::Append(append) => {
                        bytes += append.batch.body.len();
                        group.appends.push(append);
                    }
                    Job::LogChange(log_change) => group.log_changes.push(log_change),
                    job => {
                        other = Some(job);
                        break;
                    }
                }
                if group.len() < MAX_GROUP && bytes < MAX_GROUP_BYTES {
                    next = jobs.try_recv().ok();
                }
            }
            if group.len() > 0 {
                self.commit_and_reply(group);
            }
            match other {
                Some(Job::Maintain(done)) => {
                    // Maintenance fills the log too. It continues when the log is short again.
                    if !self.log.is_long() {
                        self.maintain();
                    }
                    let _ = done.send(());
                }
                Some(Job::MaintainAll(reply)) => drop(reply.send(self.maintain_all())),
                Some(Job::PutSummaries(put, reply)) => {
                    let stored =
                        self.phases.time(Phase::Summaries, || summaries::put(&mut self.connection, &put));
                    drop(reply.send(stored));
                }
                Some(Job::Archive(work)) => work(&mut self),
                _ => {}
            }
            if self.log.take_rest_is_short() {
                // If it fails, the log grows until the next attempt.
                let _ = self.phases.time(Phase::Restart, || checkpoint::checkpoint(&self.connection));
            }
            if self.log.is_long() {
                self.phases.time(Phase::Pause, || std::thread::sleep(checkpoint::WRITER_PAUSE));
            }
        }
        // Empties the write-ahead log. If this fails, the next start reads the log instead.
        let _ = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
    }

    fn maintain(&mut self) {
        let step = || self.maintenance.step(&mut self.connection, &self.damage);
        match self.phases.time(Phase::Maintenance, step) {
            Ok(is_behind) => self.is_behind.store(is_behind, Ordering::Relaxed),
            Err(error) => {
                self.is_behind.store(false, Ordering::Relaxed);
                // On a full disk, the failed write is logged already.
                if !self.status.has_failed() {
                    tracing::warn!(%error, "cannot maintain the store; trying again later");
                }
            }
        }
    }

    fn maintain_all(&mut self) -> Result<(), StoreError> {
        loop {
            self.maintenance.restart();
            while self.maintenance.step(&mut self.connection, &self.damage)? {}
            if compaction::next_function(&self.connection, None)?.is_none() {
                return Ok(());
            }
        }
    }

    fn commit_and_reply(&mut self, group: Group) {
        match self.commit(&group) {
            Ok(results) => {
                self.status.succeeded();
                group.reply_ok(results);
            }
            // A request that the database rejects must not fail the others. What concerns the files fails all of them.
            Err(error)
                if group.len() > 1 && !matches!(error, StoreError::Full(_) | StoreError::FilesChanged(_)) =>
            {
                group.split().for_each(|single| self.commit_and_reply(single));
            }
            Err(error) => {
                self.status.failed(&error, group.len());
                group.reply_error(&error);
            }
        }
    }

    fn commit(&mut self, group: &Group) -> Result<GroupResults, StoreError> {
        let start = Instant::now();
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let receipts = group
            .appends
            .iter()
            .map(|request| append(&transaction, &request.batch, &self.known, &self.damage))
            .collect::<Result<Vec<_>, _>>()?;
        let logged = group
            .log_changes
            .iter()
            .map(|request| log_change(&transaction, &request.tenant, &request.event))
            .collect::<Result<Vec<_>, _>>()?;
        self.phases.record(Phase::Insert, start);
        self.phases.time(Phase::Commit, || transaction.commit())?;
        // A commit to a deleted file is lost when the process ends.
        self.files.check()?;
        let stored = group.appends.iter().zip(&receipts).filter(|(_, receipt)| **receipt == Receipt::Stored);
        for (Append { batch, .. }, _) in stored {
            self.maintenance.stored(batch);
            if self.known.len() >= MAX_KNOWN_FUNCTIONS {
                self.known.clear();
            }
            let function = (batch.tenant.clone(), FunctionKey::of(&batch.header.environment));
            self.known.insert(function);
        }
        Ok(GroupResults { receipts, logged })
    }
}

fn append(
    transaction: &Transaction<'_>,
    batch: &NewBatch,
    known: &HashSet<(Tenant, FunctionKey)>,
    damage: &DamageLog,
) -> Result<Receipt, StoreError> {
    let header = &batch.header;
    let state = compaction::stored_environment(transaction, &batch.tenant, header, damage)?;
    if state.is_some_and(|state| state.sequences.contains(header.sequence)) {
        return Ok(Receipt::Duplicate);
    }
    let (tenant, key) = (&batch.tenant, FunctionKey::of(&header.environment));
    let header_bytes = header.encode();
    if !columns::of_pending(batch, &key, &header_bytes, |fields| PENDING.insert(transaction, fields))? {
        return Ok(Receipt::Duplicate);
    }
    if !known.contains(&(tenant.clone(), key.clone())) {
        columns::of_function(tenant, &key, (0, 0), &header_bytes, |fields| {
            FUNCTION.insert(transaction, fields)
        })?;
    }
    Ok(Receipt::Stored)
}

/// The inner result is [`StoreError::StepTaken`] when the step exists; it does not fail the transaction.
fn log_change(
    transaction: &Transaction<'_>,
    tenant: &Tenant,
    event: &ChangeEvent,
) -> Result<Result<(), StoreError>, StoreError> {
    Ok(if insert_change(transaction, tenant, event)? {
        Ok(())
    } else {
        Err(StoreError::StepTaken { change_id: event.change_id.clone(), step: event.step })
    })
}
