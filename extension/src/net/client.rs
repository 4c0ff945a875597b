//! An HTTP client with one kept connection to one server, for Lambda's APIs and the collector.
//!
//! Built on hyper's connection. Its pooling client adds 150 KB, and there is never more than one connection.

use std::cell::{Cell, OnceCell};
use std::path::PathBuf;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Uri};
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::connections::count_own_connection;

mod tls;

/// The largest answer in bytes. Answers of Lambda, the collector and the credentials endpoint have a few hundred.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// A client of one server.
pub struct Client {
    authority: Authority,
    /// The prefix of every path.
    base: String,
    is_https: bool,
    /// Certificate authorities to trust in addition to the public ones.
    ca_file: Option<PathBuf>,
    /// Created at the first connection, so that a cold start does not pay for it.
    tls: OnceCell<TlsConnector>,
    /// The connection of the last successful exchange.
    kept: Cell<Option<SendRequest<Full<Bytes>>>>,
}

/// Why there is no complete answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The request is invalid.
    #[error("cannot create the request: {0}")]
    Request(#[from] http::Error),
    /// No connection: no route, no listener, no DNS record, or an untrusted certificate.
    #[error("cannot connect to {server}: {source}")]
    Connect {
        /// Host and port.
        server: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] hyper::Error),
    /// The answer is incomplete or too long.
    #[error("cannot read the answer: {0}")]
    Answer(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The server's answer: head and complete body.
pub type Answer = (http::response::Parts, Bytes);

/// A connection with or without TLS.
trait Stream: hyper::rt::Read + hyper::rt::Write + Unpin {}
impl<T: hyper::rt::Read + hyper::rt::Write + Unpin> Stream for T {}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("authority", &self.authority).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the server at `base`, an `http` or `https` URL with a host. The path of `base` is the prefix of every
    /// request's path.
    #[must_use]
    pub fn new(base: &Uri) -> Self {
        Self {
            authority: base.authority().cloned().unwrap_or_else(|| Authority::from_static("localhost")),
            base: base.path().trim_end_matches('/').to_owned(),
            is_https: base.scheme_str() == Some("https"),
            ca_file: None,
            tls: OnceCell::new(),
            kept: Cell::new(None),
        }
    }

    /// Also trusts the certificate authorities in a PEM file.
    #[must_use]
    pub fn trusting(self, ca_file: Option<PathBuf>) -> Self {
        Self { ca_file, ..self }
    }

    /// The host, with the port if the URL has one: the value of the `Host` header.
    #[must_use]
    pub fn host(&self) -> &str {
        // User and password in the URL are not part of it.
        self.authority.as_str().rsplit_once('@').map_or(self.authority.as_str(), |(_, host)| host)
    }

    /// A request builder for `path`, which starts with a slash and is appended to the base's path.
    pub fn request(&self, method: &str, path: &str) -> http::request::Builder {
        let path = format!("{}{path}", self.base);
        Request::builder()
            .method(method)
            .uri(PathAndQuery::try_from(path).map(Uri::from).unwrap_or_default())
            .header(header::HOST, self.host())
    }

    /// Sends a request and reads the complete answer. Uses the kept connection if it is still open.
    ///
    /// # Errors
    /// [`ClientError`]. The next exchange then opens a new connection.
    pub async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, ClientError> {
        let mut connection = match self.still_alive().await {
            Some(kept) => kept,
            None => self.connect().await?,
        };
        let (head, body) = connection.send_request(request).await?.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await.map_err(ClientError::Answer)?;
        self.kept.set(Some(connection));
        Ok((head, body.to_bytes()))
    }

    async fn still_alive(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut kept = self.kept.take()?;
        kept.ready().await.is_ok().then_some(kept)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        let stream = self.open().await.map_err(|source| {
            let server = self.host().to_owned();
            ClientError::Connect { server, source }
        })?;
        let (connection, task) = handshake(stream).await?;
        // Ends with the connection. An error is returned by the exchange.
        tokio::task::spawn_local(async move { drop(task.await) });
        Ok(connection)
    }

    async fn open(&self) -> std::io::Result<Box<dyn Stream>> {
        let port = self.authority.port_u16().unwrap_or(if self.is_https { 443 } else { 80 });
        // Only URLs have brackets around an IPv6 address.
        let host = self.authority.host().trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, port)).await?;
        count_own_connection();
        stream.set_nodelay(true)?;
        if !self.is_https {
            return Ok(Box::new(TokioIo::new(stream)));
        }
        let name = host.to_owned().try_into().map_err(std::io::Error::other)?;
        let connector = match self.tls.get() {
            Some(connector) => connector,
            None => {
                let made = tls::connector(self.ca_file.as_deref()).map_err(std::io::Error::other)?;
                self.tls.get_or_init(|| made)
            }
        };
        Ok(Box::new(TokioIo::new(connector.connect(name, stream).await?)))
    }
}

#[cfg(test)]
pub(crate) mod tests;
