//! What is stored of each function with its summaries, for reports of a large fleet.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use super::Request;
use crate::store::{FunctionKey, StoreError, SummaryKind};

/// Functions that are read at once.
const CHUNK: usize = 128;

/// What is stored of one kind, by function: `None` for a function without measurements in the window. A function that is absent
/// was not computed yet, or another version of the program stored it. With it, when the oldest were computed; `None` when
/// nothing is stored.
///
/// # Errors
/// [`StoreError`] when the store cannot be read.
pub(super) async fn stored<T: DeserializeOwned>(
    request: &Request<'_>,
    kind: &SummaryKind,
) -> Result<(BTreeMap<FunctionKey, Option<T>>, Option<u64>), StoreError> {
    stored_with(request, kind, |bytes| serde_json::from_slice(bytes).ok()).await
}

/// The same of a kind that `decode` reads; it returns `None` for bytes that another version of the program stored.
///
/// # Errors
/// [`StoreError`] when the store cannot be read.
pub(super) async fn stored_with<T>(
    request: &Request<'_>,
    kind: &SummaryKind,
    decode: impl Fn(&[u8]) -> Option<T>,
) -> Result<(BTreeMap<FunctionKey, T>, Option<u64>), StoreError> {
    let rows = request.store.summaries(request.tenant, kind).await?;
    let oldest_at_us = rows.iter().map(|row| row.computed_at_us).min();
    let mut found = BTreeMap::new();
    for rows in rows.chunks(CHUNK) {
        let keys: Vec<FunctionKey> = rows.iter().map(|row| row.function.clone()).collect();
        let reports = request.store.summary_reports(request.tenant, &keys, kind).await?;
        for (key, bytes) in keys.into_iter().zip(reports) {
            if let Some(report) = bytes.and_then(|bytes| decode(&bytes)) {
                found.insert(key, report);
            }
        }
        tokio::task::yield_now().await;
    }
    Ok((found, oldest_at_us))
}
