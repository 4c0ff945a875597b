//! The rules that decide when a function is changed, and to which size: each with the case for which it was made.

use tailor_collector::changes::{Change, State};
use tailor_collector::report::Evaluation;
use tailor_collector::tuner::guards::{
    self, Evidence, Facts, FleetState, GUARD_RAILS, Health, Proposal, markdown,
};
use tailor_collector::tuner::lambda::{Lambda, Live};
use tailor_collector::tuner::limits::{DAY_US, HOUR_US, Limits};
use tailor_collector::tuner::permission::Permission;
use tailor_collector::tuner::telemetry::Telemetry;
use tailor_sizing::advice::strategy::Strategy;
use tailor_sizing::advice::{Advice, Verdict};
use tailor_sizing::units::Megabytes;
use tokio::runtime::Builder;

use crate::IDLE;
use crate::common::control_plane::key;
use crate::common::fleet::Kind;
use crate::common::tuned::{NAME, Tuned};
use crate::common::workload::GOOD;

/// No refusal.
const NONE: [&str; 0] = [];

/// What the guard-rails read of one function.
struct Case {
    now_us: u64,
    live: Live,
    evaluation: Evaluation,
    evidence: Evidence,
    history: Vec<Change>,
    fleet: FleetState,
    permission: Permission,
    limits: Limits,
}

impl Case {
    /// A function with 2,048 MB, for which a quarter less is permitted.
    fn new() -> Self {
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
            limits.ceiling,
            settings.strategy,
            &settings.policy,
        );
        let now_us = tuned.plane.lock().now_us;
        let (history, fleet) = (Vec::new(), FleetState::default());
        let case = Self { now_us, live, evaluation, evidence, history, fleet, permission, limits };
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
            health: &HEALTHY,
            history: &self.history,
            fleet: &self.fleet,
            permission: &self.permission,
            limits: &self.limits,
        }
    }

    /// The codes of all refusals.
    fn codes(&self) -> Vec<&'static str> {
        let refusals = guards::check(&self.facts()).err().unwrap_or_default();
        refusals.iter().map(|refusal| refusal.code).collect()
    }

    fn proposal(&self) -> Proposal {
        guards::propose(&self.facts()).unwrap()
    }

    /// The code and the sentence with which a size is refused.
    fn refusal(&self) -> (&'static str, String) {
        let refusal = guards::propose(&self.facts()).unwrap_err();
        (refusal.code, refusal.reason)
    }

    fn advice(&mut self) -> &mut Advice {
        self.evaluation.advice.as_mut().unwrap()
    }

    /// The present size.
    fn resize(&mut self, memory_mb: u32) {
        self.evaluation.memory = Megabytes(memory_mb);
        self.live.latest.memory = Megabytes(memory_mb);
    }

    /// The 95th percentile of duration at 2,048 MB is 100 ms, and rises by this share with each 512 MB less.
    fn set_slowdown(&mut self, share: f64) {
        for point in &mut self.advice().curve {
            let steps = (2_048.0 - f64::from(point.memory.0)) / 512.0;
            point.p95.mean_ms = 100.0 * (1.0 + share * steps);
        }
    }
}

#[test]
fn the_cool_down_begins_with_the_promotion_of_a_reduction() {
    let tuned = Tuned::new(IDLE, true);
    let settled = tuned.until(&[State::Settled], GOOD);
    let promoted_us = settled.applied_at_us.unwrap();
    assert!(settled.moved_at_us >= promoted_us + DAY_US, "the soak is a part of the cool-down");
    tuned.traffic(600_000, GOOD);
    let pass_until = |us: u64| {
        let now_us = tuned.plane.lock().now_us;
        tuned.pass(us - now_us);
    };
    pass_until(promoted_us + 7 * DAY_US - HOUR_US);
    tuned.traffic(600_000, GOOD);
    assert!(tuned.plan().contains("cool-down"), "{}", tuned.plan());
    pass_until(promoted_us + 7 * DAY_US + HOUR_US);
    assert!(tuned.plan().contains("1536 MB to 1152 MB"), "{}", tuned.plan());
}

#[test]
fn a_saving_is_judged_at_the_size_to_which_the_changes_lead() {
    let mut case = Case::new();
    let proposal = case.proposal();
    let [one_usd, all_usd] =
        [proposal.saving_usd_month, proposal.saving_at_end_usd_month].map(Option::unwrap);
    assert!(proposal.end < proposal.to && all_usd > 1.5 * one_usd, "{proposal:?}");
    // The first of several changes alone saves too little.
    case.limits.min_saving_usd_month = 1.2 * one_usd;
    assert_eq!(case.codes(), NONE);
    case.limits.min_saving_usd_month = 1.01 * all_usd;
    assert_eq!(case.codes(), ["small-saving"]);
    // Each change must save its part.
    case.limits.min_saving_usd_month = 0.99 * all_usd;
    case.limits.min_saving_of_one_change = 1.1 * one_usd / all_usd;
    assert_eq!(case.codes(), ["small-saving"]);
    // A single change must save all of it.
    case.limits = Limits { min_saving_usd_month: 0.9 * all_usd, max_step_down: 0.95, ..Limits::default() };
    assert_eq!(case.codes(), NONE);
    case.limits.min_saving_usd_month = 1.1 * all_usd;
    assert_eq!(case.codes(), ["small-saving"]);
}

