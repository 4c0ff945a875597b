//! Compaction: merges the pending batches of some functions into their environments, rollups and single invocations, in
//! one transaction.
//!
//! The rows of these functions are locked first, so that two collectors never compact one function at the same time. A
//! batch that its environment's state contains is a repetition and is dropped: this alone decides that no batch counts
//! twice. Only the rows that were read are deleted, because other collectors insert meanwhile.

use std::collections::{BTreeMap, HashMap, HashSet};

use agent_proto::batch::BatchHeader;
use agent_proto::rollup;
use tailor_sizing::telemetry::rollup::Rollup;
use tokio_postgres::Row;

use super::archive;
use super::connection::{Connection, Parameters};
use super::errors::Failure;
use super::read::{Pending, environment_state};
use super::rows::{Cells, NewRow, OF_FUNCTION, PREFIX, Writes, columns_of, insert, isolate, select};
use crate::store::archive::Pieces;
use crate::store::columns;
use crate::store::damage::DamageLog;
use crate::store::recent::{self, RECENT_INVOCATIONS};
use crate::store::rows::{
    ENVIRONMENT, FUNCTION, PENDING, RECENT, ROLLUP, column, damaged, from_sql, to_ordered_sql, to_sql,
};
use crate::store::sequences::Sequences;
use crate::store::{EnvironmentState, FunctionKey, SeriesKey, StoreError, Tenant};

/// A function with its owner.
pub(super) type Owner = (Tenant, FunctionKey);

/// Maximum number of batches of a function that one transaction merges.
const MAX_BATCHES: usize = 512;

/// Size of the bodies from which no further batch of a function, and no further function, is added to a transaction, bytes.
const MAX_BYTES: u64 = 4 << 20;

/// Maximum number of functions in one transaction. Their rows are locked meanwhile.
const MAX_FUNCTIONS: usize = 64;

/// The parameters of [`OF_FUNCTION`].
pub(super) fn of_function((tenant, key): &Owner) -> Parameters<'_> {
    vec![&tenant.0, &key.account, &key.region, &key.name]
}

/// The parameters 1 to 4 of a query for the functions after `after`.
pub(super) fn after(cursor: Option<&Owner>) -> [&str; 4] {
    match cursor {
        Some((tenant, key)) => [&tenant.0, &key.account, &key.region, &key.name],
        None => [""; 4],
    }
}

/// What one transaction merged.
pub(super) struct Step {
    /// The last function.
    pub(super) last: Owner,
    /// Number of batches.
    pub(super) batches: u64,
    /// Whether batches of these functions are left.
    pub(super) has_more: bool,
}

/// Merges pending batches of the next functions after `cursor`, in the order of keys; `None` when there is no function. Of a
/// function with many or large batches, the first are merged: the others wait for the next round, so that no function waits
/// for another.
pub(super) async fn next_functions(
    connection: &Connection,
    cursor: Option<&Owner>,
    now_us: u64,
    damage: &DamageLog,
) -> Result<Option<Step>, Failure> {
    let functions = pending_functions(connection, cursor).await?;
    let Some(last) = functions.last().cloned() else { return Ok(None) };
    lock(connection, &functions).await?;
    let keys: Vec<_> = functions.iter().map(of_function).collect();
    let rows = connection.query_each(&first_batches(), &keys).await?;
    let mut merges = vec![];
    for (owner, rows) in functions.iter().zip(&rows) {
        merges.push(Merge::of(connection, owner, rows, now_us, damage).await?);
    }
    let has_more = merges.iter().any(|merge| merge.has_more);
    let mut count = 0;
    add_stored(connection, &mut merges, damage).await?;
    let spool = archive::lock(connection).await?;
    let (mut environments, mut rollups, mut recents) = (Writes::default(), Writes::default(), vec![]);
    for merge in &mut merges {
        count += merge.deleted.values().map(Vec::len).sum::<usize>();
        merge.apply(spool.is_some())?;
        merge.environment_rows(&mut environments);
        merge.rollup_rows(&mut rollups);
        recents.extend(merge.recent_rows()?);
    }
    environments.run(connection, &ENVIRONMENT).await?;
    rollups.run(connection, &ROLLUP).await?;
    insert(connection, &RECENT, &recents, "").await?;
    if let Some(spool) = spool {
        let pieces =
            merges.iter_mut().map(|merge| (merge.owner, std::mem::take(&mut merge.pieces))).collect();
        archive::add(connection, spool, pieces, now_us, damage).await?;
    }
    write_functions(connection, &merges, now_us, damage).await?;
    delete_pending(connection, &merges).await?;
    Ok(Some(Step { last, batches: count as u64, has_more }))
}

