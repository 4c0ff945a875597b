//! Which database, and how to connect to it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config};

use super::tls::MakeTls;
use crate::causes::with_causes;
use crate::store::StoreError;

/// How long a connection may take, name resolution and TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The server ends a transaction whose collector does not respond any more, so that its locks do not stay.
const SESSION: &str = "SET idle_in_transaction_session_timeout = '15s'";

/// A database with PostgreSQL's protocol. Its text form has no password.
#[derive(Clone)]
pub struct Database {
    config: Config,
    tls: MakeTls,
}

/// Where the parts of a [`Database`] come from that are not in its URL.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    /// The password, when the URL has none.
    pub password: Option<String>,
    /// A file with the password, which has precedence.
    pub password_file: Option<PathBuf>,
    /// A PEM file with the certificate authorities of the server; those of the system when absent.
    pub ca_file: Option<PathBuf>,
}

impl Database {
    /// Reads a URL such as `postgres://tailor@db.example.com/tailor?sslmode=require`.
    ///
    /// # Errors
    /// [`StoreError::Engine`] when the URL is not valid, or a file cannot be read. The message does not have the URL,
    /// because that may contain a password.
    pub fn new(url: &str, secrets: &Secrets) -> Result<Self, StoreError> {
        let failed = |message: String| Err(StoreError::Engine(message));
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return failed("the database must be a URL such as postgres://user@host/database".to_owned());
        }
        // The certificate is always verified when there is TLS.
        let url = url
            .replace("sslmode=verify-full", "sslmode=require")
            .replace("sslmode=verify-ca", "sslmode=require");
        let mut config = match Config::from_str(&url) {
            Ok(config) => config,
            Err(error) => {
                return failed(format!("the URL of the database is not valid: {}", with_causes(&error)));
            }
        };
        if let Some(file) = &secrets.password_file {
            match std::fs::read_to_string(file) {
                Ok(password) => drop(config.password(password.trim_end_matches(['\r', '\n']))),
                Err(error) => {
                    return failed(format!("cannot read the password in {}: {error}", file.display()));
                }
            }
        } else if let (None, Some(password)) = (config.get_password(), &secrets.password) {
            config.password(password);
        }
        config.connect_timeout(CONNECT_TIMEOUT);
        config.tcp_user_timeout(2 * CONNECT_TIMEOUT);
        config.keepalives_idle(2 * CONNECT_TIMEOUT);
        config.keepalives_interval(CONNECT_TIMEOUT);
        if config.get_application_name().is_none() {
            config.application_name("tailor");
        }
        let tls = match config.get_ssl_mode() {
            SslMode::Disable => MakeTls::default(),
            _ => MakeTls::new(secrets.ca_file.as_deref().map(Path::to_path_buf))?,
        };
        Ok(Self { config, tls })
    }

    /// Connects. The connection is driven by a task of the present runtime.
    pub(super) async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = self.config.connect(self.tls.clone()).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = with_causes(&error), "a connection to the database ended");
            }
        });
        client.batch_execute(SESSION).await?;
        // An acknowledgement means that the batch is on disk. Other engines than PostgreSQL may not have the setting.
        if let Ok(row) = client.query_one("SHOW synchronous_commit", &[]).await
            && row.try_get::<_, &str>(0).is_ok_and(|value| value == "off")
        {
            client.batch_execute("SET synchronous_commit = on").await?;
        }
        Ok(client)
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = self.config.get_hosts().iter().map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        });
        let hosts: Vec<_> = hosts.collect();
        let name = self.config.get_dbname().or_else(|| self.config.get_user()).unwrap_or_default();
        write!(f, "database {name} on {}", hosts.join(","))?;
        let ports: Vec<_> = self.config.get_ports().iter().map(u16::to_string).collect();
        if ports.is_empty() { Ok(()) } else { write!(f, " port {}", ports.join(",")) }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_database_has_no_password() {
        let url = "postgres://tailor:s3cret@db.example.com:5433/measurements?sslmode=verify-full";
        let database = Database::new(url, &Secrets::default()).unwrap();
        assert_eq!(database.to_string(), "database measurements on db.example.com port 5433");
        assert_eq!(format!("{database:?}"), database.to_string());
        assert_eq!(database.config.get_ssl_mode(), SslMode::Require);
        for url in ["postgres://tailor:s3cret@host/db?colour=s3cret", "mysql://tailor:s3cret@host/db"] {
            let error = Database::new(url, &Secrets::default()).unwrap_err().to_string();
            assert!(!error.contains("s3cret@"), "{error}");
        }
    }

    #[test]
    fn the_password_comes_from_a_file_or_a_variable() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "from a file\n").unwrap();
        let url = "postgres://tailor@host/db?sslmode=disable";
        let mut secrets = Secrets { password: Some("from a variable".to_owned()), ..Secrets::default() };
        let password =
            |secrets: &Secrets| Database::new(url, secrets).unwrap().config.get_password().unwrap().to_vec();
        assert_eq!(password(&secrets), b"from a variable");
        secrets.password_file = Some(file);
        assert_eq!(password(&secrets), b"from a file");
        secrets.password_file = Some(folder.path().join("absent"));
        assert!(Database::new(url, &secrets).unwrap_err().to_string().contains("absent"));
    }
}
