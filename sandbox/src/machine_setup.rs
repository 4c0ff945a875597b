//! Prepares the machine for environments, and cleans up at the end.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};

use crate::api;
use crate::cgroup::{Hierarchy, Owner};
use crate::config::Interpreters;
use crate::environment::{Platform, TASK_ROOT, can_limit_tmp};
use crate::faults::{Faults, Neighbours, Settings};
use crate::supervisor::Isolation;
use crate::trace::Trace;

/// Settings of [`prepare`].
pub struct Options {
    /// Folder for log files and running environments.
    pub data: PathBuf,
    /// AWS account number.
    pub account: String,
    /// Where events are written.
    pub trace: Trace,
    /// How environments are isolated. When absent, the strongest isolation that works.
    pub isolation: Option<Isolation>,
    /// Use control groups.
    pub limits: bool,
    /// Whether environments have a network of their own. When absent, if it works.
    pub own_network: Option<bool>,
    /// Folders that environments may read and write.
    pub shared_folders: Vec<PathBuf>,
    /// The requested faults.
    pub faults: Settings,
}

/// Detects what this machine allows, and removes the leftovers of killed sandboxes.
pub fn prepare(options: Options) -> anyhow::Result<Platform> {
    let helper = std::env::current_exe().context("cannot find the lambda-sandbox binary")?;
    let data = absolute(&options.data).context("cannot create the data folder")?;
    remove_leftover_folders(&data.join("run"));
    let run_directory = data.join("run").join(Owner::current().name());
    fs::create_dir_all(&run_directory)
        .with_context(|| format!("cannot create the folder {}", run_directory.display()))?;
    let isolation = options.isolation.unwrap_or_else(|| Isolation::detect(&helper));
    let own_network = has_own_network(options.own_network, isolation, &helper)?;
    if isolation == Isolation::UserNamespaces {
        // A mount needs an existing folder. The empty folder is kept: another sandbox may use it, and removing it would
        // remove the mount of the other sandbox. Without root the folder is
        // missing, and the code is not mounted.
        let _ = fs::create_dir_all(TASK_ROOT);
    }
    let hierarchy = if options.limits { Hierarchy::detect() } else { Hierarchy::off() };
    let platform = Platform {
        helper,
        isolation,
        hierarchy,
        interpreters: Interpreters::find(),
        faults: Arc::new(Faults::default()),
        neighbours: Neighbours::default(),
        trace: options.trace,
        account: options.account,
        slots: Arc::default(),
        own_network,
        shared_folders: options.shared_folders,
        run_directory,
        log_directory: data.join("logs"),
        serve_api: api::serve,
    };
    platform.set_faults(options.faults)?;
    Ok(platform)
}

/// Whether environments have their own network, as `requested` or if it works.
fn has_own_network(requested: Option<bool>, isolation: Isolation, helper: &PathBuf) -> anyhow::Result<bool> {
    if requested == Some(false) {
        return Ok(false);
    }
    match isolation.check_own_network(helper) {
        Ok(()) => Ok(true),
        Err(reason) if requested == Some(true) => {
            bail!("environments cannot have their own network: {reason}")
        }
        Err(reason) => {
            if isolation == Isolation::Namespaces {
                tracing::warn!(reason, "environments share the machine's network");
            }
            Ok(false)
        }
    }
}

fn absolute(path: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(path)?;
    path.canonicalize()
}

fn remove_leftover_folders(run: &Path) {
    let Ok(entries) = fs::read_dir(run) else { return };
    for entry in entries.flatten() {
        let owner = Owner::parse(&entry.file_name().to_string_lossy());
        if owner.is_some_and(|owner| !owner.is_alive()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Logs which features of Lambda this machine does not allow.
pub fn log_unavailable_features(platform: &Platform) {
    match platform.isolation {
        Isolation::Namespaces if can_limit_tmp() => {}
        Isolation::Namespaces => tracing::warn!(
            "the size of /tmp is not limited: this needs mkfs.ext4 (package e2fsprogs) and loop devices"
        ),
        Isolation::UserNamespaces => {
            tracing::warn!("not root: environments run in user namespaces; files belong to the current user");
        }
        Isolation::Processes => tracing::warn!(
            "no namespaces: environments see all processes; /opt, /var/task and /tmp are not mounted, \
             LAMBDA_SANDBOX_OPT, LAMBDA_TASK_ROOT and TMPDIR contain their paths"
        ),
    }
    if platform.isolation.has_mounts() && !platform.has_proc_views() {
        tracing::warn!(
            "/dev/fuse or control groups cannot be used: environments see the machine's /proc/stat, \
             /proc/meminfo and /proc/pressure instead of their own"
        );
    }
    let missing = platform.hierarchy.missing();
    if missing.is_empty() {
        tracing::info!(limits = platform.hierarchy.version(), "CPU quota, memory limit and freezer are on");
    } else {
        let off = missing.join(" ");
        tracing::warn!(
            off,
            "these control group controllers are not available, and their limits are off; \
                             without `freezer` processes are stopped with SIGSTOP instead"
        );
    }
}

/// Removes what [`prepare`] made.
pub fn clean_up(platform: &Platform) {
    if let Err(error) = platform.set_faults(Settings::default()) {
        tracing::warn!(%error, "cannot end the processes that compete for CPU");
    }
    platform.hierarchy.remove();
    let _ = fs::remove_dir_all(&platform.run_directory);
    // This fails, as intended, while another sandbox uses the folder.
    if let Some(run) = platform.run_directory.parent() {
        let _ = fs::remove_dir(run);
    }
}
