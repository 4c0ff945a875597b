//! The task that moves one environment from phase to phase.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use tokio::sync::mpsc;

use super::failure::Failure;
use super::init::Phase;
use super::invocation::InvokeRequest;
pub use super::provision::ProvisionError;
use super::provision::Provisioned;
use super::{CreatedEnvironment, Milestone, OnMilestone, Order, Platform};
use crate::config::{FunctionConfig, InitializationType};
use crate::supervisor::client::Program;
use crate::supervisor::protocol::ProcessId;
use crate::telemetry::event::{Category, Event};
use crate::telemetry::logs::{LogReader, OnLine};

/// What is needed to create an environment.
pub(super) struct EnvironmentInput {
    pub(super) platform: Arc<Platform>,
    pub(super) id: String,
    pub(super) function: Arc<FunctionConfig>,
    pub(super) opt: PathBuf,
    pub(super) responded: Arc<AtomicBool>,
}

/// Runs one environment until its shutdown is requested.
pub(super) async fn run(
    input: EnvironmentInput,
    mut orders: mpsc::UnboundedReceiver<Order>,
    on_milestone: OnMilestone,
    created: Arc<OnceLock<CreatedEnvironment>>,
) {
    let made = Provisioned::make(&input).await;
    let EnvironmentInput { platform, id, function, .. } = input;
    match made {
        Ok(provisioned) => {
            let _ = created.set(CreatedEnvironment {
                shared: provisioned.shared.clone(),
                supervisor: Arc::downgrade(&provisioned.supervisor),
                group: provisioned.group.clone(),
                api: provisioned.places.outer_api.clone(),
            });
            let mut driver = Driver::new(provisioned);
            driver.live(&mut orders, &on_milestone).await;
            // Runs on a blocking thread: it waits for processes and removes folders.
            let _ = tokio::task::spawn_blocking(move || driver.provisioned.remove()).await;
        }
        Err(error) => {
            let message = chain(&error);
            tracing::error!(function = %function.name, error = %message, "cannot start an environment");
            platform.trace.event(
                "environment.failed",
                json!({"environment": id, "function": function.name, "error": message}),
            );
            orders.close();
            on_milestone(&id, Milestone::Initialized);
            let failure = Failure::sandbox(&message);
            while let Some(Order::Invoke(InvokeRequest { invocation, caller, .. })) = orders.recv().await {
                let _ = caller.result.send(failure.result(&invocation.request_id));
            }
        }
    }
    on_milestone(&id, Milestone::Ended);
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

/// One environment and its phase.
pub(super) struct Driver {
    pub(super) provisioned: Provisioned,
    /// Processes of this generation run and have finished Init.
    pub(super) initialized: bool,
    /// Duration of Init, until the first report contains it.
    pub(super) unreported_init: Option<Duration>,
    /// False between the snapshot and its restore.
    pub(super) restored: bool,
    /// Duration of the restore and its billed part in milliseconds, until the first report contains it.
    pub(super) unreported_restore: Option<(Duration, u64)>,
    /// Highest memory since the environment started, bytes.
    pub(super) peak_bytes: Option<u64>,
    readers: Vec<LogReader>,
    frozen: bool,
}

impl Driver {
    fn new(provisioned: Provisioned) -> Driver {
        Driver {
            provisioned,
            initialized: false,
            unreported_init: None,
            restored: true,
            unreported_restore: None,
            peak_bytes: None,
            readers: Vec::new(),
            frozen: false,
        }
    }

    async fn live(&mut self, orders: &mut mpsc::UnboundedReceiver<Order>, on_milestone: &OnMilestone) {
        let shared = self.provisioned.shared.clone();
        let initialization_type = shared.function.initialization_type.as_str();
        shared.trace(
            "environment.start",
            json!({"initialization_type": initialization_type, "memory_mb": shared.function.memory_mb,
                   "api": self.provisioned.places.outer_api}),
        );
        let phase = if shared.function.initialization_type == InitializationType::SnapStart {
            Phase::SnapStart
        } else {
            Phase::Init
        };
        match self.initialize(phase, None).await {
            Ok(duration) => {
                if shared.function.initialization_type == InitializationType::OnDemand {
                    self.unreported_init = Some(duration);
                }
            }
            // Repeated inside the first invocation.
            Err(failure) => self.reset(&failure).await,
        }
        on_milestone(&shared.id, Milestone::Initialized);
        if shared.function.is_managed_instances() {
            self.live_concurrently(orders, on_milestone).await;
            return;
        }
        // A snapshot is taken of frozen processes.
        self.restored = phase != Phase::SnapStart || !self.initialized;
        if orders.is_empty() || !self.restored {
            self.freeze();
        }
        while let Some(Order::Invoke(request)) = orders.recv().await {
            self.invoke(request).await;
            on_milestone(&shared.id, Milestone::Idle);
        }
        self.shut_down("spindown").await;
        shared.trace("environment.end", json!({}));
    }

    /// Starts a program in the environment; its lines become telemetry of `category`.
    pub(super) fn spawn(
        &mut self,
        id: ProcessId,
        program: Program,
        category: Category,
    ) -> Result<(), Failure> {
        let shared = self.provisioned.shared.clone();
        shared.change(|state| state.starting += 1);
        let output = self.provisioned.supervisor.spawn(id, program);
        let output = output.map_err(|error| Failure::sandbox(&chain(&error)))?;
        let on_line: OnLine = Arc::new(move |line| {
            shared.log.line(&line);
            shared.telemetry.emit(Event::line(category, line));
        });
        for pipe in [output.stdout, output.stderr] {
            let reader = LogReader::start(pipe, on_line.clone());
            self.readers.push(reader.map_err(|error| Failure::sandbox(&error.to_string()))?);
        }
        Ok(())
    }

    /// Returns when every line written so far has become telemetry.
    pub(super) async fn drain_logs(&self) {
        for reader in &self.readers {
            reader.barrier().await;
        }
    }

    /// Drops the readers of processes that have ended.
    pub(super) fn drop_readers_of_ended_processes(&mut self) {
        self.readers.clear();
    }

    /// Freezes all processes until [`Driver::thaw`].
    pub(super) fn freeze(&mut self) {
        if self.frozen || !self.initialized || self.provisioned.shared.function.is_managed_instances() {
            return;
        }
        self.provisioned.shared.telemetry.set_running(false);
        if self.provisioned.group.has_freezer() {
            if let Err(error) = self.provisioned.group.freeze() {
                tracing::warn!(%error, "cannot freeze");
            }
        } else {
            self.provisioned.supervisor.signal_all(Signal::SIGSTOP);
        }
        self.frozen = true;
        self.provisioned.shared.trace("environment.freeze", json!({}));
    }

    /// Continues all processes.
    pub(super) fn thaw(&mut self) {
        if !self.frozen {
            return;
        }
        self.provisioned.shared.trace("environment.thaw", json!({}));
        if self.provisioned.group.has_freezer() {
            if let Err(error) = self.provisioned.group.thaw() {
                tracing::warn!(%error, "cannot thaw");
            }
        } else {
            self.provisioned.supervisor.signal_all(Signal::SIGCONT);
        }
        self.frozen = false;
        self.provisioned.shared.telemetry.set_running(true);
    }

    /// Limits CPU to the function's share, or lifts the limit for Init.
    pub(super) fn limit_cpu(&self, limited: bool) {
        let share = limited.then(|| self.provisioned.shared.function.share_vcpus());
        if let Err(error) = self.provisioned.group.limit_cpu(share) {
            tracing::warn!(%error, "cannot set the CPU quota");
        }
    }
}
