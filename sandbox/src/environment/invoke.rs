//! One invocation in an environment that takes one at a time.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::driver::Driver;
use super::failure::Failure;
use super::init::Phase;
use super::invocation::{Completion, InFlight, Invocation, InvokeRequest, NextInvocation};
use super::report::Report;
use crate::cgroup::CpuUsage;
use crate::time::{epoch_ms, millis, now};

/// The kernel's counters before an invocation.
struct CountersBefore {
    cpu: Option<CpuUsage>,
    oom_kills: u64,
    peak_was_reset: bool,
}

impl Driver {
    /// Runs one invocation to its end: response, extensions done, freeze, report; or failure, report, reset.
    pub(super) async fn invoke(&mut self, request: InvokeRequest) {
        let InvokeRequest { invocation, caller, completion } = request;
        let shared = self.provisioned.shared.clone();
        let timeout = shared.function.timeout;
        if !self.restored
            && let Err(failure) = self.restore().await
        {
            self.reset(&failure).await;
        }
        let is_warm = self.initialized;
        if is_warm {
            // Before the counters are read: CPU time without a quota belongs to Init.
            self.limit_cpu(true);
        }
        let before = self.before();
        shared.log.begin();
        let mut released = Instant::now();
        // A suppressed Init is inside the function's timeout and duration.
        let suppressed = if is_warm {
            Ok(())
        } else {
            self.initialize(Phase::Invoke, Some(released + timeout)).await.map(|_| ())
        };
        if !is_warm {
            self.limit_cpu(true);
        }
        self.emit_start(&invocation);
        if is_warm {
            released = Instant::now();
        }
        let in_flight = InFlight::new(caller, shared.responded.clone());
        let invocation_id = in_flight.invocation_id.clone();
        shared.change(|state| state.in_flight.insert(invocation.request_id.clone(), in_flight));
        self.thaw();
        let outcome = match suppressed {
            Ok(()) => self.run(&invocation, invocation_id, released + timeout).await,
            Err(failure) => Err(failure),
        };
        let outcome = outcome.map_err(|failure| self.explain_kill(failure, &before));
        let failure = match outcome {
            Ok(()) => {
                self.emit_runtime_done(&invocation, None).await;
                let extensions = self.await_extensions(released + timeout).await;
                extensions.err().map(|failure| self.explain_kill(failure, &before))
            }
            Err(failure) => {
                self.respond_with(&invocation, &failure);
                self.emit_runtime_done(&invocation, Some(&failure)).await;
                Some(failure)
            }
        };
        let mut duration = released.elapsed();
        if failure.as_ref().is_some_and(|failure| failure.is_timeout) {
            duration = duration.min(timeout);
        }
        // Frozen before the report is created, so that the report is delivered after the next thaw, as on Lambda.
        if failure.is_none() {
            self.freeze();
        }
        let (report, facts) = self.report(&invocation, duration, failure.as_ref(), &before);
        if let Some(failure) = &failure {
            self.reset(failure).await;
        }
        shared.change(|state| state.in_flight.clear());
        let _ = completion.send(Completion { report: report.record(), facts, log_tail: shared.log.end() });
    }

    fn before(&self) -> CountersBefore {
        let group = &self.provisioned.group;
        let oom_kills = group.oom_kills();
        CountersBefore { cpu: group.cpu(), oom_kills, peak_was_reset: group.reset_memory_peak() }
    }

    /// Releases the invocation to extensions and runtime, and waits until the runtime is done with it.
    async fn run(
        &mut self,
        invocation: &Arc<Invocation>,
        invocation_id: String,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let shared = self.provisioned.shared.clone();
        let left = deadline.saturating_duration_since(Instant::now());
        let deadline_ms = epoch_ms(now() + left);
        let event = invoke_event(invocation, deadline_ms);
        let mut delivery =
            Some(NextInvocation { invocation: invocation.clone(), invocation_id, deadline_ms });
        let id = &invocation.request_id;
        shared.change(|state| {
            for extension in state.extensions.iter_mut().filter(|known| known.events.invoke) {
                extension.release(event.clone());
            }
        });
        let done = shared.wait(Some(deadline), |state| {
            if let Some(ready) = delivery.take_if(|_| !state.runtime.waiters.is_empty()) {
                state.deliver(ready);
            }
            if state.in_flight.get(id).is_some_and(InFlight::is_done) {
                return Some(Ok(()));
            }
            state.failure().map(Err)
        });
        done.await.unwrap_or_else(|| Err(Failure::timeout(shared.function.timeout.as_secs_f64())))
    }

    async fn await_extensions(&self, deadline: Instant) -> Result<(), Failure> {
        let shared = &self.provisioned.shared;
        let done = shared.wait(Some(deadline), |state| {
            if state.all_done_with_invoke() {
                return Some(Ok(()));
            }
            state.failure().map(Err)
        });
        done.await.unwrap_or_else(|| Err(Failure::timeout(shared.function.timeout.as_secs_f64())))
    }

    fn explain_kill(&self, failure: Failure, before: &CountersBefore) -> Failure {
        let out_of_memory = self.provisioned.group.oom_kills() > before.oom_kills;
        if failure.is_killed && out_of_memory {
            failure.out_of_memory(&self.provisioned.shared.function.runtime)
        } else {
            failure
        }
    }

    fn respond_with(&self, invocation: &Invocation, failure: &Failure) {
        let shared = &self.provisioned.shared;
        let id = &invocation.request_id;
        shared.log.line(&format!("RequestId: {id} Error: {}", failure.message));
        shared.change(|state| {
            if let Some(known) = state.in_flight.get_mut(id) {
                known.respond(failure.result(id));
            }
        });
    }

