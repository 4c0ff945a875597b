//! Requests to receivers, on threads that may block.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

/// Longest body of an answer that is read, bytes.
const MAX_ANSWER_BYTES: u64 = 64 << 10;

/// Certificates other than those of the system.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    /// PEM file with the trusted authorities.
    pub authorities: Option<PathBuf>,
    /// PEM files of the client's certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// An HTTP client for one receiver. Redirects are not followed, because requests contain keys.
#[derive(Debug, Clone)]
pub struct Client(ureq::Agent);

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) retry_after: Option<String>,
    pub(super) body: Vec<u8>,
}

impl Client {
    /// A client that trusts the authorities of the system, or those of the files.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn new(files: &TlsFiles) -> anyhow::Result<Self> {
        let roots = match &files.authorities {
            Some(file) => RootCerts::Specific(Arc::new(certificates(file)?)),
            None => of_system(),
        };
        let client = match &files.client {
            Some((certificate, key)) => {
                Some(ClientCert::new_with_certs(&certificates(certificate)?, private_key(key)?))
            }
            None => None,
        };
        let config = ureq::Agent::config_builder()
            .tls_config(TlsConfig::builder().root_certs(roots).client_cert(client).build())
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            // Requests are rare, and a kept connection may be closed by the receiver when it is used.
            .max_idle_connections(0)
            .user_agent(concat!("tailor/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self(config.new_agent()))
    }

    /// Posts a body. The error has no part of the address except its host.
    pub(super) async fn post(
        &self,
        url: &str,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Answer, String> {
        let (agent, url) = (self.0.clone(), url.to_owned());
        let posted = tokio::task::spawn_blocking(move || {
            let mut request = agent.post(&url).config().timeout_global(Some(timeout)).build();
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let mut response =
                request.send(&body[..]).map_err(|error| error.to_string().replace(&url, "the address"))?;
            let retry_after = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
            let (status, retry_after) = (response.status().as_u16(), retry_after.map(str::to_owned));
            let mut body = vec![];
            // The status counts also when the rest of the answer does not arrive.
            let _ = response.body_mut().as_reader().take(MAX_ANSWER_BYTES).read_to_end(&mut body);
            Ok(Answer { status, retry_after, body })
        });
        posted.await.map_err(|error| format!("the request panicked: {error}"))?
    }
}

/// The authorities of the system, and those of a file. Where the system has none: those of the file, or else those of Mozilla.
///
/// # Errors
/// The file cannot be used.
pub fn roots_with(file: Option<&Path>) -> anyhow::Result<RootCerts> {
    let system = of_system();
    let Some(file) = file else { return Ok(system) };
    let mut trusted = certificates(file)?;
    if let RootCerts::Specific(found) = system {
        trusted.extend(found.iter().cloned());
    }
    Ok(RootCerts::Specific(Arc::new(trusted)))
}

/// The authorities of the system; those of Mozilla when there are none.
fn of_system() -> RootCerts {
    let found = rustls_native_certs::load_native_certs();
    let certificates: Vec<_> =
        found.certs.iter().map(|der| Certificate::from_der(der.as_ref()).to_owned()).collect();
    if certificates.is_empty() { RootCerts::WebPki } else { RootCerts::Specific(Arc::new(certificates)) }
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

fn certificates(file: &Path) -> anyhow::Result<Vec<Certificate<'static>>> {
    let mut found = vec![];
    for item in parse_pem(&read(file)?) {
        if let PemItem::Certificate(certificate) =
            item.with_context(|| format!("cannot read the certificates in {}", file.display()))?
        {
            found.push(certificate);
        }
    }
    ensure!(!found.is_empty(), "{} has no certificate", file.display());
    Ok(found)
}

fn private_key(file: &Path) -> anyhow::Result<PrivateKey<'static>> {
    PrivateKey::from_pem(&read(file)?).with_context(|| format!("{} has no private key", file.display()))
}
