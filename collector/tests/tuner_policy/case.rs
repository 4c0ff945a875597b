//! What the guard-rails read of one function, for tests of single rules.

use tailor_collector::changes::Change;
use tailor_collector::clock::DAY_US;
use tailor_collector::report::Evaluation;
use tailor_collector::tuner::guards::{self, Evidence, Facts, FleetState, Health, Proposal, Served};
use tailor_collector::tuner::lambda::{Lambda, Live};
use tailor_collector::tuner::limits::Limits;
use tailor_collector::tuner::permission::Permission;
use tailor_collector::tuner::telemetry::Telemetry;
use tailor_sizing::advice::strategy::Strategy;
use tailor_sizing::advice::{Advice, Verdict};
use tailor_sizing::units::Megabytes;
use tokio::runtime::Builder;

use crate::IDLE;
use crate::common::control_plane::key;
use crate::common::tuned::{NAME, Tuned};

/// No refusal.
pub(super) const NONE: [&str; 0] = [];

/// What the guard-rails read of one function.
pub(super) struct Case {
    pub(super) now_us: u64,
    pub(super) live: Live,
    pub(super) evaluation: Evaluation,
    pub(super) evidence: Evidence,
    pub(super) served: Served,
    pub(super) recent_kills: u64,
    pub(super) history: Vec<Change>,
    pub(super) fleet: FleetState,
    pub(super) permission: Permission,
    pub(super) limits: Limits,
}

impl Case {
    /// A function with 2,048 MB, for which a quarter less is permitted.
    pub(super) fn new() -> Self {
        let tuned = Tuned::new(IDLE, true);
        let (key, settings) = (key(NAME), &tuned.settings);
        let runtime = Builder::new_current_thread().build().unwrap();
        let (live, evaluations) = runtime.block_on(async {
            let evaluations = tuned.workload.evaluations(Some(&key), Strategy::default()).await;
            (tuned.plane.read(&key).await.unwrap(), evaluations.unwrap())
        });
        let evaluation = evaluations.into_iter().next().unwrap();
        let rates = tuned.workload.rates(&key, evaluation.architecture);
        let evidence =
            Evidence::of(&evaluation.present, evaluation.memory, evaluation.architecture, rates.as_ref());
        let limits = settings.limits.clone();
        let permission = Permission::of(
            NAME,
            &live.tags,
            settings.mode,
            limits.max_memory,
            settings.strategy,
            &settings.policy,
        );
        let now_us = tuned.plane.lock().now_us;
        let (history, fleet) = (Vec::new(), FleetState::default());
        let served = Served::of(&evaluation.present);
        let case = Self {
            now_us,
            live,
            evaluation,
            evidence,
            served,
            recent_kills: 0,
            history,
            fleet,
            permission,
            limits,
        };
        assert_eq!(case.codes(), NONE);
        assert_eq!(case.proposal().to, Megabytes(1_536));
        case
    }

    fn facts(&self) -> Facts<'_> {
        const HEALTHY: Health = Health { delay_us: 0, lost: 0.0, price_age_days: Some(0) };
        Facts {
            now_us: self.now_us,
            live: &self.live,
            evaluation: &self.evaluation,
            evidence: &self.evidence,
            served: &self.served,
            recent_kills: self.recent_kills,
            health: &HEALTHY,
            history: &self.history,
            fleet: &self.fleet,
            permission: &self.permission,
            limits: &self.limits,
        }
    }

    /// The codes of all refusals.
    pub(super) fn codes(&self) -> Vec<&'static str> {
        let refusals = guards::check(&self.facts()).err().unwrap_or_default();
        refusals.iter().map(|refusal| refusal.code).collect()
    }

    pub(super) fn proposal(&self) -> Proposal {
        guards::propose(&self.facts()).unwrap()
    }

    /// The code and the sentence with which a size is refused.
    pub(super) fn refusal(&self) -> (&'static str, String) {
        let refusal = guards::propose(&self.facts()).unwrap_err();
        (refusal.code, refusal.reason)
    }

    pub(super) fn advice(&mut self) -> &mut Advice {
        self.evaluation.advice.as_mut().unwrap()
    }

    /// The present size.
    pub(super) fn resize(&mut self, memory_mb: u32) {
        self.evaluation.memory = Megabytes(memory_mb);
        self.live.latest.memory = Megabytes(memory_mb);
        self.live.versions.values_mut().for_each(|version| version.memory = Megabytes(memory_mb));
    }

    /// The function has 512 MB, and the advice is this larger size, because of its memory use.
    pub(super) fn needs_memory(&mut self, advised_mb: u32) {
        let advice = self.advice();
        (advice.memory, advice.floor.memory) = (Megabytes(advised_mb), Megabytes(advised_mb));
        advice.verdict = Verdict::RaiseForMemory;
        self.resize(512);
        assert_eq!(self.codes(), NONE);
        assert_eq!(self.proposal().to, Megabytes(advised_mb));
    }

    /// A change like this one that began and ended so many days ago.
    pub(super) fn past(&self, change: &Change, days: f64) -> Change {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some days")]
        let at_us = self.now_us - (days * DAY_US as f64) as u64;
        let change = change.clone();
        Change { planned_at_us: at_us, applied_at_us: Some(at_us), moved_at_us: at_us, ..change }
    }

    /// The 95th percentile of duration at 2,048 MB is 100 ms, and rises by this share with each 512 MB less.
    pub(super) fn set_slowdown(&mut self, share: f64) {
        for point in &mut self.advice().curve {
            let steps = (2_048.0 - f64::from(point.memory.0)) / 512.0;
            point.p95.mean_ms = 100.0 * (1.0 + share * steps);
        }
    }
}
