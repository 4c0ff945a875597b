//! The tuner's promises against a Lambda that misbehaves: no write without an intent on disk, without the
//! tag, without evidence or outside the bounds; at most one open change; every change ends.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
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

/// What goes wrong with the next write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Nothing.
    None,
    /// It is refused, and nothing happens.
    Refused,
    /// It is carried out, but the answer is lost.
    AnswerLost,
    /// It never arrives, and nothing can be read for a while: what a crash before the write leaves.
    Silence,
    /// It is carried out, and then nothing can be read for a while: what a crash after the write leaves.
    ThenSilence,
}

struct FakeState {
    configuration: Configuration,
    fault: Fault,
    silent: bool,
    writes: Vec<Megabytes>,
    /// Broken promises, found at the moment of a write.
    broken: Vec<String>,
}

/// One function of a Lambda in memory, which checks every write against the log on disk.
struct FakeLambda {
    store: Arc<SqliteStore>,
    state: Mutex<FakeState>,
}

#[async_trait]
impl Lambda for FakeLambda {
    async fn configuration(&self, _: &FunctionKey) -> Result<Configuration, LambdaError> {
        let state = self.state.lock().unwrap();
        if state.silent {
            Err(LambdaError::Other("no answer".to_owned()))
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
        let intended = open.iter().any(|change| match change.state {
            State::Planned => change.to == memory,
            State::RollingBack => change.from == memory,
            _ => false,
        });
        let tagged = state.configuration.tags.get("tailor:tune").is_some_and(|value| value == "apply");
        for (kept, promise) in [
            (intended, "no write without an intent on disk"),
            (open.len() == 1, "one open change at most"),
            (tagged, "no write without the tag"),
            ((Megabytes(128)..=Megabytes(3_008)).contains(&memory), "no size out of bounds"),
        ] {
            if !kept {
                state.broken.push(format!("{promise}: wrote {memory} over {changes:?}"));
            }
        }
        if revision != state.configuration.revision_id {
            return Err(LambdaError::Changed("revision".to_owned()));
        }
        if matches!(state.fault, Fault::Refused | Fault::Silence) {
            state.silent = state.fault == Fault::Silence;
            return Err(LambdaError::Other("access denied".to_owned()));
        }
        state.set(memory);
        state.writes.push(memory);
        state.silent = state.fault == Fault::ThenSilence;
        match state.fault {
            Fault::AnswerLost | Fault::ThenSilence => Err(LambdaError::Other("timed out".to_owned())),
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

/// A function with a past, a tuner over it, and a Lambda to break.
struct Scene {
    runtime: Runtime,
    store: Arc<SqliteStore>,
    lambda: Arc<FakeLambda>,
    settings: Settings,
    kind: Kind,
    environments: u64,
    _folder: TempDir,
}

impl Scene {
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
            silent: false,
            writes: Vec::new(),
            broken: Vec::new(),
        });
        let lambda = Arc::new(FakeLambda { store: Arc::clone(&store), state });
        let settings = Settings {
            least_evidence: 100,
            least_comparison: 50,
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
            environments: 0,
            _folder: folder,
        }
    }

    /// Invocations at the size the function has, `slower` times as slow as they should be.
    fn invoke(&mut self, count: u64, slower: u64, failing: bool) {
        self.environments += 1;
        let memory = self.configured().memory;
        let kind = Kind { memory: memory.0, ..self.kind };
        let mut batch = batch(&kind, self.environments, 1, count, now_us() + count * 1_000_000);
        for invocation in &mut batch.invocations {
            invocation.started_at_us = now_us();
            invocation.duration_us *= slower;
            invocation.billed_ms *= slower;
            if failing {
                invocation.outcome = tailor_sizing::telemetry::invocation::Outcome::OutOfMemory;
            }
        }
        let mut rollup = Rollup::default();
        batch.invocations.iter().for_each(|invocation| rollup.record(invocation));
        let delivery = NewBatch {
            tenant: Tenant::default(),
            header: batch.header.clone(),
            received_at_us: now_us(),
            rollups: vec![(now_us() / HOUR_US, rollup)],
            last_at_us: now_us(),
            invocations: count,
            body: Bytes::from(batch.encode().unwrap()),
        };
        self.runtime.block_on(self.store.append(delivery)).unwrap();
    }

    /// One round of a tuner that knows nothing but what is on disk, as after a restart.
    fn round(&self) {
        let tuner = Tuner::new(
            Arc::clone(&self.store) as Arc<dyn Store>,
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

    fn assert_unbroken(&self) {
        let broken = self.lambda.state.lock().unwrap().broken.clone();
        assert!(broken.is_empty(), "{broken:?}");
    }
}

/// Waits most of the time and has far too much memory.
const IDLE: Kind = Kind { cpu_us: 400, ..KINDS[2] };

#[test]
fn a_change_that_does_what_was_predicted_stays() {
    let mut scene = Scene::new(IDLE, true);
    scene.invoke(300, 1, false);
    scene.round();
    let applied = scene.changes().pop().unwrap();
    assert_eq!(applied.state, State::Applied);
    assert!(applied.to < Megabytes(IDLE.memory));
    assert_eq!(scene.writes(), [applied.to]);
    scene.round();
    assert_eq!(scene.state(), State::Applied, "judged without evidence");
    scene.invoke(120, 1, false);
    scene.round();
    let settled = scene.changes().pop().unwrap();
    assert_eq!(settled.state, State::Settled, "{}", settled.reason);
    let measured = settled.measured_cost_change_percent().unwrap();
    assert!((measured - settled.intent.cost_change_percent).abs() < 5.0, "{measured} {settled:?}");
    for _ in 0..3 {
        scene.invoke(120, 1, false);
        scene.round();
    }
    assert_eq!(scene.writes().len(), 1, "it waits before the next change");
    scene.assert_unbroken();
}

#[test]
fn a_change_for_the_worse_is_taken_back() {
    for (slower, failing) in [(3, false), (1, true)] {
        let mut scene = Scene::new(IDLE, true);
        scene.invoke(300, 1, false);
        scene.round();
        scene.invoke(60, slower, failing);
        scene.round();
        let change = scene.changes().pop().unwrap();
        assert_eq!(change.state, State::RolledBack, "{}", change.reason);
        assert_eq!(scene.configured().memory, Megabytes(IDLE.memory));
        assert!(change.after.is_some(), "what was measured is in the log");
        scene.assert_unbroken();
    }
}

#[test]
fn nothing_is_written_without_reason_and_permission() {
    type Twist = fn(&mut FakeState);
    let twists: [(&str, Twist); 6] = [
        ("not tagged", |state| state.configuration.tags.clear()),
        ("managed by a stack", |state| {
            drop(state.configuration.tags.insert("aws:cloudformation:stack-name".to_owned(), "s".to_owned()));
        }),
        ("another account", |state| state.configuration.account = "999999999999".to_owned()),
        ("snapshots", |state| state.configuration.snap_start = true),
        ("being updated", |state| state.configuration.update = Update::InProgress),
        ("another size now", |state| state.set(Megabytes(1_024))),
    ];
    for (case, twist) in twists {
        let mut scene = Scene::new(IDLE, true);
        scene.invoke(300, 1, false);
        scene.with_lambda(twist);
        scene.round();
        assert!(scene.writes().is_empty() && scene.changes().is_empty(), "{case}");
    }
    let mut little = Scene::new(IDLE, true);
    little.invoke(99, 1, false);
    little.round();
    let mut low_ceiling = Scene::new(KINDS[0], true);
    low_ceiling.settings.ceiling = Megabytes(300);
    low_ceiling.invoke(300, 1, false);
    low_ceiling.round();
    let mut foreign = Scene::new(IDLE, true);
    foreign.settings.tenant = Tenant("somebody".to_owned());
    foreign.invoke(300, 1, false);
    foreign.round();
    for scene in [little, low_ceiling, foreign] {
        assert!(scene.writes().is_empty() && scene.changes().is_empty());
    }
}

#[test]
fn the_tag_taken_away_ends_it_without_a_write() {
    let mut scene = Scene::new(IDLE, true);
    scene.invoke(300, 1, false);
    scene.round();
    scene.with_lambda(|state| state.configuration.tags.clear());
    scene.invoke(60, 5, false);
    scene.round();
    assert_eq!(scene.state(), State::ExternalChange);
    assert_eq!(scene.writes().len(), 1);
    scene.assert_unbroken();
}

#[test]
fn somebody_elses_change_is_adopted() {
    let mut scene = Scene::new(IDLE, true);
    scene.invoke(300, 1, false);
    scene.round();
    scene.with_lambda(|state| state.set(Megabytes(777)));
    scene.round();
    assert_eq!(scene.state(), State::ExternalChange);
    assert_eq!(scene.configured().memory, Megabytes(777));
}

#[derive(Debug, Clone)]
enum Event {
    Round,
    Invoke { count: u64, slower: u64, failing: bool },
    Tag(bool),
    External(u32),
    Deploy,
    Fault(Fault),
    Speak,
}

fn event() -> impl Strategy<Value = Event> {
    let fault = prop::sample::select(vec![
        Fault::None,
        Fault::Refused,
        Fault::AnswerLost,
        Fault::Silence,
        Fault::ThenSilence,
    ]);
    prop_oneof![
        6 => Just(Event::Round),
        4 => (20u64..150, 1u64..4, prop::bool::weighted(0.1))
            .prop_map(|(count, slower, failing)| Event::Invoke { count, slower, failing }),
        1 => prop::bool::weighted(0.7).prop_map(Event::Tag),
        1 => (128u32..3_008).prop_map(Event::External),
        1 => Just(Event::Deploy),
        2 => fault.prop_map(Event::Fault),
        1 => Just(Event::Speak),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever happens to the function and to the calls, and however often the tuner starts anew.
    #[test]
    fn promises_hold_whatever_happens(
        tagged in prop::bool::weighted(0.9),
        kind in prop::sample::select(vec![KINDS[0], KINDS[2], KINDS[5]]),
        events in prop::collection::vec(event(), 1..40),
    ) {
        let mut scene = Scene::new(kind, tagged);
        scene.settings.cooldown = Duration::ZERO;
        scene.invoke(200, 1, false);
        for event in events {
            match event {
                Event::Round => scene.round(),
                Event::Invoke { count, slower, failing } => scene.invoke(count, slower, failing),
                Event::Tag(tagged) => scene.with_lambda(|state| {
                    let value = if tagged { "apply" } else { "" };
                    state.configuration.tags.insert("tailor:tune".to_owned(), value.to_owned());
                }),
                Event::External(memory) => scene.with_lambda(|state| state.set(Megabytes(memory))),
                Event::Deploy => scene.with_lambda(|state| state.configuration.code_sha256 += "'"),
                Event::Fault(fault) => scene.with_lambda(|state| state.fault = fault),
                Event::Speak => scene.with_lambda(|state| state.silent = false),
            }
            let open = scene.changes().iter().filter(|change| change.state.is_open()).count();
            prop_assert!(open <= 1);
        }
        let broken = scene.lambda.state.lock().unwrap().broken.clone();
        prop_assert!(broken.is_empty(), "{:?}", broken);

        // Left in peace with enough invocations, every change comes to an end.
        scene.with_lambda(|state| {
            state.fault = Fault::None;
            state.silent = false;
        });
        scene.settings.most_open = 0;
        for _ in 0..4 {
            scene.invoke(100, 1, false);
            scene.round();
        }
        for change in scene.changes() {
            prop_assert!(!change.state.is_open(), "{:?}", change);
        }
    }
}
