//! A real PostgreSQL server in a temporary folder, from the programs of the system's package.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::process::{free_address, is_root};

/// Where Debian's packages have the programs of the server.
const VERSIONS: &str = "/usr/lib/postgresql";

/// Time limit for the server to start.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A running server. Dropping it stops the server and deletes its data.
#[derive(Debug)]
pub struct PostgresServer {
    child: Child,
    folder: TempDir,
    programs: PathBuf,
    /// The user and group that the server runs as, when this process is root's.
    user: Option<(u32, u32)>,
    settings: Vec<String>,
    port: u16,
    databases: AtomicU64,
}

/// How a server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Transactions are rolled back, and clients get a message.
    Fast,
    /// As after a crash: the next start repairs the data.
    Immediate,
}

impl PostgresServer {
    /// Whether the programs are installed.
    #[must_use]
    pub fn is_installed() -> bool {
        programs().is_some()
    }

    /// A server that the tests of one process share, without fsync. It runs while one of them uses it.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn shared() -> Result<Arc<Self>> {
        static SHARED: Mutex<Weak<PostgresServer>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return Ok(server);
        }
        let server = Arc::new(Self::start(&["fsync=off"])?);
        *shared = Arc::downgrade(&server);
        Ok(server)
    }

    /// Starts a server with these settings, each as `name=value`.
    ///
    /// # Errors
    /// When PostgreSQL is not installed, or the server does not start.
    pub fn start(settings: &[&str]) -> Result<Self> {
        Self::start_in(&std::env::temp_dir(), settings)
    }

    /// As [`Self::start`], with its data in a new folder in `parent`, which the user `postgres` must be able to reach.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_in(parent: &Path, settings: &[&str]) -> Result<Self> {
        Self::start_with_files(parent, settings, &[])
    }

    /// As [`Self::start_in`], with files in the data folder, each as its name and content. Only the server can read them.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with_files(parent: &Path, settings: &[&str], files: &[(&str, &str)]) -> Result<Self> {
        let programs = programs().with_context(|| format!("no PostgreSQL server in {VERSIONS}"))?;
        let folder = tempfile::tempdir_in(parent)?;
        // The server refuses to run as root.
        let user = if is_root() { Some(owner(folder.path())?) } else { None };
        let data = folder.path().join("data");
        let mut initdb = as_user(Command::new(programs.join("initdb")), user);
        initdb.args([
            "--auth=trust",
            "--username=tailor",
            "--no-sync",
            "--encoding=UTF8",
            "--no-locale",
            "-D",
        ]);
        run(initdb.arg(&data))?;
        for (name, content) in files {
            let path = data.join(name);
            fs::write(&path, content)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
            if let Some((user, group)) = user {
                chown(&path, Some(user), Some(group))?;
            }
        }
        let port = free_address()?.port();
        let settings: Vec<_> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let child = run_server(&programs, folder.path(), user, port, &settings)?;
        let mut server = Self { child, folder, programs, user, settings, port, databases: AtomicU64::new(0) };
        server.wait_until_ready()?;
        Ok(server)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let mut ready = Command::new(self.programs.join("pg_isready"));
            ready.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
            if ready.status()?.success() {
                return Ok(());
            }
            if self.child.try_wait()?.is_some() || Instant::now() > deadline {
                bail!("PostgreSQL did not start: {}", self.log());
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops the server and starts it again, with the same data and port.
    ///
    /// # Errors
    /// When it does not stop or start.
    pub fn restart(&mut self, shutdown: Shutdown) -> Result<()> {
        let signal = match shutdown {
            Shutdown::Fast => "-INT",
            Shutdown::Immediate => "-QUIT",
        };
        run(Command::new("kill").args([signal, &self.child.id().to_string()]))?;
        self.child.wait()?;
        self.child = run_server(&self.programs, self.folder.path(), self.user, self.port, &self.settings)?;
        self.wait_until_ready()
    }

    /// The port on the loopback address.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Creates an empty database and returns its URL.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn new_database(&self) -> Result<String> {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"))?;
        Ok(format!("postgres://tailor@127.0.0.1:{}/{name}?sslmode=disable", self.port))
    }

    /// Runs SQL in a database, by name or URL, and returns the values of the result: a line per row, with `|` between
    /// columns.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn sql(&self, database: &str, sql: &str) -> Result<String> {
        let name = database.rsplit('/').next().unwrap_or(database);
        let name = name.split('?').next().unwrap_or(name);
        let mut command = Command::new(self.programs.join("psql"));
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "tailor", "-h", "127.0.0.1"]);
        run(command.args(["-p", &self.port.to_string(), "-d", name, "-c", sql]))
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // SIGQUIT ends it at once: its data is deleted in any case.
        let _ = Command::new("kill").args(["-QUIT", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

fn run_server(
    programs: &Path,
    folder: &Path,
    user: Option<(u32, u32)>,
    port: u16,
    settings: &[String],
) -> Result<Child> {
    let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("log"))?;
    let mut command = as_user(Command::new(programs.join("postgres")), user);
    let port = port.to_string();
    command.arg("-D").arg(folder.join("data")).args(["-p", &port, "-c", "listen_addresses=127.0.0.1"]);
    command.arg("-c").arg(format!("unix_socket_directories={}", folder.display()));
    for setting in settings {
        command.args(["-c", setting]);
    }
    Ok(command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?)
}

/// The folder with the programs of the newest installed version.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir(VERSIONS).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let with_server = versions.map(|version| version.join("bin")).filter(|bin| bin.join("initdb").exists());
    with_server.max_by_key(|bin| {
        let version = bin.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        version.and_then(|version| version.parse::<u32>().ok())
    })
}

/// Gives the folder to the user `postgres`, which the package creates; returns its user and group.
fn owner(folder: &Path) -> Result<(u32, u32)> {
    let id =
        |flag: &str| -> Result<u32> { Ok(run(Command::new("id").args([flag, "postgres"]))?.trim().parse()?) };
    let (user, group) = (id("-u")?, id("-g")?);
    chown(folder, Some(user), Some(group))?;
    ensure!(fs::metadata(folder)?.uid() == user, "cannot give {} to postgres", folder.display());
    Ok((user, group))
}

fn as_user(mut command: Command, user: Option<(u32, u32)>) -> Command {
    if let Some((user, group)) = user {
        command.uid(user).gid(group);
        // The present folder may be unreadable for that user.
        command.current_dir("/");
    }
    command
}

fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot start {program}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} failed: {error}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
