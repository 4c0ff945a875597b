//! Options and setup shared by all commands that run functions.

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

impl Sandbox {
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
        let left = tokio::select! {
            left = self.fleet.shut_down(SHUTDOWN_TIMEOUT) => left,
            _ = abort => 1,
        };
        if left > 0 {
            tracing::warn!(left, "environments did not end in time and are killed");
        }
        machine_setup::clean_up(&self.platform);
    }
}
