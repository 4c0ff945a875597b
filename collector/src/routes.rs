//! The routes of the server, and the security headers of every response.

use std::sync::Arc;

use ::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::Router;
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::IntoResponse;
use axum::routing::{get, post};

use agent_proto::BATCHES_PATH;

use crate::http::{App, body, error, metrics};
use crate::{api, ingest, web};

/// All routes, with `app` as their state.
pub fn router(app: Arc<App>) -> Router {
    let reports = Router::new()
        .route("/v1/functions", get(api::functions))
        .route("/v1/functions/{name}", get(api::function))
        .route("/v1/functions/{name}/invocations", get(api::invocations))
        .route("/v1/functions/{name}/series", get(api::series::function))
        .route("/v1/functions/{name}/bill", get(api::bill::function))
        .route("/v1/functions/{name}/placement", get(api::placement::function))
        .route("/v1/bill", get(api::bill::fleet))
        .route("/v1/series", get(api::series::fleet))
        .route("/v1/hints", get(api::series::hints))
        .route("/v1/changes", get(api::changes))
        .route("/", get(web::fleet))
        .route("/functions/{name}", get(web::function))
        .route_layer(from_fn_with_state(Arc::clone(&app), body::wait_for_report_turn));
    Router::new()
        .merge(reports)
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(api::ready))
        .route("/metrics", get(metrics::serve))
        .route("/login", get(web::login).post(web::log_in))
        .route("/logout", get(web::logout).post(web::log_out))
        .route(web::STYLE_PATH, get(web::style))
        .route(web::SCRIPT_PATH, get(web::script))
        .fallback(|| async { error::ApiError::not_found("page not found") })
        .layer(from_fn_with_state(Arc::clone(&app), body::receive_form))
        // Receives its body itself, after it has authenticated the sender.
        .route(BATCHES_PATH, post(ingest::post_batch))
        .method_not_allowed_fallback(|| async {
            error::ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method", "method not allowed")
        })
        .layer(map_response(add_security_headers))
        .with_state(app)
}

/// Adds headers that forbid loading external content, framing, content sniffing and caching.
async fn add_security_headers(mut response: axum::response::Response) -> impl IntoResponse {
    const CONTENT_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                          img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
