//! What the extension knows and decides. Synchronous and without I/O but for reading `/proc`: the event
//! loop around it is [`crate::lifecycle`].

use std::rc::Rc;
use std::time::{Duration, Instant};

use agent_proto::batch::{Environment, EnvironmentId, Overhead};
use nix::sys::resource::{UsageWho, getrusage};
use tailor_sizing::telemetry::rollup::Rollup;

use crate::ledger::Ledger;
use crate::outbox::{Outbox, Sealed};
use crate::process::budget::Budget;
use crate::process::{self, Measured, Processes, Reading, Snapshot};
use crate::settings::Settings;
use crate::summary::{self, Teller};
use crate::telemetry::{Delivery, Event};

/// The shortest time from hints in one batch to hints in another; the last batch of an environment has them, too.
const HINTS_INTERVAL: Duration = Duration::from_secs(600);

/// The initialization type of environments that are restored from a snapshot.
const SNAP_START: &str = "snap-start";

/// The extension's state.
#[derive(Debug)]
pub struct Agent {
    ledger: Ledger,
    processes: Processes,
    outbox: Outbox,
    current: Option<Current>,
    totals: Rollup,
    teller: Teller,
    /// Lines to print.
    lines: Vec<String>,
    /// When hints were drawn last; they cost half a millisecond.
    hinted: Instant,
    finishing: bool,
    sent_bytes: u64,
    flush_items: usize,
    flush_interval: Duration,
    /// The next invocation is the environment's first.
    first: bool,
    budget: Budget,
}

/// The invocation that runs, or ran last.
#[derive(Debug)]
struct Current {
    request_id: String,
    start: Snapshot,
    began: Instant,
    /// How long it had run at the last look.
    last_look: Duration,
    /// The platform said that the handler is done.
    done: bool,
}

impl Agent {
    /// State for a new environment.
    #[must_use]
    pub fn new(environment: Environment, settings: &Settings) -> Self {
        Self {
            budget: Budget::new(settings.cpu_budget_percent, environment.memory.share()),
            ledger: Ledger::new(environment.memory.0),
            processes: Processes::new(settings.peak),
            outbox: Outbox::new(environment),
            current: None,
            totals: Rollup::default(),
            teller: Teller::new(settings.emf, settings.log_invocations),
            lines: vec![],
            hinted: Instant::now(),
            finishing: false,
            sent_bytes: 0,
            flush_items: settings.flush_items,
            flush_interval: settings.flush_interval,
            first: true,
        }
    }

    /// INVOKE: closes the invocation before and opens this one.
    pub fn invoked(&mut self, request_id: &str, now_us: u64, deadline_ms: u64) {
        let snapshot = self.processes.read();
        self.close_current(&snapshot, None);
        self.processes.reset_peaks();
        self.ledger.invoked(request_id, now_us, self.first);
        if self.first {
            if self.outbox.environment_mut().initialization_type == SNAP_START {
                // The record of the restore may be late or lost, and where telemetry is refused there is none.
                self.restored();
            }
            let timeout_ms = deadline_ms.saturating_sub(now_us / 1_000);
            // The event is on its way for a moment; timeouts are whole seconds.
            self.outbox.environment_mut().timeout_ms = timeout_ms.saturating_add(500) / 1_000 * 1_000;
        }
        self.first = false;
        self.current = Some(Current {
            request_id: request_id.to_owned(),
            start: snapshot,
            began: Instant::now(),
            last_look: Duration::ZERO,
            done: false,
        });
        self.collect_finished();
        self.budget.begin();
    }

    /// How long to wait before looking inside the running invocation; `None` when there is none, or when
    /// looking is turned off.
    #[must_use]
    pub fn tick_pause(&self) -> Option<Duration> {
        let current = self.current.as_ref().filter(|current| !current.done)?;
        self.budget.pause(current.began.elapsed())
    }

    /// Looks inside the running invocation.
    pub fn tick(&mut self) {
        if self.current.as_ref().is_some_and(|current| !current.done) {
            self.look(Processes::tick);
        }
    }

    /// Notes as cheaply as can be how far the invocation came, should nothing else come to tell of it.
    pub fn look_back(&mut self) {
        if self.current.is_some() {
            self.look(Processes::look_back);
        }
    }

