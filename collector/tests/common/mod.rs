//! A real collector for tests: the server on a free port, with a store in a new folder.

#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use agent_proto::batch::Batch;
use tailor_collector::clock::Clock;
use tailor_collector::http::{self, App};
use tailor_collector::keys::KeyRing;
use tailor_collector::store::sqlite::SqliteStore;
use tailor_collector::store::{NewBatch, Tenant};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use places::{AnyStore, Place};

pub(crate) mod counting_store;
pub(crate) mod fleet;
pub(crate) mod history;
pub(crate) mod places;
pub(crate) mod process;

pub(crate) const KEY: &str = "test-key-0123456789abcdef";
pub(crate) const OTHER_KEY: &str = "other-key-0123456789abcdef";

/// How many times a test repeats something: the default, or what `cargo xtask crash` sets.
pub(crate) fn count(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |value| value.parse().unwrap())
}

/// A running collector. Dropping it stops it.
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    pub(crate) app: Arc<App>,
    pub(crate) store: Arc<AnyStore>,
    /// The data folder.
    pub(crate) folder: TempDir,
    /// The database, when its store is in one.
    database: Option<Place>,
    runtime: Option<Runtime>,
    stop: Option<oneshot::Sender<()>>,
}

/// An HTTP response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

impl Collector {
    pub(crate) fn start() -> Self {
        Self::start_with(false)
    }

    pub(crate) fn start_with(local_reads: bool) -> Self {
        Self::start_configured(|app| app.local_reads = local_reads)
    }

    /// Starts it with changed state.
    pub(crate) fn start_configured(configure: impl FnOnce(&mut App)) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), configure)
    }

    /// Starts it in a folder, with changed state.
    pub(crate) fn start_in(folder: TempDir, configure: impl FnOnce(&mut App)) -> Self {
        let store = AnyStore::Sqlite(Arc::new(SqliteStore::open(folder.path()).unwrap()));
        Self::run(folder, None, store, configure)
    }

    /// Starts it with its store in this place.
    pub(crate) fn start_at(place: Place) -> Self {
        match place {
            Place::Folder(folder) => Self::start_in(folder, |_| {}),
            place @ Place::Database { .. } => {
                let store = place.open(Clock::system());
                Self::run(tempfile::tempdir().unwrap(), Some(place), store, |_| {})
            }
        }
    }

    /// The arguments of a command that reads the store.
    pub(crate) fn store_arguments(&self) -> [String; 2] {
        match &self.database {
            Some(Place::Database { url, .. }) => ["--database".to_owned(), url.clone()],
            _ => ["--data".to_owned(), self.folder.path().to_str().unwrap().to_owned()],
        }
    }

    fn run(
        folder: TempDir,
        database: Option<Place>,
        store: AnyStore,
        configure: impl FnOnce(&mut App),
    ) -> Self {
        let mut keys = KeyRing::default();
        keys.add(KEY, Tenant::default());
        keys.add(OTHER_KEY, Tenant("other".to_owned()));
        let store = Arc::new(store);
        let mut app = App::new(store.shared(), keys, false);
        configure(&mut app);
        let app = Arc::new(app);
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let served = Arc::clone(&app);
        runtime.spawn(async move {
            http::run(listener, tailor_collector::routes::router(Arc::clone(&served)), served, async {
                let _ = stopped.await;
            })
            .await;
        });
        Self { address, app, store, folder, database, runtime: Some(runtime), stop: Some(stop) }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
        stream
    }

    /// Sends raw bytes and reads the response.
    pub(crate) fn raw(&self, request: &[u8]) -> Response {
        let mut stream = self.connect();
        // After an error response the server may close the connection before everything is sent.
        let _ = stream.write_all(request);
        read_response(&mut stream)
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        self.get_with(path, &format!("Authorization: Bearer {KEY}\r\n"))
    }

    pub(crate) fn get_with(&self, path: &str, headers: &str) -> Response {
        self.raw(
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n")
                .as_bytes(),
        )
    }

    pub(crate) fn post_batch(&self, body: &[u8]) -> Response {
        self.post_batch_with(KEY, "", body)
    }

    pub(crate) fn post_batch_with(&self, key: &str, headers: &str, body: &[u8]) -> Response {
        self.raw(&post(key, headers, body))
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

/// What a store gets of a batch that arrives at this time.
pub(crate) fn received(tenant: Tenant, batch: &Batch, received_at_us: u64) -> NewBatch {
    let body = batch.encode().unwrap().into();
    NewBatch::new(tenant, batch.header.clone(), &batch.invocations, body, received_at_us)
}

/// Posts a batch once to a collector in another process; `None` when there was no response.
pub(crate) fn send_batch(address: &str, key: &str, body: &[u8]) -> Option<u16> {
    process::send_batch_within(Duration::from_secs(10), address, key, body)
}

/// The bytes of a request that posts a batch.
pub(crate) fn post(key: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST /v1/batches HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {key}\r\n\
         Content-Type: application/x-protobuf\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// Reads one response, after which the server closes the connection.
pub(crate) fn read_response(stream: &mut TcpStream) -> Response {
    let mut bytes = Vec::new();
    // After a connection reset, the bytes that were read before it are kept.
    let _ = stream.read_to_end(&mut bytes);
    let split = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let split = split.unwrap_or_else(|| panic!("no response in {:?}", String::from_utf8_lossy(&bytes)));
    let head = String::from_utf8_lossy(&bytes[..split]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    Response { status, head, body: bytes[split + 4..].to_vec() }
}
