//! Options and setup shared by all commands that run functions.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};

use crate::control::{ControlPlane, Folders};
use crate::environment::Platform;
use crate::faults::Settings;
use crate::fleet::{Fleet, FleetSettings};
use crate::machine_setup;
use crate::supervisor::Isolation;
use crate::trace::Trace;

/// Time limit for environments to end. SHUTDOWN takes up to two seconds, a running invocation may need more.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(15);

/// Settings of a sandbox.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// Folder for log files and running environments.
    #[arg(long, default_value = ".lambda-sandbox")]
    data: PathBuf,
    /// Layer (folder or zip) that every function gets; may be repeated.
    #[arg(long)]
    layer: Vec<PathBuf>,
    /// Write every event of the sandbox to this file, one JSON object per line.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// AWS region of the functions.
    #[arg(long, default_value = "us-east-1")]
    region: String,
    /// AWS account number of the functions.
    #[arg(long, default_value = "123456789012")]
    account: String,
    /// How environments are isolated.
    #[arg(long, value_enum, default_value_t = IsolationChoice::Auto)]
    isolation: IsolationChoice,
    /// Network of environments.
    #[arg(long, value_enum, default_value_t = NetworkChoice::Auto)]
    network: NetworkChoice,
    /// Folder that functions may read and write, at the same path; may be repeated. Lambda has nothing like it. As
    /// root, functions see no other files of this machine but programs and libraries.
    #[arg(long)]
    share: Vec<PathBuf>,
    /// Do not use control groups: CPU and memory are not limited.
    #[arg(long)]
    no_limits: bool,
    #[command(flatten)]
    faults: Settings,
}

/// Values of `--isolation`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum IsolationChoice {
    /// The strongest isolation that this machine allows.
    Auto,
    /// An own root file system, an unprivileged user, and namespaces. Needs root.
    Namespaces,
    /// The machine's root file system in an unprivileged user namespace.
    User,
    /// Plain processes without isolation.
    None,
}

/// Values of `--network`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum NetworkChoice {
    /// A network for each environment if this machine allows it. Needs root.
    Auto,
    /// A network for each environment. The machine is `host.sandbox.internal`.
    Own,
    /// The machine's network.
    Host,
}

/// Delays and limits of the control plane.
pub(super) struct Pace {
    pub(super) fleet: FleetSettings,
    pub(super) update_delay: Duration,
    pub(super) control_rate: Option<f64>,
}

/// A running sandbox that does not serve HTTP.
pub(super) struct Sandbox {
    pub(super) platform: Arc<Platform>,
    pub(super) fleet: Arc<Fleet>,
    pub(super) plane: Arc<ControlPlane>,
    folders: Folders,
}

impl Common {
    pub(super) fn start(self, pace: Pace) -> anyhow::Result<Sandbox> {
        let trace = match &self.trace {
            Some(path) => Trace::to_file(path)
                .with_context(|| format!("cannot write the trace file {}", path.display()))?,
            None => Trace::disabled(),
        };
        let isolation = match self.isolation {
            IsolationChoice::Auto => None,
            IsolationChoice::Namespaces => Some(Isolation::Namespaces),
            IsolationChoice::User => Some(Isolation::UserNamespaces),
            IsolationChoice::None => Some(Isolation::Processes),
        };
        let shared_folders = self.share.iter().map(|folder| {
            folder.canonicalize().with_context(|| format!("cannot share the folder {}", folder.display()))
        });
        let shared_folders = shared_folders.collect::<anyhow::Result<Vec<_>>>()?;
        let options = machine_setup::Options {
            data: self.data,
            account: self.account,
            trace,
            isolation,
            limits: !self.no_limits,
            own_network: match self.network {
                NetworkChoice::Auto => None,
                NetworkChoice::Own => Some(true),
                NetworkChoice::Host => Some(false),
            },
            shared_folders,
            faults: self.faults,
        };
        let platform = Arc::new(machine_setup::prepare(options)?);
        machine_setup::log_unavailable_features(&platform);
        let fleet = Fleet::start(platform.clone(), pace.fleet);
        let plane = ControlPlane::new(fleet.clone(), &self.region, pace.update_delay, pace.control_rate);
        let layers = self.layer.iter().map(|layer| layer.canonicalize().unwrap_or_else(|_| layer.clone()));
        let folders = Folders { layers: layers.collect() };
        Ok(Sandbox { platform, fleet, plane: Arc::new(plane), folders })
    }
}

/// The log files of a sandbox and how long they were.
pub(super) struct LogLengths {
    folder: PathBuf,
    lengths: HashMap<PathBuf, u64>,
}

impl LogLengths {
    /// What the files have in addition now.
    pub(super) fn appended(&self) -> String {
        let mut text = String::new();
        for path in log_files(&self.folder) {
            let start = usize::try_from(self.lengths.get(&path).copied().unwrap_or(0)).unwrap_or(usize::MAX);
            let bytes = fs::read(&path).unwrap_or_default();
            text += &String::from_utf8_lossy(bytes.get(start..).unwrap_or_default());
        }
        text
    }
}

/// Every file in the folders of the functions.
fn log_files(folder: &Path) -> Vec<PathBuf> {
    let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries(folder).map(|entry| entry.path());
    let mut files: Vec<_> = folders.flat_map(|folder| entries(&folder).map(|entry| entry.path())).collect();
    files.sort();
    files
}

impl Sandbox {
    /// The present lengths of the log files.
    pub(super) fn log_lengths(&self) -> LogLengths {
        let folder = self.platform.log_directory.clone();
        let length = |path: PathBuf| Some((path.clone(), fs::metadata(path).ok()?.len()));
        let lengths = log_files(&folder).into_iter().filter_map(length).collect();
        LogLengths { folder, lengths }
    }

    pub(super) fn load(&self, folder: &Path) -> anyhow::Result<Vec<String>> {
        let names = self.plane.load(&self.folders, folder)?;
        tracing::info!(folder = %folder.display(), functions = %names.join(" "), "functions loaded");
        Ok(names)
    }

    /// Loads `folder`, which must be one function, and returns its name.
    pub(super) fn load_one(&self, folder: &Path) -> anyhow::Result<String> {
        let names = self.load(folder)?;
        let count = names.len();
        let Ok([name]) = <[String; 1]>::try_from(names) else {
            bail!("{} must contain one function, but contains {count}", folder.display());
        };
        Ok(name)
    }

    /// Shuts down every environment, or returns early when `abort` completes.
    pub(super) async fn stop(self, abort: impl Future) {
        tokio::select! {
            left = self.fleet.shut_down(SHUTDOWN_TIMEOUT) => if left > 0 {
                tracing::warn!(left, "environments did not end in time and are killed");
            },
            _ = abort => tracing::warn!("second signal: environments are killed without SHUTDOWN"),
        }
        machine_setup::clean_up(&self.platform);
    }
}
