//! Restore: the phase of SnapStart that replaces Init when an invocation needs an environment.
//!
//! A process image cannot be resumed twice here. Every environment runs its own Init, which is not billed, and is
//! frozen: that is its snapshot. Runtime and extensions continue in the call that they made before it, as on Lambda.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::driver::Driver;
use super::failure::Failure;
use super::report::ceil_ms;
use crate::time::millis;

/// Limit of a restore, its hooks included.
const LIMIT: Duration = Duration::from_secs(10);

impl Driver {
    /// Thaws the snapshot and lets the runtime run its hooks.
    pub(super) async fn restore(&mut self) -> Result<(), Failure> {
        let shared = self.provisioned.shared.clone();
        let function = &shared.function;
        self.restored = true;
        let start = json!({
            "functionName": function.name, "functionVersion": function.version,
            "runtimeVersion": format!("{}.v1", function.runtime),
            "runtimeVersionArn": format!("arn:aws:lambda:{}::runtime:sandbox", function.region),
        });
        shared.log.platform("RESTORE_START", "platform.restoreStart", &start);
        shared.telemetry.platform("platform.restoreStart", start);
        let started = Instant::now();
        self.thaw();
        let waiter = shared.change(|state| state.runtime.restore_waiter.take());
        if let Some(waiter) = waiter {
            let _ = waiter.send(());
        }
        let ready = shared.wait(Some(started + LIMIT), |state| match state.failure() {
            Some(failure) => Some(Err(failure)),
            None => state.runtime.has_polled.then_some(Ok(())),
        });
        let outcome = ready.await.unwrap_or_else(|| {
            let failure = Failure::timeout(LIMIT.as_secs_f64());
            Err(Failure { error_type: "SnapStartTimeoutException".into(), ..failure })
        });
        let duration = started.elapsed();
        let mut done = json!({"status": outcome.as_ref().err().map_or("success", Failure::status)});
        if let Err(failure) = &outcome {
            done["errorType"] = failure.error_type.clone().into();
        }
        shared.telemetry.platform("platform.restoreRuntimeDone", done.clone());
        done["metrics"] = json!({"durationMs": millis(duration)});
        let line = format!("RESTORE_REPORT Restore Duration: {:.2} ms", millis(duration));
        shared.log.platform(&line, "platform.restoreReport", &done);
        shared.telemetry.platform("platform.restoreReport", done);
        // All of this time is billed: it is spent in hooks, because there is no snapshot to load.
        self.unreported_restore = Some((duration, ceil_ms(duration)));
        outcome
    }
}