/// Selects the first pending batches of a function: at most [`MAX_BATCHES`], and none after [`MAX_BYTES`] of bodies.
fn first_batches() -> String {
    format!(
        "SELECT {} FROM (
            SELECT *, SUM(octet_length(body)) OVER (ORDER BY environment, sequence) - octet_length(body)
                AS bytes_before
            FROM (SELECT * FROM {PREFIX}pending WHERE {OF_FUNCTION}
                  ORDER BY environment, sequence LIMIT {MAX_BATCHES}) first_rows
         ) p WHERE bytes_before < {MAX_BYTES} ORDER BY environment, sequence",
        columns_of(&PENDING, "p")
    )
}

/// The next functions with pending batches, and only as many as one transaction merges.
async fn pending_functions(connection: &Connection, cursor: Option<&Owner>) -> Result<Vec<Owner>, Failure> {
    let [tenant, account, region, function] = after(cursor);
    let sql = format!(
        "SELECT tenant, account, region, function, octet_length(body)::bigint AS bytes FROM {PREFIX}pending
         WHERE (tenant, account, region, function) > ($1, $2, $3, $4)
         ORDER BY tenant, account, region, function, environment, sequence LIMIT {MAX_BATCHES}"
    );
    let rows = connection.query(&sql, &[&tenant, &account, &region, &function]).await?;
    let (mut functions, mut bytes): (Vec<Owner>, u64) = (vec![], 0);
    for row in &rows {
        let cells = Cells::of(row)?;
        let owner = cells.owner()?;
        if functions.last() != Some(&owner) {
            if functions.len() >= MAX_FUNCTIONS || bytes >= MAX_BYTES {
                break;
            }
            functions.push(owner);
        }
        bytes += from_sql(row.try_get("bytes")?);
    }
    Ok(functions)
}

/// Locks the rows of functions until the end of the transaction, and creates those that are absent: a function that was
/// deleted because it was silent for so long.
pub(super) async fn lock(connection: &Connection, functions: &[Owner]) -> Result<(), Failure> {
    let sql = format!("SELECT 1 FROM {PREFIX}function WHERE {OF_FUNCTION} FOR UPDATE");
    let found = connection.query_each(&sql, &functions.iter().map(of_function).collect::<Vec<_>>()).await?;
    let absent = functions.iter().zip(&found).filter(|(_, found)| found.is_empty());
    let rows: Vec<_> = absent.map(|((tenant, key), _)| function_row((tenant, key), (0, 0), &[])).collect();
    insert(connection, &FUNCTION, &rows, "").await.map(drop)
}

fn function_row(owner: (&Tenant, &FunctionKey), counts: (u64, u64), header: &[u8]) -> NewRow {
    columns::of_function(owner.0, owner.1, counts, header, |fields| NewRow::new(&FUNCTION, fields))
}

pub(super) fn rollup_row(tenant: &Tenant, key: &SeriesKey, span: (u64, u64), rollup: &Rollup) -> NewRow {
    columns::of_rollup(tenant, key, span, rollup, |fields| NewRow::new(&ROLLUP, fields))
}

