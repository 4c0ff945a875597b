//! Advice on simple workloads: the expected recommendation of each.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::unwrap_used,
    reason = "small numbers, and a test"
)]

mod common;

use common::{advice_of, evidence, rollup};
use proptest::prelude::*;
use proptest::strategy::Strategy as _;
use tailor_sizing::advice::explain::explain;
use tailor_sizing::advice::hints::HintCode;
use tailor_sizing::advice::strategy::Strategy;
use tailor_sizing::advice::{Advice, ConfidenceLevel, FunctionEvidence, Verdict, advise, trial_measurement};
use tailor_sizing::model::enforcement::Enforcement;
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::pricing::prices::PriceTable;
use tailor_sizing::telemetry::invocation::{Initialization, Invocation, Outcome, Work};
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::{Architecture, Megabytes};

fn advice_with(memory: u32, rollup: Rollup, strategy: Strategy) -> Advice {
    advice_of(&evidence(&[(Megabytes(memory), rollup)]), strategy)
}

fn advice(memory: u32, busy_us: u64, idle_us: u64, peak_mb: u64) -> Advice {
    advice_with(memory, rollup(memory, busy_us, idle_us, peak_mb), Strategy::default())
}

fn has(advice: &Advice, code: HintCode) -> bool {
    advice.hints.iter().any(|hint| hint.code == code)
}

#[test]
fn a_peak_near_the_memory_size_raises_the_size() {
    let advice = advice(512, 30_000, 20_000, 470);
    assert!(advice.memory > Megabytes(512), "{:?}", advice.verdict);
    assert_eq!(advice.verdict, Verdict::RaiseForMemory);
    assert!(has(&advice, HintCode::MemoryUnderprovisioned));
}

#[test]
fn cpu_bound_at_a_small_size_gets_the_cpu_starved_hint() {
    let advice = advice(256, 150_000, 1_000, 60);
    assert!(has(&advice, HintCode::CpuStarved), "{:?}", advice.hints);
    assert!(advice.memory >= Megabytes(1_024), "{}", advice.memory);
    assert!(advice.duration_change_percent < -60.0);
    assert!(advice.cost_change_percent.abs() < 20.0, "{} % at {}", advice.cost_change_percent, advice.memory);
}

#[test]
fn an_io_bound_function_with_much_memory_gets_a_smaller_size() {
    let advice = advice(1_536, 3_000, 250_000, 90);
    assert!(advice.memory < Megabytes(512) && advice.memory >= advice.floor.memory, "{}", advice.memory);
    assert!(has(&advice, HintCode::IdleDominated) && has(&advice, HintCode::MemoryOverprovisioned));
    assert!(!has(&advice, HintCode::CpuStarved));
    assert!(advice.saving.per_million > PicoDollars::ZERO);
    assert!(advice.cost_change_percent < -50.0);
}

#[test]
fn unaccounted_cpu_time_prevents_a_smaller_size() {
    let mut rollup = rollup(1_536, 3_000, 250_000, 90);
    rollup.warm.work.unaccounted_us = rollup.warm.invocations * 100_000;
    let advice = advice_with(1_536, rollup, Strategy::default());
    assert_eq!((advice.verdict, advice.memory), (Verdict::CpuUnaccounted, Megabytes(1_536)));
    assert!(advice.reasons[0].contains("97 % of the environment's CPU time"), "{:?}", advice.reasons);
    assert!(!has(&advice, HintCode::MemoryOverprovisioned));
}

#[test]
fn few_invocations_give_advice_of_low_confidence() {
    let advice = advice(256, 150_000, 1_000, 60);
    assert_eq!(advice.confidence.level, ConfidenceLevel::Low);
    assert_eq!(advice.confidence.invocations, 30);
    assert_eq!(
        advice.saving.per_month, None,
        "thirty invocations at one moment are not extrapolated to a month"
    );
}