    fn look(&mut self, look: impl FnOnce(&mut Processes) -> bool) {
        let processes = &mut self.processes;
        let any_lives = self.budget.spend(|| look(processes));
        if let Some(current) = self.current.as_mut().filter(|_| any_lives) {
            current.last_look = current.began.elapsed();
        }
    }

    /// Telemetry came, at `now_us`, microseconds since the Unix epoch.
    pub fn delivered(&mut self, delivery: Delivery, now_us: u64) {
        self.ledger.at(now_us);
        self.outbox.lost_mut().undecodable_records += delivery.undecodable;
        for event in delivery.events {
            self.heard(event);
        }
        self.collect_finished();
    }

    fn heard(&mut self, event: Event) {
        match event {
            Event::InitStart(init) => {
                if let Some(runtime) = init.runtime_version {
                    // The limit of any text on the wire; names of real runtimes are a tenth of it.
                    self.outbox.environment_mut().runtime = runtime.chars().take(100).collect();
                }
            }
            Event::InitReport { report, time_us } => {
                if report.phase.as_deref() == Some("invoke") {
                    self.ledger.initialized_inside(report.metrics.duration_ms.unwrap_or_default(), time_us);
                }
            }
            Event::Start { request_id, time_us } => self.ledger.started(&request_id, time_us),
            Event::RuntimeDone { done, time_us } => {
                if let Some(current) = self.current.as_mut().filter(|c| c.request_id == done.request_id) {
                    current.done = true;
                }
                self.ledger.runtime_done(done, time_us);
            }
            Event::Report { done, time_us } => self.ledger.reported(done, time_us),
            Event::RestoreStart => self.restored(),
            Event::LogsDropped { records } => self.outbox.lost_mut().platform_records += records,
            Event::Other => {}
        }
    }

    /// A SnapStart restore: every environment restored from this snapshot would go by the same id. What is restored
    /// has not been invoked yet; a record that comes later is a repetition, and batches went out by this id.
    fn restored(&mut self) {
        if self.first {
            self.outbox.environment_mut().id = new_environment_id();
        }
    }

    /// SHUTDOWN: reads the last invocation's processes, if they still live. Mostly the platform has ended them
    /// before it tells us; then what the last look inside saw has to do.
    pub fn shutting_down(&mut self) {
        if self.current.is_none() {
            return;
        }
        let last_tick = self.processes.last_look();
        let snapshot = self.processes.read();
        self.close_current(&snapshot, Some(&last_tick));
        self.collect_finished();
    }

    /// Nothing more will come: what is unfinished goes as it is.
    pub fn finish(&mut self) {
        self.finishing = true;
        let all = self.ledger.take_all();
        self.keep(all);
    }

    /// Whether the last report is still missing.
    #[must_use]
    pub fn awaits_report(&self) -> bool {
        self.ledger.awaits_report()
    }

