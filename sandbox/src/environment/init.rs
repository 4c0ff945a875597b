//! Init: starts the extensions, then the runtime, and waits until all are ready.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::driver::Driver;
use super::extension::Extension;
use super::failure::Failure;
use super::state::{MAX_EXTENSIONS, State};
use super::variables;
use crate::config::InitializationType;
use crate::supervisor::client::Program;
use crate::telemetry::event::Category;
use crate::time::millis;

/// Limit of an on-demand Init.
const ON_DEMAND_LIMIT: Duration = Duration::from_secs(10);

/// Minimum time limit of an Init that no invocation waits for.
const AHEAD_LIMIT: Duration = Duration::from_secs(130);

/// The kind of this Init, as named in telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The first.
    Init,
    /// Again, inside an invocation ("suppressed").
    Invoke,
    /// Before a snapshot is taken.
    SnapStart,
}

impl Phase {
    fn as_str(self) -> &'static str {
        match self {
            Phase::Init => "init",
            Phase::Invoke => "invoke",
            Phase::SnapStart => "snap-start",
        }
    }
}

impl Driver {
    /// Starts a generation of processes and waits until all are ready. `deadline` bounds a suppressed Init.
    /// On failure the processes are left for [`Driver::reset`].
    pub(super) async fn initialize(
        &mut self,
        phase: Phase,
        deadline: Option<Instant>,
    ) -> Result<Duration, Failure> {
        let shared = self.provisioned.shared.clone();
        let function = &shared.function;
        let managed = function.is_managed_instances();
        if phase == Phase::Invoke {
            shared.change(|state| *state = State::at_init(managed, state.times_emptied));
        }
        shared.telemetry.open();
        let mut start = json!({
            "initializationType": function.initialization_type.as_str(), "phase": phase.as_str(),
            "functionName": function.name, "functionVersion": function.version,
            "runtimeVersion": format!("{}.v1", function.runtime),
            "runtimeVersionArn": format!("arn:aws:lambda:{}::runtime:sandbox", function.region),
        });
        if managed {
            start["instanceId"] = self.provisioned.places.log_stream.clone().into();
            start["instanceMaxMemory"] = json!(u64::from(function.memory_mb) * 1024 * 1024);
        }
        let version = format!("INIT_START Runtime Version: {}.v1", function.runtime);
        shared.log.platform(&version, "platform.initStart", &start);
        shared.telemetry.platform("platform.initStart", start);
        self.limit_cpu(false);
        let started = Instant::now();
        let limit = match function.initialization_type {
            InitializationType::OnDemand => ON_DEMAND_LIMIT,
            _ => AHEAD_LIMIT.max(function.timeout),
        };
        let deadline = deadline.unwrap_or(started + limit);
        let outcome = self.start_processes(started, deadline).await;
        let duration = started.elapsed();
        shared.change(|state| {
            state.registration_open = false;
            state.subscription_open = false;
        });
        self.drain_logs().await;
        self.emit_init(phase, duration, outcome.as_ref().err());
        shared.telemetry.close();
        outcome?;
        self.initialized = true;
        Ok(duration)
    }

    async fn start_processes(&mut self, started: Instant, deadline: Instant) -> Result<(), Failure> {
        let shared = self.provisioned.shared.clone();
        let environment = variables::for_runtime(&shared.function, &self.provisioned.places);
        self.start_extensions(&variables::for_extension(&environment))?;
        let timeout = || Failure::timeout((deadline - started).as_secs_f64());
        let until = |condition: fn(&State) -> bool| {
            let reached = shared.wait(Some(deadline), move |state| match state.failure() {
                Some(failure) => Some(Err(failure)),
                None => condition(state).then_some(Ok(())),
            });
            async { reached.await.unwrap_or_else(|| Err(timeout())) }
        };
        until(State::all_registered).await?;
        let id = self.provisioned.supervisor.next_id();
        shared.change(|state| state.runtime.process = Some(id));
        let command = self.provisioned.command.clone();
        let program = Program {
            program: command.program,
            arguments: command.arguments,
            environment: environment.into_iter().collect(),
            directory: self.provisioned.places.task_root.clone().into(),
        };
        shared.trace("runtime.spawn", json!({"process": id}));
        self.spawn(id, program, Category::Function)?;
        until(|state| state.runtime.has_polled || state.runtime.restore_waiter.is_some()).await?;
        shared.trace("runtime.ready", json!({}));
        shared.change(|state| state.registration_open = false);
        // A process that is frozen before `execve` would block the supervisor.
        until(|state| state.all_ready() && state.starting == 0).await
    }

