//! The writer thread: group commit.
//!
//! While one transaction is being written to disk, the next requests queue up. All of them go into the next
//! transaction. Within a transaction, rollups of the same series and hour are merged before they are written,
//! so a busy function needs one row per commit, not one per batch.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot};

use tailor_sizing::telemetry::rollup::Rollup;

use super::compaction::{self, CompactionBacklog};
use super::rows::{insert_rollup, to_sql};
use crate::clock::Clock;
use crate::store::{ChangeEvent, FunctionKey, NewBatch, Receipt, SeriesKey, StoreError, Tenant};

/// Maximum number of requests in one transaction. More would only delay the first of them.
const MAX_GROUP: usize = 512;

/// Maximum size of the batches in one transaction, bytes: well under the 10 MiB limit of some distributed databases.
const MAX_GROUP_BYTES: usize = 4 << 20;

/// Time between two compactions. The writer compacts only when it also has something to write.
const COMPACTION_INTERVAL: Duration = Duration::from_secs(30);

/// Time between two deletions of old batch rows, which read the whole table.
const DELETION_INTERVAL: Duration = Duration::from_secs(6 * 3_600);

/// The channel for the result of a request.
pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// A request to the writer.
pub(super) enum Job {
    Append(Append),
    LogChange(LogChange),
    Compact(Reply<()>),
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

/// Writes until the channel closes.
pub(super) fn run(connection: Connection, clock: Clock, mut jobs: mpsc::Receiver<Job>) {
    let mut writer = Writer::new(connection, clock);
    while let Some(job) = jobs.blocking_recv() {
        let (mut group, mut bytes, mut compaction_reply) = (Group::default(), 0, None);
        let mut next = Some(job);
        while let Some(job) = next.take() {
            match job {
                Job::Append(append) => {
                    bytes += append.batch.body.len();
                    group.appends.push(append);
                }
                Job::LogChange(log_change) => group.log_changes.push(log_change),
                Job::Compact(reply) => {
                    compaction_reply = Some(reply);
                    break;
                }
            }
            if group.len() < MAX_GROUP && bytes < MAX_GROUP_BYTES {
                next = jobs.try_recv().ok();
            }
        }
        if group.len() > 0 {
            writer.commit_and_reply(group);
        }
        if let Some(reply) = compaction_reply {
            drop(reply.send(writer.compact()));
        } else if (writer.compacted_at.elapsed() >= COMPACTION_INTERVAL || writer.deleted_at.is_none())
            && let Err(error) = writer.compact()
        {
            tracing::warn!(%error, "cannot compact the store; trying again later");
        }
    }
    // Empties the write-ahead log. If this fails, the next start reads the log instead.
    let _ = writer.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
}

struct Writer {
    connection: Connection,
    clock: Clock,
    backlog: CompactionBacklog,
    compacted_at: Instant,
    /// When old batch rows were last deleted.
    deleted_at: Option<Instant>,
}

impl Writer {
    fn new(connection: Connection, clock: Clock) -> Self {
        let backlog = CompactionBacklog::load(&connection).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read the compaction backlog; trying again at the next start");
            CompactionBacklog::default()
        });
        Self { connection, clock, backlog, compacted_at: Instant::now(), deleted_at: None }
    }

    fn compact(&mut self) -> Result<(), StoreError> {
        self.compacted_at = Instant::now();
        self.backlog.compact(&mut self.connection)?;
        if self.deleted_at.is_none_or(|at| at.elapsed() >= DELETION_INTERVAL) {
            self.deleted_at = Some(Instant::now());
            compaction::delete_old_batches(&self.connection, self.clock.now_us())?;
        }
        Ok(())
    }

    fn commit_and_reply(&mut self, group: Group) {
        match commit(&mut self.connection, &mut self.backlog, &group) {
            Ok(results) => group.reply_ok(results),
            // A request that the database refuses must not fail the others. A full disk fails all of them.
            Err(error) if group.len() > 1 && !matches!(error, StoreError::Full(_)) => {
                group.split().for_each(|single| self.commit_and_reply(single));
            }
            Err(error) => {
                tracing::error!(%error, requests = group.len(), "cannot store");
                group.reply_error(&error);
            }
        }
    }
}

type MergedRollups<'a> = BTreeMap<(&'a Tenant, SeriesKey, u64), Rollup>;

