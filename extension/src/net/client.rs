//! An HTTP client with one kept connection to one server, for Lambda's APIs and the collector.
//!
//! Built on hyper's connection. Its pooling client adds 150 KB, and there is never more than one connection.

use std::cell::{Cell, OnceCell};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Uri};
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::connections::count_own_connection;
use super::proxy::{Proxy, without_brackets};

pub(crate) mod body;
mod tls;
mod tunnel;

use body::Body;

use tunnel::TunnelError;

/// The largest response in bytes. Responses of Lambda, the collector and the credentials endpoint have a few hundred.
const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// A client of one server.
pub struct Client {
    authority: Authority,
    /// The prefix of every path.
    base: String,
    is_https: bool,
    /// Certificate authorities to trust in addition to the public ones.
    ca_file: Option<PathBuf>,
    proxy: Option<Proxy>,
    /// Whether the server, or the proxy, ever accepted or refused a connection.
    is_reachable: Cell<bool>,
    /// Created at the first connection, so that a cold start does not pay for it.
    tls: Rc<OnceCell<TlsConnector>>,
    /// The connection of the last successful exchange.
    kept: Cell<Option<SendRequest<Body>>>,
}

/// Why there is no complete response.
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
    /// The proxy rejected the request.
    #[error("the proxy {proxy} rejected a connection to {server}: {reason}")]
    Proxy {
        /// Host and port of the proxy, and the variable that names it.
        proxy: String,
        /// Host and port of the server.
        server: String,
        /// What to do.
        reason: String,
    },
    /// The connection broke.
    #[error("the connection ended: {0}")]
    Broken(#[from] hyper::Error),
    /// The response is incomplete or too long.
    #[error("cannot read the response: {0}")]
    Response(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The server's response: head and complete body.
pub type Response = (http::response::Parts, Bytes);

/// An exchange in progress. Boxed, because each future that contains its state has a copy of the code that drops it.
pub type Exchange<'a> = Pin<Box<dyn Future<Output = Result<Response, ClientError>> + 'a>>;

/// A connection with or without TLS.
trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

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
            proxy: None,
            is_reachable: Cell::new(false),
            tls: Rc::default(),
            kept: Cell::new(None),
        }
    }

    /// Also trusts the certificate authorities in a PEM file.
    #[must_use]
    pub fn with_ca_file(self, ca_file: Option<PathBuf>) -> Self {
        Self { ca_file, ..self }
    }

    /// A client of another server that trusts the same authorities. The path of `url` is not a prefix.
    pub(crate) fn of_server(&self, url: &Uri) -> Self {
        let client = Self::new(url).with_ca_file(self.ca_file.clone());
        Self { base: String::new(), tls: Rc::clone(&self.tls), ..client }
    }

    /// Sends every request through the proxy.
    #[must_use]
    pub fn with_proxy(self, proxy: Option<Proxy>) -> Self {
        Self { proxy, ..self }
    }

    /// The host, with the port if the URL has one: the value of the `Host` header.
    #[must_use]
    pub fn host(&self) -> &str {
        // User and password in the URL are not part of it.
        self.authority.as_str().rsplit_once('@').map_or(self.authority.as_str(), |(_, host)| host)
    }

    /// Whether connections use TLS.
    pub(crate) const fn is_https(&self) -> bool {
        self.is_https
    }

    /// Whether the network may have no route to the server: no connection was ever made or refused, and no
    /// proxy is set.
    #[must_use]
    pub fn may_lack_route(&self) -> bool {
        self.proxy.is_none() && !self.is_reachable.get()
    }

    /// A request builder for `path`, which starts with a slash and is appended to the base's path.
    pub fn request(&self, method: &str, path: &str) -> http::request::Builder {
        let path = format!("{}{path}", self.base);
        let request = Request::builder().method(method).header(header::HOST, self.host());
        let Some(proxy) = self.proxy.as_ref().filter(|_| !self.is_https) else {
            return request.uri(PathAndQuery::try_from(path).map(Uri::from).unwrap_or_default());
        };
        // A proxy for HTTP takes the complete URL and passes the request on.
        let request = request.uri(format!("http://{}{path}", self.host()));
        let authorization = proxy.authorization.as_deref().and_then(|text| HeaderValue::try_from(text).ok());
        match authorization {
            Some(mut authorization) => {
                authorization.set_sensitive(true);
                request.header(header::PROXY_AUTHORIZATION, authorization)
            }
            None => request,
        }
    }

    /// Sends a request and reads the complete response. Uses the kept connection if it is still open.
    ///
    /// # Errors
    /// [`ClientError`]. The next exchange then opens a new connection.
    pub fn exchange(&self, request: Request<Full<Bytes>>) -> Exchange<'_> {
        self.send(request.map(Body::Bytes))
    }

    /// As [`Client::exchange`], and sends the request a second time, on a new connection, when the connection ended before
    /// the response: a freeze ends connections. Only for requests that the server may receive twice.
    ///
    /// # Errors
    /// As [`Client::exchange`].
    pub async fn exchange_with_resend(&self, request: Request<Full<Bytes>>) -> Result<Response, ClientError> {
        match self.exchange(request.clone()).await {
            Err(ClientError::Broken(_)) => self.exchange(request).await,
            result => result,
        }
    }

    /// As [`Client::exchange`], with any body.
    ///
    /// # Errors
    /// As [`Client::exchange`].
    pub fn send(&self, request: Request<Body>) -> Exchange<'_> {
        Box::pin(self.send_and_receive(request))
    }

    async fn send_and_receive(&self, request: Request<Body>) -> Result<Response, ClientError> {
        let mut connection = match self.reusable_connection().await {
            Some(kept) => kept,
            None => self.connect().await?,
        };
        let (head, body) = connection.send_request(request).await?.into_parts();
        if let Some(proxy) = &self.proxy
            && requests_proxy_credentials(&head)
        {
            return Err(self.rejection(proxy, head.status.as_u16()));
        }
        let body = Limited::new(body, MAX_RESPONSE_BYTES).collect().await.map_err(ClientError::Response)?;
        self.kept.set(Some(connection));
        Ok((head, body.to_bytes()))
    }

    async fn reusable_connection(&self) -> Option<SendRequest<Body>> {
        let mut kept = self.kept.take()?;
        kept.ready().await.is_ok().then_some(kept)
    }

    async fn connect(&self) -> Result<SendRequest<Body>, ClientError> {
        let stream = self.open().await?;
        let (connection, task) = handshake(TokioIo::new(stream)).await?;
        // Ends with the connection. An error is returned by the exchange.
        crate::task::spawn(async move { drop(task.await) });
        Ok(connection)
    }

    /// A connection on which requests can be sent: to the server, or to the proxy, with a tunnel when the server uses TLS.
    async fn open(&self) -> Result<Box<dyn Stream>, ClientError> {
        let failed = |server: String| move |source| ClientError::Connect { server, source };
        let to_server = || failed(self.host().to_owned());
        let port = self.authority.port_u16().unwrap_or(if self.is_https { 443 } else { 80 });
        let host = without_brackets(self.authority.host());
        let stream = if let Some(proxy) = &self.proxy {
            let to_proxy = || failed(format!("the proxy {proxy}"));
            let mut stream = self.connect_tcp(&proxy.host, proxy.port).await.map_err(to_proxy())?;
            if proxy.is_https {
                stream = self.encrypt(&proxy.host, stream).await.map_err(to_proxy())?;
            }
            if self.is_https {
                let server = format!("{}:{port}", self.authority.host());
                tunnel::open(&mut *stream, proxy, &server).await.map_err(|error| match error {
                    TunnelError::Io(source) => to_proxy()(source),
                    TunnelError::Rejected(status) => self.rejection(proxy, status),
                })?;
            }
            stream
        } else {
            self.connect_tcp(host, port).await.map_err(to_server())?
        };
        if self.is_https { self.encrypt(host, stream).await.map_err(to_server()) } else { Ok(stream) }
    }

    async fn connect_tcp(&self, host: &str, port: u16) -> std::io::Result<Box<dyn Stream>> {
        let connected = TcpStream::connect((host, port)).await;
        if connected.as_ref().map_or_else(|error| error.kind() == ErrorKind::ConnectionRefused, |_| true) {
            self.is_reachable.set(true);
        }
        let stream = connected?;
        count_own_connection();
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }

    /// TLS with the server `host` over `stream`.
    async fn encrypt(&self, host: &str, stream: Box<dyn Stream>) -> std::io::Result<Box<dyn Stream>> {
        let name = host.to_owned().try_into().map_err(std::io::Error::other)?;
        let connector = match self.tls.get() {
            Some(connector) => connector,
            None => {
                let made = tls::connector(self.ca_file.as_deref()).map_err(std::io::Error::other)?;
                self.tls.get_or_init(|| made)
            }
        };
        Ok(Box::new(connector.connect(name, stream).await?))
    }

    fn rejection(&self, proxy: &Proxy, status: u16) -> ClientError {
        let reason = match status {
            401 | 407 if proxy.authorization.is_some() => {
                format!("wrong user or password in {}", proxy.variable)
            }
            401 | 407 => format!("set {}=http://USER:PASSWORD@HOST:PORT", proxy.variable),
            _ => format!("it responded with {status}: allow the server in the proxy, or name it in NO_PROXY"),
        };
        ClientError::Proxy { proxy: proxy.to_string(), server: self.host().to_owned(), reason }
    }
}

/// Whether a response is a proxy's request for credentials. Some proxies respond with 401 to wrong ones. The servers of the
/// extension never request `Basic` authorization.
fn requests_proxy_credentials(head: &http::response::Parts) -> bool {
    let is_basic = |value: &HeaderValue| value.to_str().is_ok_and(|value| value.starts_with("Basic"));
    match head.status {
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => true,
        StatusCode::UNAUTHORIZED => head.headers.get(header::WWW_AUTHENTICATE).is_some_and(is_basic),
        _ => false,
    }
}

#[cfg(test)]
pub(crate) mod tests;