#[test]
fn the_cost_strategy_does_not_accept_a_slower_size_without_a_saving() {
    // A function that only computes costs the same at every size up to one vCPU.
    let cost = advice_with(1_769, rollup(1_769, 400_000, 0, 60), Strategy::Cost { tolerance: 0.01 });
    assert!(cost.duration_change_percent < 30.0, "{cost:?}");
}

#[test]
fn advice_serializes_to_json() {
    let json = serde_json::to_value(advice(256, 150_000, 1_000, 60)).unwrap();
    assert_eq!(json["verdict"], "change");
    assert_eq!(json["hints"][0]["code"], "cpu-starved");
    assert!(json["memory_mb"].as_u64().unwrap() > 256);
    assert!(json["curve"][0]["mean"]["interval_80"][0].as_f64().unwrap() > 0.0);
}

#[test]
fn savings_per_month_follow_the_observed_rate() {
    let mut slow = rollup(1_536, 3_000, 250_000, 90);
    slow.first_at_us = 1_000_000;
    slow.last_at_us = slow.first_at_us + 2 * 3_600_000_000;
    let advice = advice_with(1_536, slow, Strategy::default());
    // Thirty invocations in two hours are 10,950 in a month of 730 hours.
    let month = advice.saving.per_month.unwrap().to_dollars();
    let expected = advice.saving.per_million.to_dollars() * 10_950.0 / 1e6;
    assert!((month / expected - 1.0).abs() < 1e-6, "{month} against {expected}");
    let [low, high] = advice.saving.per_month_interval_80.unwrap();
    assert!(low <= advice.saving.per_month.unwrap() && advice.saving.per_month.unwrap() <= high);
}

#[test]
fn a_latency_target_selects_the_cheapest_size_that_meets_it() {
    let slo = Strategy::Slo { quantile: 0.95, target_ms: 400.0, cold_starts: false };
    let advice = advice_with(256, rollup(256, 150_000, 1_000, 60), slo);
    let met = advice.curve.iter().find(|point| point.memory == advice.memory).unwrap();
    assert!(
        met.p95.mean_ms <= 401.0 && met.p95.mean_ms > 200.0,
        "{} ms at {}",
        met.p95.mean_ms,
        advice.memory
    );
    assert!(advice.reasons[0].contains("keep p95 within 400 ms"), "{:?}", advice.reasons);
}

#[test]
fn an_unreachable_latency_target_is_reported_without_an_excessive_size() {
    let slo = Strategy::Slo { quantile: 0.999, target_ms: 1.0, cold_starts: false };
    let advice = advice_with(256, rollup(256, 150_000, 1_000, 60), slo);
    assert!(
        advice.reasons[0].starts_with("no size is predicted to keep p99.9 within 1 ms"),
        "{:?}",
        advice.reasons
    );
    assert!((1_700..=3_600).contains(&advice.memory.0), "{}", advice.memory);
}

#[test]
fn a_second_measured_size_overrides_the_simulation() {
    // The measurements at 512 MB indicate a CPU-bound function, but those at 1,024 MB are not faster.
    let cpu_bound = rollup(512, 50_000, 0, 60);
    let mut same = Rollup::default();
    for i in 0..30u64 {
        same.record(&Invocation { work: None, ..common::invocation(512, 49_000 + i * 70, 0, 60) });
    }
    let sizes = [(Megabytes(512), cpu_bound), (Megabytes(1_024), same)];
    let (alone, both) =
        (advice_of(&evidence(&sizes[..1]), Strategy::Speed), advice_of(&evidence(&sizes), Strategy::Speed));
    let at = |advice: &Advice| advice.curve.iter().find(|p| p.memory.0 == 1_024).unwrap().mean.mean_ms;
    assert!(at(&both) > 1.3 * at(&alone), "{} against {}", at(&both), at(&alone));
}

