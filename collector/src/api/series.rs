//! Time series and hints in the JSON API.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::{filters, find, in_window, list_text};
use crate::http::App;
use crate::http::auth::ApiReader;
use crate::http::error::ApiError;
use crate::http::extract::FunctionName;
use crate::query::{DEFAULT_HOURS, Format, ListQuery, Query};
use crate::render::hints::Hints;
use crate::render::output::write;
use crate::render::series::TimeSeries;
use crate::report::hints::HintSort;
use crate::report::{self, SeriesReport, series};

/// `GET /v1/series`: the fleet, or the functions that the filters of the list select.
pub async fn fleet(
    State(app): State<Arc<App>>,
    ApiReader(tenant): ApiReader,
    query: Query,
) -> Result<Response, ApiError> {
    let report = series::fleet(&app.report_request(&tenant, &query)?, &filters(&query)?).await?;
    Ok(response(report, &query))
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
    let report = in_window(report, &name)?;
    Ok(response(report, &query))
}

fn response(mut report: SeriesReport, query: &Query) -> Response {
    if query.reverse {
        report.reverse();
    }
    let format = query.format.unwrap_or(Format::Json);
    let is_empty = report.total.invocations == 0;
    list_text(format, write(&TimeSeries(&[report]), format, query.style()), is_empty)
}

/// `GET /v1/hints`: the hints over the functions that the filters of the list select.
pub async fn hints(
    State(app): State<Arc<App>>,
    ApiReader(tenant): ApiReader,
    query: Query,
) -> Result<Response, ApiError> {
    let sort: HintSort = query.sort().map_err(|cause| ApiError::bad_request("query", cause))?;
    let list = ListQuery { limit: 1, ..filters(&query)? };
    let mut hints = report::fleet(&app.report_request(&tenant, &query)?, &list).await?.hints;
    let is_empty = hints.is_empty();
    sort.sort(&mut hints, query.reverse);
    hints.truncate(query.limit.unwrap_or(usize::MAX));
    let format = query.format.unwrap_or(Format::Json);
    Ok(list_text(format, write(&Hints(&hints), format, query.style()), is_empty))
}
