//! One execution environment, from Init to Shutdown.
//!
//! - [`state`], [`extension`], [`invocation`]: what its processes have said so far, changed by the APIs;
//! - [`driver`]: the task that moves it from phase to phase, waiting for conditions on that state;
//! - [`init`], [`invoke`], [`shutdown`]: the phases;
//! - [`provision`]: what exists around it (folders, mounts, control group, address);
//! - [`variables`]: what its processes are told; [`report`]: what it is billed; [`failure`]: how it goes wrong.
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
mod shutdown;
pub mod state;
pub mod variables;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::cgroup::Hierarchy;
use crate::config::{FunctionConfig, Interpreters};
use crate::faults::{Faults, Neighbours, Settings};
use crate::supervisor::Isolation;
use crate::supervisor::client::Supervisor;
use crate::telemetry::hub::Hub;
use crate::trace::Trace;

pub use driver::ProvisionError;
use invocation::InvokeRequest;
pub use provision::TASK_ROOT;
use report::LogTail;
use state::State;

/// Invocations a managed instance takes at a time. Real ones take up to 64 per vCPU; two host cores are what
/// this is sized for.
pub const MANAGED_CONCURRENCY: usize = 16;

/// Serves the APIs of one environment on a listener, until the task is aborted.
pub type ServeApi = fn(TcpListener, Arc<Shared>) -> JoinHandle<()>;

/// What all environments of one sandbox share.
pub struct Platform {
    /// The `lambda-sandbox` binary, which is also the supervisor.
    pub helper: PathBuf,
    /// How processes are kept apart.
    pub isolation: Isolation,
    /// Where limits come from.
    pub hierarchy: Hierarchy,
    /// Language interpreters of this machine.
    pub interpreters: Interpreters,
    /// What is to go wrong.
    pub faults: Arc<Faults>,
    /// Who else wants the CPU.
    pub neighbours: Neighbours,
    /// Where facts are written.
    pub trace: Trace,
    /// AWS account number, twelve digits.
    pub account: String,
    /// Folders of running environments; removed with them.
    pub run_directory: PathBuf,
    /// Log files; kept.
    pub log_directory: PathBuf,
    /// Serves the APIs inside an environment. It is passed in because `api` depends on this module.
    pub serve_api: ServeApi,
}

impl Platform {
    /// Replaces the faults in force. Fails on values out of range, or if a process that competes for CPU cannot be
    /// started; everything is then as before.
    pub fn set_faults(&self, settings: Settings) -> anyhow::Result<()> {
        settings.check()?;
        self.neighbours.keep(settings.cpu_contention, &self.helper, &self.hierarchy)?;
        let told = serde_json::to_value(&settings)?;
        self.faults.set(settings);
        self.trace.event("faults", told);
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
    /// What is to go wrong.
    pub faults: Arc<Faults>,
    /// Its log file and the tail of the current invocation's log.
    pub log: LogTail,
    /// Its caller has an answer, though runtime or extensions may not be done yet.
    pub answered: Arc<AtomicBool>,
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
            // Before looking, so that a change between the look and the wait is not missed.
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

/// What an environment tells its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Milestone {
    /// Init is over, well or badly.
    Initialized,
    /// It can take an invocation.
    Idle,
    /// It is gone, with everything it had.
    Ended,
}

/// Called with every milestone.
pub type OnMilestone = Arc<dyn Fn(&str, Milestone) + Send + Sync>;

enum Order {
    Invoke(InvokeRequest),
    Shutdown,
}

/// A running environment. It ends when told so or dropped.
#[derive(Clone)]
pub struct Environment {
    /// Its identifier.
    pub id: String,
    orders: mpsc::UnboundedSender<Order>,
    answered: Arc<AtomicBool>,
    inside: Arc<OnceLock<Inside>>,
}

/// What can be seen and done from outside, once it is made.
struct Inside {
    shared: Arc<Shared>,
    /// Gone when the environment is.
    supervisor: Weak<Supervisor>,
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
        let answered = Arc::new(AtomicBool::new(false));
        let inside = Arc::new(OnceLock::new());
        let around = driver::Around { platform, id: id.clone(), function, opt, answered: answered.clone() };
        tokio::spawn(driver::run(around, incoming, on_milestone, inside.clone()));
        Environment { id, orders, answered, inside }
    }

    /// Its address and processes, for people and tests; `None` before it is made.
    pub fn describe(&self) -> Option<Value> {
        let Inside { shared, api, .. } = self.inside.get()?;
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
    /// that name runs. One that is frozen may die only at the thaw, as the kernel has it.
    pub fn kill(&self, process: &str) -> bool {
        let Some(Inside { shared, supervisor, .. }) = self.inside.get() else { return false };
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

    /// Hands over an invocation. Given back if the environment has ended.
    pub fn invoke(&self, request: InvokeRequest) -> Result<(), InvokeRequest> {
        self.answered.store(false, Ordering::Release);
        self.orders.send(Order::Invoke(request)).map_err(|error| match error.0 {
            Order::Invoke(request) => request,
            Order::Shutdown => unreachable!("an invocation was sent"),
        })
    }

    /// Its caller has an answer: it is about to become idle.
    pub fn is_settling(&self) -> bool {
        self.answered.load(Ordering::Acquire)
    }

    /// Asks it to shut down when it is done with what it has been given.
    pub fn shut_down(&self) {
        let _ = self.orders.send(Order::Shutdown);
    }
}