#[test]
fn explanation_splits_the_bill_and_compares_arm64() {
    let mut cold = rollup(2_048, 20_000, 30_000, 90);
    cold.cold_starts = 3;
    cold.init_us = 900_000;
    cold.billed_ms += 900;
    let sizes = [(Megabytes(2_048), cold)];
    let explanation = explain(&evidence(&sizes), &PriceTable::embedded(), Strategy::default()).unwrap();
    let rates = PriceTable::embedded().rates("us-east-1", Architecture::X86_64).unwrap();
    let rollup = &sizes[0].1;
    assert_eq!(explanation.bill.total(), rates.cost(Megabytes(2_048), rollup.billed_ms, 30, 512));
    assert_eq!(explanation.bill.init, rates.cost(Megabytes(2_048), 900, 0, 512));
    assert_eq!(explanation.bill.requests, PicoDollars(30 * 200_000));
    let arm64 = explanation.other_architecture.unwrap();
    assert_eq!(arm64.architecture, Architecture::Arm64);
    assert!((-20.0..-15.0).contains(&arm64.cost_change_percent), "{arm64:?}");
    assert!(arm64.best_cost_change_percent < arm64.cost_change_percent);
    let measured = explanation.measured[0];
    assert!((measured.idle_ms.unwrap() / 30.0 - 1.0).abs() < 0.1, "{measured:?}");
    assert!(serde_json::to_value(&explanation).unwrap()["measured"][0]["memory_mb"] == 2_048);
}

#[test]
fn the_default_accepts_a_bounded_cost_for_speed() {
    for memory in [128, 256, 1_024, 3_008] {
        for (busy_us, idle_us) in [(100_000, 0), (40_000, 60_000), (2_000, 200_000), (5_000, 0)] {
            let advice = advice(memory, busy_us, idle_us, 40);
            let cheapest =
                advice.curve.iter().map(|point| point.cost_per_million.0).min().unwrap_or_default();
            let chosen = advice.curve.iter().find(|point| point.memory == advice.memory).unwrap();
            if advice.verdict == Verdict::Change {
                // The choice is by expected cost, which uncertainty raises; the curve shows the median.
                let excess = chosen.cost_per_million.0 as f64 / cheapest as f64;
                assert!(excess < 1.2 && advice.cost_change_percent <= 3.1, "{memory} MB: {advice:?}");
            }
        }
    }
    let advice = advice(1_536, 3_000, 250_000, 90);
    assert!(advice.trade.contains("within 3 % of the cheapest"), "{}", advice.trade);
}

#[test]
fn telemetry_of_128_mb_alone_gives_one_bounded_step_up() {
    let small = rollup(128, 60_000, 1_000, 40);
    let strategies = [Strategy::default(), Strategy::Balanced { weight: 0.5 }, Strategy::Speed];
    for strategy in strategies {
        let advice = advice_with(128, small.clone(), strategy);
        assert!((129..=512).contains(&advice.memory.0), "{strategy:?}: {}", advice.memory);
    }
    // With a second size the way is known.
    let sizes = [(Megabytes(128), small), (Megabytes(1_024), rollup(1_024, 60_000, 1_000, 40))];
    let advice = advice_of(&evidence(&sizes), Strategy::Speed);
    assert!(advice.memory > Megabytes(512), "{}", advice.memory);
}

#[test]
fn a_very_short_function_is_not_moved_to_a_size_at_which_it_waits() {
    for strategy in [Strategy::default(), Strategy::Balanced { weight: 0.75 }] {
        let advice = advice_with(1_769, rollup(1_769, 700, 600, 40), strategy);
        assert!(advice.memory >= Megabytes(256), "{strategy:?}: {}", advice.memory);
    }
}

