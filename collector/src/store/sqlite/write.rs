//! The one thread that writes: group commit.
//!
//! While one transaction waits for the disk the next requests queue up; they all go into the next one.
//! Within a transaction, rollups of the same series and hour are merged before they are written, so a
//! busy function costs one row per commit, not one per batch.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot};

use tailor_sizing::telemetry::rollup::Rollup;

use super::compaction::{self, CompactionBacklog};
use super::rows::{insert_rollup, to_sql};
use crate::clock::Clock;
use crate::store::{ChangeEvent, FunctionKey, NewBatch, Receipt, SeriesKey, StoreError, Tenant};

/// Requests in one transaction. More only delays the first of them.
const MAX_GROUP: usize = 512;

/// Batch bytes in one transaction, kept well under the 10 MiB that distributed engines allow.
const MAX_GROUP_BYTES: usize = 4 << 20;

/// How often the writer tidies up, when it has something to write at all.
const TIDY_INTERVAL: Duration = Duration::from_secs(30);

/// How often it forgets old batches: that reads the whole table.
const FORGET_INTERVAL: Duration = Duration::from_secs(6 * 3_600);

/// What the writer is asked to do, and where to say what became of it.
pub(super) enum Job {
    Write(Write),
    Tidy(Answer<()>),
}

/// Something that shares a transaction with others.
pub(super) enum Write {
    Append(Box<NewBatch>, Answer<Receipt>),
    LogChange(Tenant, Box<ChangeEvent>, Answer<()>),
}

pub(super) type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

impl Write {
    fn bytes(&self) -> usize {
        match self {
            Self::Append(delivery, _) => delivery.body.len(),
            Self::LogChange(..) => 0,
        }
    }
}

/// What is to be said to a job once the transaction is on disk.
enum Outcome {
    Receipt(Receipt),
    Logged(Result<(), StoreError>),
}

/// Writes until the channel closes.
pub(super) fn run(connection: Connection, clock: Clock, mut jobs: mpsc::Receiver<Job>) {
    let mut writer = Writer::new(connection, clock);
    while let Some(job) = jobs.blocking_recv() {
        let (mut group, mut bytes, mut tidy) = (Vec::new(), 0, None);
        let mut next = Some(job);
        while let Some(job) = next.take() {
            match job {
                Job::Write(write) => {
                    bytes += write.bytes();
                    group.push(write);
                }
                Job::Tidy(answer) => {
                    tidy = Some(answer);
                    break;
                }
            }
            if group.len() < MAX_GROUP && bytes < MAX_GROUP_BYTES {
                next = jobs.try_recv().ok();
            }
        }
        if !group.is_empty() {
            writer.commit_and_answer(group);
        }
        if let Some(answer) = tidy {
            drop(answer.send(writer.tidy()));
        } else if (writer.tidied_at.elapsed() >= TIDY_INTERVAL || writer.forgot_at.is_none())
            && let Err(error) = writer.tidy()
        {
            tracing::warn!(%error, "could not tidy the store; trying again later");
        }
    }
    // Leaves one file behind instead of a log to replay. A failure costs the next start a moment.
    let _ = writer.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
}

struct Writer {
    connection: Connection,
    clock: Clock,
    backlog: CompactionBacklog,
    tidied_at: Instant,
    forgot_at: Option<Instant>,
}

impl Writer {
    fn new(connection: Connection, clock: Clock) -> Self {
        let backlog = CompactionBacklog::load(&connection).unwrap_or_else(|error| {
            tracing::warn!(%error, "could not see what needs tidying; it waits for the next start");
            CompactionBacklog::default()
        });
        Self { connection, clock, backlog, tidied_at: Instant::now(), forgot_at: None }
    }

    fn tidy(&mut self) -> Result<(), StoreError> {
        self.tidied_at = Instant::now();
        self.backlog.tidy(&mut self.connection)?;
        if self.forgot_at.is_none_or(|at| at.elapsed() >= FORGET_INTERVAL) {
            self.forgot_at = Some(Instant::now());
            compaction::forget_batches(&self.connection, self.clock.now_us())?;
        }
        Ok(())
    }

