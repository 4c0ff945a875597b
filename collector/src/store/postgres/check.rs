//! `tailor check --database`: finds damaged rows, and `--repair` isolates them. Collectors may run meanwhile.

use std::sync::Arc;

use super::PostgresStore;
use super::connection::{Begin, Connection, Pool};
use super::errors::Failure;
use super::rows::{Cells, Value, isolate, select};
use crate::store::damage::DamageLog;
use crate::store::rows::{Table, all_tables};
use crate::store::{Findings, StoreError};

impl PostgresStore {
    /// Reads the whole store. With `repair_at_us`, microseconds since the Unix epoch, damaged rows move to the table
    /// `tailor_damaged`.
    ///
    /// # Errors
    /// [`StoreError::Engine`] when the database fails.
    pub async fn examine(&self, repair_at_us: Option<u64>) -> Result<Findings, StoreError> {
        let (readers, writers, damage) = (self.readers.clone(), self.writers.clone(), self.damage.clone());
        self.run(async move {
            let mut findings =
                Findings { isolated_rows: isolated_rows(&readers).await?, ..Findings::default() };
            for table in all_tables() {
                let (rows, damaged) = scan(&readers, table).await?;
                findings.rows += rows;
                for values in &damaged {
                    let is_damaged = match repair_at_us {
                        Some(now_us) => isolate_if_damaged(&writers, table, values, now_us, &damage).await?,
                        None => true,
                    };
                    if is_damaged {
                        findings.damaged_rows.push(Cells::of_values(values).name(table));
                    }
                }
            }
            Ok(findings)
        })
        .await
    }
}

/// Number of rows that were isolated.
async fn isolated_rows(pool: &Arc<Pool>) -> Result<u64, StoreError> {
    let count = pool.transaction(Begin::Read, |connection| async move {
        connection.query("SELECT COUNT(*) FROM tailor_damaged", &[]).await
    });
    let count = count.await?.first().and_then(|row| row.try_get::<_, i64>(0).ok()).unwrap_or(0);
    Ok(u64::try_from(count).unwrap_or(0))
}

/// The number of rows of a table, and those that do not have their checksum.
async fn scan(pool: &Arc<Pool>, table: &'static Table) -> Result<(u64, Vec<Vec<Value>>), StoreError> {
    let scan = pool.transaction(Begin::Read, |connection| async move {
        let (mut rows, mut damaged) = (0u64, Vec::<Vec<Value>>::new());
        let visit = |row: &tokio_postgres::Row| {
            let cells = Cells::of(row)?;
            rows += 1;
            if !cells.is_valid(table) {
                damaged.push(cells.fields().iter().map(|field| Value::from(*field)).collect());
            }
            Ok(true)
        };
        connection.for_each(&select(table), &[], visit).await?;
        Ok((rows, damaged))
    });
    scan.await
}

/// Isolates a damaged row, unless it is not damaged any more: a collector may have written it since it was read. Returns whether
/// it was isolated.
async fn isolate_if_damaged(
    pool: &Arc<Pool>,
    table: &'static Table,
    values: &[Value],
    now_us: u64,
    damage: &DamageLog,
) -> Result<bool, StoreError> {
    let repair = pool.transaction(Begin::Write, |connection| async move {
        isolate_locked(&connection, table, values, now_us, damage).await
    });
    repair.await
}

async fn isolate_locked(
    connection: &Connection,
    table: &'static Table,
    values: &[Value],
    now_us: u64,
    damage: &DamageLog,
) -> Result<bool, Failure> {
    let Some(row) = Cells::of_values(values).lock(connection, table).await? else { return Ok(false) };
    let cells = Cells::of(&row)?;
    if cells.is_valid(table) {
        return Ok(false);
    }
    isolate(connection, table, &cells, now_us, damage).await?;
    cells.delete(connection, table).await?;
    Ok(true)
}
