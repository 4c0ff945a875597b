//! A fake collector, with or without TLS, that accepts every batch and counts the contents.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use agent_proto::batch::{Batch, encode_ack};
use anyhow::{Context, Result, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::Connection;

/// Counters of a fake collector.
#[derive(Debug, Clone, Copy, Default)]
pub struct Received {
    /// Invocations in all batches.
    pub invocations: u64,
    /// Sum of their billed durations, milliseconds.
    pub billed_ms: u64,
    /// Invocations that the extension lost, according to its latest batch.
    pub lost: u64,
    /// Received batches.
    pub batches: u64,
    /// Requests that were refused because of their key.
    pub refused: u64,
    /// Accepted connections.
    pub connections: u64,
    /// Time from the latest connection to the acknowledgement of the first batch on it.
    pub first_acknowledgement: Duration,
}

/// A running fake collector. It runs until the process ends.
#[derive(Debug)]
pub struct FakeCollector {
    /// Its base URL.
    pub url: String,
    received: Arc<Mutex<Received>>,
    required_key: Arc<Mutex<Option<String>>>,
}

/// A server certificate with its key, and the certificate authority (CA) that signed it.
#[derive(Debug)]
pub struct Certificate {
    /// PEM file with the CA certificate that a client must trust.
    pub authority_file: PathBuf,
    config: Arc<ServerConfig>,
}

impl Certificate {
    /// Creates a CA and a certificate for `127.0.0.1` with OpenSSL in the empty folder `folder`. Returns `None` when
    /// OpenSSL is not installed.
    ///
    /// # Errors
    /// When an OpenSSL command fails.
    pub fn create(folder: &Path) -> Result<Option<Self>> {
        let openssl = |line: &str| {
            let output = Command::new("openssl").args(line.split(' ')).current_dir(folder).output()?;
            ensure!(output.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&output.stderr));
            Ok(())
        };
        if Command::new("openssl").arg("version").output().is_err() {
            return Ok(None);
        }
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        openssl(&format!("req -x509 {key} -keyout authority.key -out authority.pem -subj /CN=authority"))?;
        openssl(&format!("req {key} -keyout key.pem -out request.pem -subj /CN=collector"))?;
        fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1\n")?;
        openssl(
            "x509 -req -in request.pem -CA authority.pem -CAkey authority.key -CAcreateserial -out cert.pem -extfile names",
        )?;
        let certificate = CertificateDer::from_pem_file(folder.join("cert.pem"))?;
        let key = PrivateKeyDer::from_pem_file(folder.join("key.pem"))?;
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;
        Ok(Some(Self { authority_file: folder.join("authority.pem"), config: Arc::new(config) }))
    }

    /// The configuration of a TLS server with the certificate.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }
}

impl FakeCollector {
    /// Starts a collector with HTTPS when a certificate is given, otherwise with HTTP.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(certificate: Option<&Certificate>) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("cannot listen")?;
        let address = listener.local_addr()?;
        let received = Arc::new(Mutex::new(Received::default()));
        let tls = certificate.map(|certificate| Arc::clone(&certificate.config));
        let url = url(tls.is_some(), address);
        let required_key = Arc::new(Mutex::new(None));
        let shared = (Arc::clone(&received), Arc::clone(&required_key));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let ((received, required_key), tls) = (shared.clone(), tls.clone());
                thread::spawn(move || {
                    let _ = stream.set_nodelay(true);
                    // A client that does not trust the certificate closes the connection.
                    match tls.map(ServerConnection::new) {
                        None => serve(stream, &received, &required_key),
                        Some(Ok(tls)) => serve(StreamOwned::new(tls, stream), &received, &required_key),
                        Some(Err(error)) => eprintln!("the fake collector failed: {error}"),
                    }
                });
            }
        });
        Ok(Self { url, received, required_key })
    }

    /// Answers 401 to every request without this key, from now on.
    pub fn require_key(&self, key: &str) {
        *self.required_key.lock().unwrap_or_else(PoisonError::into_inner) = Some(key.to_owned());
    }

    /// The counters at this moment.
    #[must_use]
    pub fn received(&self) -> Received {
        *self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn url(is_https: bool, address: SocketAddr) -> String {
    format!("{}://{address}", if is_https { "https" } else { "http" })
}

fn serve(stream: impl Read + Write, received: &Mutex<Received>, required_key: &Mutex<Option<String>>) {
    let connected = Instant::now();
    let mut is_first = true;
    let lock = || received.lock().unwrap_or_else(PoisonError::into_inner);
    lock().connections += 1;
    let mut client = Connection::new(stream);
    while let Some(request) = client.read() {
        let required = required_key.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(key) = required
            && request.authorization != Some(format!("Bearer {key}"))
        {
            lock().refused += 1;
            client.respond_with("401 Unauthorized", "", b"");
            continue;
        }
        let batch = match Batch::decode(&request.body) {
            Ok(batch) => batch,
            Err(error) => {
                eprintln!("the fake collector cannot decode a batch: {error}");
                return;
            }
        };
        {
            let mut received = lock();
            received.invocations += batch.invocations.len() as u64;
            received.billed_ms += batch.invocations.iter().map(|row| row.billed_ms).sum::<u64>();
            received.batches += 1;
            received.lost = batch.header.lost.invocations;
            if std::mem::take(&mut is_first) {
                received.first_acknowledgement = connected.elapsed();
            }
        }
        client.respond("", &encode_ack(batch.header.sequence));
    }
}
