//! What the first screen shows of the fleet: its costs over time, the latest changes, and what they saved.

use super::ledger::{Ledger, ledger};
use super::list::selects_function;
use super::load::Request;
use super::series::{self, SeriesReport};
use crate::changes::{self, Change};
use crate::query::ListQuery;
use crate::store::StoreError;

/// Changes that are shown.
const LATEST_CHANGES: usize = 6;

/// The overview of a fleet.
pub struct Overview {
    /// Cost, invocations and errors over time.
    pub series: SeriesReport,
    /// The latest changes, latest first.
    pub changes: Vec<Change>,
    /// What all changes saved.
    pub ledger: Ledger,
}

/// The overview of the functions that `list` selects.
///
/// # Errors
/// [`StoreError`] when the store cannot be read.
pub async fn overview(request: &Request<'_>, list: &ListQuery) -> Result<Overview, StoreError> {
    let series = series::fleet(request, list).await?;
    let mut changes = changes::fold(request.store.changes(request.tenant, None).await?);
    let tags = request.tag_table();
    changes.retain(|change| selects_function(list, &change.function, &tags));
    let ledger = ledger(request, &changes).await?;
    changes.reverse();
    changes.truncate(LATEST_CHANGES);
    Ok(Overview { series, changes, ledger })
}
