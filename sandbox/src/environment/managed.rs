//! Environments on managed instances: several invocations at a time, never frozen, no events for extensions except
//! SHUTDOWN, and a failure ends the environment.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::driver::Driver;
use super::failure::Failure;
use super::invocation::{Completion, InFlight, InvokeRequest, NextInvocation};
use super::invoke::status;
use super::report::Report;
use super::{Milestone, OnMilestone, Order, Shared};
use crate::time::{epoch_ms, now};

impl Driver {
    /// Handles invocations until its shutdown is requested or a process fails.
    pub(super) async fn live_concurrently(
        &mut self,
        orders: &mut mpsc::UnboundedReceiver<Order>,
        on_milestone: &OnMilestone,
    ) {
        let shared = self.provisioned.shared.clone();
        self.limit_cpu(true);
        let running = Arc::new(AtomicUsize::new(0));
        let failure = loop {
            let order = tokio::select! {
                order = orders.recv() => order,
                failure = failure_of(&shared) => break Some(failure),
            };
            let Some(Order::Invoke(request)) = order else { break None };
            running.fetch_add(1, Ordering::Relaxed);
            let (shared, on_milestone, running) = (shared.clone(), on_milestone.clone(), running.clone());
            tokio::spawn(async move {
                invoke(&shared, request).await;
                running.fetch_sub(1, Ordering::Relaxed);
                on_milestone(&shared.id, Milestone::Idle);
                shared.change(|_| ());
            });
        };
        // Invocations that have started run to their end.
        shared.wait(None, |_| (running.load(Ordering::Relaxed) == 0).then_some(())).await;
        self.shut_down(failure.as_ref().map_or("spindown", Failure::shutdown_reason)).await;
        shared.trace("environment.end", json!({}));
        orders.close();
        while let Some(order) = orders.recv().await {
            if let Order::Invoke(InvokeRequest { invocation, caller, .. }) = order {
                let failure =
                    failure.clone().unwrap_or_else(|| Failure::sandbox("the environment has ended"));
                let _ = caller.result.send(failure.result(&invocation.request_id));
            }
        }
    }
}

async fn failure_of(shared: &Shared) -> Failure {
    let failure = shared.wait(None, |state| state.failure()).await;
    failure.unwrap_or_else(|| Failure::sandbox("the environment has ended"))
}

/// Runs one invocation beside others. A timeout responds to the caller and does not stop the code.
async fn invoke(shared: &Arc<Shared>, request: InvokeRequest) {
    let InvokeRequest { invocation, caller, completion } = request;
    let id = invocation.request_id.clone();
    let function = &shared.function;
    let record =
        json!({"requestId": id, "version": function.version, "functionArn": invocation.function_arn});
    shared.log.platform(
        &format!("START RequestId: {id} Version: {}", function.version),
        "platform.start",
        &record,
    );
    shared.telemetry.platform("platform.start", record);
    let released = Instant::now();
    let deadline = released + function.timeout;
    let deadline_ms = epoch_ms(now() + function.timeout);
    let in_flight = InFlight::new(caller, shared.responded.clone());
    let invocation_id = in_flight.invocation_id.clone();
    shared.change(|state| state.in_flight.insert(id.clone(), in_flight));
    let mut delivery = Some(NextInvocation { invocation, invocation_id, deadline_ms });
    let done = shared.wait(Some(deadline), |state| {
        if let Some(ready) = delivery.take_if(|_| !state.runtime.waiters.is_empty()) {
            state.deliver(ready);
        }
        if state.in_flight.get(&id).is_some_and(InFlight::has_response) {
            return Some(Ok(()));
        }
        state.failure().map(Err)
    });
    let outcome = done.await.unwrap_or_else(|| Err(Failure::timeout(function.timeout.as_secs_f64())));
    let failure = outcome.err();
    let finished = shared.change(|state| {
        let mut known = state.in_flight.remove(&id)?;
        if let Some(failure) = &failure {
            known.respond(failure.result(&id));
        }
        Some((known.spans(false), known.error_type().map(str::to_owned), known.produced_bytes()))
    });
    let (spans, handled, produced_bytes) = finished.unwrap_or_default();
    let report = Report {
        request_id: id,
        status: status(failure.as_ref(), handled.is_some()),
        has_failed: failure.is_some(),
        error_type: failure.map(|failure| failure.error_type).or(handled),
        duration: released.elapsed(),
        init: None,
        restore: None,
        memory_mb: function.memory_mb,
        peak_bytes: None,
        managed_instances: true,
        spans,
        tracing: None,
        tenant_id: None,
    };
    let record = report.record();
    shared.log.platform(&report.line(), "platform.report", &record);
    shared.telemetry.platform("platform.report", record.clone());
    let facts = json!({
        "request_id": report.request_id, "status": report.status, "error_type": report.error_type,
        "duration_us": u64::try_from(report.duration.as_micros()).unwrap_or(u64::MAX),
        "memory_mb": report.memory_mb, "produced_bytes": produced_bytes,
    });
    shared.trace("invocation", facts.clone());
    let _ = completion.send(Completion { report: record, facts, log_tail: String::new() });
}
