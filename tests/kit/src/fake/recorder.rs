//! A fake collector that keeps every batch, for benchmarks that need individual invocations. The real collector keeps
//! only rollups.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use agent_proto::batch::{Batch, EnvironmentId, encode_ack};
use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;

/// Batches by environment and sequence. A batch that is sent again replaces the earlier copy.
type Batches = BTreeMap<(EnvironmentId, u64), Batch>;

/// A running recorder. It runs until the process ends.
#[derive(Debug)]
pub struct BatchRecorder {
    address: SocketAddr,
    batches: Arc<Mutex<Batches>>,
}

impl BatchRecorder {
    /// Listens on a free port of the loopback address.
    ///
    /// # Errors
    /// When no port can be bound or the runtime does not start.
    pub fn start() -> Result<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let batches = Arc::new(Mutex::new(Batches::new()));
        let routes =
            Router::new().route(agent_proto::BATCHES_PATH, post(receive)).with_state(Arc::clone(&batches));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the batch recorder")?;
        thread::spawn(move || {
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                axum::serve(listener, routes).await
            })
        });
        Ok(Self { address, batches })
    }

    /// The value of `TAILOR_ENDPOINT` for extensions that send here.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The batches received so far, by environment and then by sequence.
    #[must_use]
    pub fn batches(&self) -> Vec<Batch> {
        let batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        batches.values().cloned().collect()
    }

    /// Takes the batches received since the last call. One that is sent again later is received again.
    #[must_use]
    pub fn take(&self) -> Vec<Batch> {
        let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *batches).into_values().collect()
    }
}

async fn receive(
    State(batches): State<Arc<Mutex<Batches>>>,
    body: axum::body::Bytes,
) -> (StatusCode, Vec<u8>) {
    match Batch::decode(&body) {
        Ok(batch) => {
            let key = (batch.header.environment.id, batch.header.sequence);
            let acknowledgement = encode_ack(batch.header.sequence);
            batches.lock().unwrap_or_else(PoisonError::into_inner).insert(key, batch);
            (StatusCode::OK, acknowledgement)
        }
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string().into_bytes()),
    }
}
