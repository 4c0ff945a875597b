//! One execution environment, from Init to Shutdown.
//!
//! - [`state`], [`extension`], [`invocation`]: the state of its processes, changed by the APIs;
//! - `driver`: the task that moves it from phase to phase, waiting for conditions on that state;
//! - `init`, `invoke`, `shutdown`: the phases;
//! - `provision`: what exists around it (folders, mounts, control group, address);
//! - [`variables`]: environment variables; [`report`]: billing and logs; [`failure`]: fatal errors.
//!
//! The `fleet` module chooses the environment of each invocation.

pub mod api_error;
mod driver;
pub mod extension;
pub mod failure;
mod init;
pub mod invocation;
mod invoke;
mod managed;
mod provision;
pub mod report;
mod restore;
mod root;
mod shutdown;
mod slots;
pub mod state;
pub mod variables;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::cgroup::{Group, Hierarchy};
use crate::config::{FunctionConfig, Interpreters};
use crate::faults::{Faults, Neighbours, Settings};
use crate::supervisor::client::Supervisor;
use crate::supervisor::{Isolation, proc_view};
use crate::telemetry::hub::Hub;
use crate::trace::Trace;

pub use driver::ProvisionError;
use invocation::InvokeRequest;
pub use provision::TASK_ROOT;
use report::LogTail;
pub(crate) use root::can_limit_tmp;
pub use slots::Slots;
use state::State;

/// Maximum concurrent invocations of a managed instance. Lambda allows up to 64 per vCPU; this is chosen for a machine
/// with two cores.
pub const MANAGED_CONCURRENCY: usize = 16;

/// Serves the APIs of one environment on a listener, until the task is aborted.
pub type ServeApi = fn(TcpListener, Arc<Shared>) -> JoinHandle<()>;

/// Resources that all environments of one sandbox share.
pub struct Platform {
    /// The `lambda-sandbox` binary, which is also the supervisor.
    pub helper: PathBuf,
    /// How processes are isolated.
    pub isolation: Isolation,
    /// Where limits come from.
    pub hierarchy: Hierarchy,
    /// Language interpreters of this machine.
    pub interpreters: Interpreters,
    /// The requested faults.
    pub faults: Arc<Faults>,
    /// Processes that compete for CPU.
    pub neighbours: Neighbours,
    /// Where events are written.
    pub trace: Trace,
    /// AWS account number, twelve digits.
    pub account: String,
    /// Numbers that distinguish running environments.
    pub slots: Arc<Slots>,
    /// Whether each environment has a network of its own.
    pub own_network: bool,
    /// Folders of the machine that environments may read and write.
    pub shared_folders: Vec<PathBuf>,
    /// Folders of running environments; removed with them.
    pub run_directory: PathBuf,
    /// Log files; kept.
    pub log_directory: PathBuf,
    /// Serves the APIs inside an environment. It is passed in because `api` depends on this module.
    pub serve_api: ServeApi,
}

impl Platform {
    /// Whether environments have their own `/proc/stat`, `/proc/meminfo` and others.
    pub fn has_proc_views(&self) -> bool {
        self.isolation.has_mounts() && proc_view::is_available() && self.hierarchy.has_counters()
    }

    /// Replaces the faults in force. Fails on values out of range, or if a process that competes for CPU cannot be
    /// started; the previous faults then stay.
    pub fn set_faults(&self, settings: Settings) -> anyhow::Result<()> {
        settings.check()?;
        self.neighbours.set_count(settings.cpu_contention, &self.helper, &self.hierarchy)?;
        let traced = serde_json::to_value(&settings)?;
        self.faults.set(settings);
        self.trace.event("faults", traced);
        Ok(())
    }
}

/// What the driver, the APIs and the log readers of one environment share.
pub struct Shared {
    /// Random, unique among all environments.
    pub id: String,
    /// What runs in it.
    pub function: Arc<FunctionConfig>,
    /// AWS account number.
    pub account: String,
    /// Bearer token of its local endpoints.
    pub token: String,
    /// Its telemetry.
    pub telemetry: Hub,
    /// The requested faults.
    pub faults: Arc<Faults>,
    /// Its log file and the tail of the current invocation's log.
    pub log: LogTail,
    /// The caller has its response; runtime or extensions may still work.
    pub responded: Arc<AtomicBool>,
    trace: Trace,
    state: Mutex<State>,
    changed: Notify,
}