    /// Starts every file of `/opt/extensions`, in parallel.
    fn start_extensions(&mut self, environment: &[(String, String)]) -> Result<(), Failure> {
        let folder = self.provisioned.opt_source.join("extensions");
        let mut names: Vec<String> = match fs::read_dir(folder) {
            Ok(entries) => entries
                .flatten()
                .filter(|entry| !entry.path().is_dir())
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect(),
            Err(_) => Vec::new(),
        };
        names.sort();
        if names.len() > MAX_EXTENSIONS {
            let message = format!("extension limit ({MAX_EXTENSIONS}) reached");
            return Err(Failure::new("Extension.TooManyExtensions", &message));
        }
        let processes: Vec<_> =
            names.into_iter().map(|name| (self.provisioned.supervisor.next_id(), name)).collect();
        // All are added before any starts, so that the first to register does not end the wait for the others.
        self.provisioned.shared.change(|state| {
            for (id, name) in &processes {
                state.extensions.push(Extension::external(name, *id));
            }
        });
        for (id, name) in processes {
            let program = Program {
                program: format!("{}/extensions/{name}", self.provisioned.places.opt),
                arguments: Vec::new(),
                environment: environment.to_vec(),
                directory: "/".into(),
            };
            self.provisioned.shared.trace("extension.spawn", json!({"process": id, "name": name}));
            self.spawn(id, program, Category::Extension)?;
        }
        Ok(())
    }

    /// The events that end Init, in the order Lambda emits them.
    fn emit_init(&self, phase: Phase, duration: Duration, failure: Option<&Failure>) {
        let shared = &self.provisioned.shared;
        let status = failure.map_or("success", Failure::status);
        let mut done = json!({
            "initializationType": shared.function.initialization_type.as_str(),
            "phase": phase.as_str(), "status": status,
        });
        if let Some(failure) = failure {
            done["errorType"] = failure.error_type.clone().into();
        }
        shared.telemetry.platform("platform.initRuntimeDone", done.clone());
        for record in self.extension_records() {
            let [name, state] = ["name", "state"].map(|key| record[key].as_str().unwrap_or_default());
            let line = format!("EXTENSION\tName: {name}\tState: {state}\tEvents: {}", record["events"]);
            shared.log.platform(&line, "platform.extension", &record);
            shared.telemetry.platform("platform.extension", record);
        }
        let mut report = done;
        report["metrics"] = json!({"durationMs": millis(duration)});
        if let Some(failure) = failure {
            let (init, phase) = (millis(duration), phase.as_str());
            let line = format!(
                "INIT_REPORT Init Duration: {init:.2} ms\tPhase: {phase}\tStatus: {status}\tError Type: {}",
                failure.error_type
            );
            shared.log.platform(&line, "platform.initReport", &report);
        }
        shared.telemetry.platform("platform.initReport", report);
        let (phase, init_us) = (phase.as_str(), u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        let error_type = failure.map(|failure| failure.error_type.clone());
        let error = failure.map(|failure| failure.message.clone());
        let fields = json!({"phase": phase, "status": status, "init_us": init_us,
                            "error_type": error_type, "error": error,
                            "cpu_ns": self.provisioned.group.cpu().map(|cpu| cpu.usage_ns)});
        shared.trace("init", fields);
    }

    fn extension_records(&self) -> Vec<Value> {
        self.provisioned.shared.change(|state| {
            let record = |extension: &Extension| {
                let mut record = json!({
                    "name": extension.name, "state": format!("{:?}", extension.state),
                    "events": extension.events.names(),
                });
                if let Some(error_type) = &extension.error_type {
                    record["errorType"] = error_type.clone().into();
                }
                record
            };
            state.extensions.iter().map(record).collect()
        })
    }
}
