//! Invariants of the tuner, tested with a faulty fake of Lambda: no write without an intent on disk, without the
//! tag, without enough measurements or outside the permitted sizes; at most one open change; every change ends.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_proto::batch::Environment;
use async_trait::async_trait;
use bytes::Bytes;
use common::counting_store::CountingStore;
use common::fleet::{KINDS, Kind, batch};
use proptest::prelude::*;
use tailor_collector::changes::{self, Change, State};
use tailor_collector::clock::now_us;
use tailor_collector::store::sqlite::SqliteStore;
use tailor_collector::store::{FunctionKey, HOUR_US, NewBatch, Store, Tenant};
use tailor_collector::tuner::aws::{Configuration, Lambda, LambdaError, Update};
use tailor_collector::tuner::{Settings, Tuner};
use tailor_sizing::pricing::prices::PriceTable;
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::Megabytes;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The fault of the next writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// No fault.
    None,
    /// The write is refused.
    Refused,
    /// The write takes effect, but its response is lost.
    ResponseLost,
    /// The write does not arrive and reads fail: the state after a crash before the write.
    LostBeforeWrite,
    /// The write takes effect and then reads fail: the state after a crash after the write.
    LostAfterWrite,
}

struct FakeState {
    configuration: Configuration,
    fault: Fault,
    unreachable: bool,
    writes: Vec<Megabytes>,
    /// Violated invariants, found during a write.
    violations: Vec<String>,
}

/// A fake of Lambda with one function. It checks every write against the log on disk.
struct FakeLambda {
    store: Arc<SqliteStore>,
    state: Mutex<FakeState>,
}

#[async_trait]
impl Lambda for FakeLambda {
    async fn configuration(&self, _: &FunctionKey) -> Result<Configuration, LambdaError> {
        let state = self.state.lock().unwrap();
        if state.unreachable {
            Err(LambdaError::Other("no response".to_owned()))
        } else {
            Ok(state.configuration.clone())
        }
    }

    async fn set_memory(
        &self,
        key: &FunctionKey,
        memory: Megabytes,
        revision: &str,
    ) -> Result<(), LambdaError> {
        let changes = changes::fold(self.store.changes(&Tenant::default(), Some(key)).await.unwrap());
        let mut state = self.state.lock().unwrap();
        let open: Vec<&Change> = changes.iter().filter(|change| change.state.is_open()).collect();
        let has_intent = open.iter().any(|change| match change.state {
            State::Planned => change.to == memory,
            State::RollingBack => change.from == memory,
            _ => false,
        });
        let tagged = state.configuration.tags.get("tailor:tune").is_some_and(|value| value == "apply");
        for (holds, invariant) in [
            (has_intent, "no write without an intent on disk"),
            (open.len() == 1, "one open change at most"),
            (tagged, "no write without the tag"),
            ((Megabytes(128)..=Megabytes(3_008)).contains(&memory), "no size out of bounds"),
        ] {
            if !holds {
                state.violations.push(format!("{invariant}: wrote {memory} over {changes:?}"));
            }
        }
        if revision != state.configuration.revision_id {
            return Err(LambdaError::Changed("revision".to_owned()));
        }
        if matches!(state.fault, Fault::Refused | Fault::LostBeforeWrite) {
            state.unreachable = state.fault == Fault::LostBeforeWrite;
            return Err(LambdaError::Other("access denied".to_owned()));
        }
        state.set(memory);
        state.writes.push(memory);
        state.unreachable = state.fault == Fault::LostAfterWrite;
        match state.fault {
            Fault::ResponseLost | Fault::LostAfterWrite => Err(LambdaError::Other("timed out".to_owned())),
            _ => Ok(()),
        }
    }
}

impl FakeState {
    fn set(&mut self, memory: Megabytes) {
        self.configuration.memory = memory;
        self.configuration.revision_id += "+";
    }
}

/// A function with measurements, a tuner, and the fake of Lambda.
struct TestSetup {
    runtime: Runtime,
    store: Arc<SqliteStore>,
    lambda: Arc<FakeLambda>,
    settings: Settings,
    kind: Kind,
    /// CPU time of each invocation that no process accounts for, microseconds.
    unaccounted_us: u64,
    /// Whether the invocations are from logs.
    is_imported: bool,
    environments: u64,
    _folder: TempDir,
}

