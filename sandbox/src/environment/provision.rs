//! Creates the resources of an environment before its processes start, and removes them afterwards.
//!
//! This time is neither billed nor part of Init.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::driver::EnvironmentInput;
use super::report::LogTail;
use super::root;
use super::slots::Slot;
use super::state::State;
use super::variables::{self, EnvironmentPaths};
use super::{Platform, ServeApi, Shared};
use crate::cgroup::{CgroupError, Group};
use crate::config::{Command, CommandError, FunctionConfig};
use crate::network::{Egress, HOST_ADDRESS, HOST_NAME, Loopback};
use crate::supervisor::client::{NetworkSockets, Supervisor, SupervisorError};
use crate::supervisor::network::API_PORT;
use crate::supervisor::proc_view::ProcViewSetup;
use crate::supervisor::protocol::Notice;
use crate::supervisor::{BindMount, Isolation, Setup};
use crate::telemetry::hub::Hub;

/// Time limit for the mounts.
const SETUP_TIMEOUT: Duration = Duration::from_secs(10);

const MEBIBYTE: u64 = 1024 * 1024;

/// Why an environment could not be created.
#[derive(Debug, Error)]
pub enum ProvisionError {
    #[error("cannot create the environment's folder {path}")]
    Folder { path: PathBuf, source: io::Error },
    #[error(
        "{path} cannot be read by other users, and functions run as an unprivileged user: change it with \
         `chmod -R o+rX {path}`"
    )]
    NotReadable { path: PathBuf },
    #[error("cannot listen for the environment's processes")]
    Listen(#[source] io::Error),
    #[error("cannot set up the environment: {0}")]
    Setup(String),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Supervisor(#[from] SupervisorError),
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// What the environment's APIs, processes and driver share.
fn shared(input: &EnvironmentInput, log_stream: &str, loopback: Arc<Loopback>) -> Shared {
    let EnvironmentInput { platform, id, function, responded, .. } = input;
    let log_file = platform.log_directory.join(&function.name).join(log_stream.replace('/', "-") + ".log");
    Shared {
        id: id.clone(),
        responded: responded.clone(),
        function: function.clone(),
        account: platform.account.clone(),
        token: variables::token(log_stream),
        telemetry: Hub::new(
            id,
            function.log_format,
            platform.trace.clone(),
            platform.faults.clone(),
            loopback,
        ),
        faults: platform.faults.clone(),
        log: LogTail::new(&log_file, function.log_format),
        trace: platform.trace.clone(),
        state: State { supervisor_ready: false, ..State::at_init(function.is_managed_instances(), 0) }.into(),
        changed: tokio::sync::Notify::new(),
    }
}

/// The resources of one environment.
pub(super) struct Provisioned {
    pub(super) shared: Arc<Shared>,
    pub(super) group: Arc<Group>,
    pub(super) supervisor: Arc<Supervisor>,
    pub(super) places: EnvironmentPaths,
    pub(super) command: Command,
    pub(super) opt_source: PathBuf,
    directory: PathBuf,
    apis: Vec<JoinHandle<()>>,
    egress: Option<Egress>,
    _slot: Slot,
}

impl Provisioned {
    pub(super) async fn make(input: &EnvironmentInput) -> Result<Provisioned, ProvisionError> {
        let EnvironmentInput { platform, id, function, opt: opt_source, .. } = input;
        let opt_source = opt_source.clone();
        let directory = platform.run_directory.join(id);
        let tmp_source = directory.join("tmp");
        make_folder(&tmp_source)?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(ProvisionError::Listen)?;
        let address = listener.local_addr().map_err(ProvisionError::Listen)?;
        let log_stream = log_stream(&function.version, id);
        let slot = platform.slots.take();
        let (mounts, places) =
            layout(platform, function, &opt_source, &directory, address.to_string(), &log_stream)?;
        let root = if platform.isolation == Isolation::Namespaces {
            let hosts = directory.join("hosts");
            Some(root::prepare(platform, function, &slot, &opt_source, &directory, &hosts)?)
        } else {
            None
        };
        let command = Command::for_function(
            function,
            Path::new(&places.task_root),
            &opt_source,
            Path::new(&places.opt),
            &platform.interpreters,
        )?;
        let loopback = Arc::new(Loopback::default());
        let shared = Arc::new(shared(input, &places.log_stream, loopback.clone()));
        let group = platform.hierarchy.create(id)?;
        group.limit_memory(u64::from(function.memory_mb) * MEBIBYTE)?;
        let setup = Setup {
            isolation: platform.isolation,
            entrances: group.entrances(),
            thaw: group.thaw_file(),
            root,
            mounts,
            own_network: platform.own_network,
            proc_view: proc_view(platform, function, &group, &directory)?,
            probe: false,
        };
        let listener_state = shared.clone();
        let sockets = Arc::new(Mutex::new(None));
        let received = sockets.clone();
        let supervisor = Supervisor::start(&platform.helper, &setup, move |notice, descriptors| {
            if matches!(notice, Some(Notice::Network)) {
                *received.lock().unwrap_or_else(PoisonError::into_inner) = NetworkSockets::new(descriptors);
            }
            listener_state.change(|state| state.on_notice(notice));
        })?;
        let apis = vec![(platform.serve_api)(listener, shared.clone())];
        let mut provisioned = Provisioned {
            shared,
            group: Arc::new(group),
            supervisor: Arc::new(supervisor),
            places,
            command,
            opt_source,
            directory,
            apis,
            egress: None,
            _slot: slot,
        };
        provisioned.await_ready().await?;
        let sockets = sockets.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sockets) = sockets {
            provisioned
                .enter_network(sockets, &loopback, platform.serve_api)
                .map_err(ProvisionError::Listen)?;
        }
        Ok(provisioned)
    }

    /// Serves the environment's own network.
    fn enter_network(
        &mut self,
        sockets: NetworkSockets,
        loopback: &Loopback,
        serve_api: ServeApi,
    ) -> io::Result<()> {
        let NetworkSockets { namespace, api, egress, names } = sockets;
        api.set_nonblocking(true)?;
        egress.set_nonblocking(true)?;
        names.set_nonblocking(true)?;
        self.apis.push(serve_api(TcpListener::from_std(api)?, self.shared.clone()));
        self.egress = Some(Egress::start(TcpListener::from_std(egress)?, UdpSocket::from_std(names)?));
        loopback.enter(namespace);
        Ok(())
    }

    async fn await_ready(&self) -> Result<(), ProvisionError> {
        let ready = self.shared.wait(Some(Instant::now() + SETUP_TIMEOUT), |state| {
            match (&state.supervisor_gone, state.supervisor_ready) {
                (Some(message), _) => Some(Err(ProvisionError::Setup(message.clone()))),
                (None, true) => Some(Ok(())),
                (None, false) => None,
            }
        });
        ready.await.unwrap_or_else(|| Err(ProvisionError::Setup("no response from the supervisor".into())))
    }

    /// Removes everything. Blocks until the processes have ended.
    pub(super) fn remove(self) {
        for api in &self.apis {
            api.abort();
        }
        drop(self.egress);
        self.shared.telemetry.end();
        drop(self.supervisor);
        self.group.remove();
        // A second signal may have removed it already.
        let removed = fs::remove_dir_all(&self.directory);
        if let Err(error) = removed.or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        }) {
            tracing::warn!(%error, directory = %self.directory.display(), "cannot remove folder");
        }
    }
}

