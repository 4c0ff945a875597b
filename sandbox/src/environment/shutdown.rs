//! Shutdown, and reset: a shutdown after which new processes start. `/tmp` is kept, all other state is lost.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use tokio::time::Instant;

use super::driver::Driver;
use super::extension::ExtensionState;
use super::failure::Failure;
use crate::time::{epoch_ms, now};

/// Budget with external extensions.
const EXTERNAL_BUDGET: Duration = Duration::from_secs(2);

/// Budget with internal extensions only.
const INTERNAL_BUDGET: Duration = Duration::from_millis(500);

/// Part of the budget the runtime may use, after SIGTERM.
const RUNTIME_SHARE: f64 = 0.3;

/// Time limit for the kernel to release killed processes.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

impl Driver {
    /// Ends this generation of processes; the next invocation starts another, with the same `/tmp`.
    pub(super) async fn reset(&mut self, failure: &Failure) {
        let reason = failure.shutdown_reason();
        let fields = json!({"reason": reason, "error_type": failure.error_type, "error": failure.message});
        self.provisioned.shared.trace("environment.reset", fields);
        self.shut_down(reason).await;
    }

    /// SIGTERM to the runtime, SHUTDOWN to the extensions, then SIGKILL to the processes that still run.
    pub(super) async fn shut_down(&mut self, reason: &str) {
        self.thaw();
        let shared = self.provisioned.shared.clone();
        let started = Instant::now();
        let (runtime, external, internal) = shared.change(|state| {
            state.shutting_down = true;
            let external = state.extensions.iter().any(|known| known.process.is_some() && known.id.is_some());
            let internal = state.extensions.iter().any(|known| known.process.is_none());
            let runtime = state.runtime.process.filter(|_| state.runtime.exit.is_none());
            (runtime, external, internal)
        });
        let budget = match (external, internal) {
            (true, _) => EXTERNAL_BUDGET,
            (false, true) => INTERNAL_BUDGET,
            (false, false) => Duration::ZERO,
        };
        shared.trace("shutdown", json!({"reason": reason, "budget_ms": budget.as_millis()}));
        let deadline = started + budget;
        let deadline_ms = epoch_ms(now() + budget);
        shared.telemetry.flush();
        if let Some(runtime) = runtime.filter(|_| !budget.is_zero()) {
            self.provisioned.supervisor.signal(runtime, Signal::SIGTERM);
            let limit = started + budget.mul_f64(RUNTIME_SHARE);
            let exited = shared.wait(Some(limit), |state| state.runtime.exit).await;
            if exited.is_none() {
                self.provisioned.supervisor.signal(runtime, Signal::SIGKILL);
            }
        }
        if external {
            self.shut_down_extensions(reason, deadline, deadline_ms).await;
        }
        self.drain_logs().await;
        self.kill_all().await;
        shared.telemetry.end();
        self.initialized = false;
        shared.trace("shutdown.end", json!({"reason": reason}));
    }

    async fn shut_down_extensions(&mut self, reason: &str, deadline: Instant, deadline_ms: u64) {
        let shared = self.provisioned.shared.clone();
        let event = json!({"eventType": "SHUTDOWN", "shutdownReason": reason, "deadlineMs": deadline_ms});
        let faults = shared.faults.settings();
        if let Some(delay) = faults.shutdown_delay_ms {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        shared.trace("shutdown.release", json!({}));
        let unsubscribed = shared.change(|state| {
            let mut unsubscribed = Vec::new();
            for extension in state.extensions.iter_mut().filter(|known| known.exit.is_none()) {
                if extension.events.shutdown && faults.lose_shutdown {
                    continue;
                }
                if extension.events.shutdown {
                    extension.release(event.clone());
                } else {
                    unsubscribed.extend(extension.process);
                }
            }
            unsubscribed
        });
        for process in unsubscribed {
            self.provisioned.supervisor.signal(process, Signal::SIGKILL);
        }
        let ended = shared.wait(Some(deadline), |state| {
            let mut external = state.extensions.iter().filter(|known| known.process.is_some());
            external
                .all(|known| known.exit.is_some() || known.state == ExtensionState::LaunchError)
                .then_some(())
        });
        let in_time = ended.await.is_some();
        let states = shared.change(|state| {
            let states = state.extensions.iter();
            states.map(|known| (known.name.clone(), format!("{:?}", known.state))).collect::<Vec<_>>()
        });
        shared.trace("shutdown.extensions", json!({"in_time": in_time, "states": states}));
    }

    async fn kill_all(&mut self) {
        let shared = self.provisioned.shared.clone();
        let before = shared.change(|state| state.times_emptied);
        // The kernel releases the memory of a process in the time of the process. With the quota of a small function that
        // takes seconds; Lambda removes the whole microVM.
        self.limit_cpu(false);
        self.provisioned.supervisor.kill_all();
        let emptied = shared.wait(Some(Instant::now() + KILL_TIMEOUT), |state| {
            (state.times_emptied > before || state.supervisor_gone.is_some()).then_some(())
        });
        if emptied.await.is_none() {
            tracing::warn!(environment = %shared.id, "processes did not end after SIGKILL");
        }
        self.drop_readers_of_ended_processes();
    }
}