#[test]
fn a_latency_target_counts_cold_starts_when_requested() {
    let mut cold = rollup(1_024, 30_000, 5_000, 60);
    for _ in 0..3 {
        cold.record(&Invocation {
            initialization: Initialization::OnDemand,
            init_us: 400_000,
            ..common::invocation(1_024, 60_000, 5_000, 60)
        });
    }
    let slo = |cold_starts| Strategy::Slo { quantile: 0.95, target_ms: 300.0, cold_starts };
    let warm = advice_with(1_024, cold.clone(), slo(false));
    assert!(!warm.reasons[0].starts_with("no size"), "{:?}", warm.reasons);
    // A tenth of the invocations take at least the 400 ms of their Init.
    let all = advice_with(1_024, cold, slo(true));
    assert!(all.verdict != Verdict::Change || all.reasons[0].starts_with("no size"), "{:?}", all.reasons);
    assert!(all.memory >= warm.memory, "{} and {}", all.memory, warm.memory);
}

#[test]
fn a_trial_measurement_is_advised_while_it_may_change_the_choice() {
    let sizes = [
        (Megabytes(128), rollup(128, 60_000, 10_000, 40)),
        (Megabytes(2_048), rollup(2_048, 60_000, 10_000, 40)),
    ];
    let prices = PriceTable::embedded();
    let strategy = Strategy::Speed;
    let trial = trial_measurement(&evidence(&sizes[..1]), &prices, strategy).unwrap();
    let trial = trial.expect("the choice is uncertain");
    assert_eq!((trial.memory, trial.invocations), (Megabytes(2_048), 30));
    assert!(trial.cost > PicoDollars::ZERO && trial.expected_gain_percent >= 3.0, "{trial:?}");
    assert_eq!(advice_of(&evidence(&sizes[..1]), strategy).trial, Some(trial));
    assert_eq!(
        trial_measurement(&evidence(&sizes), &prices, strategy).unwrap(),
        None,
        "both ends were measured"
    );
}

proptest! {
    #[test]
    fn no_evidence_panics_and_advice_stays_above_the_floor(
        memory in 0u32..40_000,
        second in 0u32..40_000,
        numbers in prop::collection::vec(prop_oneof![Just(0u64), Just(u64::MAX), 0u64..1 << 40], 30),
        counts in (0u64..3, 0u64..40),
        strategy in prop_oneof![
            Just(Strategy::default()),
            Just(Strategy::Speed),
            any::<f64>().prop_map(|weight| Strategy::Balanced { weight }),
            (any::<f64>(), any::<f64>(), any::<bool>())
                .prop_map(|(quantile, target_ms, cold_starts)| Strategy::Slo { quantile, target_ms, cold_starts }),
        ],
    ) {
        let mut rollups = [Rollup::default(), Rollup::default()];
        for (rollup, count) in rollups.iter_mut().zip([counts.0, counts.1]) {
            for i in 0..count {
                let at = |k: usize| numbers[(k + i as usize) % numbers.len()];
                rollup.record(&Invocation {
                    outcome: if at(3) % 3 == 0 { Outcome::OutOfMemory } else { Outcome::Success },
                    initialization: if at(4) % 2 == 1 { Initialization::OnDemand } else { Initialization::Warm },
                    duration_us: at(5),
                    billed_ms: at(6),
                    init_us: at(7),
                    peak_kib: at(8),
                    max_memory_used_mb: at(9) as u32,
                    started_at_us: at(10),
                    work: (at(11) % 4 != 0).then(|| Work::from_counters((12..29).map(at))),
                    ..Invocation::default()
                });
            }
        }
        let [a, b] = rollups;
        let sizes = [(Megabytes(memory), a), (Megabytes(second), b)];
        let evidence = FunctionEvidence {
            region: "eu-west-1",
            architecture: Architecture::Arm64,
            memory: Megabytes(memory),
            ephemeral_mb: numbers[0] as u32,
            timeout_ms: Some(numbers[1]),
            environments: numbers[2],
            enforcement: Enforcement::of(sizes.iter().map(|(memory, rollup)| (*memory, rollup))),
            sizes: &sizes,
        };
        if let Ok(advice) = advise(&evidence, &PriceTable::embedded(), strategy) {
            prop_assert!(advice.memory == evidence.memory || advice.memory >= advice.floor.memory);
            prop_assert!(serde_json::to_string(&advice).is_ok());
        }
    }
}
