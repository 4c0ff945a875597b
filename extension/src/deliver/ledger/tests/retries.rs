//! Lambda retries a failed asynchronous invocation after one and two minutes, with the same request id.

use super::*;

const OTHER: &str = "22222222-2222-4333-8444-555555555555";

/// One attempt, or another invocation: its request, its start in microseconds, and its duration in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Attempt(&'static str, u64, u32);

const FIRST: Attempt = Attempt(ID, 10_000_000, 10);
const SECOND: Attempt = Attempt(ID, 71_000_000, 20);
const THIRD: Attempt = Attempt(ID, 193_000_000, 30);

/// Start, duration and CPU time.
type Counted = (u64, u64, Option<u64>);

impl Attempt {
    fn end(self) -> EndRecord {
        let metrics = Metrics { duration_ms: Some(self.2.into()), ..Metrics::default() };
        EndRecord { request_id: self.0.into(), ..record("error", metrics) }
    }

    /// A record that is this much after the start.
    fn at(self, after_ms: u64) -> RecordTime {
        RecordTime::exact(self.1 + after_ms * 1_000)
    }

    fn start(self, ledger: &mut Ledger) {
        ledger.on_start(self.0, self.at(0));
    }

    fn runtime_done(self, ledger: &mut Ledger) {
        ledger.on_runtime_done(self.end(), self.at(40));
    }

    fn report(self, ledger: &mut Ledger) {
        ledger.on_report(self.end(), self.at(50));
    }

    fn records(self, ledger: &mut Ledger) {
        self.start(ledger);
        self.runtime_done(ledger);
        self.report(ledger);
    }

    fn invoke(self, ledger: &mut Ledger) {
        ledger.on_invoke(self.0, self.1, false);
    }

    /// Its CPU time is half of its duration.
    fn read(self, ledger: &mut Ledger) {
        let work = Work { user_us: u64::from(self.2) * 500, ..Work::default() };
        ledger.on_measured(self.0, Some(Measured { work, ..Measured::default() }), None);
    }

    fn counted(self, is_measured: bool) -> Counted {
        (self.1, u64::from(self.2) * 1_000, is_measured.then_some(u64::from(self.2) * 500))
    }
}

fn take(ledger: &mut Ledger) -> Vec<Counted> {
    let counted = |one: Invocation| {
        assert_eq!(one.runtime_us, one.duration_us, "the records of one attempt are together");
        (one.started_at_us, one.duration_us, one.work.map(|work| work.user_us))
    };
    ledger.take_finished().into_iter().map(counted).collect()
}

/// The report of each attempt comes after the next INVOKE event.
#[test]
fn each_attempt_of_a_retried_invocation_counts() {
    let mut ledger = Ledger::new(512);
    let mut counted = vec![];
    let mut previous: Option<Attempt> = None;
    for attempt in [FIRST, SECOND, THIRD, Attempt(OTHER, 400_000_000, 5)] {
        if let Some(previous) = previous {
            previous.read(&mut ledger);
        }
        attempt.invoke(&mut ledger);
        if let Some(previous) = previous {
            previous.report(&mut ledger);
        }
        attempt.start(&mut ledger);
        attempt.runtime_done(&mut ledger);
        counted.extend(take(&mut ledger));
        previous = Some(attempt);
    }
    assert_eq!(counted, [FIRST, SECOND, THIRD].map(|attempt| attempt.counted(true)));
}

/// The environment serves other invocations between two attempts, and the first attempt is finished.
#[test]
fn an_attempt_after_a_finished_one_counts_and_repeated_records_do_not() {
    let mut ledger = Ledger::new(512);
    let mut counted = vec![];
    for attempt in [FIRST, Attempt(OTHER, 40_000_000, 5), SECOND] {
        attempt.invoke(&mut ledger);
        // Telemetry is delivered at least once, also after the INVOKE event of the next attempt.
        FIRST.records(&mut ledger);
        attempt.records(&mut ledger);
        attempt.read(&mut ledger);
        counted.extend(take(&mut ledger));
    }
    FIRST.records(&mut ledger);
    SECOND.records(&mut ledger);
    assert!(ledger.take_all().is_empty());
    assert_eq!(counted[0], FIRST.counted(true));
    assert_eq!(counted[2], SECOND.counted(true));
    assert_eq!(counted.len(), 3);
}

/// The records of the first attempt are delivered again while its report is missing.
#[test]
fn a_repeated_record_is_not_of_the_next_attempt() {
    let mut ledger = Ledger::new(512);
    FIRST.invoke(&mut ledger);
    FIRST.start(&mut ledger);
    FIRST.runtime_done(&mut ledger);
    FIRST.read(&mut ledger);
    SECOND.invoke(&mut ledger);
    FIRST.records(&mut ledger);
    SECOND.records(&mut ledger);
    SECOND.read(&mut ledger);
    assert_eq!(take(&mut ledger), [FIRST, SECOND].map(|attempt| attempt.counted(true)));
}

/// The records of a fast handler come before our INVOKE event.
#[test]
fn records_before_the_invoke_event_are_of_the_new_attempt() {
    let mut ledger = Ledger::new(512);
    FIRST.invoke(&mut ledger);
    FIRST.records(&mut ledger);
    SECOND.start(&mut ledger);
    SECOND.runtime_done(&mut ledger);
    FIRST.read(&mut ledger);
    SECOND.invoke(&mut ledger);
    assert_eq!(take(&mut ledger), [FIRST.counted(true)]);
    FIRST.records(&mut ledger);
    SECOND.read(&mut ledger);
    SECOND.report(&mut ledger);
    assert_eq!(take(&mut ledger), [SECOND.counted(true)]);
}

/// On managed instances there is no INVOKE event.
#[test]
fn without_invoke_events_each_attempt_counts() {
    let mut ledger = Ledger::new(2_048).with_initialization(InitializationType::ManagedInstances);
    let mut counted = vec![];
    for attempt in [FIRST, SECOND, THIRD] {
        attempt.records(&mut ledger);
        FIRST.records(&mut ledger);
        counted.extend(take(&mut ledger));
    }
    assert_eq!(counted, [FIRST, SECOND, THIRD].map(|attempt| attempt.counted(false)));
    assert!(ledger.take_all().is_empty());
}