/// What is merged of one function.
struct Merge<'a> {
    owner: &'a Owner,
    batches: Vec<Pending>,
    /// Whether there may be more batches than were read.
    has_more: bool,
    /// The keys of the rows that are deleted: sequences by environment.
    deleted: BTreeMap<Vec<u8>, Vec<i64>>,
    /// The state of each environment, and whether it has a row.
    states: HashMap<[u8; 16], (EnvironmentState, bool)>,
    /// The stored rollups.
    stored: HashMap<(SeriesKey, u64), (Rollup, bool)>,
    rollups: BTreeMap<(SeriesKey, u64), Rollup>,
    bodies: Vec<recent::Body>,
    /// What goes to the spool of the archive.
    pieces: Pieces,
    newest: Option<(BatchHeader, u64)>,
    recent_added: u64,
}

impl<'a> Merge<'a> {
    async fn of(
        connection: &Connection,
        owner: &'a Owner,
        rows: &[Row],
        now_us: u64,
        damage: &DamageLog,
    ) -> Result<Self, Failure> {
        let mut merge = Self {
            owner,
            batches: vec![],
            has_more: false,
            deleted: BTreeMap::new(),
            states: HashMap::new(),
            stored: HashMap::new(),
            rollups: BTreeMap::new(),
            bodies: vec![],
            pieces: Pieces::default(),
            newest: None,
            recent_added: 0,
        };
        let mut bytes = 0;
        for row in rows {
            let cells = Cells::of(row)?;
            bytes += cells.blob(column::pending::body)?.len() as u64;
            let environment = cells.blob(column::pending::environment)?.to_vec();
            merge.deleted.entry(environment).or_default().push(cells.integer(column::pending::sequence)?);
            if cells.is_valid(&PENDING) {
                merge.batches.push(Pending::read(&cells)?);
            } else {
                // The copy keeps the row for `tailor check`.
                isolate(connection, &PENDING, &cells, now_us, damage).await?;
            }
        }
        merge.has_more = rows.len() >= MAX_BATCHES || bytes >= MAX_BYTES;
        Ok(merge)
    }

    /// Takes over a stored state. Of a damaged one, only the batches that are pending now are taken as new: an environment
    /// sends a batch only after the one before is acknowledged or given up.
    fn add_state(&mut self, cells: &Cells<'_>, damage: &DamageLog) -> Result<(), StoreError> {
        let id: [u8; 16] = cells.blob(column::environment::environment)?.try_into().map_err(damaged)?;
        if cells.verify(&ENVIRONMENT, damage) {
            self.states.insert(id, (environment_state(cells)?, true));
        } else if let Some(first) = self.batches.iter().find(|batch| batch.header.environment.id.0 == id) {
            let sequences = Sequences::up_to(first.header.sequence.saturating_sub(1));
            let state = EnvironmentState { header: first.header.clone(), sequences, received_at_us: 0 };
            self.states.insert(id, (state, true));
        }
        Ok(())
    }

    /// Adds the batches to the states, rollups and bodies, and with an archive to the pieces of its spool, except for repetitions.
    fn apply(&mut self, is_archived: bool) -> Result<(), StoreError> {
        for Pending { header, received_at_us, rollups, body } in std::mem::take(&mut self.batches) {
            let is_new = match self.states.get_mut(&header.environment.id.0) {
                Some((state, _)) => state.add(header.clone(), received_at_us),
                None => {
                    let state = EnvironmentState::first(header.clone(), received_at_us);
                    self.states.insert(header.environment.id.0, (state, false));
                    true
                }
            };
            if !is_new {
                continue;
            }
            if is_archived {
                self.pieces.add(&rollups, &body.bytes)?;
            }
            for (hour, rollup) in rollups {
                let series = SeriesKey::of(&header.environment);
                self.rollups.entry((series, hour)).or_default().merge(&rollup);
            }
            self.bodies.push(body);
            if self.newest.as_ref().is_none_or(|(_, newest_us)| received_at_us >= *newest_us) {
                self.newest = Some((header, received_at_us));
            }
        }
        Ok(())
    }

    fn environment_rows(&self, writes: &mut Writes) {
        let mut states: Vec<_> = self.states.values().collect();
        states.sort_by_key(|(state, _)| state.header.environment.id.0);
        for (state, exists) in states {
            let row =
                columns::of_environment(&self.owner.0, state, |fields| NewRow::new(&ENVIRONMENT, fields));
            writes.add(*exists, row);
        }
    }

