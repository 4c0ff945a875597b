//! `GET /v1/reconciliation`: the last comparison of AWS's bill with the store.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use super::text;
use crate::http::App;
use crate::http::auth::ApiReader;
use crate::http::error::ApiError;
use crate::query::{Format, Query};
use crate::reconcile::Reconciliation;
use crate::render;
use crate::render::json::json;
use crate::store::Tenant;

/// The last reconciliation of the tenant; `None` when there is none.
///
/// # Errors
/// 503 when the file of the results cannot be read.
pub async fn last_reconciliation(app: &App, tenant: &Tenant) -> Result<Option<Reconciliation>, ApiError> {
    let Some(results) = app.reconciliations.clone() else { return Ok(None) };
    let tenant = tenant.clone();
    let read = tokio::task::spawn_blocking(move || results.get(&tenant)).await;
    match read {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(error)) => Err(ApiError::unavailable("reconciliation", format!("{error:#}"))),
        Err(_) => Err(ApiError::unavailable("reconciliation", "cannot read the last reconciliation")),
    }
}

/// The body of the response.
#[derive(Debug, Serialize)]
struct Last<'a> {
    /// The last reconciliation; `null` when there is none.
    reconciliation: Option<&'a Reconciliation>,
}

/// `GET /v1/reconciliation`.
///
/// # Errors
/// 503 when the file of the results cannot be read.
pub async fn last(
    State(app): State<Arc<App>>,
    ApiReader(tenant): ApiReader,
    query: Query,
) -> Result<Response, ApiError> {
    let reconciliation = last_reconciliation(&app, &tenant).await?;
    let format = query.format.unwrap_or(Format::Json);
    let body = match reconciliation.as_ref() {
        reconciliation if format == Format::Json => json(&Last { reconciliation }, query.style()),
        Some(result) => render::reconciliation::reconciliation(result, format, query.style()),
        None => "No reconciliation: `tailor reconcile FILE` makes one.\n".to_owned(),
    };
    Ok(text(format, body))
}
