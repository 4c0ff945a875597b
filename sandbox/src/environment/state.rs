//! The state of an environment's processes, as known from their API calls and from the supervisor.
//!
//! The API handlers and the supervisor's notices change this state; the driver (`super::driver`) waits for
//! conditions on it. A reset clears the state, as on Lambda.

use std::collections::{HashMap, VecDeque};

use serde_json::Value;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::extension::{EventSet, Extension, ExtensionState};
use super::failure::Failure;
use super::invocation::{InFlight, NextInvocation};
use crate::environment::api_error::ApiError;
use crate::supervisor::protocol::{ExitStatus, Notice, ProcessId};

/// Extensions an environment may have, internal ones included (Lambda quota).
pub const MAX_EXTENSIONS: usize = 10;

/// The state of one generation of processes.
#[derive(Default)]
pub struct State {
    /// Extensions in the order they were started or registered.
    pub extensions: Vec<Extension>,
    /// The runtime.
    pub runtime: Runtime,
    /// Invocations the runtime has been given and not finished; more than one only on managed instances.
    pub in_flight: HashMap<String, InFlight>,
    /// Extensions may register.
    pub registration_open: bool,
    /// Extensions may subscribe to telemetry.
    pub subscription_open: bool,
    /// Managed instances: several invocations at a time, no INVOKE events.
    pub managed_instances: bool,
    /// Whether exits are expected.
    pub shutting_down: bool,
    /// Processes that were requested and do not run their programs yet.
    pub starting: u32,
    /// Number of responses to `KillAll`.
    pub times_emptied: u64,
    /// Mounts are made.
    pub supervisor_ready: bool,
    /// The message of a supervisor that has ended or could not start.
    pub supervisor_gone: Option<String>,
}

/// The state of the runtime process on the platform.
#[derive(Default)]
pub struct Runtime {
    /// Its process, once its start was requested.
    pub process: Option<ProcessId>,
    /// Why it could not be started.
    pub launch_error: Option<String>,
    /// How it ended.
    pub exit: Option<ExitStatus>,
    /// It has requested an invocation at least once.
    pub has_polled: bool,
    /// What it posted to `init/error`: type and body.
    pub init_error: Option<(String, bytes::Bytes)>,
    /// Its pending `restore/next` call: it has hooks to run after a restore.
    pub restore_waiter: Option<oneshot::Sender<()>>,
    /// What it posted to `restore/error`.
    pub restore_error: Option<String>,
    /// Its pending `next` calls.
    pub waiters: VecDeque<oneshot::Sender<NextInvocation>>,
}

/// What a runtime posts for an invocation, by the name of the state it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostedResponse {
    /// A result.
    InvocationResponse,
    /// The handler's error.
    InvocationErrorResponse,
}

impl State {
    /// The state at the start of an Init.
    pub fn at_init(managed_instances: bool, times_emptied: u64) -> State {
        State {
            registration_open: true,
            subscription_open: true,
            managed_instances,
            times_emptied,
            supervisor_ready: true,
            ..State::default()
        }
    }

    /// Applies a notice of the supervisor.
    pub fn on_notice(&mut self, notice: Option<Notice>) {
        match notice {
            // Its sockets are not part of the state.
            Some(Notice::Network) => {}
            Some(Notice::Ready) => self.supervisor_ready = true,
            Some(Notice::SetupFailed { message }) => self.supervisor_gone = Some(message),
            Some(Notice::Spawned { .. }) => self.starting = self.starting.saturating_sub(1),
            Some(Notice::SpawnFailed { id, errno, message }) => {
                self.starting = self.starting.saturating_sub(1);
                self.on_spawn_failed(id, errno, message);
            }
            Some(Notice::Exited { id, status }) => self.on_exit(id, status),
            Some(Notice::Empty) => self.times_emptied += 1,
            None => {
                self.supervisor_gone.get_or_insert_with(|| "the supervisor has ended".into());
            }
        }
    }

    fn on_spawn_failed(&mut self, id: ProcessId, errno: Option<i32>, message: String) {
        if let Some(extension) = self.extensions.iter_mut().find(|known| known.process == Some(id)) {
            extension.fail_launch(errno, message);
        } else if self.runtime.process == Some(id) {
            self.runtime.launch_error = Some(message);
        }
    }

