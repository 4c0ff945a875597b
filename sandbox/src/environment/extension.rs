//! One extension: its registration, its state and the event it waits for.

use serde_json::Value;
use tokio::sync::oneshot;

use super::failure::Failure;
use crate::supervisor::protocol::{ExitStatus, ProcessId};

/// Events an extension registers for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventSet {
    /// Is registered for INVOKE.
    pub invoke: bool,
    /// Is registered for SHUTDOWN.
    pub shutdown: bool,
}

impl EventSet {
    /// As listed in telemetry.
    pub fn names(self) -> Vec<&'static str> {
        let both = [(self.invoke, "INVOKE"), (self.shutdown, "SHUTDOWN")];
        both.into_iter().filter(|(requested, _)| *requested).map(|(_, name)| name).collect()
    }
}

/// Lambda's states of an extension; the names appear in error messages and telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtensionState {
    /// Its process was started.
    Started,
    /// It has registered.
    Registered,
    /// It waits for an event.
    Ready,
    /// It was given an event.
    Running,
    /// It reported an initialization error.
    InitError,
    /// It reported an error and exits.
    ExitError,
    /// It exited with 0 after SHUTDOWN.
    Exited,
    /// It ended in any other way.
    ShutdownFailed,
    /// Its process could not be started.
    LaunchError,
}

/// One extension.
pub struct Extension {
    /// File name, or the name an internal extension gave.
    pub name: String,
    /// Identifier, once registered.
    pub id: Option<String>,
    /// What it registered for.
    pub events: EventSet,
    /// Its state.
    pub state: ExtensionState,
    /// Its process; `None` for internal extensions.
    pub process: Option<ProcessId>,
    /// How its process ended.
    pub exit: Option<ExitStatus>,
    /// What it reported, or why it could not be started.
    pub error_type: Option<String>,
    /// Its pending `next` call.
    pub waiter: Option<oneshot::Sender<Value>>,
    /// An event that waits for its `next` call.
    pub pending: Option<Value>,
    launch_message: Option<String>,
}

impl Extension {
    /// A started process.
    pub fn external(name: &str, process: ProcessId) -> Extension {
        Extension {
            name: name.to_owned(),
            id: None,
            events: EventSet::default(),
            state: ExtensionState::Started,
            process: Some(process),
            exit: None,
            error_type: None,
            waiter: None,
            pending: None,
            launch_message: None,
        }
    }

    /// A registration from inside the runtime's process.
    pub fn internal(name: &str, id: String, events: EventSet) -> Extension {
        let state = ExtensionState::Registered;
        Extension { id: Some(id), events, state, process: None, ..Extension::external(name, 0) }
    }

    /// Sends an event: immediately if it waits for one, else at its next call.
    pub fn release(&mut self, event: Value) {
        match self.waiter.take() {
            Some(waiter) => match waiter.send(event) {
                Ok(()) => self.state = ExtensionState::Running,
                Err(event) => self.pending = Some(event),
            },
            None => self.pending = Some(event),
        }
    }

    /// Its program could not be started. The types are Lambda's.
    pub fn fail_launch(&mut self, errno: Option<i32>, message: String) {
        self.state = ExtensionState::LaunchError;
        let denied = errno == Some(nix::libc::EACCES);
        self.error_type = Some(if denied { "PermissionDenied" } else { "UnknownError" }.to_owned());
        self.launch_message = Some(message);
    }

    /// The failure that makes the environment unusable, if any.
    pub fn failure(&self) -> Option<Failure> {
        let name = &self.name;
        let reported = self.error_type.as_deref().unwrap_or_default();
        match self.state {
            ExtensionState::LaunchError => {
                let message = self.launch_message.as_deref().unwrap_or_default();
                let message = format!("fork/exec /opt/extensions/{name}: {message}");
                Some(Failure::new("Extension.LaunchError", &message))
            }
            ExtensionState::InitError => {
                Some(Failure::new("Extension.InitError", &format!("extension {name}: {reported}")))
            }
            ExtensionState::ExitError => {
                Some(Failure::new("Extension.ExitError", &format!("extension {name}: {reported}")))
            }
            _ => self.exit.map(|status| Failure::new("Extension.Crash", &format!("{status}"))),
        }
    }
}