    fn emit_start(&self, invocation: &Invocation) {
        let shared = &self.provisioned.shared;
        let (id, version) = (&invocation.request_id, &shared.function.version);
        let mut record = json!({"requestId": id, "version": version});
        identify(&mut record, invocation);
        let line = format!("START RequestId: {id} Version: {version}");
        shared.log.platform(&line, "platform.start", &record);
        shared.telemetry.platform("platform.start", record);
    }

    async fn emit_runtime_done(&self, invocation: &Invocation, failure: Option<&Failure>) {
        // The function's log lines come before the runtimeDone event.
        self.drain_logs().await;
        let shared = &self.provisioned.shared;
        let id = &invocation.request_id;
        let record = shared.change(|state| {
            let known = state.in_flight.get(id)?;
            let handled = known.error_type();
            let status = status(failure, handled.is_some());
            let duration_ms = millis(known.runtime_duration());
            let mut record = json!({
                "requestId": id, "status": status, "spans": known.spans(true),
                "metrics": {"durationMs": duration_ms, "producedBytes": known.produced_bytes()},
            });
            let timed_out = failure.is_some_and(|failure| failure.is_timeout);
            let error_type = failure.map(|failure| failure.error_type.as_str()).or(handled);
            if let Some(error_type) = error_type.filter(|_| !timed_out) {
                record["errorType"] = error_type.into();
            }
            identify(&mut record, invocation);
            Some(record)
        });
        if let Some(record) = record {
            shared.log.platform(&format!("END RequestId: {id}"), "platform.runtimeDone", &record);
            shared.telemetry.platform("platform.runtimeDone", record);
        }
    }

    /// Creates the report, emits it and writes it to the trace.
    fn report(
        &mut self,
        invocation: &Invocation,
        duration: Duration,
        failure: Option<&Failure>,
        before: &CountersBefore,
    ) -> (Report, Value) {
        let shared = self.provisioned.shared.clone();
        let group = &self.provisioned.group;
        let peak = group.memory_peak();
        self.peak_bytes = self.peak_bytes.max(peak);
        let cpu = group.cpu().zip(before.cpu).map(|(now, before)| now.since(before));
        let (handled, spans, produced_bytes) = shared.change(|state| {
            let known = state.in_flight.get(&invocation.request_id);
            let handled = known.and_then(|known| known.error_type().map(str::to_owned));
            let overhead = known.and_then(|known| known.overhead_span(duration));
            let has_subscriber = state.extensions.iter().any(|extension| extension.events.invoke);
            let spans = overhead.filter(|_| has_subscriber).into_iter().collect();
            (handled, spans, known.map_or(0, InFlight::produced_bytes))
        });
        let report = Report {
            request_id: invocation.request_id.clone(),
            status: status(failure, handled.is_some()),
            error_type: match failure {
                Some(failure) if failure.is_timeout => None,
                Some(failure) => Some(failure.error_type.clone()),
                None => handled,
            },
            has_failed: failure.is_some(),
            duration,
            init: self.unreported_init.take(),
            restore: self.unreported_restore.take(),
            memory_mb: shared.function.memory_mb,
            peak_bytes: self.peak_bytes,
            managed_instances: false,
            spans,
            tracing: tracing(invocation),
            tenant_id: invocation.tenant_id.clone(),
        };
        let record = report.record();
        shared.log.platform(&report.line(), "platform.report", &record);
        shared.telemetry.platform("platform.report", record);
        let cpu = cpu.map(|cpu| {
            json!({"usage_ns": cpu.usage_ns, "periods": cpu.periods,
                   "throttled_periods": cpu.throttled_periods, "throttled_ns": cpu.throttled_ns})
        });
        let fields = json!({
            "request_id": report.request_id, "status": report.status, "error_type": report.error_type,
            "duration_us": micros(duration), "init_us": report.init.map(micros),
            "billed_ms": report.billed_ms(), "memory_mb": report.memory_mb,
            "max_memory_used_mb": report.max_memory_used_mb(), "produced_bytes": produced_bytes,
            "cpu": cpu, "peak_bytes": peak, "peak_is_of_invocation": before.peak_was_reset,
        });
        shared.trace("invocation", fields.clone());
        (report, fields)
    }
}

/// `status` of the last events: the failure's, else `error` or `success` from the response.
pub(super) fn status(failure: Option<&Failure>, handled: bool) -> &'static str {
    match (failure, handled) {
        (Some(failure), _) => failure.status(),
        (None, true) => "error",
        (None, false) => "success",
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn tracing(invocation: &Invocation) -> Option<Value> {
    let value = &invocation.trace_id;
    (!value.is_empty()).then(|| json!({"type": "X-Amzn-Trace-Id", "value": value}))
}

/// Adds the tracing and tenant fields that start, runtimeDone and report have in common.
fn identify(record: &mut Value, invocation: &Invocation) {
    if let Some(tracing) = tracing(invocation) {
        record["tracing"] = tracing;
    }
    if let Some(tenant_id) = &invocation.tenant_id {
        record["tenantId"] = tenant_id.as_str().into();
    }
}

fn invoke_event(invocation: &Invocation, deadline_ms: u64) -> Value {
    let mut event = json!({
        "eventType": "INVOKE", "deadlineMs": deadline_ms, "requestId": invocation.request_id,
        "invokedFunctionArn": invocation.function_arn,
    });
    if let Some(tracing) = tracing(invocation) {
        event["tracing"] = tracing;
    }
    event
}