impl TestSetup {
    fn new(kind: Kind, tagged: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(folder.path()).unwrap());
        let tags =
            HashMap::from([("tailor:tune".to_owned(), if tagged { "apply" } else { "observe" }.to_owned())]);
        let configuration = Configuration {
            account: "123456789012".to_owned(),
            memory: Megabytes(kind.memory),
            revision_id: "r".to_owned(),
            code_sha256: "code".to_owned(),
            update: Update::Successful,
            snap_start: false,
            tags,
        };
        let state = Mutex::new(FakeState {
            configuration,
            fault: Fault::None,
            unreachable: false,
            writes: Vec::new(),
            violations: Vec::new(),
        });
        let lambda = Arc::new(FakeLambda { store: Arc::clone(&store), state });
        let settings = Settings {
            min_evidence_invocations: 100,
            min_comparison_invocations: 50,
            cooldown: Duration::from_secs(3_600),
            interval: Duration::ZERO,
            ..Settings::default()
        };
        Self {
            runtime: Runtime::new().unwrap(),
            store,
            lambda,
            settings,
            kind,
            unaccounted_us: 0,
            is_imported: false,
            environments: 0,
            _folder: folder,
        }
    }

    /// Stores invocations at the current size, `slower` times slower than expected.
    fn invoke(&mut self, count: u64, slower: u64, failing: bool) {
        self.environments += 1;
        let memory = self.configured().memory;
        let kind = Kind { memory: memory.0, ..self.kind };
        let mut batch = batch(&kind, self.environments, 1, count, now_us() + count * 1_000_000);
        if self.is_imported {
            batch.header.environment.extension_version = Environment::imported_by("0.1.0");
        }
        for invocation in &mut batch.invocations {
            invocation.started_at_us = now_us();
            invocation.duration_us *= slower;
            invocation.billed_ms *= slower;
            if let Some(work) = &mut invocation.work {
                work.unaccounted_us = self.unaccounted_us;
            }
            if failing {
                invocation.outcome = tailor_sizing::telemetry::invocation::Outcome::OutOfMemory;
            }
        }
        let mut rollup = Rollup::default();
        batch.invocations.iter().for_each(|invocation| rollup.record(invocation));
        let new_batch = NewBatch {
            tenant: Tenant::default(),
            header: batch.header.clone(),
            received_at_us: now_us(),
            rollups: vec![(now_us() / HOUR_US, rollup)],
            last_at_us: now_us(),
            invocations: count,
            body: Bytes::from(batch.encode().unwrap()),
        };
        self.runtime.block_on(self.store.append(new_batch)).unwrap();
    }

    /// Runs one round of a new tuner, as after a restart.
    fn round(&self) {
        self.round_with(Arc::clone(&self.store) as Arc<dyn Store>);
    }

    fn round_with(&self, store: Arc<dyn Store>) {
        let tuner = Tuner::new(
            store,
            Arc::clone(&self.lambda) as Arc<dyn Lambda>,
            PriceTable::embedded(),
            self.settings.clone(),
            tailor_collector::clock::Clock::system(),
        );
        self.runtime.block_on(tuner.round()).unwrap();
    }

    fn changes(&self) -> Vec<Change> {
        changes::fold(self.runtime.block_on(self.store.changes(&Tenant::default(), None)).unwrap())
    }

    fn state(&self) -> State {
        self.changes().last().unwrap().state
    }

    fn configured(&self) -> Configuration {
        self.lambda.state.lock().unwrap().configuration.clone()
    }

    fn with_lambda(&self, act: impl FnOnce(&mut FakeState)) {
        act(&mut self.lambda.state.lock().unwrap());
    }

    fn writes(&self) -> Vec<Megabytes> {
        self.lambda.state.lock().unwrap().writes.clone()
    }

    fn assert_no_violations(&self) {
        let violations = self.lambda.state.lock().unwrap().violations.clone();
        assert!(violations.is_empty(), "{violations:?}");
    }
}

/// A function that waits most of the time and has far too much memory.
const IDLE: Kind = Kind { cpu_us: 400, ..KINDS[2] };