    fn rollup_rows(&mut self, writes: &mut Writes) {
        for ((series, hour), mut rollup) in std::mem::take(&mut self.rollups) {
            let key = (series, hour);
            let stored = self.stored.remove(&key);
            if let Some((stored, true)) = &stored {
                rollup.merge(stored);
            }
            writes.add(stored.is_some(), rollup_row(&self.owner.0, &key.0, (1, hour), &rollup));
        }
    }

    fn recent_rows(&mut self) -> Result<Vec<NewRow>, StoreError> {
        let (tenant, key) = self.owner;
        let mut rows = vec![];
        for row in recent::pack(std::mem::take(&mut self.bodies))? {
            self.recent_added += row.invocations;
            rows.push(columns::of_recent(tenant, key, &row, |fields| NewRow::new(&RECENT, fields)));
        }
        Ok(rows)
    }
}

/// The stored rollups of some functions at some hours, by function in their order. A damaged one has no content, and is
/// written over.
pub(super) async fn stored_rollups(
    connection: &Connection,
    spans: &[(&Owner, i64, Vec<i64>)],
    damage: &DamageLog,
) -> Result<Vec<HashMap<(SeriesKey, u64), (Rollup, bool)>>, Failure> {
    let sql = format!("{} WHERE {OF_FUNCTION} AND hours = $5 AND hour = ANY ($6)", select(&ROLLUP));
    let each: Vec<Parameters<'_>> = spans
        .iter()
        .map(|(owner, hours, list)| {
            let mut parameters = of_function(owner);
            parameters.push(hours);
            parameters.push(list);
            parameters
        })
        .collect();
    let mut found = vec![];
    for rows in connection.query_each(&sql, &each).await? {
        let mut stored = HashMap::new();
        for row in &rows {
            let cells = Cells::of(row)?;
            let key = (cells.series_key()?, from_sql(cells.integer(column::rollup::hour)?));
            let is_valid = cells.verify(&ROLLUP, damage);
            let rollup = if is_valid {
                rollup::decode(cells.blob(column::rollup::body)?).map_err(damaged)?
            } else {
                Rollup::default()
            };
            stored.insert(key, (rollup, is_valid));
        }
        found.push(stored);
    }
    Ok(found)
}