    fn on_exit(&mut self, id: ProcessId, status: ExitStatus) {
        if let Some(extension) = self.extensions.iter_mut().find(|known| known.process == Some(id)) {
            extension.exit = Some(status);
            extension.waiter = None;
            let clean = self.shutting_down && status == ExitStatus::Code(0);
            extension.state = if clean { ExtensionState::Exited } else { ExtensionState::ShutdownFailed };
        } else if self.runtime.process == Some(id) {
            self.runtime.exit = Some(status);
            self.runtime.waiters.clear();
        }
    }

    /// The first failure that makes these processes unusable, if any.
    pub fn failure(&self) -> Option<Failure> {
        if let Some(message) = &self.supervisor_gone {
            return Some(Failure::sandbox(message));
        }
        let extension = self.extensions.iter().find_map(Extension::failure);
        extension.or_else(|| self.runtime.failure())
    }

    /// Registers an extension and returns its identifier.
    pub fn register(&mut self, name: &str, events: EventSet) -> Result<String, ApiError> {
        if !self.registration_open {
            let message = "Extension registration closed already";
            return Err(ApiError::forbidden("Extension.RegistrationClosed", message));
        }
        if self.managed_instances && events.invoke {
            return Err(ApiError::invalid_event_type("INVOKE"));
        }
        let id = Uuid::new_v4().to_string();
        if let Some(extension) = self.extensions.iter_mut().find(|known| known.name == name) {
            if extension.state != ExtensionState::Started {
                return Err(invalid_state(extension, ExtensionState::Registered));
            }
            extension.id = Some(id.clone());
            extension.events = events;
            extension.state = ExtensionState::Registered;
            return Ok(id);
        }
        // No file of that name was started: it is an internal extension, in the runtime's process.
        if events.shutdown {
            let message = "Shutdown event is not supported for internal extensions";
            return Err(ApiError::forbidden("ShutdownEventNotSupportedForInternalExtension", message));
        }
        if self.extensions.len() >= MAX_EXTENSIONS {
            let message = format!("Extension limit ({MAX_EXTENSIONS}) reached");
            return Err(ApiError::forbidden("Extension.TooManyExtensions", message));
        }
        self.extensions.push(Extension::internal(name, id.clone(), events));
        Ok(id)
    }

    /// The extension that identifies itself with `header`.
    pub fn extension(&mut self, header: Option<&str>) -> Result<&mut Extension, ApiError> {
        let Some(text) = header.filter(|text| !text.is_empty()) else {
            let message = "Missing Lambda-Extension-Identifier header";
            return Err(ApiError::forbidden("Extension.MissingExtensionIdentifier", message));
        };
        if Uuid::parse_str(text).is_err() {
            let message = "Invalid Lambda-Extension-Identifier";
            return Err(ApiError::forbidden("Extension.InvalidExtensionIdentifier", message));
        }
        let found = self.extensions.iter_mut().find(|known| known.id.as_deref() == Some(text));
        found.ok_or_else(|| {
            ApiError::forbidden("Extension.UnknownExtensionIdentifier", format!("Unknown extension {text}"))
        })
    }

    /// An extension requests its next event, which comes through the receiver.
    pub fn extension_next(&mut self, header: Option<&str>) -> Result<oneshot::Receiver<Value>, ApiError> {
        let extension = self.extension(header)?;
        use ExtensionState::{Ready, Registered, Running};
        if !matches!(extension.state, Registered | Running) {
            return Err(invalid_state(extension, Ready));
        }
        extension.state = Ready;
        let (sender, receiver) = oneshot::channel();
        extension.waiter = Some(sender);
        if let Some(event) = extension.pending.take() {
            extension.release(event);
        }
        Ok(receiver)
    }

    /// An extension reports that it failed: `init` from `/init/error`, else from `/exit/error`.
    pub fn extension_error(
        &mut self,
        header: Option<&str>,
        init: bool,
        error_type: String,
    ) -> Result<(), ApiError> {
        let extension = self.extension(header)?;
        use ExtensionState::{ExitError, InitError, Ready, Registered, Running};
        let target = if init { InitError } else { ExitError };
        let allowed = match extension.state {
            Registered => true,
            Ready | Running => !init,
            _ => false,
        };
        if !allowed {
            return Err(invalid_state(extension, target));
        }
        extension.state = target;
        extension.error_type = Some(error_type);
        Ok(())
    }

