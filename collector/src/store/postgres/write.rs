//! The writer: group commit. While one transaction is being committed, the next batches queue up. All of them go into the
//! next transaction, in one statement per table.
//!
//! A batch is a duplicate when its key is among the pending batches, or when its environment's state contains it. The
//! state is read after the insert: a compaction that removed the pending batch has then committed the state with it. On
//! an engine whose transactions see one snapshot, that can be missed. Then the compaction finds the repetition, and
//! readers leave it out until then; see `compaction` and `read`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::connection::{Begin, Connection, Pool};
use super::errors::Failure;
use super::rows::{Cells, NewRow, PREFIX, columns_of, insert};
use super::status::WriteStatus;
use crate::store::columns;
use crate::store::damage::DamageLog;
use crate::store::rows::{ENVIRONMENT, FUNCTION, Field, PENDING, column, from_sql, to_sql};
use crate::store::sequences::Sequences;
use crate::store::{FunctionKey, NewBatch, Receipt, StoreError, Tenant};

/// Maximum number of batches in one transaction. More would only delay the first of them.
const MAX_GROUP: usize = 512;

/// Maximum size of the batches in one transaction, bytes: well under the 10 MiB limit of some distributed databases.
const MAX_GROUP_BYTES: usize = 4 << 20;

/// Maximum number of functions whose rows are known to exist. Above it, all are looked up again.
const MAX_KNOWN_FUNCTIONS: usize = 65_536;

/// A batch to store.
pub(super) struct Append {
    pub(super) batch: Box<NewBatch>,
    pub(super) reply: oneshot::Sender<Result<Receipt, StoreError>>,
}

/// What identifies a batch: its owner, environment and sequence.
type BatchKey = (Tenant, FunctionKey, [u8; 16], u64);

/// A batch as rows.
struct Prepared {
    key: BatchKey,
    pending: NewRow,
    function: NewRow,
}

impl Prepared {
    fn of(batch: &NewBatch) -> Self {
        let header = &batch.header;
        let key = FunctionKey::of(&header.environment);
        let header_bytes = header.encode();
        let pending = columns::of_pending(batch, &key, &header_bytes, |fields| NewRow::new(&PENDING, fields));
        let new = |fields: &[Field<'_>]| NewRow::new(&FUNCTION, fields);
        let function = columns::of_function(&batch.tenant, &key, (0, 0), &header_bytes, new);
        Self { key: (batch.tenant.clone(), key, header.environment.id.0, header.sequence), pending, function }
    }

    fn owner(&self) -> (Tenant, FunctionKey) {
        (self.key.0.clone(), self.key.1.clone())
    }
}

/// The writer.
pub(super) struct Writer {
    pub(super) pool: Arc<Pool>,
    pub(super) status: WriteStatus,
    pub(super) damage: DamageLog,
    /// Functions that have a row.
    pub(super) known: HashSet<(Tenant, FunctionKey)>,
}

impl Writer {
    /// Writes until the channel closes.
    pub(super) async fn run(mut self, mut appends: mpsc::Receiver<Append>) {
        while let Some(append) = appends.recv().await {
            let mut bytes = append.batch.body.len();
            let mut group = vec![append];
            while group.len() < MAX_GROUP && bytes < MAX_GROUP_BYTES {
                let Ok(append) = appends.try_recv() else { break };
                bytes += append.batch.body.len();
                group.push(append);
            }
            self.commit_and_reply(group).await;
        }
    }

    async fn commit_and_reply(&mut self, group: Vec<Append>) {
        let batches: Vec<_> = group.iter().map(|append| append.batch.as_ref()).collect();
        match self.commit(&batches).await {
            Ok(receipts) => {
                self.status.succeeded();
                for (append, receipt) in group.into_iter().zip(receipts) {
                    // A requester that has gone away sends the batch again and gets `Duplicate`.
                    drop(append.reply.send(Ok(receipt)));
                }
            }
            // A batch that the database rejects must not fail the others.
            Err(StoreError::Engine(_)) if group.len() > 1 && self.is_reachable().await => {
                for append in group {
                    Box::pin(self.commit_and_reply(vec![append])).await;
                }
            }
            Err(error) => {
                self.status.failed(&error, group.len());
                for append in group {
                    drop(append.reply.send(Err(error.clone())));
                }
            }
        }
    }

    async fn is_reachable(&self) -> bool {
        self.pool.once(|connection| async move { connection.batch("SELECT 1").await }).await.is_ok()
    }