#[test]
fn imported_functions_are_not_changed() {
    let mut setup = TestSetup::new(IDLE, true);
    setup.is_imported = true;
    setup.invoke(300, 1, false);
    setup.round();
    assert!(setup.changes().is_empty() && setup.writes().is_empty());
    // From the first batch of the layer on, there is a measurement.
    setup.is_imported = false;
    setup.invoke(300, 1, false);
    setup.round();
    assert_eq!(setup.state(), State::Applied);
}

#[test]
fn a_change_as_predicted_is_kept() {
    let mut setup = TestSetup::new(IDLE, true);
    setup.invoke(300, 1, false);
    setup.round();
    let applied = setup.changes().pop().unwrap();
    assert_eq!(applied.state, State::Applied);
    assert!(applied.to < Megabytes(IDLE.memory));
    assert_eq!(setup.writes(), [applied.to]);
    setup.round();
    assert_eq!(setup.state(), State::Applied, "assessed without measurements");
    setup.invoke(120, 1, false);
    setup.round();
    let settled = setup.changes().pop().unwrap();
    assert_eq!(settled.state, State::Settled, "{}", settled.reason);
    let measured = settled.measured_cost_change_percent().unwrap();
    assert!((measured - settled.intent.cost_change_percent).abs() < 5.0, "{measured} {settled:?}");
    for _ in 0..3 {
        setup.invoke(120, 1, false);
        setup.round();
    }
    assert_eq!(setup.writes().len(), 1, "the cooldown delays the next change");
    setup.assert_no_violations();
}

#[test]
fn a_change_for_the_worse_is_rolled_back() {
    for (slower, failing) in [(3, false), (1, true)] {
        let mut setup = TestSetup::new(IDLE, true);
        setup.invoke(300, 1, false);
        setup.round();
        setup.invoke(60, slower, failing);
        setup.round();
        let change = setup.changes().pop().unwrap();
        assert_eq!(change.state, State::RolledBack, "{}", change.reason);
        assert_eq!(setup.configured().memory, Megabytes(IDLE.memory));
        assert!(change.after.is_some(), "the measurements are in the log");
        setup.assert_no_violations();
    }
}

#[test]
fn no_write_without_recommendation_and_permission() {
    type Modification = fn(&mut FakeState);
    let modifications: [(&str, Modification); 6] = [
        ("not tagged", |state| state.configuration.tags.clear()),
        ("managed by a stack", |state| {
            drop(state.configuration.tags.insert("aws:cloudformation:stack-name".to_owned(), "s".to_owned()));
        }),
        ("another account", |state| state.configuration.account = "999999999999".to_owned()),
        ("snapshots", |state| state.configuration.snap_start = true),
        ("being updated", |state| state.configuration.update = Update::InProgress),
        ("another size now", |state| state.set(Megabytes(1_024))),
    ];
    for (case, modify) in modifications {
        let mut setup = TestSetup::new(IDLE, true);
        setup.invoke(300, 1, false);
        setup.with_lambda(modify);
        setup.round();
        assert!(setup.writes().is_empty() && setup.changes().is_empty(), "{case}");
    }
    let mut little = TestSetup::new(IDLE, true);
    little.invoke(99, 1, false);
    little.round();
    let mut low_ceiling = TestSetup::new(KINDS[0], true);
    low_ceiling.settings.ceiling = Megabytes(300);
    low_ceiling.invoke(300, 1, false);
    low_ceiling.round();
    let mut other_tenant = TestSetup::new(IDLE, true);
    other_tenant.settings.tenant = Tenant("other".to_owned());
    other_tenant.invoke(300, 1, false);
    other_tenant.round();
    // The other processes may need the CPU time that a smaller size does not have, or the larger size may not help them.
    let mut unaccounted = [IDLE, KINDS[0]].map(|kind| TestSetup::new(kind, true));
    for setup in &mut unaccounted {
        setup.unaccounted_us = 10_000_000;
        setup.invoke(300, 1, false);
        setup.round();
    }
    for setup in [little, low_ceiling, other_tenant].into_iter().chain(unaccounted) {
        assert!(setup.writes().is_empty() && setup.changes().is_empty());
    }
}

