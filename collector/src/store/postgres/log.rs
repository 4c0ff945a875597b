//! The change log: one inserted row per step.

use std::sync::Arc;

use super::connection::Pool;
use super::errors::Attempts;
use super::read::change_event;
use super::rows::{Cells, NewRow, OF_FUNCTION, insert as insert_rows, select};
use crate::store::columns;
use crate::store::rows::{CHANGE_EVENT, to_sql};
use crate::store::{ChangeEvent, StoreError, Tenant};

/// Appends one step; [`StoreError::StepTaken`] when that step exists.
pub(super) async fn insert(pool: &Pool, tenant: Tenant, event: ChangeEvent) -> Result<(), StoreError> {
    let row = columns::of_change(&tenant, &event, |fields| NewRow::new(&CHANGE_EVENT, fields));
    let row = Arc::new([row]);
    let mut attempts = Attempts::new();
    loop {
        let row = Arc::clone(&row);
        let inserted = pool.once(|connection| async move {
            let rows =
                insert_rows(&connection, &CHANGE_EVENT, &*row, "ON CONFLICT DO NOTHING RETURNING step");
            Ok(!rows.await?.is_empty())
        });
        match inserted.await {
            Ok(true) => return Ok(()),
            // An attempt whose connection was lost may have taken effect.
            Ok(false) if attempts.may_have_committed && is_stored(pool, &tenant, &event).await? => {
                return Ok(());
            }
            Ok(false) => {
                return Err(StoreError::StepTaken { change_id: event.change_id, step: event.step });
            }
            Err(failure) => attempts.next(failure).await?,
        }
    }
}

/// Whether exactly this step is in the log.
async fn is_stored(pool: &Pool, tenant: &Tenant, event: &ChangeEvent) -> Result<bool, StoreError> {
    let read = pool.once(|connection| async move {
        let sql = format!("{} WHERE {OF_FUNCTION} AND change_id = $5 AND step = $6", select(&CHANGE_EVENT));
        let (key, step) = (&event.function, to_sql(event.step));
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
            [&tenant.0, &key.account, &key.region, &key.name, &event.change_id, &step];
        let rows = connection.query(&sql, &parameters).await?;
        let Some(row) = rows.first() else { return Ok(false) };
        Ok(change_event(&Cells::of(row)?)? == *event)
    });
    read.await.map_err(super::Failure::into_store_error)
}
