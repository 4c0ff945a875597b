//! Time series and hints in the JSON API.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::{find, list, text};
use crate::http::App;
use crate::http::auth::ApiReader;
use crate::http::error::ApiError;
use crate::http::extract::FunctionName;
use crate::query::{DEFAULT_HOURS, Format, ListQuery, Query};
use crate::render;
use crate::report::{self, series};

/// `GET /v1/series`: the fleet, or the functions that the filters of the list select.
pub async fn fleet(
    State(app): State<Arc<App>>,
    ApiReader(tenant): ApiReader,
    query: Query,
) -> Result<Response, ApiError> {
    let report = series::fleet(&app.report_request(&tenant, &query)?, &list(&query)?).await?;
    let format = query.format.unwrap_or(Format::Json);
    Ok(text(format, render::series::series(&report, format, query.look())))
}

/// `GET /v1/functions/{name}/series`.
pub async fn function(
    State(app): State<Arc<App>>,
    ApiReader(tenant): ApiReader,
    FunctionName(name): FunctionName,
    query: Query,
) -> Result<Response, ApiError> {
    let request = app.report_request(&tenant, &query)?;
    let key = find(app.store.as_ref(), &tenant, &name, &query).await?;
    let report = series::function(&request, &key, query.hours.unwrap_or(DEFAULT_HOURS)).await?;
    let report =
        report.ok_or_else(|| ApiError::not_found(format!("no measurements of `{name}` in this window")))?;
    let format = query.format.unwrap_or(Format::Json);
    Ok(text(format, render::series::series(&report, format, query.look())))
}

/// `GET /v1/hints`: the hints over the functions that the filters of the list select.
pub async fn hints(
    State(app): State<Arc<App>>,
    ApiReader(tenant): ApiReader,
    query: Query,
) -> Result<Response, ApiError> {
    let list = ListQuery { limit: 1, ..list(&query)? };
    let fleet = report::fleet(&app.report_request(&tenant, &query)?, &list).await?;
    let format = query.format.unwrap_or(Format::Json);
    Ok(text(format, render::hints::hints(&fleet.hints, format, query.look())))
}
