//! Sending batches to one subscriber.
//!
//! One batch at a time, in order. Each is retried with backoff until it is accepted or the attempts are used up.
//! Nothing is sent while the environment is frozen: the sender of Lambda is frozen with it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::faults::apply as apply_faults;
use super::queue::SharedQueue;
use super::subscription::Destination;
use crate::faults::Faults;
use crate::network::Loopback;

/// First pause after a rejected or failed batch; doubled each time.
const FIRST_BACKOFF: Duration = Duration::from_millis(25);

/// Attempts before a batch is dropped and counted in `platform.logsDropped`. Lambda's number is not
/// documented.
const ATTEMPTS: u32 = 6;

/// Delivers from `queue` until the task is aborted. `running` is false while the environment is frozen.
pub async fn run(
    queue: SharedQueue,
    destination: Destination,
    loopback: Arc<Loopback>,
    mut running: watch::Receiver<bool>,
    faults: Arc<Faults>,
) {
    let mut sender = Sender { destination, loopback, connection: None };
    loop {
        if running.wait_for(|running| *running).await.is_err() {
            return;
        }
        let batch = queue.next_batch().await;
        let batch = apply_faults(&faults.settings(), batch).await;
        if batch.is_empty() {
            continue;
        }
        let mut backoff = FIRST_BACKOFF;
        let mut delivered = false;
        for _ in 0..ATTEMPTS {
            if running.wait_for(|running| *running).await.is_err() {
                return;
            }
            match sender.send(&batch).await {
                Ok(()) => {
                    if faults.repeats_batch() {
                        let _ = sender.send(&batch).await;
                    }
                    delivered = true;
                    break;
                }
                Err(error) => tracing::debug!(%error, "telemetry batch not accepted"),
            }
            tokio::time::sleep(backoff).await;
            backoff *= 2;
        }
        if !delivered {
            queue.count_dropped(&batch);
        }
    }
}

struct Sender {
    destination: Destination,
    loopback: Arc<Loopback>,
    connection: Option<Connection>,
}

enum Connection {
    Http(SendRequest<Full<Bytes>>),
    Tcp(TcpStream),
}

impl Sender {
    async fn send(&mut self, batch: &[String]) -> io::Result<()> {
        let connection = match self.connection.take() {
            Some(Connection::Http(sender)) if sender.is_closed() => self.connect().await?,
            Some(connection) => connection,
            None => self.connect().await?,
        };
        self.connection = Some(match (connection, &self.destination) {
            (Connection::Http(sender), Destination::Http { port, path }) => {
                Connection::Http(post(sender, *port, path, batch).await?)
            }
            (Connection::Tcp(mut stream), _) => {
                for event in batch {
                    stream.write_all(event.as_bytes()).await?;
                    stream.write_all(b"\n").await?;
                }
                Connection::Tcp(stream)
            }
            (Connection::Http(_), Destination::Tcp { .. }) => {
                return Err(io::Error::other("connection and destination differ in protocol"));
            }
        });
        Ok(())
    }

    async fn connect(&self) -> io::Result<Connection> {
        let (Destination::Http { port, .. } | Destination::Tcp { port }) = self.destination;
        let stream = self.loopback.connect(port).await?;
        stream.set_nodelay(true)?;
        if matches!(self.destination, Destination::Tcp { .. }) {
            return Ok(Connection::Tcp(stream));
        }
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        Ok(Connection::Http(sender))
    }
}

/// Posts a JSON array, and returns the connection for the next batch.
async fn post(
    mut sender: SendRequest<Full<Bytes>>,
    port: u16,
    path: &str,
    batch: &[String],
) -> io::Result<SendRequest<Full<Bytes>>> {
    let body = format!("[{}]", batch.join(","));
    let sequence = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(body.as_bytes()));
    let request = Request::post(path)
        .header(header::HOST, format!("sandbox.localdomain:{port}"))
        .header(header::CONTENT_TYPE, "application/json")
        .header("Sequence-Id", sequence)
        .body(Full::new(Bytes::from(body)))
        .map_err(io::Error::other)?;
    sender.ready().await.map_err(io::Error::other)?;
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = response.status();
    // Read to the end, because otherwise the connection cannot be used again.
    response.into_body().collect().await.map_err(io::Error::other)?;
    if status.is_success() { Ok(sender) } else { Err(io::Error::other(format!("responded with {status}"))) }
}