/// Reads the stored states and rollups that the batches are merged with.
async fn add_stored(
    connection: &Connection,
    merges: &mut [Merge<'_>],
    damage: &DamageLog,
) -> Result<(), Failure> {
    let ids: Vec<Vec<Vec<u8>>> = merges.iter().map(|merge| merge.deleted.keys().cloned().collect()).collect();
    let sql = format!("{} WHERE {OF_FUNCTION} AND environment = ANY ($5)", select(&ENVIRONMENT));
    let each: Vec<Parameters<'_>> = merges
        .iter()
        .zip(&ids)
        .map(|(merge, ids)| {
            let mut parameters = of_function(merge.owner);
            parameters.push(ids);
            parameters
        })
        .collect();
    let found = connection.query_each(&sql, &each).await?;
    drop(each);
    for (merge, rows) in merges.iter_mut().zip(&found) {
        for row in rows {
            merge.add_state(&Cells::of(row)?, damage)?;
        }
    }
    let spans: Vec<_> = merges
        .iter()
        .map(|merge| {
            let hours: HashSet<u64> =
                merge.batches.iter().flat_map(|batch| batch.rollups.iter().map(|(hour, _)| *hour)).collect();
            (merge.owner, 1, hours.into_iter().map(to_sql).collect())
        })
        .collect();
    let stored = stored_rollups(connection, &spans, damage).await?;
    for (merge, stored) in merges.iter_mut().zip(stored) {
        merge.stored = stored;
    }
    Ok(())
}

/// Writes the rows of the functions: the newest batch, and how many single invocations are stored.
async fn write_functions(
    connection: &Connection,
    merges: &[Merge<'_>],
    now_us: u64,
    damage: &DamageLog,
) -> Result<(), Failure> {
    let sql = format!("{} WHERE {OF_FUNCTION}", select(&FUNCTION));
    let each: Vec<_> = merges.iter().map(|merge| of_function(merge.owner)).collect();
    let found = connection.query_each(&sql, &each).await?;
    let mut writes = Writes::default();
    for (merge, rows) in merges.iter().zip(&found) {
        let (mut received_at_us, mut recent_invocations, mut header) = (0, 0, vec![]);
        if let Some(row) = rows.first() {
            let cells = Cells::of(row)?;
            // A damaged row is written again from what is known now.
            if cells.is_valid(&FUNCTION) {
                received_at_us = from_sql(cells.integer(column::function::received_at_us)?);
                recent_invocations = from_sql(cells.integer(column::function::recent_invocations)?);
                header = cells.blob(column::function::header)?.to_vec();
            }
        }
        if let Some((newest, newest_us)) = &merge.newest
            && *newest_us >= received_at_us
        {
            (received_at_us, header) = (*newest_us, newest.encode());
        }
        recent_invocations = recent_invocations.saturating_add(merge.recent_added);
        if recent_invocations > 2 * RECENT_INVOCATIONS {
            // Rarely, because there are twice as many as are kept.
            recent_invocations = trim_recent(connection, merge.owner, damage).await?;
        }
        let (tenant, key) = merge.owner;
        writes.add(true, function_row((tenant, key), (received_at_us, recent_invocations), &header));
    }
    writes.run(connection, &FUNCTION).await?;
    let now = to_ordered_sql(now_us);
    let sql =
        format!("UPDATE {PREFIX}function SET changed_at_us = $5 WHERE {OF_FUNCTION} AND changed_at_us = 0");
    let each = each.into_iter().map(|mut parameters| {
        parameters.push(&now);
        parameters
    });
    connection.execute_each(&sql, &each.collect::<Vec<_>>()).await.map(drop)
}

/// Deletes the rows that are older than the newest [`RECENT_INVOCATIONS`]; returns the number of invocations kept.
async fn trim_recent(connection: &Connection, owner: &Owner, damage: &DamageLog) -> Result<u64, Failure> {
    let (mut kept, mut oldest) = (0u64, None);
    let sql = format!("{} WHERE {OF_FUNCTION} ORDER BY last_at_us DESC, part DESC", select(&RECENT));
    connection
        .for_each(&sql, &of_function(owner), |row| {
            let cells = Cells::of(row)?;
            // A damaged row is kept for `tailor check`, and its number of invocations is not trusted.
            if cells.verify(&RECENT, damage) {
                kept = kept.saturating_add(from_sql(cells.integer(column::recent::invocations)?));
            }
            let part = cells.blob(column::recent::part)?.to_vec();
            oldest = Some((cells.integer(column::recent::last_at_us)?, part));
            Ok(kept < RECENT_INVOCATIONS)
        })
        .await?;
    if let Some((last_at_us, part)) = &oldest {
        let sql = format!("DELETE FROM {PREFIX}recent WHERE {OF_FUNCTION} AND (last_at_us, part) < ($5, $6)");
        let mut parameters = of_function(owner);
        parameters.push(last_at_us);
        parameters.push(part);
        connection.execute(&sql, &parameters).await?;
    }
    Ok(kept)
}

async fn delete_pending(connection: &Connection, merges: &[Merge<'_>]) -> Result<(), Failure> {
    let sql = format!(
        "DELETE FROM {PREFIX}pending WHERE {OF_FUNCTION} AND environment = $5 AND sequence = ANY ($6)"
    );
    let each: Vec<Parameters<'_>> = merges
        .iter()
        .flat_map(|merge| {
            merge.deleted.iter().map(|(environment, sequences)| {
                let mut parameters = of_function(merge.owner);
                parameters.push(environment);
                parameters.push(sequences);
                parameters
            })
        })
        .collect();
    connection.execute_each(&sql, &each).await.map(drop)
}