    /// Every external extension has registered.
    pub fn all_registered(&self) -> bool {
        self.extensions.iter().all(|extension| extension.state != ExtensionState::Started)
    }

    /// Every extension has requested its next event.
    pub fn all_ready(&self) -> bool {
        self.extensions.iter().all(|extension| extension.state == ExtensionState::Ready)
    }

    /// Every extension that was sent the invocation has requested the next event.
    pub fn all_done_with_invoke(&self) -> bool {
        self.extensions.iter().all(|known| !known.events.invoke || known.state == ExtensionState::Ready)
    }

    /// The runtime requests its next invocation.
    pub fn runtime_next(&mut self) -> Result<oneshot::Receiver<NextInvocation>, ApiError> {
        if !self.managed_instances && self.in_flight.values().any(|known| !known.has_response()) {
            return Err(ApiError::invalid_transition("Running", "Ready"));
        }
        for invocation in self.in_flight.values_mut() {
            invocation.on_next();
        }
        self.runtime.has_polled = true;
        let (sender, receiver) = oneshot::channel();
        self.runtime.waiters.push_back(sender);
        Ok(receiver)
    }

    /// The runtime is ready for a snapshot and waits until it is restored.
    pub fn runtime_restore_next(&mut self) -> Result<oneshot::Receiver<()>, ApiError> {
        if self.runtime.has_polled {
            return Err(ApiError::invalid_transition("Ready", "RestoreReady"));
        }
        let (sender, receiver) = oneshot::channel();
        self.runtime.restore_waiter = Some(sender);
        Ok(receiver)
    }

    /// The invocation with this id, for a `response`; an unknown id and one with a response are rejected, and so is a
    /// response to another attempt at the same request, which the runtime may identify by `invocation_id`.
    pub fn invocation(
        &mut self,
        request_id: &str,
        invocation_id: Option<&str>,
        response: PostedResponse,
    ) -> Result<&mut InFlight, ApiError> {
        let unknown = || ApiError::bad_request("InvalidRequestID", "Invalid request ID");
        let known = self.in_flight.get_mut(request_id).ok_or_else(unknown)?;
        if known.has_response() {
            // With several invocations at a time, an invocation is removed when it has its response.
            let again = || ApiError::invalid_transition("RuntimeResponseSentState", &format!("{response:?}"));
            return Err(if self.managed_instances { unknown() } else { again() });
        }
        if invocation_id.is_some_and(|echoed| echoed != known.invocation_id) {
            return Err(ApiError::bad_request("InvalidInvocationId", "Invalid invocation ID"));
        }
        Ok(known)
    }

    /// Gives an invocation to the runtime; `false` when it does not wait for one.
    pub fn deliver(&mut self, mut delivery: NextInvocation) -> bool {
        while let Some(waiter) = self.runtime.waiters.pop_front() {
            match waiter.send(delivery) {
                Ok(()) => return true,
                // The runtime has closed that request; try the next.
                Err(returned) => delivery = returned,
            }
        }
        false
    }
}

impl Runtime {
    fn failure(&self) -> Option<Failure> {
        if let Some(message) = &self.launch_error {
            return Some(Failure::new("Runtime.InvalidEntrypoint", message));
        }
        if let Some(error_type) = &self.restore_error {
            return Some(Failure::new(error_type, "the runtime reported a restore error"));
        }
        if let Some((error_type, body)) = &self.init_error {
            let failure = Failure::new(error_type, "the runtime reported an initialization error");
            return Some(failure.with_body(body.clone()));
        }
        let status = self.exit?;
        let failure = Failure::new("Runtime.ExitError", &format!("Runtime exited with error: {status}"));
        Some(if status.is_killed() { failure.killed() } else { failure })
    }
}

fn invalid_state(extension: &Extension, to: ExtensionState) -> ApiError {
    let (from, name) = (extension.state, &extension.name);
    let message = format!(
        "State transition from {from:?} to {to:?} failed for extension {name}. \
         Error: State transition is not allowed"
    );
    ApiError::forbidden("Extension.InvalidExtensionState", message)
}