fn commit(
    connection: &mut Connection,
    backlog: &mut CompactionBacklog,
    group: &Group,
) -> Result<GroupResults, StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut merged = MergedRollups::new();
    let receipts = group
        .appends
        .iter()
        .map(|request| append(&transaction, &request.batch, &mut merged))
        .collect::<Result<Vec<_>, _>>()?;
    let logged = group
        .log_changes
        .iter()
        .map(|request| log_change(&transaction, &request.tenant, &request.event))
        .collect::<Result<Vec<_>, _>>()?;
    for ((tenant, key, hour), rollup) in &merged {
        insert_rollup(&transaction, tenant, key, *hour, rollup)?;
    }
    transaction.commit()?;
    for (tenant, key, hour) in merged.keys() {
        backlog.count_part(tenant, key, *hour);
    }
    for (Append { batch, .. }, receipt) in group.appends.iter().zip(&receipts) {
        if *receipt == Receipt::Stored {
            backlog.count_recent(
                &batch.tenant,
                FunctionKey::of(&batch.header.environment),
                batch.invocations,
            );
        }
    }
    Ok(GroupResults { receipts, logged })
}

fn append<'a>(
    transaction: &Transaction<'_>,
    batch: &'a NewBatch,
    merged: &mut MergedRollups<'a>,
) -> Result<Receipt, StoreError> {
    let environment = &batch.header.environment;
    let id = environment.id.0.as_slice();
    let inserted = transaction
        .prepare_cached(
            "INSERT INTO batch
                 (tenant, account, region, function, environment, sequence, received_at_us, version, memory_mb,
                  architecture, runtime, initialization_type, extension_version, ephemeral_mb, timeout_ms,
                  lost_invocations, lost_platform_records, lost_undecodable_records, failed_deliveries,
                  overhead_cpu_us, overhead_resident_kib, overhead_sent_bytes, overhead_ticks, unsent,
                  sent_at_us)
             VALUES
             (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20,?21,?22,?23,?24,?25)
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            batch.tenant.0,
            environment.account,
            environment.region,
            environment.function,
            id,
            to_sql(batch.header.sequence),
            to_sql(batch.received_at_us),
            environment.version,
            environment.memory.0,
            environment.architecture.as_str(),
            environment.runtime,
            environment.initialization_type.as_str(),
            environment.extension_version,
            environment.ephemeral_mb,
            to_sql(environment.timeout_ms),
            to_sql(batch.header.lost.invocations),
            to_sql(batch.header.lost.platform_records),
            to_sql(batch.header.lost.undecodable_records),
            to_sql(batch.header.lost.failed_deliveries),
            to_sql(batch.header.overhead.cpu_us),
            to_sql(batch.header.overhead.resident_kib),
            to_sql(batch.header.overhead.sent_bytes),
            to_sql(batch.header.overhead.ticks),
            to_sql(batch.header.unsent),
            to_sql(batch.header.sent_at_us),
        ])?;
    if inserted == 0 {
        return Ok(Receipt::Duplicate);
    }
    if batch.invocations > 0 {
        transaction
            .prepare_cached(
                "INSERT INTO recent
                     (tenant, account, region, function, last_at_us, environment, sequence, invocations, body)
                 VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9) ON CONFLICT DO NOTHING",
            )?
            .execute(params![
                batch.tenant.0,
                environment.account,
                environment.region,
                environment.function,
                to_sql(batch.last_at_us),
                id,
                to_sql(batch.header.sequence),
                to_sql(batch.invocations),
                batch.body.as_ref(),
            ])?;
    }
    for (hour, rollup) in &batch.rollups {
        merged.entry((&batch.tenant, SeriesKey::of(environment), *hour)).or_default().merge(rollup);
    }
    Ok(Receipt::Stored)
}

/// The inner result is [`StoreError::StepTaken`] when the step exists; it does not fail the transaction.
fn log_change(
    transaction: &Transaction<'_>,
    tenant: &Tenant,
    event: &ChangeEvent,
) -> Result<Result<(), StoreError>, StoreError> {
    let FunctionKey { account, region, name } = &event.function;
    let inserted = transaction
        .prepare_cached(
            "INSERT INTO change_event
                 (tenant, account, region, function, change_id, step, at_us, kind, detail)
             VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            tenant.0,
            account,
            region,
            name,
            event.change_id,
            to_sql(event.step),
            to_sql(event.at_us),
            event.kind,
            event.detail.to_string(),
        ])?;
    Ok(if inserted == 1 {
        Ok(())
    } else {
        Err(StoreError::StepTaken { change_id: event.change_id.clone(), step: event.step })
    })
}