#[test]
fn removing_the_tag_ends_the_change_without_a_write() {
    let mut setup = TestSetup::new(IDLE, true);
    setup.invoke(300, 1, false);
    setup.round();
    setup.with_lambda(|state| state.configuration.tags.clear());
    setup.invoke(60, 5, false);
    setup.round();
    assert_eq!(setup.state(), State::ExternalChange);
    assert_eq!(setup.writes().len(), 1);
    setup.assert_no_violations();
}

#[test]
fn a_change_by_someone_else_is_kept() {
    let mut setup = TestSetup::new(IDLE, true);
    setup.invoke(300, 1, false);
    setup.round();
    setup.with_lambda(|state| state.set(Megabytes(777)));
    setup.round();
    assert_eq!(setup.state(), State::ExternalChange);
    assert_eq!(setup.configured().memory, Megabytes(777));
}

#[derive(Debug, Clone)]
enum Event {
    Round,
    Invoke { count: u64, slower: u64, failing: bool },
    Tag(bool),
    External(u32),
    Deploy,
    Fault(Fault),
    Reconnect,
}

fn event() -> impl Strategy<Value = Event> {
    let fault = prop::sample::select(vec![
        Fault::None,
        Fault::Refused,
        Fault::ResponseLost,
        Fault::LostBeforeWrite,
        Fault::LostAfterWrite,
    ]);
    prop_oneof![
        6 => Just(Event::Round),
        4 => (20u64..150, 1u64..4, prop::bool::weighted(0.1))
            .prop_map(|(count, slower, failing)| Event::Invoke { count, slower, failing }),
        1 => prop::bool::weighted(0.7).prop_map(Event::Tag),
        1 => (128u32..3_008).prop_map(Event::External),
        1 => Just(Event::Deploy),
        2 => fault.prop_map(Event::Fault),
        1 => Just(Event::Reconnect),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// For any sequence of events and faults, with a restart of the tuner before every round.
    #[test]
    fn invariants_hold_for_any_sequence_of_events(
        tagged in prop::bool::weighted(0.9),
        kind in prop::sample::select(vec![KINDS[0], KINDS[2], KINDS[5]]),
        events in prop::collection::vec(event(), 1..40),
    ) {
        let mut setup = TestSetup::new(kind, tagged);
        setup.settings.cooldown = Duration::ZERO;
        setup.invoke(200, 1, false);
        for event in events {
            match event {
                Event::Round => setup.round(),
                Event::Invoke { count, slower, failing } => setup.invoke(count, slower, failing),
                Event::Tag(tagged) => setup.with_lambda(|state| {
                    let value = if tagged { "apply" } else { "" };
                    state.configuration.tags.insert("tailor:tune".to_owned(), value.to_owned());
                }),
                Event::External(memory) => setup.with_lambda(|state| state.set(Megabytes(memory))),
                Event::Deploy => setup.with_lambda(|state| state.configuration.code_sha256 += "'"),
                Event::Fault(fault) => setup.with_lambda(|state| state.fault = fault),
                Event::Reconnect => setup.with_lambda(|state| state.unreachable = false),
            }
            let open = setup.changes().iter().filter(|change| change.state.is_open()).count();
            prop_assert!(open <= 1);
        }
        let violations = setup.lambda.state.lock().unwrap().violations.clone();
        prop_assert!(violations.is_empty(), "{:?}", violations);

        // Without faults and with enough invocations, every change ends.
        setup.with_lambda(|state| {
            state.fault = Fault::None;
            state.unreachable = false;
        });
        setup.settings.max_open_changes = 0;
        for _ in 0..4 {
            setup.invoke(100, 1, false);
            setup.round();
        }
        for change in setup.changes() {
            prop_assert!(!change.state.is_open(), "{:?}", change);
        }
    }
}

#[test]
fn a_round_reads_the_change_log_once() {
    let mut setup = TestSetup::new(IDLE, true);
    setup.invoke(300, 1, false);
    setup.round();
    assert_eq!(setup.state(), State::Applied, "the next round has an open change and an evaluation");
    setup.invoke(120, 1, false);
    let store = Arc::new(CountingStore::new(Arc::clone(&setup.store)));
    setup.round_with(Arc::clone(&store) as Arc<dyn Store>);
    assert_eq!(setup.state(), State::Settled);
    assert_eq!(store.log_reads(), 1);
}
