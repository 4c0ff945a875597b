//! Says which changes are open when the collector starts in a mode that may not end them.

use crate::changes;
use crate::changes::unfinished::Unfinished;
use crate::store::{Store, StoreError, Tenant};

use super::mode::Mode;

/// The open changes that a mode does not permit to end.
///
/// # Errors
/// [`StoreError`] when the change log cannot be read.
pub async fn unfinished(
    store: &dyn Store,
    tenant: &Tenant,
    mode: Mode,
) -> Result<Vec<Unfinished>, StoreError> {
    if mode.may_write() {
        return Ok(Vec::new());
    }
    let changes = changes::fold(store.changes(tenant, None).await?);
    Ok(changes.iter().filter_map(Unfinished::of).collect())
}

/// Logs an error for each open change that a mode does not permit to end: its alias keeps its weights until a person acts.
pub async fn report(store: &dyn Store, tenant: &Tenant, mode: Mode) {
    let found = match unfinished(store, tenant, mode).await {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%error, "cannot read whether changes are open");
            return;
        }
    };
    for Unfinished { function, change_id, alias, version, weight, instruction } in found {
        let weight_percent = f64::from(weight) / 100.0;
        tracing::error!(
            function,
            change_id,
            alias,
            version,
            weight_percent,
            "a change is open, and the mode `{mode}` of this collector does not permit to end it: {instruction}"
        );
    }
}
