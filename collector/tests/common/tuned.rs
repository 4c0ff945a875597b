//! One function with a tuner, in a test's own time.

#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use tailor_collector::changes::fleet::{self, FleetAction};
use tailor_collector::changes::{Change, State, audit};
use tailor_collector::clock::Clock;
use tailor_collector::clock::{DAY_US, HOUR_US};
use tailor_collector::tuner::limits::Limits;
use tailor_collector::tuner::requests::TunerRequest;
use tailor_collector::tuner::{Settings, Tuner};
use tailor_sizing::advice::strategy::Strategy;
use tokio::runtime::{Builder, Runtime};

use super::control_plane::ControlPlane;
use super::fleet::Kind;
use super::workload::{GOOD, Quality, Workload};

pub(crate) const NAME: &str = "orders-webhook";

pub(crate) struct Tuned {
    runtime: Runtime,
    pub(crate) plane: Arc<ControlPlane>,
    pub(crate) workload: Arc<Workload>,
    pub(crate) settings: Settings,
    pub(crate) kind: Kind,
}

impl Tuned {
    /// A function of this kind that was measured for 15 days.
    pub(crate) fn new(kind: Kind, with_alias: bool) -> Self {
        Self::with_sizes(kind, with_alias, &[])
    }

    /// The same, of which invocations at these sizes were measured before, each with the factor of their CPU time.
    pub(crate) fn with_sizes(kind: Kind, with_alias: bool, cpu_factors: &[(u32, u64)]) -> Self {
        let plane = ControlPlane::new(Duration::from_secs(2));
        let kind = Kind { name: NAME, ..kind };
        plane.add(NAME, kind.memory, with_alias);
        let workload = Workload::new(Arc::clone(&plane));
        workload.add_with(kind, cpu_factors);
        let limits = Limits { min_saving_usd_month: 0.0, ..Limits::default() };
        let settings =
            Settings { limits, poll: Duration::ZERO, strategy: Strategy::default(), ..Settings::default() };
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let tuned = Self { runtime, plane, workload, settings, kind };
        tuned.traffic(2_000, GOOD);
        tuned.pass(15 * DAY_US);
        tuned.traffic(600_000, GOOD);
        tuned
    }

    pub(crate) fn pass(&self, us: u64) {
        self.plane.lock().now_us += us;
    }

    /// Measures invocations as they are routed now; `quality` is that of the new size.
    pub(crate) fn traffic(&self, count: u64, quality: Quality) {
        let new = self.change().map(|change| change.to.0);
        self.workload.traffic(NAME, count, new, quality);
    }

    /// A new tuner, as after a restart.
    pub(crate) fn tuner(&self) -> Tuner {
        let plane = Arc::clone(&self.plane);
        let clock = Clock::from_fn(move || plane.lock().now_us);
        let lambda = Arc::clone(&self.plane);
        Tuner::with_telemetry(Arc::clone(&self.workload) as _, lambda as _, self.settings.clone(), clock)
    }

    /// One round of a new tuner.
    pub(crate) fn round(&self) {
        self.round_of(&self.tuner());
    }

    /// One round of this tuner.
    pub(crate) fn round_of(&self, tuner: &Tuner) {
        self.plane.lock().crashed = false;
        // A crash is an error of the round.
        let _ = self.runtime.block_on(tuner.round());
        self.plane.lock().crashed = false;
    }

    /// Runs a tuner for a time.
    pub(crate) fn run_for(&self, time: Duration) {
        let tuner = self.tuner();
        self.runtime.block_on(async { tuner.run(tokio::time::sleep(time)).await });
    }

    /// What a round would do, as text.
    pub(crate) fn plan(&self) -> String {
        self.runtime.block_on(self.tuner().plan()).unwrap().text()
    }

    /// Rounds until an update of the function is in force.
    pub(crate) fn rounds(&self, count: usize) {
        for _ in 0..count {
            self.round();
            self.pass(3_000_000);
        }
    }

    /// Passes time with traffic, round by round, until the change has one of these states.
    pub(crate) fn until(&self, states: &[State], quality: Quality) -> Change {
        for _ in 0..400 {
            self.rounds(4);
            let change = self.change().unwrap_or_else(|| panic!("no change was planned: {}", self.plan()));
            if states.contains(&change.state) {
                return change;
            }
            self.pass(if change.state == State::Soaking { HOUR_US * 6 } else { HOUR_US / 4 });
            self.traffic(6_000, quality);
        }
        panic!("{:?}", self.change());
    }

    pub(crate) fn change(&self) -> Option<Change> {
        self.plane.changes().pop()
    }

    pub(crate) fn state(&self) -> State {
        self.change().unwrap().state
    }

    pub(crate) fn freeze(&self, action: FleetAction) {
        let mut state = self.plane.lock();
        let mut event = fleet::next_event(&state.log, action, "test", state.now_us);
        audit::link(&state.log, &mut event);
        state.log.push(event);
    }

    /// Leaves a request for the tuner.
    pub(crate) fn submit(&self, request: &TunerRequest) {
        let now_us = self.plane.lock().now_us;
        self.runtime.block_on(self.settings.requests.as_ref().unwrap().submit(request, now_us)).unwrap();
    }

    /// The requests that were not executed yet.
    pub(crate) fn requests(&self) -> Vec<(String, TunerRequest)> {
        self.runtime.block_on(self.settings.requests.as_ref().unwrap().pending())
    }

    pub(crate) fn assert_no_violations(&self) {
        let state = self.plane.lock();
        assert!(state.violations.is_empty(), "{:?}", state.violations);
        let verification = audit::verify(&state.log);
        assert!(verification.faults.is_empty(), "{:?}", verification.faults);
    }
}