/// The paths inside the environment, and the mounts that they need.
fn layout(
    platform: &Platform,
    function: &FunctionConfig,
    opt: &Path,
    directory: &Path,
    outer_api: String,
    log_stream: &str,
) -> Result<(Vec<BindMount>, EnvironmentPaths), ProvisionError> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let tmp = directory.join("tmp");
    let log_stream = log_stream.to_owned();
    let api = if platform.own_network { format!("127.0.0.1:{API_PORT}") } else { outer_api.clone() };
    if !platform.isolation.has_mounts() {
        let (task_root, opt, tmp) = (text(&function.code), text(opt), text(&tmp));
        return Ok((
            Vec::new(),
            EnvironmentPaths { api, outer_api, task_root, opt, tmp, log_stream, has_own_root: false },
        ));
    }
    let hosts = directory.join("hosts");
    let known = fs::read_to_string("/etc/hosts").unwrap_or_default();
    let host = if platform.own_network { HOST_ADDRESS } else { Ipv4Addr::LOCALHOST };
    let names = format!("{known}\n127.0.0.1 sandbox.localdomain sandbox\n{host} {HOST_NAME}\n");
    fs::write(&hosts, names).map_err(|source| ProvisionError::Folder { path: hosts.clone(), source })?;
    let mount = |source: &Path, target: &str, read_only| BindMount {
        source: source.to_owned(),
        target: target.into(),
        read_only,
    };
    let mut mounts = vec![mount(opt, "/opt", true)];
    let mut places = EnvironmentPaths {
        api,
        outer_api,
        task_root: text(&function.code),
        opt: "/opt".into(),
        tmp: "/tmp".into(),
        log_stream,
        has_own_root: platform.isolation == Isolation::Namespaces,
    };
    if places.has_own_root {
        places.task_root = TASK_ROOT.into();
        return Ok((Vec::new(), places));
    }
    if Path::new(TASK_ROOT).is_dir() {
        mounts.push(mount(&function.code, TASK_ROOT, true));
        places.task_root = TASK_ROOT.into();
    }
    if Path::new("/etc/hosts").is_file() {
        mounts.push(mount(&hosts, "/etc/hosts", true));
    }
    if places.task_root == TASK_ROOT || !function.code.starts_with("/tmp") {
        // Last, because the sources of other mounts may be under /tmp.
        mounts.push(mount(&tmp, "/tmp", false));
    } else {
        // Only without root: mounting it would hide the code.
        places.tmp = text(&tmp);
    }
    Ok((mounts, places))
}

/// The environment's own files of `/proc`, where the machine has what they need.
fn proc_view(
    platform: &Platform,
    function: &FunctionConfig,
    group: &Group,
    directory: &Path,
) -> Result<Option<ProcViewSetup>, ProvisionError> {
    if !platform.has_proc_views() {
        return Ok(None);
    }
    let folder = directory.join("proc");
    make_folder(&folder)?;
    Ok(Some(ProcViewSetup {
        counters: group.counter_folders(),
        vcpus: function.visible_vcpus().min(machine_cpus()),
        memory_bytes: u64::from(function.memory_mb) * MEBIBYTE,
        folder,
    }))
}

/// CPUs that this process may use.
fn machine_cpus() -> u32 {
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The code folder, as on Lambda.
pub const TASK_ROOT: &str = "/var/task";

/// `2026/01/02/[$LATEST]ID`.
fn log_stream(version: &str, id: &str) -> String {
    let date = crate::time::iso_ms(std::time::SystemTime::now());
    format!("{}/[{version}]{id}", date[..10].replace('-', "/"))
}

fn make_folder(path: &Path) -> Result<(), ProvisionError> {
    fs::create_dir_all(path).map_err(|source| ProvisionError::Folder { path: path.to_owned(), source })
}
