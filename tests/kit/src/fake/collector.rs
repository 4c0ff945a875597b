//! A puppet of a collector, with or without TLS, that takes everything and counts.

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

/// What a collector received.
#[derive(Debug, Clone, Copy, Default)]
pub struct Received {
    /// Invocations in all batches.
    pub invocations: u64,
    /// What they were billed, milliseconds.
    pub billed_ms: u64,
    /// Invocations that the extension lost, by its last word.
    pub lost: u64,
    /// Batches.
    pub batches: u64,
    /// Connections.
    pub connections: u64,
    /// From the latest connection to the answer of the first batch on it.
    pub first_answer: Duration,
}

/// A running collector; it lives as long as the process.
#[derive(Debug)]
pub struct FakeCollector {
    /// Its base URL.
    pub url: String,
    received: Arc<Mutex<Received>>,
}

/// A server's certificate and key, and the authority that signed it, as PEM files.
#[derive(Debug)]
pub struct Certificate {
    /// The authority's certificate: what a client has to trust.
    pub authority: PathBuf,
    config: Arc<ServerConfig>,
}

impl Certificate {
    /// Makes an authority and a certificate for `127.0.0.1` by OpenSSL, in an empty `folder`; `None` where there
    /// is no OpenSSL.
    ///
    /// # Errors
    /// When OpenSSL refuses.
    pub fn make(folder: &Path) -> Result<Option<Self>> {
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
        Ok(Some(Self { authority: folder.join("authority.pem"), config: Arc::new(config) }))
    }
}

impl FakeCollector {
    /// Starts one that speaks HTTPS with that certificate, or HTTP without.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(certificate: Option<&Certificate>) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("cannot listen")?;
        let address = listener.local_addr()?;
        let received = Arc::new(Mutex::new(Received::default()));
        let tls = certificate.map(|certificate| Arc::clone(&certificate.config));
        let url = url(tls.is_some(), address);
        let shared = Arc::clone(&received);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (received, tls) = (Arc::clone(&shared), tls.clone());
                thread::spawn(move || {
                    // A client that does not trust us hangs up; what it sent until then is all there is.
                    let _ = stream.set_nodelay(true);
                    match tls.map(ServerConnection::new) {
                        None => serve(stream, &received),
                        Some(Ok(tls)) => serve(StreamOwned::new(tls, stream), &received),
                        Some(Err(error)) => eprintln!("the fake collector failed: {error}"),
                    }
                });
            }
        });
        Ok(Self { url, received })
    }

    /// What it received so far.
    #[must_use]
    pub fn received(&self) -> Received {
        *self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn url(is_https: bool, address: SocketAddr) -> String {
    format!("{}://{address}", if is_https { "https" } else { "http" })
}

fn serve(stream: impl Read + Write, received: &Mutex<Received>) {
    let connected = Instant::now();
    let mut is_first = true;
    let lock = || received.lock().unwrap_or_else(PoisonError::into_inner);
    lock().connections += 1;
    let mut client = Connection::new(stream);
    while let Some(request) = client.read() {
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
            received.lost = batch.lost.invocations;
            if std::mem::take(&mut is_first) {
                received.first_answer = connected.elapsed();
            }
        }
        client.answer("", &encode_ack(batch.sequence));
    }
}
