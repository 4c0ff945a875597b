//! The extension's state and its decisions. Synchronous, and without I/O except reading `/proc`. The event loop
//! drives it.

use std::rc::Rc;
use std::time::{Duration, Instant};

use agent_proto::batch::{Environment, EnvironmentId, InitializationType, Overhead};
use agent_proto::limits::max_timeout_ms;
use nix::sys::resource::{UsageWho, getrusage};
use tailor_sizing::telemetry::invocation::Invocation;
use tailor_sizing::telemetry::rollup::Rollup;

use crate::clock::unix_time;
use crate::deliver::ledger::Ledger;
use crate::deliver::outbox::{Outbox, SealedBatch};
use crate::deliver::shipper::DeliveryOutcome;
use crate::deliver::summary::SummaryLog;
use crate::lambda::record_time::RecordTime;
use crate::lambda::telemetry::{self, EndRecord, Event};
use crate::measure::cpu_budget::CpuBudget;
use crate::measure::utilization::UtilizationMeter;
use crate::measure::{self, Measured, Processes, Reading, Snapshot};
use crate::oom_kills::OomKills;
use crate::settings::Settings;

/// The extension's state.
#[derive(Debug)]
pub struct Agent {
    ledger: Ledger,
    processes: Processes,
    outbox: Outbox,
    current: Option<Current>,
    totals: Rollup,
    summaries: SummaryLog,
    /// Lines to print.
    lines: Vec<String>,
    sent_bytes: u64,
    flush_items: usize,
    flush_interval: Duration,
    /// The next invocation is the first of the environment.
    first: bool,
    /// The platform has delivered nothing yet, and will.
    is_first_delivery_due: bool,
    budget: CpuBudget,
    oom_kills: OomKills,
    /// Only where invocations run at the same time.
    utilization: Option<UtilizationMeter>,
}

/// The running invocation, or the last one.
#[derive(Debug)]
struct Current {
    request_id: String,
    start: Snapshot,
    began: Instant,
    /// How long it had run at the last sample.
    sampled_at: Duration,
    /// `platform.runtimeDone` came.
    done: bool,
}

impl Agent {
    /// State for a new environment.
    #[must_use]
    pub fn new(environment: Environment, settings: &Settings) -> Self {
        Self {
            budget: CpuBudget::new(settings.cpu_budget_percent, environment.memory.share()),
            ledger: Ledger::new(environment.memory.0)
                .with_initialization(environment.initialization_type.clone()),
            processes: Processes::new(settings.peak),
            utilization: environment.is_managed_instances().then(UtilizationMeter::default),
            outbox: Outbox::new(environment),
            current: None,
            totals: Rollup::default(),
            summaries: SummaryLog::new(settings.emf, settings.log_invocations),
            lines: vec![],
            sent_bytes: 0,
            flush_items: settings.flush_items,
            flush_interval: settings.flush_interval,
            first: true,
            is_first_delivery_due: true,
            oom_kills: OomKills::default(),
        }
    }

    /// Counts kills by the kernel from now on.
    pub fn begin_counting_kills(&mut self) {
        let _ = self.oom_kills.take();
    }

    /// INVOKE: one reading of the processes ends the previous invocation and begins this one. `now_us` is microseconds
    /// and `deadline_ms` milliseconds since the Unix epoch.
    pub fn on_invoke(&mut self, request_id: &str, now_us: u64, deadline_ms: u64) {
        let snapshot = self.processes.read();
        // The next error is evidence of a kill only with a kill since now.
        let kills = if self.ledger.memory_was_full() { self.oom_kills.take() } else { None };
        self.close_current(&snapshot, None, kills);
        self.processes.reset_peaks();
        self.ledger.on_invoke(request_id, now_us, self.first);
        if self.first {
            if self.outbox.environment_mut().initialization_type == InitializationType::SnapStart {
                // The record of the restore may be late, lost or not subscribed to.
                self.restored();
            }
            // The event took a moment to arrive; timeouts are whole seconds. With a wrong clock it is unknown.
            let timeout_ms = deadline_ms.saturating_sub(now_us / 1_000).saturating_add(500) / 1_000 * 1_000;
            let environment = self.outbox.environment_mut();
            let is_possible = timeout_ms <= max_timeout_ms(environment.is_managed_instances());
            environment.timeout_ms = if is_possible { timeout_ms } else { 0 };
        }
        self.first = false;
        self.current = Some(Current {
            request_id: request_id.to_owned(),
            start: snapshot,
            began: Instant::now(),
            sampled_at: Duration::ZERO,
            done: false,
        });
        self.collect_finished();
        self.budget.begin();
    }

    /// How long to wait before the next sample; `None` when no invocation runs or sampling is disabled.
    #[must_use]
    pub fn sample_pause(&self) -> Option<Duration> {
        let current = self.current.as_ref().filter(|current| !current.done)?;
        self.budget.pause(current.began.elapsed())
    }

