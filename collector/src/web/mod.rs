//! Pages rendered on the server: they work without JavaScript and load nothing from elsewhere.

use std::sync::Arc;

use axum::extract::{Form, Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use maud::{Markup, html};
use serde::Deserialize;

use crate::api::{one_function, recent_invocations};
use crate::http::App;
use crate::http::auth::PageReader;
use crate::http::error::ApiError;
use crate::query::Query;
use crate::report;

mod chart;
mod fleet;
mod function;
mod layout;
mod resources;
mod snippet;
mod tables;

/// Where the style sheet is.
pub const STYLE_PATH: &str = "/assets/style.css";

/// Single invocations listed on a function's page.
const RECENT_SHOWN: usize = 20;

const STYLE: &str = include_str!("style.css");

/// `GET /`: the fleet.
pub async fn fleet(
    State(app): State<Arc<App>>,
    PageReader(tenant): PageReader,
    query: Result<Query, ApiError>,
) -> Result<Response, Page> {
    let query = query?;
    let request = app.report_request(&tenant, &query)?;
    let fleet = report::fleet(&request).await.map_err(ApiError::from)?;
    Ok(page(StatusCode::OK, &fleet::render(&fleet, &query)))
}

/// `GET /functions/{name}`: one function.
pub async fn function(
    State(app): State<Arc<App>>,
    PageReader(tenant): PageReader,
    Path(name): Path<String>,
    query: Result<Query, ApiError>,
) -> Result<Response, Page> {
    let query = query?;
    let report = one_function(&app, &tenant, &name, &query).await?;
    let recent = recent_invocations(&app, &tenant, &report.key(), RECENT_SHOWN).await?;
    Ok(page(StatusCode::OK, &function::render(&report, &recent, &query)))
}

/// What a sign-in link carries.
#[derive(Deserialize)]
pub struct Ticket {
    ticket: Option<String>,
}

/// `GET /login`: the sign-in form, or a ticket's way in.
pub async fn login(
    State(app): State<Arc<App>>,
    axum::extract::Query(Ticket { ticket }): axum::extract::Query<Ticket>,
) -> Response {
    let signed_in = ticket.as_deref().and_then(|ticket| app.sign_in_with_ticket(ticket));
    signed_in.unwrap_or_else(|| {
        let spent = ticket.is_some().then_some("This link has been used already. Sign in with an API key.");
        page(StatusCode::OK, &layout::login(spent))
    })
}

/// What the sign-in form sends.
#[derive(Deserialize)]
pub struct Credentials {
    key: String,
}

/// `POST /login`.
pub async fn log_in(State(app): State<Arc<App>>, Form(Credentials { key }): Form<Credentials>) -> Response {
    app.sign_in_with_key(&key)
        .unwrap_or_else(|| page(StatusCode::FORBIDDEN, &layout::login(Some("This key is not known here."))))
}

/// The style sheet.
pub async fn style() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/css; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("max-age=300")),
    ];
    (headers, STYLE)
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