    /// Whether a delivery is worth its CPU now.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.outbox.is_due(self.flush_items, self.flush_interval)
    }

    /// How many invocations are not delivered.
    #[must_use]
    pub fn undelivered(&self) -> u64 {
        self.outbox.waiting()
    }

    /// The platform delivers no telemetry: nothing is waited for.
    pub const fn without_telemetry(&mut self) {
        self.ledger.expect_no_reports();
    }

    /// Whether everything was delivered.
    #[must_use]
    pub fn is_delivered(&self) -> bool {
        self.outbox.is_empty()
    }

    /// The batch to deliver, if there is one.
    pub fn seal(&mut self, now_us: u64) -> Option<Sealed> {
        let overhead = self.overhead();
        let mut hints = vec![];
        if self.outbox.seals_new() && (self.finishing || self.hinted.elapsed() >= HINTS_INTERVAL) {
            self.hinted = Instant::now();
            hints = summary::hints(&self.totals, self.outbox.environment_mut());
        }
        self.outbox.seal(overhead, hints, self.ledger.open_count(), now_us)
    }

    /// What became of a delivery.
    pub fn settle(&mut self, sealed: &Sealed, delivery: crate::shipper::Delivery) {
        use crate::shipper::Delivery;
        self.sent_bytes = self.sent_bytes.saturating_add(sealed.bytes.len() as u64);
        match delivery {
            Delivery::Acknowledged(sequence) => self.outbox.acknowledge(sequence),
            Delivery::Refused => self.outbox.reject(sealed.sequence),
            Delivery::Failed => self.outbox.lost_mut().failed_deliveries += 1,
        }
    }

    /// Whether a summary is to be printed by now.
    #[must_use]
    pub fn summary_is_due(&self) -> bool {
        self.teller.is_due()
    }

    /// Adds the summary since the last one to the lines to print.
    pub fn summarise(&mut self, now_us: u64) {
        let lost = self.outbox.lost_mut().invocations;
        let line = self.teller.summary(&self.totals, self.outbox.environment_mut(), lost, now_us);
        self.lines.extend(line);
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

    fn close_current(&mut self, end: &Snapshot, last_tick: Option<&Snapshot>) {
        let Some(current) = self.current.take() else { return };
        let began = |process: &Rc<Reading>| {
            current.start.processes.iter().any(|earlier| earlier.identity == process.identity)
        };
        let lives_in = |snapshot: &Snapshot| snapshot.processes.iter().any(began);
        let measured = if lives_in(end) {
            Some(process::between(&current.start, end))
        } else {
            last_tick.filter(|tick| lives_in(tick)).map(|tick| Measured {
                last_look_us: Some(u64::try_from(current.last_look.as_micros()).unwrap_or(u64::MAX)),
                ..process::between(&current.start, tick)
            })
        };
        self.ledger.measured(&current.request_id, measured);
    }

    fn collect_finished(&mut self) {
        let finished = self.ledger.take_finished();
        self.keep(finished);
        self.outbox.lost_mut().invocations += self.ledger.take_evicted();
        self.outbox.lost_mut().undecodable_records += self.ledger.take_stale();
    }

    fn keep(&mut self, invocations: Vec<tailor_sizing::telemetry::invocation::Invocation>) {
        for invocation in &invocations {
            self.totals.record(invocation);
            self.lines.extend(self.teller.finished(invocation, self.outbox.environment_mut()));
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
            resident_kib: process::own_resident_kib(),
            sent_bytes: self.sent_bytes,
            ticks: self.budget.ticks(),
        }
    }
}

/// 16 bytes that no other environment has.
#[must_use]
pub fn new_environment_id() -> EnvironmentId {
    let mut id = [0u8; 16];
    let filled = std::fs::File::open("/dev/urandom")
        .and_then(|mut source| std::io::Read::read_exact(&mut source, &mut id));
    if filled.is_err() {
        // Never seen; a time and a process id are the next best, and unique enough for a key of dedup.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let unique = now.as_nanos() ^ (u128::from(std::process::id()) << 96);
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
            initialization_type: initialization_type.into(),
            ..crate::outbox::tests::environment()
        };
        Agent::new(environment, &Settings::read(&HashMap::new()).0)
    }

    fn sealed_by(agent: &mut Agent) -> EnvironmentId {
        agent.finish();
        Batch::decode(&agent.seal(1).unwrap().bytes).unwrap().environment.id
    }

    /// All that are restored from one snapshot begin as the same process.
    #[test]
    fn a_restored_environment_has_an_id_of_its_own_and_keeps_it() {
        let restore = || Delivery { events: vec![Event::RestoreStart], ..Delivery::default() };
        let mut told = agent("");
        told.delivered(restore(), 1);
        let mut untold = agent("snap-start");
        for agent in [&mut told, &mut untold] {
            agent.invoked("3f2504e0-4f89-41d3-9a0c-0305e82c3301", 2, 3_000);
            let id = agent.outbox.environment_mut().id;
            assert_ne!(id, EnvironmentId([1; 16]));
            agent.delivered(restore(), 3);
            assert_eq!(sealed_by(agent), id, "a record that is repeated or late changes nothing");
        }
        let mut plain = agent("on-demand");
        plain.invoked("3f2504e0-4f89-41d3-9a0c-0305e82c3301", 2, 3_000);
        assert_eq!(sealed_by(&mut plain), EnvironmentId([1; 16]));
    }
}
