//! A listener for batches that keeps every invocation in order: what a benchmark needs and a collector, which
//! rolls them up, no longer has.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use agent_proto::batch::{Batch, BatchError, EnvironmentId, encode_ack};
use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use tailor_sizing::telemetry::invocation::Invocation;

/// Invocations by environment and batch: a batch that comes again takes its own place.
type Batches = BTreeMap<(EnvironmentId, u64), (String, u32, Vec<Invocation>)>;

/// A running listener; it lives as long as the process.
#[derive(Debug)]
pub(crate) struct Receiver {
    address: SocketAddr,
    batches: Arc<Mutex<Batches>>,
}

impl Receiver {
    /// Starts to listen on a free port of the loopback address.
    pub(crate) fn start() -> Result<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let batches = Arc::new(Mutex::new(Batches::new()));
        let routes =
            Router::new().route(agent_proto::BATCHES_PATH, post(receive)).with_state(Arc::clone(&batches));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the receiver")?;
        thread::spawn(move || {
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                axum::serve(listener, routes).await
            })
        });
        Ok(Self { address, batches })
    }

    /// Where extensions send to.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every invocation of `function` at `memory_mb`, oldest first.
    pub(crate) fn invocations(&self, function: &str, memory_mb: u32) -> Vec<Invocation> {
        let batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        let mut invocations: Vec<_> = batches
            .values()
            .filter(|(name, size, _)| name == function && *size == memory_mb)
            .flat_map(|(_, _, invocations)| invocations.iter().copied())
            .collect();
        invocations.sort_by_key(|invocation| invocation.started_at_us);
        invocations
    }
}

async fn receive(
    State(batches): State<Arc<Mutex<Batches>>>,
    body: axum::body::Bytes,
) -> (StatusCode, Vec<u8>) {
    match Batch::decode(&body) {
        Ok(batch) => {
            let key = (batch.environment.id, batch.sequence);
            let kept = (batch.environment.function, batch.environment.memory.0, batch.invocations);
            batches.lock().unwrap_or_else(PoisonError::into_inner).insert(key, kept);
            (StatusCode::OK, encode_ack(batch.sequence))
        }
        Err(error) => (StatusCode::BAD_REQUEST, refusal(&error)),
    }
}

fn refusal(error: &BatchError) -> Vec<u8> {
    error.to_string().into_bytes()
}
