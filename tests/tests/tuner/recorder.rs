//! A server between a collector and Lambda that forwards each request and keeps it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// Largest body, bytes.
const MAX_BODY: usize = 1 << 20;

/// The forwarder. It ends when it is dropped.
pub(crate) struct Recorder {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<Value>>>,
    _runtime: Runtime,
}

#[derive(Clone)]
struct Forward {
    target: String,
    agent: ureq::Agent,
    requests: Arc<Mutex<Vec<Value>>>,
}

impl Recorder {
    /// Forwards to `target`, such as `http://127.0.0.1:1234`.
    pub(crate) fn start(target: &str) -> Self {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::<Mutex<Vec<Value>>>::default();
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let state = Forward { target: target.to_owned(), agent, requests: Arc::clone(&requests) };
        let router = axum::Router::new().fallback(forward).with_state(state);
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { address, requests, _runtime: runtime }
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<Value> {
        self.requests.lock().unwrap().clone()
    }
}

async fn forward(State(state): State<Forward>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, MAX_BODY).await.unwrap_or_default();
    state.requests.lock().unwrap().push(json!({
        "method": parts.method.as_str(),
        "path": parts.uri.path(),
        "query": parts.uri.query().unwrap_or_default(),
        "body": String::from_utf8_lossy(&body),
    }));
    let answered = tokio::task::spawn_blocking(move || {
        let uri = format!("{}{}", state.target, parts.uri);
        let request = axum::http::Request::builder().method(parts.method).uri(uri);
        let mut response = if body.is_empty() {
            state.agent.run(request.body(()).ok()?)
        } else {
            state.agent.run(request.body(body.to_vec()).ok()?)
        }
        .ok()?;
        let bytes = response.body_mut().read_to_vec().ok()?;
        let mut answer = Response::builder().status(response.status());
        for name in ["content-type", "x-amzn-errortype"] {
            if let Some(value) = response.headers().get(name) {
                answer = answer.header(name, value);
            }
        }
        answer.body(Body::from(bytes)).ok()
    });
    let failed = || {
        let mut failed = Response::new(Body::empty());
        *failed.status_mut() = StatusCode::BAD_GATEWAY;
        failed
    };
    answered.await.ok().flatten().unwrap_or_else(failed)
}