#[test]
fn a_step_is_smaller_where_the_largest_one_is_too_slow() {
    let mut case = Case::new();
    // The largest step is to 1,536 MB and 110 ms. The limit is 105 ms.
    case.set_slowdown(0.10);
    let proposal = case.proposal();
    assert!((Megabytes(1_780)..=Megabytes(1_843)).contains(&proposal.to), "{proposal:?}");
    assert_eq!(proposal.to, proposal.end, "the saving is judged there");
    assert!(proposal.limited_by.unwrap().contains("95th percentile"));
    assert_eq!(case.codes(), NONE);
    // No size that is smaller by 10 % is fast enough.
    case.set_slowdown(0.30);
    assert_eq!(case.codes(), ["slower"]);
    // A target of the owner counts in place of the limit.
    case.permission.p95_slo_ms = Some(116.0);
    assert_eq!(case.codes(), NONE);
    assert!((Megabytes(1_770)..=Megabytes(1_800)).contains(&case.proposal().to), "{:?}", case.proposal());
}

#[test]
fn reductions_together_increase_durations_by_no_more_than_one_may() {
    let mut case = Case::new();
    case.set_slowdown(0.04);
    assert_eq!(case.codes(), NONE);
    let p95_ms = case.evaluation.present.warm_duration_us.quantile(0.95).unwrap() / 1_000.0;
    let mut earlier = Tuned::new(IDLE, true).until(&[State::Settled], GOOD);
    earlier.intent.before.p95_ms = p95_ms / 1.04;
    let mut codes_after = |state: State, days: u64| {
        let at_us = case.now_us - days * DAY_US;
        let times = Change {
            planned_at_us: at_us,
            applied_at_us: Some(at_us),
            moved_at_us: at_us,
            ..earlier.clone()
        };
        case.history = vec![Change { state, ..times }];
        case.codes()
    };
    // Without the sum, each of ten changes in 90 days could increase it by 5 %.
    assert_eq!(codes_after(State::Settled, 30), ["slower"]);
    assert_eq!(codes_after(State::ExternalChange, 30), ["slower"], "a deployment kept the size");
    assert_eq!(codes_after(State::RolledBack, 30), NONE);
    assert_eq!(codes_after(State::Settled, 91), NONE);
    // What made the function faster since then is no reason to make it slower by more than one change may.
    case.history[0] = Change { planned_at_us: case.now_us - 30 * DAY_US, ..earlier };
    case.history[0].intent.before.p95_ms = 2.0 * p95_ms;
    case.set_slowdown(0.10);
    assert!(case.proposal().to >= Megabytes(1_780), "{:?}", case.proposal());
}

#[test]
fn a_size_below_the_floor_of_the_tuner_is_raised_to_it_or_refused_with_the_reason() {
    let mut case = Case::new();
    case.set_slowdown(0.0);
    // The advice has a margin of 15 %, the tuner one of 25 %.
    let advice = case.advice();
    advice.memory = Megabytes(240);
    advice.floor.memory = Megabytes(240);
    (advice.floor.peak_mb, advice.floor.environment_peak_mb) = (208.0, 208.0);
    case.resize(256);
    let floor = "240 MB is advised; the highest memory use is 208 MB, and 25 % above it is 260 MB";
    assert_eq!(case.refusal(), ("memory-floor", format!("{floor}: 256 MB stays")));
    case.resize(320);
    let proposal = case.proposal();
    assert_eq!((proposal.to, proposal.uncapped), (Megabytes(260), Megabytes(240)));
    assert_eq!(proposal.limited_by.as_deref(), Some(floor));
    // The limits of the owner.
    case.permission.min_memory = Megabytes(400);
    let reason = "240 MB is advised; the smallest permitted size is 400 MB: 320 MB stays";
    assert_eq!(case.refusal(), ("out-of-bounds", reason.to_owned()));
    case.permission.min_memory = Megabytes::MIN;
    case.permission.max_memory = Megabytes(512);
    case.resize(2_048);
    assert_eq!(
        case.refusal().0,
        "out-of-bounds",
        "one change would set a size above the largest permitted one"
    );
    // An increase that does not reach the floor in one change is still made.
    let advice = case.advice();
    (advice.memory, advice.floor.memory) = (Megabytes(700), Megabytes(700));
    advice.verdict = Verdict::RaiseForMemory;
    case.permission.max_memory = Megabytes(3_008);
    case.resize(256);
    assert_eq!(case.proposal().to, Megabytes(512));
}

