//! The HTTP server of the control plane: routes, request limit and error responses.

pub mod error;
mod sandbox_api;
pub(in crate::control) mod throttle;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::serve::ListenerExt;
use http::{StatusCode, Uri};
use tokio::net::TcpListener;

use crate::control::ControlPlane;
use crate::control::code::package;
use crate::control::functions::{concurrency, configuration, tags};
use crate::control::invoke::{buffered, response_stream};
use crate::control::versions_aliases::{aliases, versions};
use error::AwsError;

/// Larger than any allowed event, so that events that are too large get Lambda's error response.
const MAX_BODY_BYTES: usize = 80 * 1024 * 1024;

impl ControlPlane {
    /// Serves the API until the future is dropped.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) -> std::io::Result<()> {
        let function = "/2015-03-31/functions/{name}";
        let router = Router::new()
            .route("/2015-03-31/functions", get(configuration::list).post(package::create))
            .route("/2015-03-31/functions/", get(configuration::list).post(package::create))
            .route(function, delete(versions::delete))
            .route(&format!("{function}/code"), put(package::update))
            .route(&format!("{function}/versions"), get(versions::list).post(versions::publish))
            .route(&format!("{function}/aliases"), get(aliases::list).post(aliases::create))
            .route(
                &format!("{function}/aliases/{{alias}}"),
                get(aliases::get).put(aliases::update).delete(aliases::delete),
            )
            .route(
                "/2017-10-31/functions/{name}/concurrency",
                put(concurrency::put_reserved).delete(concurrency::delete_reserved),
            )
            .route("/2019-09-30/functions/{name}/concurrency", get(concurrency::get_reserved))
            .route(
                "/2019-09-30/functions/{name}/provisioned-concurrency",
                get(concurrency::get_provisioned)
                    .put(concurrency::put_provisioned)
                    .delete(concurrency::delete_provisioned),
            )
            .route("/2016-08-19/account-settings", get(concurrency::account_settings))
            .route("/2016-08-19/account-settings/", get(concurrency::account_settings))
            .route(
                &format!("{function}/configuration"),
                get(configuration::get_configuration).put(configuration::update_configuration),
            )
            .route("/2017-03-31/tags/{arn}", get(tags::list).post(tags::tag).delete(tags::untag))
            .route_layer(middleware::from_fn_with_state(self.clone(), throttle))
            // These operations have no request limit.
            .route(function, get(configuration::get))
            .route(&format!("{function}/invocations"), post(buffered::invoke))
            .route(
                "/2021-11-15/functions/{name}/response-streaming-invocations",
                post(response_stream::invoke_with_response_stream),
            )
            .merge(sandbox_api::routes())
            .fallback(unknown)
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .with_state(self);
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        axum::serve(listener, router).await
    }
}

async fn throttle(State(plane): State<Arc<ControlPlane>>, request: Request, next: Next) -> Response {
    if plane.throttle.admit(Instant::now()) {
        next.run(request).await
    } else {
        AwsError::throttled("CallerRateLimitExceeded").into_response()
    }
}

async fn unknown(uri: Uri) -> AwsError {
    let message = format!("{} is not an operation of this sandbox", uri.path());
    AwsError { status: StatusCode::NOT_FOUND, ..AwsError::service(message) }
}
