//! Bills in the JSON API.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::{find, in_window, list, list_text, text};
use crate::http::App;
use crate::http::auth::ApiReader;
use crate::http::error::ApiError;
use crate::http::extract::FunctionName;
use crate::query::{Format, Query};
use crate::render;
use crate::report::bill;

/// `GET /v1/bill`: the functions that the filters of the list select.
pub async fn fleet(
    State(app): State<Arc<App>>,
    ApiReader(tenant): ApiReader,
    query: Query,
) -> Result<Response, ApiError> {
    let basis = app.bill_basis(&query).await?;
    let fleet = bill::fleet(&app.report_request(&tenant, &query)?, &list(&query)?, &basis).await?;
    let format = query.format.unwrap_or(Format::Json);
    Ok(list_text(format, render::bill::fleet(&fleet, format, query.style()), fleet.functions.is_empty()))
}

/// `GET /v1/functions/{name}/bill`.
pub async fn function(
    State(app): State<Arc<App>>,
    ApiReader(tenant): ApiReader,
    FunctionName(name): FunctionName,
    query: Query,
) -> Result<Response, ApiError> {
    let request = app.report_request(&tenant, &query)?;
    let key = find(app.store.as_ref(), &tenant, &name, &query).await?;
    let basis = app.bill_basis(&query).await?;
    let report = bill::function(&request, &key, &basis).await?;
    let report = in_window(report, &name)?;
    let format = query.format.unwrap_or(Format::Json);
    Ok(text(format, render::bill::function(&report, format, query.style())))
}
