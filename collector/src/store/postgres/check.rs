//! `tailor check --database`: finds damaged rows, and `--repair` isolates them. Collectors may run meanwhile.

use super::PostgresStore;
use super::connection::Begin;
use super::rows::{Cells, Value, isolate, select};
use crate::store::StoreError;
use crate::store::sqlite::check::Findings;
use crate::store::sqlite::rows::all_tables;

impl PostgresStore {
    /// Reads the whole store. With `repair_at_us`, microseconds since the Unix epoch, damaged rows move to the table
    /// `tailor_damaged`.
    ///
    /// # Errors
    /// [`StoreError::Engine`] when the database fails.
    pub async fn examine(&self, repair_at_us: Option<u64>) -> Result<Findings, StoreError> {
        let (readers, writers, damage) = (self.readers.clone(), self.writers.clone(), self.damage.clone());
        self.run(async move {
            let mut findings = Findings::default();
            for table in all_tables() {
                let scan = readers.transaction(Begin::Read, |connection| async move {
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
                let (rows, damaged) = scan.await?;
                findings.rows += rows;
                for values in &damaged {
                    findings.damaged_rows.push(Cells::of_values(values).name(table));
                    let Some(now_us) = repair_at_us else { continue };
                    let repair = writers.transaction(Begin::Write, |connection| {
                        let damage = damage.clone();
                        async move {
                            let cells = Cells::of_values(values);
                            isolate(&connection, table, &cells, now_us, &damage).await?;
                            cells.delete(&connection, table).await
                        }
                    });
                    repair.await?;
                }
            }
            let count = readers.transaction(Begin::Read, |connection| async move {
                connection.query("SELECT COUNT(*) FROM tailor_damaged", &[]).await
            });
            let isolated = count.await?.first().and_then(|row| row.try_get::<_, i64>(0).ok()).unwrap_or(0);
            findings.isolated_rows = u64::try_from(isolated).unwrap_or(0);
            if repair_at_us.is_some() {
                findings.isolated_rows -= findings.damaged_rows.len() as u64;
            }
            Ok(findings)
        })
        .await
    }
}