    /// Samples the processes of the running invocation.
    pub fn sample(&mut self) {
        if self.current.as_ref().is_some_and(|current| !current.done) {
            self.take_sample(Processes::sample);
        }
    }

    /// Takes a sample at the lowest cost, in case the invocation ends without another reading.
    pub fn quick_sample(&mut self) {
        if self.current.is_some() {
            self.take_sample(Processes::quick_sample);
        }
    }

    fn take_sample(&mut self, sample: impl FnOnce(&mut Processes) -> bool) {
        let processes = &mut self.processes;
        let any_alive = self.budget.spend(|| sample(processes));
        if let Some(current) = self.current.as_mut().filter(|_| any_alive) {
            current.sampled_at = current.began.elapsed();
        }
    }

    /// Reads the processes where invocations run at the same time. Elsewhere each INVOKE reads them.
    pub fn measure_utilization(&mut self) {
        if let Some(utilization) = &mut self.utilization {
            utilization.step(&mut self.processes);
        }
    }

    /// The body of a telemetry request came at `now_us`, microseconds since the Unix epoch.
    pub fn on_telemetry(&mut self, body: &[u8], now_us: u64) {
        self.is_first_delivery_due = false;
        self.ledger.set_time(now_us);
        let undecodable = telemetry::decode_each(body, &mut |event| self.on_event(event));
        self.outbox.lost_mut().undecodable_records += undecodable;
        self.collect_finished();
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::InitStart(init) => {
                self.ledger.on_init_start(init.phase.as_deref());
                if let Some(runtime) = init.runtime_version {
                    // The wire's limit for any text.
                    self.outbox.environment_mut().runtime = runtime.chars().take(100).collect();
                }
            }
            Event::InitReport { report, time } => self.ledger.on_init_report(&report, time),
            Event::Start { request_id, time } => {
                self.ledger.on_start(&request_id, time);
                if let Some(utilization) = &mut self.utilization {
                    utilization.on_start(self.ledger.open_count());
                    if !utilization.has_begun() {
                        utilization.step(&mut self.processes);
                    }
                }
            }
            Event::RuntimeDone { record, time } => {
                let is_current = self.ledger.on_runtime_done(record, time);
                if let Some(current) = self.current.as_mut().filter(|_| is_current) {
                    current.done = true;
                }
            }
            Event::Report { record, time } => {
                self.on_report(record, time);
                if self.utilization.is_some() {
                    // The next record of this delivery may be the start of another invocation.
                    self.collect_finished();
                }
            }
            Event::RestoreStart => self.restored(),
            Event::LogsDropped { records } => self.outbox.lost_mut().platform_records += records,
            Event::Other => {}
        }
    }

    fn on_report(&mut self, record: EndRecord, time: RecordTime) {
        if self.first {
            // Its Init failed inside it, so that it has no INVOKE event.
            self.ledger.on_kills_in_init(self.oom_kills.take());
        }
        let was_full = self.ledger.memory_was_full();
        let is_current = self.ledger.on_report(record, time);
        if !was_full && !is_current && self.ledger.memory_was_full() {
            // From now on each INVOKE counts the kills of the invocation before it: earlier ones are not of the current one.
            let _ = self.oom_kills.take();
        }
    }

    /// A SnapStart restore. All environments restored from one snapshot have the same id, so this one gets a new id. A
    /// restored environment has not been invoked: a record that comes after an INVOKE is a repeated one, and batches may
    /// have been sent with the present id.
    fn restored(&mut self) {
        if self.first {
            self.outbox.environment_mut().id = new_environment_id();
        }
    }

    /// SHUTDOWN: reads the processes of the last invocation. The platform usually ends them before it sends SHUTDOWN; then
    /// the last sample is used.
    pub fn on_shutdown(&mut self) {
        if self.current.is_none() {
            return;
        }
        let mut last_sample = self.processes.last_sample();
        let snapshot = self.processes.read_all();
        // The environment is still there when its processes are not.
        last_sample.environment = snapshot.environment;
        let kills = self.oom_kills.take();
        self.close_current(&snapshot, Some(&last_sample), kills);
        self.collect_finished();
    }

    /// The environment ends: unfinished invocations are delivered with what is known of them.
    pub fn finish(&mut self) {
        let all = self.ledger.take_all();
        self.record(all);
    }

    /// Whether a `platform.report` is still expected.
    #[must_use]
    pub fn awaits_report(&self) -> bool {
        // An invocation whose Init failed has no INVOKE event, and its records may still be buffered.
        self.ledger.awaits_report() || self.first && self.is_first_delivery_due
    }

    /// Whether a delivery is due.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.outbox.is_due(self.flush_items, self.flush_interval)
    }

    /// The number of invocations that are not acknowledged.
    #[must_use]
    pub fn undelivered(&self) -> u64 {
        self.outbox.undelivered()
    }

    /// No telemetry comes: invocations are finished without a report.
    pub const fn without_telemetry(&mut self) {
        self.is_first_delivery_due = false;
        self.ledger.expect_no_reports();
    }

    /// Whether everything is acknowledged.
    #[must_use]
    pub fn is_delivered(&self) -> bool {
        self.outbox.is_empty()
    }

    /// The batch to deliver, if there is one. `now_us` is microseconds since the Unix epoch.
    pub fn seal(&mut self, now_us: u64) -> Option<SealedBatch> {
        if let Some(utilization) = self.utilization.as_mut().filter(|_| self.outbox.makes_new_batch()) {
            utilization.step(&mut self.processes);
            self.outbox.set_interval(utilization.take(self.ledger.open_count()));
        }
        let overhead = self.overhead();
        self.outbox.seal(overhead, self.ledger.open_count(), now_us)
    }

    /// A delivery ended.
    pub fn settle(&mut self, sealed: &SealedBatch, outcome: DeliveryOutcome) {
        self.sent_bytes = self.sent_bytes.saturating_add(sealed.bytes.len() as u64);
        match outcome {
            DeliveryOutcome::Acknowledged(sequence) => self.outbox.acknowledge(sequence),
            DeliveryOutcome::Rejected => self.outbox.reject(sealed.sequence),
            DeliveryOutcome::Failed { .. } => self.outbox.lost_mut().failed_deliveries += 1,
        }
    }

    /// `bytes` were sent besides batches.
    pub const fn count_sent(&mut self, bytes: u64) {
        self.sent_bytes = self.sent_bytes.saturating_add(bytes);
    }

    /// Whether a summary line is due.
    #[must_use]
    pub fn summary_is_due(&self) -> bool {
        self.summaries.is_due()
    }

    /// Adds a summary of the time since the last one to the lines to print.
    pub fn summarize(&mut self, now_us: u64) {
        let lost = self.outbox.lost_mut().invocations;
        let line = self.summaries.summary(&self.totals, self.outbox.environment_mut(), lost, now_us);
        self.lines.extend(line);
    }

    /// Whether the next delivery is one of a new batch.
    #[cfg(test)]
    pub(crate) fn makes_new_batch(&self) -> bool {
        self.outbox.makes_new_batch()
    }

    /// Whether there are lines to print.
    #[must_use]
    pub const fn has_lines(&self) -> bool {
        !self.lines.is_empty()
    }

    /// Takes the lines to print.
    pub fn take_lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    fn close_current(&mut self, end: &Snapshot, last_sample: Option<&Snapshot>, kills: Option<u64>) {
        let Some(current) = self.current.take() else {
            // The first comparison: the CPU time of Init is not part of an invocation.
            self.processes.unaccounted_us(0);
            return;
        };
        let existed = |process: &Rc<Reading>| {
            current.start.processes.iter().any(|earlier| earlier.identity == process.identity)
        };
        let is_alive_in = |snapshot: &Snapshot| snapshot.processes.iter().any(existed);
        let mut measured = if is_alive_in(end) {
            Some(measure::between(&current.start, end))
        } else {
            last_sample.filter(|sample| is_alive_in(sample)).map(|sample| Measured {
                sampled_at_us: Some(u64::try_from(current.sampled_at.as_micros()).unwrap_or(u64::MAX)),
                ..measure::between(&current.start, sample)
            })
        };
        let counted_us = measured.map_or(0, |measured| measured.work.busy_us());
        let unaccounted_us = self.processes.unaccounted_us(counted_us);
        if let Some(measured) = &mut measured {
            measured.work.unaccounted_us = unaccounted_us;
        }
        self.ledger.on_measured(&current.request_id, measured, kills);
    }

    fn collect_finished(&mut self) {
        let finished = self.ledger.take_finished();
        self.record(finished);
        self.outbox.lost_mut().invocations += self.ledger.take_evicted();
        self.outbox.lost_mut().undecodable_records += self.ledger.take_stale();
    }

    /// Adds invocations to the totals, the lines to print and the outbox.
    fn record(&mut self, invocations: Vec<Invocation>) {
        for invocation in &invocations {
            self.totals.record(invocation);
            self.lines.extend(self.summaries.finished(invocation, self.outbox.environment_mut()));
        }
        self.outbox.add(invocations);
    }

    fn overhead(&self) -> Overhead {
        let usage = getrusage(UsageWho::RUSAGE_SELF).ok();
        let microseconds = |time: nix::sys::time::TimeVal| {
            let seconds = u64::try_from(time.tv_sec()).unwrap_or_default();
            seconds * 1_000_000 + u64::try_from(time.tv_usec()).unwrap_or_default()
        };
        Overhead {
            cpu_us: usage.map_or(0, |u| microseconds(u.user_time()) + microseconds(u.system_time())),
            resident_kib: measure::own_resident_kib(),
            sent_bytes: self.sent_bytes,
            ticks: self.budget.samples(),
        }
    }
}

