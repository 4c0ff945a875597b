//! The collector's own TLS: rustls with ring. The certificate and its key are read again when one of the files changes, and on
//! SIGHUP. Open connections keep the session that they have.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, RootCertStore, ServerConfig};
use tokio::signal::unix::Signal;
use tokio_rustls::TlsAcceptor;

/// How often the files are checked for changes.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// A certificate that expires sooner is reported, seconds.
const EXPIRES_SOON_S: u64 = 14 * 86_400;

/// The files of the certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM file with the certificate of the collector, followed by those of its issuers.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// Why TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or has no certificate or key.
    #[error("cannot read {path}: {problem}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        problem: String,
    },
    /// The certificate and the key cannot be used together.
    #[error("cannot use the certificate in {certificate} with the key in {key}: {error}")]
    Pair {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// The cause.
        error: rustls::Error,
    },
}

/// A certificate with its key, as it was loaded.
#[derive(Debug)]
pub struct Loaded {
    config: Arc<ServerConfig>,
    /// When the certificate expires, seconds since the Unix epoch; `None` when it cannot be parsed.
    pub expires_at_s: Option<u64>,
}

impl TlsFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`], also when the key is not that of the certificate.
    pub fn load(&self) -> Result<Loaded, TlsError> {
        let failed = |path: &Path, problem: String| TlsError::File { path: path.to_owned(), problem };
        let read = |path: &Path| fs::read(path).map_err(|error| failed(path, error.to_string()));
        let chain = CertificateDer::pem_slice_iter(&read(&self.certificate)?).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| failed(&self.certificate, error.to_string()))?;
        let Some(first) = chain.first() else {
            return Err(failed(&self.certificate, "it has no certificate in the PEM format".to_owned()));
        };
        let expires_at_s = expiry(first);
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?).map_err(|error| {
            failed(&self.key, format!("it has no private key in the PEM format ({error})"))
        })?;
        let pair =
            |error| TlsError::Pair { certificate: self.certificate.clone(), key: self.key.clone(), error };
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(pair)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(pair)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Loaded { config: Arc::new(config), expires_at_s })
    }

    /// A value that changes when one of the files does.
    fn fingerprint(&self) -> [Option<(u64, u64, i64, i64)>; 2] {
        [&self.certificate, &self.key].map(|path| {
            let file = fs::metadata(path).ok()?;
            Some((file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
        })
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// When a certificate expires, seconds since the Unix epoch.
///
/// The library does not show the dates of a certificate, but its verifier names them when it rejects one that has expired. So it is
/// verified for a time that is after the expiry of every certificate (the year 9999).
fn expiry(certificate: &CertificateDer<'_>) -> Option<u64> {
    const END_S: u64 = 253_402_300_800;
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone().into_owned()).ok()?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build().ok()?;
    let name = ServerName::try_from("any.example").ok()?;
    let end = UnixTime::since_unix_epoch(Duration::from_secs(END_S));
    match verifier.verify_server_cert(certificate, &[], &name, &[], end) {
        Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            Some(not_after.as_secs())
        }
        _ => None,
    }
}

impl Loaded {
    /// What is to be done about the expiry, if anything. `now_s` is seconds since the Unix epoch.
    #[must_use]
    pub fn warning(&self, now_s: u64) -> Option<String> {
        let expires_at_s = self.expires_at_s?;
        let date = crate::render::units::instant(expires_at_s.saturating_mul(1_000_000));
        if expires_at_s <= now_s {
            Some(format!("the certificate has expired ({date}): clients reject it"))
        } else if expires_at_s - now_s < EXPIRES_SOON_S {
            Some(format!("the certificate expires soon ({date})"))
        } else {
            None
        }
    }
}

/// The certificate that new connections get.
#[derive(Debug)]
pub struct CurrentTls {
    files: RwLock<TlsFiles>,
    loaded: RwLock<Arc<Loaded>>,
}

impl CurrentTls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let loaded = RwLock::new(Arc::new(files.load()?));
        Ok(Self { files: RwLock::new(files), loaded })
    }

    /// Makes the sessions of new connections.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.loaded().config))
    }

    /// The certificate in use.
    #[must_use]
    pub fn loaded(&self) -> Arc<Loaded> {
        Arc::clone(&self.loaded.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads other files from now on.
    pub fn set_files(&self, files: TlsFiles) {
        *self.files.write().unwrap_or_else(PoisonError::into_inner) = files;
    }

    fn files(&self) -> TlsFiles {
        self.files.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the files again. When that fails, the present certificate stays in use.
    fn reload(&self) {
        match self.files().load() {
            Ok(loaded) => {
                tracing::info!("reloaded the certificate");
                if let Some(warning) = loaded.warning(crate::clock::now_us() / 1_000_000) {
                    tracing::warn!("{warning}");
                }
                *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
            }
            Err(error) => {
                tracing::error!(%error, "cannot reload the certificate: the present one stays in use");
            }
        }
    }

    /// Follows the files until `stopped` resolves: reads them again when one changes and when the process gets SIGHUP.
    pub async fn follow(&self, mut hangups: Signal, stopped: impl Future<Output = ()>) {
        let mut known = self.files().fingerprint();
        let mut check = tokio::time::interval(CHECK_INTERVAL);
        tokio::pin!(stopped);
        loop {
            let reload = tokio::select! {
                () = &mut stopped => return,
                _ = hangups.recv() => true,
                _ = check.tick() => self.files().fingerprint() != known,
            };
            if reload {
                // Before loading: a change after it is then found at the next check.
                known = self.files().fingerprint();
                self.reload();
            }
        }
    }
}
