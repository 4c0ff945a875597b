//! The routes of the server, and the security headers of every response.
//!
//! `Routes` keeps a table of what it adds, which a test compares with the OpenAPI document.

use std::sync::Arc;

use ::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::Router;
use axum::handler::Handler;
use axum::middleware::{from_fn, from_fn_with_state, map_response};
use axum::response::IntoResponse;
use axum::routing::{MethodFilter, on};

use agent_proto::BATCHES_PATH;

use crate::http::{App, body, conditional, error, latency, metrics};
use crate::{api, ingest, web};

/// One entry of the table of routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// The method. A route of GET also answers HEAD.
    pub method: Method,
    /// The path, with the names of its variables in braces.
    pub path: &'static str,
    /// Whether it is for browsers: a page, a form or an asset. The others are the API.
    pub is_page: bool,
}

/// Routes, and the table of them.
#[derive(Default)]
struct Routes {
    router: Router<Arc<App>>,
    table: Vec<Served>,
}

impl Routes {
    fn add<H, T>(mut self, method: Method, path: &'static str, is_page: bool, handler: H) -> Self
    where
        H: Handler<T, Arc<App>>,
        T: 'static,
    {
        let filter = match method {
            Method::POST => MethodFilter::POST,
            Method::PUT => MethodFilter::PUT,
            _ => MethodFilter::GET,
        };
        self.router = self.router.route(path, on(filter, handler));
        self.table.push(Served { method, path, is_page });
        self
    }

    /// A route of the API, which the OpenAPI document describes.
    fn api<H: Handler<T, Arc<App>>, T: 'static>(
        self,
        method: Method,
        path: &'static str,
        handler: H,
    ) -> Self {
        self.add(method, path, false, handler)
    }

    /// A route for browsers.
    fn page<H: Handler<T, Arc<App>>, T: 'static>(
        self,
        method: Method,
        path: &'static str,
        handler: H,
    ) -> Self {
        self.add(method, path, true, handler)
    }

    fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.table.extend(other.table);
        self
    }

    fn layered(mut self, layer: impl FnOnce(Router<Arc<App>>) -> Router<Arc<App>>) -> Self {
        self.router = layer(self.router);
        self
    }
}

/// What computes a report. Only some of these run at the same time.
fn reports() -> Routes {
    Routes::default()
        .api(Method::GET, "/v1/functions", api::functions)
        .api(Method::GET, "/v1/functions/{name}", api::function)
        .api(Method::GET, "/v1/functions/{name}/invocations", api::invocations)
        .api(Method::GET, "/v1/functions/{name}/series", api::series::function)
        .api(Method::GET, "/v1/functions/{name}/bill", api::bill::function)
        .api(Method::GET, "/v1/functions/{name}/placement", api::placement::function)
        .api(Method::GET, "/v1/placement", api::placement::fleet)
        .api(Method::GET, "/v1/bill", api::bill::fleet)
        .api(Method::GET, "/v1/series", api::series::fleet)
        .api(Method::GET, "/v1/hints", api::series::hints)
        .api(Method::GET, "/v1/changes", api::changes)
        .api(Method::GET, "/v1/reconciliation", api::reconciliation::last)
        .page(Method::GET, "/", web::fleet)
        .page(Method::GET, "/changes", web::tuner::changes)
        .page(Method::GET, "/where", web::placement::fleet)
        .page(Method::GET, "/functions/{name}", web::function)
}

/// Responses without secrets that change rarely or are large: see [`conditional`].
fn cheap() -> Routes {
    Routes::default()
        .api(Method::GET, "/v1/openapi.json", api::openapi::serve)
        .api(Method::GET, "/version", api::version::serve)
        .api(Method::GET, "/metrics", metrics::serve)
        .page(Method::GET, web::STYLE_PATH, web::style)
        .page(Method::GET, web::SCRIPT_PATH, web::script)
}

/// What is neither compressed nor kept by clients: checks, and pages with secrets.
fn plain() -> Routes {
    Routes::default()
        .api(Method::GET, "/healthz", || async { "ok\n" })
        .api(Method::GET, "/readyz", api::ready)
        .api(Method::GET, "/v1/functions/{name}/profiles", api::profiles::list)
        .api(Method::GET, "/v1/functions/{name}/profiles/{profile}", api::profiles::download)
        .page(Method::GET, "/login", web::login)
        .page(Method::POST, "/login", web::log_in)
        .page(Method::GET, "/changes/confirm", web::tuner::confirm)
        .page(Method::POST, "/changes/request", web::tuner::request)
        .page(Method::GET, "/logout", web::logout)
        .page(Method::POST, "/logout", web::log_out)
        .page(Method::GET, "/keys", web::keys::list)
        .page(Method::POST, "/keys", web::keys::create)
        .page(Method::GET, "/keys/{id}/revoke", web::keys::confirm_revoke)
        .page(Method::POST, "/keys/{id}/revoke", web::keys::revoke)
        .page(Method::POST, "/sessions/{id}/end", web::keys::end_session)
}

/// What receives its body itself, after it has authenticated the sender.
fn receivers() -> Routes {
    Routes::default()
        .api(Method::POST, BATCHES_PATH, ingest::post_batch)
        .api(Method::POST, "/v1/profiles", api::profiles::post)
        .api(Method::PUT, "/v1/tags", api::tags::put)
}

/// The table of all routes.
#[must_use]
pub fn table() -> Vec<Served> {
    reports().merge(cheap()).merge(plain()).merge(receivers()).table
}

/// All routes, with `app` as their state.
pub fn router(app: Arc<App>) -> Router {
    let reports = reports().layered(|router| {
        router
            .route_layer(from_fn(conditional::respond))
            .route_layer(from_fn_with_state(Arc::clone(&app), body::wait_for_report_turn))
    });
    let cheap = cheap().layered(|router| router.route_layer(from_fn(conditional::respond)));
    let received = reports.merge(cheap).merge(plain()).router;
    received
        .fallback(|| async { error::ApiError::not_found("page not found") })
        .layer(from_fn_with_state(Arc::clone(&app), body::receive_form))
        .merge(receivers().router)
        .method_not_allowed_fallback(|| async {
            error::ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method", "method not allowed")
        })
        .layer(map_response(add_security_headers))
        .layer(from_fn_with_state(Arc::clone(&app), latency::measure))
        .with_state(app)
}

/// Adds headers that forbid loading external content, framing, content sniffing, caching and sending addresses of pages to other
/// sites. With the referrer policy `no-referrer`, browsers would send `Origin: null` with the pages' own forms, which are refused.
async fn add_security_headers(mut response: axum::response::Response) -> impl IntoResponse {
    const CONTENT_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                          img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