#[test]
fn the_cost_of_open_changes_is_limited_and_every_function_gets_its_turn() {
    let mut case = Case::new();
    let mut codes = |share: f64, fleet: &FleetState| {
        case.fleet = FleetState { spend_usd: case.evidence.cost_usd / share, ..fleet.clone() };
        case.codes()
    };
    let others = FleetState { open: 3, open_spend: 0.04, ..FleetState::default() };
    assert_eq!(codes(0.005, &others), NONE);
    assert_eq!(codes(0.02, &others), ["open-spend"]);
    assert_eq!(codes(0.20, &others), NONE, "it would wait for a time without open changes");
    let large = FleetState { is_large_open: true, ..others.clone() };
    assert_eq!(codes(0.005, &large), NONE);
    assert_eq!(codes(0.20, &large), ["open-spend"], "one at a time");
    let waiting = FleetState { waiting: Some("orders".to_owned()), ..others };
    assert_eq!(codes(0.005, &waiting), ["open-spend"], "larger savings come first");
    assert_eq!(codes(0.20, &waiting), NONE);
}

/// A function beside that of a [`Tuned`], with two times `count` invocations of `$LATEST` in 15 days.
fn add_other(tuned: &Tuned, name: &'static str, count: u64) {
    let kind = Kind { name, ..IDLE };
    tuned.plane.add(name, kind.memory, false);
    tuned.workload.add(kind, &["$LATEST"]);
    for back_us in [15 * DAY_US, 0] {
        tuned.plane.lock().now_us -= back_us;
        tuned.workload.invoke(name, "$LATEST", kind.memory, count, GOOD);
        tuned.pass(back_us);
    }
}

/// The functions with an open change.
fn open(tuned: &Tuned) -> Vec<String> {
    let changes = tuned.plane.changes().into_iter().filter(|change| change.state.is_open());
    let mut names: Vec<String> = changes.map(|change| change.function.name).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_function_with_most_of_the_cost_is_changed_beside_others() {
    let tuned = Tuned::new(IDLE, true);
    add_other(&tuned, "small", 4_000);
    tuned.plane.tag(NAME, "observe");
    tuned.rounds(2);
    assert_eq!(open(&tuned), ["small"]);
    tuned.plane.tag(NAME, "apply");
    tuned.rounds(2);
    assert_eq!(open(&tuned), [NAME, "small"], "{}", tuned.plan());
    tuned.assert_no_violations();
}

#[test]
fn smaller_savings_wait_for_a_function_that_waits_for_the_cost_of_open_changes() {
    let mut tuned = Tuned::new(IDLE, true);
    tuned.settings.limits.evidence_environments = 1;
    tuned.plane.tag(NAME, "observe");
    // 4.4, 1.2 and 0.3 % of the cost.
    for (name, count) in [("a-medium", 14_000), ("b-small", 4_000), ("c-tiny", 1_000)] {
        add_other(&tuned, name, count);
        tuned.plane.tag(name, if name == "b-small" { "apply" } else { "observe" });
    }
    tuned.rounds(2);
    assert_eq!(open(&tuned), ["b-small"]);
    for name in ["a-medium", "c-tiny"] {
        tuned.plane.tag(name, "apply");
    }
    tuned.rounds(2);
    assert_eq!(open(&tuned), ["b-small"], "{}", tuned.plan());
    assert!(tuned.plan().contains("`a-medium` saves more and waits"), "{}", tuned.plan());
    tuned.pass(DAY_US);
    tuned.workload.traffic("b-small", 8_000, None, GOOD);
    tuned.rounds(3);
    assert_eq!(open(&tuned), ["a-medium", "c-tiny"], "{}", tuned.plan());
    tuned.assert_no_violations();
}

#[test]
fn the_document_of_guard_rails_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guard-rails.md");
    let text = std::fs::read_to_string(path).unwrap();
    let table = markdown(&Limits::default());
    if !text.contains(&table) && std::env::var_os("TAILOR_UPDATE").is_some() {
        let (start, rest) = text.split_once("| code |").unwrap();
        let end = rest.split_once("\n\n").map_or("", |(_, end)| end);
        std::fs::write(path, format!("{start}{table}\n{end}")).unwrap();
        return;
    }
    assert!(text.contains(&table), "run this test with TAILOR_UPDATE=1");
    let mut codes: Vec<&str> = GUARD_RAILS.iter().map(|rail| rail.code).collect();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), GUARD_RAILS.len());
}