impl Shared {
    /// Runs `change` on the state and wakes the driver.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_waiters();
        result
    }

    /// Waits until `reached` gives a value, or `None` at `deadline`.
    pub async fn wait<T>(
        &self,
        deadline: Option<Instant>,
        mut reached: impl FnMut(&mut State) -> Option<T>,
    ) -> Option<T> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Enabled before the check, so that a change between the check and the wait is not missed.
            changed.as_mut().enable();
            if let Some(value) = reached(&mut self.lock()) {
                return Some(value);
            }
            match deadline {
                Some(deadline) => timeout_at(deadline, changed).await.ok()?,
                None => changed.await,
            }
        }
    }

    /// Writes a trace line about this environment.
    pub fn trace(&self, event: &str, mut fields: Value) {
        if let Value::Object(fields) = &mut fields {
            fields.insert("environment".into(), json!(self.id));
            fields.insert("function".into(), json!(self.function.name));
            fields.insert("version".into(), json!(self.function.version));
        }
        self.trace.event(event, fields);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A step in the life of an environment, which its owner is notified of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Milestone {
    /// Init has ended, successfully or not.
    Initialized,
    /// It can take an invocation.
    Idle,
    /// It has ended, and its resources are released.
    Ended,
}

/// Called with every milestone.
pub type OnMilestone = Arc<dyn Fn(&str, Milestone) + Send + Sync>;

enum Order {
    Invoke(InvokeRequest),
    Shutdown,
}

/// A running environment. It ends on request or when dropped.
#[derive(Clone)]
pub struct Environment {
    /// Its identifier.
    pub id: String,
    orders: mpsc::UnboundedSender<Order>,
    responded: Arc<AtomicBool>,
    created: Arc<OnceLock<CreatedEnvironment>>,
}

/// What other modules can use once the environment is created.
struct CreatedEnvironment {
    shared: Arc<Shared>,
    /// Empty when the environment has ended.
    supervisor: Weak<Supervisor>,
    group: Arc<Group>,
    api: String,
}

impl Environment {
    /// Starts provisioning and Init at once. `opt` is the folder whose contents appear at `/opt`.
    pub fn start(
        platform: Arc<Platform>,
        function: Arc<FunctionConfig>,
        opt: PathBuf,
        on_milestone: OnMilestone,
    ) -> Environment {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let (orders, incoming) = mpsc::unbounded_channel();
        let responded = Arc::new(AtomicBool::new(false));
        let created = Arc::new(OnceLock::new());
        let input = driver::EnvironmentInput {
            platform,
            id: id.clone(),
            function,
            opt,
            responded: responded.clone(),
        };
        tokio::spawn(driver::run(input, incoming, on_milestone, created.clone()));
        Environment { id, orders, responded, created }
    }

    /// Its address and processes as JSON; `None` before it is created.
    pub fn describe(&self) -> Option<Value> {
        let CreatedEnvironment { shared, api, .. } = self.created.get()?;
        let extensions: Vec<Value> = shared.change(|state| {
            let external = state.extensions.iter();
            external.map(|known| json!({"name": known.name, "state": format!("{:?}", known.state)})).collect()
        });
        Some(json!({
            "environment": self.id, "function": shared.function.name, "version": shared.function.version,
            "memory_mb": shared.function.memory_mb, "api": api, "extensions": extensions,
        }))
    }

    /// Kills a process as `kill -9` would: `runtime`, or `extensions/NAME`. `false` if none of
    /// that name runs. A frozen process may end only at the thaw.
    pub fn kill(&self, process: &str) -> bool {
        let Some(CreatedEnvironment { shared, supervisor, .. }) = self.created.get() else { return false };
        let id = shared.change(|state| match process.strip_prefix("extensions/") {
            Some(name) => {
                let known = state.extensions.iter().find(|known| known.name == name)?;
                known.process.filter(|_| known.exit.is_none())
            }
            None if process == "runtime" => state.runtime.process.filter(|_| state.runtime.exit.is_none()),
            None => None,
        });
        let (Some(id), Some(supervisor)) = (id, supervisor.upgrade()) else { return false };
        shared.trace("fault.kill", json!({"process": process}));
        supervisor.signal(id, Signal::SIGKILL);
        true
    }

    /// Sends an invocation to the environment. Returns it if the environment has ended.
    pub fn invoke(&self, request: InvokeRequest) -> Result<(), InvokeRequest> {
        self.responded.store(false, Ordering::Release);
        self.orders.send(Order::Invoke(request)).map_err(|error| match error.0 {
            Order::Invoke(request) => request,
            Order::Shutdown => unreachable!("an invocation was sent"),
        })
    }

    /// Whether the caller has its response, so that the environment is about to become idle.
    pub fn is_settling(&self) -> bool {
        self.responded.load(Ordering::Acquire)
    }

    /// CPU time since it was created. Zero without control groups.
    pub fn cpu_time(&self) -> Duration {
        let group = self.created.get().map(|created| &created.group);
        let cpu = group.and_then(|group| group.cpu()).unwrap_or_default();
        Duration::from_nanos(cpu.usage_ns)
    }

    /// Whether a thread runs or waits for a CPU, also when the CPU quota is used up. `false` without control groups.
    pub fn is_runnable(&self) -> bool {
        let processes = self.created.get().map(|created| created.group.processes());
        processes.unwrap_or_default().into_iter().any(has_runnable_thread)
    }

    /// Requests its shutdown after the invocations that it has accepted.
    pub fn shut_down(&self) {
        let _ = self.orders.send(Order::Shutdown);
    }
}

/// Whether the kernel shows a thread of the process as running, which includes ready to run.
fn has_runnable_thread(pid: i32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.into_iter().any(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, fields)| fields.trim_start().starts_with('R'))
    })
}
