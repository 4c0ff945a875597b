//! Pages rendered on the server: they work without JavaScript and load nothing from elsewhere.

use std::sync::Arc;

use axum::extract::{Form, FromRequest, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, StatusCode, header};
use maud::{Markup, html};
use serde::Deserialize;

use crate::api::reconciliation::last_reconciliation;
use crate::api::{self, one_function, recent_invocations};
use crate::http::App;
use crate::http::auth::{PageReader, SignInError};
use crate::http::error::ApiError;
use crate::http::extract::FunctionName;
use crate::query::{DEFAULT_HOURS, ListQuery, Query};
use crate::report;

mod admin;
mod bill;
mod chart;
mod fleet;
mod function;
mod history;
pub mod keys;
mod layout;
mod list;
mod overview;
pub mod placement;
mod profiles;
mod reconciliation;
mod resources;
mod snippet;
mod tables;
mod time_chart;
pub mod tuner;
mod utilization;

/// Where the style sheet is.
pub const STYLE_PATH: &str = "/assets/style.css";

/// Single invocations listed on a function's page.
const RECENT_SHOWN: usize = 20;

/// Where the script of the search is.
pub const SCRIPT_PATH: &str = "/assets/search.js";

const SCRIPT: &str = include_str!("search.js");

const STYLE: &str = include_str!("style.css");

/// `GET /`: the fleet.
pub async fn fleet(
    State(app): State<Arc<App>>,
    PageReader(tenant): PageReader,
    query: Result<Query, ApiError>,
) -> Result<Response, Page> {
    let query = query?;
    let request = app.report_request(&tenant, &query)?;
    let list = api::list(&query)?;
    // The next pages of a list show the list only.
    let list = ListQuery { movers: list.cursor.is_none(), ..list };
    let fleet = report::fleet(&request, &list).await.map_err(ApiError::from)?;
    let overview = match list.cursor {
        Some(_) => None,
        None => Some(report::overview::overview(&request, &list).await.map_err(ApiError::from)?),
    };
    let tags = app.tags.of(&tenant);
    let bill = match overview {
        Some(_) => last_reconciliation(&app, &tenant).await?,
        None => None,
    };
    let content = fleet::render(&fleet, overview.as_ref(), bill.as_ref(), &query, &tags.keys());
    Ok(page(StatusCode::OK, &content))
}

/// `GET /functions/{name}`: one function.
pub async fn function(
    State(app): State<Arc<App>>,
    PageReader(tenant): PageReader,
    name: Result<FunctionName, ApiError>,
    query: Result<Query, ApiError>,
) -> Result<Response, Page> {
    let (FunctionName(name), query) = (name?, query?);
    let report = one_function(&app, &tenant, &name, &query).await?;
    let request = app.report_request(&tenant, &query)?;
    let hours = query.hours.unwrap_or(DEFAULT_HOURS);
    let series = report::series::function(&request, &report.key(), hours).await.map_err(ApiError::from)?;
    let recent = recent_invocations(&app, &tenant, &report.key(), RECENT_SHOWN).await?;
    let basis = app.bill_basis(&query).await?;
    let bill = report::bill::function(&request, &report.key(), &basis).await.map_err(ApiError::from)?;
    let placement = report::placement::function(&request, &report.key()).await.map_err(ApiError::from)?;
    let money = (bill.as_ref(), placement.as_ref());
    Ok(page(StatusCode::OK, &function::render(&report, series.as_ref(), money, &recent, &query)))
}

/// What a sign-in link contains.
#[derive(Default, Deserialize)]
struct Ticket {
    ticket: Option<String>,
}

/// `GET /login`: the sign-in form, or signing in with a ticket.
pub async fn login(State(app): State<Arc<App>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let query = axum::extract::Query::<Ticket>::try_from_uri(&parts.uri);
    let ticket = query.map(|axum::extract::Query(Ticket { ticket })| ticket).unwrap_or_default();
    // HEAD must not change anything, so it does not use up the ticket.
    let Some(ticket) = ticket.filter(|_| parts.method != Method::HEAD) else {
        return page(StatusCode::OK, &layout::login(None));
    };
    match app.sign_in_with_ticket(&ticket, &parts).await {
        Ok(signed_in) => signed_in,
        Err(SignInError::TooManyUnknownKeys) => too_many_unknown_keys(),
        Err(_) => {
            let problem = "This link has been used already. Sign in with an API key.";
            page(StatusCode::OK, &layout::login(Some(problem)))
        }
    }
}

/// What the sign-in form sends.
#[derive(Deserialize)]
struct Credentials {
    key: String,
}

/// `POST /login`.
pub async fn log_in(State(app): State<Arc<App>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut form = Request::new(body);
    *form.method_mut() = parts.method.clone();
    *form.headers_mut() = parts.headers.clone();
    let Ok(Form(Credentials { key })) = Form::from_request(form, &()).await else {
        return page(StatusCode::BAD_REQUEST, &layout::login(Some("The form has no API key.")));
    };
    let problem = match app.sign_in_with_key(&key, &parts).await {
        Ok(signed_in) => return signed_in,
        Err(SignInError::TooManyUnknownKeys) => return too_many_unknown_keys(),
        Err(SignInError::Unknown) => "This key is not known here.",
        Err(SignInError::NoReader) => "This key may only send batches. Sign in with a key that may read.",
        Err(SignInError::CrossSite) => "The form was sent by another site. Sign in here.",
    };
    page(StatusCode::FORBIDDEN, &layout::login(Some(problem)))
}

fn too_many_unknown_keys() -> Response {
    let problem = "Too many unknown keys came from your address. Wait a minute.";
    page(StatusCode::TOO_MANY_REQUESTS, &layout::login(Some(problem)))
}

/// `GET /logout`: a form, because a link of another site must not sign a browser out.
pub async fn logout() -> Response {
    page(StatusCode::OK, &layout::logout())
}

/// `POST /logout`.
pub async fn log_out(State(app): State<Arc<App>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    app.sign_out(&parts).unwrap_or_else(|| page(StatusCode::FORBIDDEN, &layout::logout()))
}

/// The style sheet.
pub async fn style() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/css; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("max-age=300")),
    ];
    (headers, STYLE)
}

/// The script of the search.
pub async fn script() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/javascript; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("max-age=300")),
    ];
    (headers, SCRIPT)
}

/// A failure, shown as a page.
pub struct Page(ApiError);

impl From<ApiError> for Page {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let title = match self.0.status() {
            StatusCode::NOT_FOUND => "Page not found",
            StatusCode::CONFLICT => "Several functions have this name",
            status if status.is_client_error() => "Invalid request",
            _ => "Not available now",
        };
        let body = html! {
            h1 { (title) }
            p { (self.0.to_string()) }
            p { a href="/" { "All functions" } }
        };
        page(self.0.status(), &layout::document(title, &body))
    }
}

fn page(status: StatusCode, markup: &Markup) -> Response {
    let media_type = HeaderValue::from_static("text/html; charset=utf-8");
    (status, [(header::CONTENT_TYPE, media_type)], markup.0.clone()).into_response()
}