    fn commit_and_answer(&mut self, group: Vec<Write>) {
        match commit(&mut self.connection, &mut self.backlog, &group) {
            Ok(outcomes) => {
                for (job, outcome) in group.into_iter().zip(outcomes) {
                    // A requester that has gone away will send again and be told that it is a duplicate.
                    match (job, outcome) {
                        (Write::Append(_, answer), Outcome::Receipt(receipt)) => {
                            drop(answer.send(Ok(receipt)))
                        }
                        (Write::LogChange(_, _, answer), Outcome::Logged(result)) => {
                            drop(answer.send(result))
                        }
                        _ => unreachable!("each job has the outcome of its kind"),
                    }
                }
            }
            // One request that the engine cannot take must not fail its neighbours; a full disk fails all.
            Err(error) if group.len() > 1 && !matches!(error, StoreError::Full(_)) => {
                for job in group {
                    self.commit_and_answer(vec![job]);
                }
            }
            Err(error) => {
                tracing::error!(%error, requests = group.len(), "could not store");
                for job in group {
                    match job {
                        Write::Append(_, answer) => drop(answer.send(Err(error.clone()))),
                        Write::LogChange(_, _, answer) => drop(answer.send(Err(error.clone()))),
                    }
                }
            }
        }
    }
}

type Merged<'a> = BTreeMap<(&'a Tenant, SeriesKey, u64), Rollup>;

fn commit(
    connection: &mut Connection,
    backlog: &mut CompactionBacklog,
    group: &[Write],
) -> Result<Vec<Outcome>, StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut outcomes = Vec::with_capacity(group.len());
    let mut merged = Merged::new();
    for job in group {
        outcomes.push(match job {
            Write::Append(delivery, _) => Outcome::Receipt(append(&transaction, delivery, &mut merged)?),
            Write::LogChange(tenant, event, _) => Outcome::Logged(log_change(&transaction, tenant, event)?),
        });
    }
    for ((tenant, key, hour), rollup) in &merged {
        insert_rollup(&transaction, tenant, key, *hour, rollup)?;
    }
    transaction.commit()?;
    for (tenant, key, hour) in merged.keys() {
        backlog.part(tenant, key, *hour);
    }
    for (job, outcome) in group.iter().zip(&outcomes) {
        if let (Write::Append(delivery, _), Outcome::Receipt(Receipt::Stored)) = (job, outcome) {
            backlog.recent(&delivery.tenant, FunctionKey::of(&delivery.environment), delivery.invocations);
        }
    }
    Ok(outcomes)
}

fn append<'a>(
    transaction: &Transaction<'_>,
    delivery: &'a NewBatch,
    merged: &mut Merged<'a>,
) -> Result<Receipt, StoreError> {
    let environment = &delivery.environment;
    let id = environment.id.0.as_slice();
    let inserted = transaction
        .prepare_cached(
            "INSERT INTO batch
                 (tenant, account, region, function, environment, sequence, received_at_us, version, memory_mb,
                  architecture, runtime, initialization_type, extension_version, ephemeral_mb, timeout_ms,
                  lost_invocations, lost_platform_records, lost_undecodable_records, failed_deliveries,
                  overhead_cpu_us, overhead_resident_kib, overhead_sent_bytes, overhead_ticks, unsent)
             VALUES
             (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20,?21,?22,?23,?24)
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            delivery.tenant.0,
            environment.account,
            environment.region,
            environment.function,
            id,
            to_sql(delivery.sequence),
            to_sql(delivery.received_at_us),
            environment.version,
            environment.memory.0,
            environment.architecture.as_str(),
            environment.runtime,
            environment.initialization_type,
            environment.extension_version,
            environment.ephemeral_mb,
            to_sql(environment.timeout_ms),
            to_sql(delivery.lost.invocations),
            to_sql(delivery.lost.platform_records),
            to_sql(delivery.lost.undecodable_records),
            to_sql(delivery.lost.failed_deliveries),
            to_sql(delivery.overhead.cpu_us),
            to_sql(delivery.overhead.resident_kib),
            to_sql(delivery.overhead.sent_bytes),
            to_sql(delivery.overhead.ticks),
            to_sql(delivery.unsent),
        ])?;
    if inserted == 0 {
        return Ok(Receipt::Duplicate);
    }
    if delivery.invocations > 0 {
        transaction
            .prepare_cached(
                "INSERT INTO recent
                     (tenant, account, region, function, last_at_us, environment, sequence, invocations, body)
                 VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9) ON CONFLICT DO NOTHING",
            )?
            .execute(params![
                delivery.tenant.0,
                environment.account,
                environment.region,
                environment.function,
                to_sql(delivery.last_at_us),
                id,
                to_sql(delivery.sequence),
                to_sql(delivery.invocations),
                delivery.body.as_ref(),
            ])?;
    }
    for (hour, rollup) in &delivery.rollups {
        merged.entry((&delivery.tenant, SeriesKey::of(environment), *hour)).or_default().merge(rollup);
    }
    Ok(Receipt::Stored)
}

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
