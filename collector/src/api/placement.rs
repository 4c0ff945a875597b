//! Where a function should run, in the JSON API.

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
use crate::report::placement;

/// `GET /v1/placement`: the functions that the filters of the list select, those with the largest savings first.
pub async fn fleet(
    State(app): State<Arc<App>>,
    ApiReader(tenant): ApiReader,
    query: Query,
) -> Result<Response, ApiError> {
    let fleet = placement::fleet::fleet(&app.report_request(&tenant, &query)?, &list(&query)?).await?;
    let format = query.format.unwrap_or(Format::Json);
    let is_empty = fleet.compared_functions == 0;
    Ok(list_text(format, render::placement::fleet(&fleet, format, query.style()), is_empty))
}

/// `GET /v1/functions/{name}/placement`.
pub async fn function(
    State(app): State<Arc<App>>,
    ApiReader(tenant): ApiReader,
    FunctionName(name): FunctionName,
    query: Query,
) -> Result<Response, ApiError> {
    let request = app.report_request(&tenant, &query)?;
    let key = find(app.store.as_ref(), &tenant, &name, &query).await?;
    let report = placement::function(&request, &key).await?;
    let report = in_window(report, &name)?;
    let format = query.format.unwrap_or(Format::Json);
    Ok(text(format, render::placement::function(&report, format, query.style())))
}
