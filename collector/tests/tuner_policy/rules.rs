//! The rules that decide when a function is changed, and to which size: each with the case for which it was made.

use tailor_collector::changes::{Change, State};
use tailor_collector::clock::{DAY_US, HOUR_US};
use tailor_collector::tuner::guards::{GUARD_RAILS, markdown};
use tailor_collector::tuner::limits::Limits;
use tailor_sizing::advice::Verdict;
use tailor_sizing::units::Megabytes;

use super::case::{Case, NONE};
use crate::IDLE;
use crate::common::tuned::Tuned;
use crate::common::workload::GOOD;

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
fn a_week_of_much_traffic_suffices_and_leaves_more_memory() {
    let mut case = Case::new();
    case.set_slowdown(0.0);
    let much = |least: u64| 5 * least;
    let measured = |case: &mut Case, days: u64, [warm, environments]: [u64; 2]| {
        case.evidence.first_at_us = case.now_us - days * DAY_US - HOUR_US;
        (case.evidence.warm, case.evidence.environments) = (warm, environments);
        case.codes()
    };
    assert_eq!(measured(&mut case, 7, [much(1_000), much(20)]), NONE);
    assert_eq!(measured(&mut case, 6, [much(1_000), much(20)]), ["short-time"]);
    assert_eq!(measured(&mut case, 7, [much(1_000) - 1, much(20)]), ["short-time"]);
    assert_eq!(measured(&mut case, 7, [much(1_000), much(20) - 1]), ["short-time"]);
    assert_eq!(measured(&mut case, 14, [1_000, 20]), NONE);
    // Memory use that grows is seen less in a week than in two.
    let advice = case.advice();
    advice.memory = Megabytes(1_800);
    (advice.floor.peak_mb, advice.floor.environment_peak_mb) = (1_500.0, 1_500.0);
    assert_eq!(case.proposal().floor, Megabytes(1_875), "25 % more");
    assert_eq!(measured(&mut case, 7, [much(1_000), much(20)]), ["memory-floor"]);
    assert!(case.refusal().1.contains("40 % above it is 2100 MB"), "{:?}", case.refusal());
    // After a change that was kept, the size before it was measured as well.
    case.history = vec![case.past(&Tuned::new(IDLE, true).until(&[State::Settled], GOOD), 8.0)];
    assert_eq!(case.proposal().floor, Megabytes(1_875));
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
