//! How long requests take, by route.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::App;

/// Middleware: measures the time from the head of a request to its response, with the body of the request and the computation,
/// and without the time that the client takes to read.
pub async fn measure(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    // Paths without a route have one label together: a client chooses them.
    let route = request.extensions().get::<MatchedPath>().map_or("(none)", MatchedPath::as_str).to_owned();
    // The methods of routes, and one label for all others.
    let method = match request.method().as_str() {
        "GET" | "HEAD" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        _ => "(other)",
    };
    let response = next.run(request).await;
    app.metrics.record_response(method, route, response.status(), start.elapsed());
    response
}