/// A new random id.
#[must_use]
pub fn new_environment_id() -> EnvironmentId {
    let mut id = [0u8; 16];
    let filled = std::fs::File::open("/dev/urandom")
        .and_then(|mut source| std::io::Read::read_exact(&mut source, &mut id));
    if filled.is_err() {
        // Never observed. The time and the process id are unique enough to recognize repeated batches.
        let unique = unix_time().as_nanos() ^ (u128::from(std::process::id()) << 96);
        id = unique.to_be_bytes();
    }
    EnvironmentId(id)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use agent_proto::batch::Batch;

    use super::*;

    fn agent(initialization_type: &str) -> Agent {
        let environment = Environment {
            initialization_type: initialization_type.to_owned().into(),
            ..crate::deliver::outbox::tests::environment()
        };
        Agent::new(environment, &Settings::read(&HashMap::new()).0)
    }

    fn sent_id(agent: &mut Agent) -> EnvironmentId {
        agent.finish();
        Batch::decode(&agent.seal(1).unwrap().bytes).unwrap().header.environment.id
    }

    /// Environments restored from one snapshot begin as copies of one process.
    #[test]
    fn a_restored_environment_gets_a_new_id_once() {
        let restore = br#"[{"type":"platform.restoreStart","record":{}}]"#;
        let mut by_record = agent("");
        by_record.on_telemetry(restore, 1);
        let mut by_variable = agent("snap-start");
        for agent in [&mut by_record, &mut by_variable] {
            agent.on_invoke("3f2504e0-4f89-41d3-9a0c-0305e82c3301", 2, 3_000);
            let id = agent.outbox.environment_mut().id;
            assert_ne!(id, EnvironmentId([1; 16]));
            agent.on_telemetry(restore, 3);
            assert_eq!(sent_id(agent), id, "a repeated or late record changes nothing");
        }
        let mut plain = agent("on-demand");
        plain.on_invoke("3f2504e0-4f89-41d3-9a0c-0305e82c3301", 2, 3_000);
        assert_eq!(sent_id(&mut plain), EnvironmentId([1; 16]));
    }

    /// The id of the request in the tests of attempts and timeouts.
    const ID: &str = "3f2504e0-4f89-41d3-9a0c-0305e82c3301";

    /// Lambda retries an asynchronous invocation with the same id.
    #[test]
    fn the_end_of_an_earlier_attempt_does_not_end_the_current_one() {
        let done = |time: &str| {
            let record = format!(r#"{{"requestId":"{ID}","status":"error"}}"#);
            format!(r#"[{{"time":"{time}","type":"platform.runtimeDone","record":{record}}}]"#)
        };
        let mut agent = agent("on-demand");
        agent.on_invoke(ID, 1_767_323_045_000_000, 1_767_323_048_000);
        agent.on_invoke(ID, 1_767_323_105_000_000, 1_767_323_108_000);
        agent.on_telemetry(done("2026-01-02T03:04:05.100Z").as_bytes(), 1_767_323_105_010_000);
        assert!(!agent.current.as_ref().unwrap().done, "samples continue");
        agent.on_telemetry(done("2026-01-02T03:05:05.100Z").as_bytes(), 1_767_323_105_110_000);
        assert!(agent.current.as_ref().unwrap().done);
        assert_eq!(agent.ledger.open_count(), 2);
    }

    #[test]
    fn an_impossible_timeout_is_unknown() {
        let timeout_ms = |now_ms: u64, deadline_ms| {
            let mut agent = agent("on-demand");
            agent.on_invoke(ID, now_ms * 1_000, deadline_ms);
            agent.outbox.environment_mut().timeout_ms
        };
        let now_ms = 1_767_323_045_000;
        assert_eq!(timeout_ms(now_ms, now_ms + 899_999), 900_000);
        // The clock is an hour behind, or it is not set.
        assert_eq!([timeout_ms(now_ms - 3_600_000, now_ms), timeout_ms(0, now_ms)], [0, 0]);
        assert_eq!(timeout_ms(now_ms, now_ms - 1_000), 0);
    }

    #[test]
    fn without_an_invoke_the_first_delivery_is_awaited() {
        let mut silent = agent("on-demand");
        assert!(silent.awaits_report(), "an invocation whose Init failed has no INVOKE event");
        silent.on_telemetry(b"[]", 1);
        assert!(!silent.awaits_report());
        let mut rejected = agent("on-demand");
        rejected.without_telemetry();
        assert!(!rejected.awaits_report());
    }
}