    async fn commit(&mut self, batches: &[&NewBatch]) -> Result<Vec<Receipt>, StoreError> {
        let mut prepared: Vec<_> = batches.iter().map(|batch| Prepared::of(batch)).collect();
        let keys: Vec<_> = prepared.iter().map(|batch| batch.key.clone()).collect();
        // Every collector inserts in the same order, so that none waits for another that waits for it.
        prepared.sort_by(|a, b| a.key.cmp(&b.key));
        let mut unknown: Vec<&Prepared> =
            prepared.iter().filter(|one| !self.known.contains(&one.owner())).collect();
        unknown.dedup_by_key(|one| one.owner());
        let pending: Vec<_> = prepared.iter().map(|one| one.pending.clone()).collect();
        let functions: Vec<_> = unknown.iter().map(|one| one.function.clone()).collect();
        let rows = Arc::new((pending, functions));
        let damage = self.damage.clone();
        let written = self.pool.transaction(Begin::Write, |connection| {
            let (rows, damage) = (Arc::clone(&rows), damage.clone());
            async move { write(&connection, &rows.0, &rows.1, &damage).await }
        });
        let mut stored = written.await?;
        if self.known.len() + unknown.len() > MAX_KNOWN_FUNCTIONS {
            self.known.clear();
        }
        self.known.extend(unknown.iter().map(|one| one.owner()));
        // Of a batch that is twice in the group, the first is stored.
        let receipt = |key| if stored.remove(&key) { Receipt::Stored } else { Receipt::Duplicate };
        Ok(keys.into_iter().map(receipt).collect())
    }
}

/// Writes the batches of a group; returns the keys of those that are new.
async fn write(
    connection: &Connection,
    pending: &[NewRow],
    functions: &[NewRow],
    damage: &DamageLog,
) -> Result<HashSet<BatchKey>, Failure> {
    let returned = format!("ON CONFLICT DO NOTHING RETURNING {}", PENDING.columns[..PENDING.keys].join(", "));
    let inserted = insert(connection, &PENDING, pending, &returned).await?;
    insert(connection, &FUNCTION, functions, "ON CONFLICT DO NOTHING").await?;
    let mut stored = HashSet::with_capacity(inserted.len());
    for row in &inserted {
        stored.insert(batch_key(&Cells::of(row)?)?);
    }
    let states = states(connection, &stored, damage).await?;
    let compacted: Vec<BatchKey> = stored
        .iter()
        .filter(|(tenant, key, environment, sequence)| {
            let state = states.get(&(tenant.clone(), key.clone(), *environment));
            state.is_some_and(|sequences| sequences.contains(*sequence))
        })
        .cloned()
        .collect();
    for (tenant, key, environment, sequence) in &compacted {
        let sql = format!(
            "DELETE FROM {PREFIX}pending WHERE tenant = $1 AND account = $2 AND region = $3 AND function = $4
             AND environment = $5 AND sequence = $6"
        );
        let (environment, sequence) = (&environment[..], to_sql(*sequence));
        connection
            .execute(&sql, &[&tenant.0, &key.account, &key.region, &key.name, &environment, &sequence])
            .await?;
    }
    stored.retain(|key| !compacted.contains(key));
    Ok(stored)
}

fn batch_key(cells: &Cells<'_>) -> Result<BatchKey, StoreError> {
    let (tenant, key) = cells.owner()?;
    let environment = environment_id(cells.blob(column::pending::environment)?)?;
    Ok((tenant, key, environment, from_sql(cells.integer(column::pending::sequence)?)))
}

fn environment_id(bytes: &[u8]) -> Result<[u8; 16], StoreError> {
    bytes.try_into().map_err(|_| StoreError::Damaged("an environment's id has 16 bytes".to_owned()))
}

/// The compacted sequences of the environments of these batches. A damaged state counts as absent: the compaction, which
/// reads it again, takes the batch as new.
async fn states(
    connection: &Connection,
    batches: &HashSet<BatchKey>,
    damage: &DamageLog,
) -> Result<HashMap<(Tenant, FunctionKey, [u8; 16]), Sequences>, Failure> {
    let environments: HashSet<_> = batches.iter().map(|(tenant, key, id, _)| (tenant, key, id)).collect();
    let environments: Vec<_> = environments.into_iter().collect();
    let text = |part: fn(&(&Tenant, &FunctionKey, &[u8; 16])) -> String| -> Vec<String> {
        environments.iter().map(part).collect()
    };
    let tenants = text(|(tenant, ..)| tenant.0.clone());
    let accounts = text(|(_, key, _)| key.account.clone());
    let regions = text(|(_, key, _)| key.region.clone());
    let functions = text(|(_, key, _)| key.name.clone());
    let ids: Vec<&[u8]> = environments.iter().map(|(.., id)| &id[..]).collect();
    let sql = format!(
        "SELECT {} FROM UNNEST($1::text[], $2::text[], $3::text[], $4::text[], $5::bytea[])
            AS k (tenant, account, region, function, environment)
         JOIN {PREFIX}environment e ON e.tenant = k.tenant AND e.account = k.account AND e.region = k.region
            AND e.function = k.function AND e.environment = k.environment",
        columns_of(&ENVIRONMENT, "e")
    );
    let mut states = HashMap::new();
    connection
        .for_each(&sql, &[&tenants, &accounts, &regions, &functions, &ids], |row| {
            let cells = Cells::of(row)?;
            if cells.verify(&ENVIRONMENT, damage)
                && let Some(sequences) = Sequences::decode(cells.blob(column::environment::sequences)?)
            {
                let (tenant, key) = cells.owner()?;
                let environment = environment_id(cells.blob(column::environment::environment)?)?;
                states.insert((tenant, key, environment), sequences);
            }
            Ok(true)
        })
        .await?;
    Ok(states)
}
