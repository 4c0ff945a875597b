//! Advice on plain workloads: what each of them must be told.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::unwrap_used,
    reason = "small numbers, and a test"
)]

use proptest::prelude::*;
use proptest::strategy::Strategy as _;
use tailor_sizing::advice::{Advice, ConfidenceLevel, FunctionEvidence, Verdict, advise};
use tailor_sizing::choice::Strategy;
use tailor_sizing::hints::HintCode;
use tailor_sizing::invocation::{Invocation, Outcome, Work};
use tailor_sizing::money::PicoDollars;
use tailor_sizing::prices::PriceTable;
use tailor_sizing::rollup::Rollup;
use tailor_sizing::units::{Architecture, Megabytes};

/// One thread's invocation at `memory` with so much CPU time, waiting and peak memory.
fn invocation(memory: u32, busy_us: u64, idle_us: u64, peak_mb: u64) -> Invocation {
    let share = Megabytes(memory).share().min(1.0);
    let starved_us = (busy_us as f64 * (1.0 / share - 1.0)) as u64;
    let duration_us = busy_us + idle_us + starved_us;
    Invocation {
        outcome: Outcome::Success,
        duration_us,
        billed_ms: duration_us.div_ceil(1_000),
        peak_kib: peak_mb * 1_024,
        work: Some(Work {
            user_us: busy_us,
            starved_us,
            idle_us,
            top_busy_us: busy_us,
            top_starved_us: starved_us,
            effective_threads_milli: 1_000,
            voluntary_switches: 3,
            ..Work::default()
        }),
        ..Invocation::default()
    }
}

/// Thirty invocations that vary by some percent, as a demo makes.
fn rollup(memory: u32, busy_us: u64, idle_us: u64, peak_mb: u64) -> Rollup {
    let mut rollup = Rollup::default();
    for i in 0..30 {
        let vary = |us: u64| us * (96 + i * 7 % 9) / 100;
        rollup.record(&invocation(memory, vary(busy_us), vary(idle_us), peak_mb));
    }
    rollup
}

fn advice_with(memory: u32, rollup: Rollup, strategy: Strategy) -> Advice {
    let sizes = [(Megabytes(memory), rollup)];
    let evidence = FunctionEvidence {
        region: "us-east-1",
        architecture: Architecture::X86_64,
        memory: Megabytes(memory),
        ephemeral_mb: 512,
        timeout_ms: Some(10_000),
        environments: 1,
        sizes: &sizes,
    };
    advise(&evidence, &PriceTable::embedded(), strategy).unwrap()
}

fn advice(memory: u32, busy_us: u64, idle_us: u64, peak_mb: u64) -> Advice {
    advice_with(memory, rollup(memory, busy_us, idle_us, peak_mb), Strategy::default())
}

fn has(advice: &Advice, code: HintCode) -> bool {
    advice.hints.iter().any(|hint| hint.code == code)
}

#[test]
fn memory_hungry_is_told_to_keep_or_raise() {
    let advice = advice(512, 30_000, 20_000, 470);
    assert!(advice.memory > Megabytes(512), "{:?}", advice.verdict);
    assert_eq!(advice.verdict, Verdict::RaiseForMemory);
    assert!(has(&advice, HintCode::MemoryUnderprovisioned));
}

#[test]
fn cpu_bound_at_a_small_size_is_told_it_starves() {
    let advice = advice(256, 150_000, 1_000, 60);
    assert!(has(&advice, HintCode::CpuStarved), "{:?}", advice.hints);
    assert!(advice.memory >= Megabytes(1_024), "{}", advice.memory);
    assert!(advice.duration_change_percent < -60.0);
    assert!(advice.cost_change_percent.abs() < 15.0);
}

#[test]
fn io_bound_with_much_memory_is_told_to_go_down() {
    let advice = advice(1_536, 3_000, 250_000, 90);
    assert!(advice.memory < Megabytes(512) && advice.memory >= advice.floor.memory, "{}", advice.memory);
    assert!(has(&advice, HintCode::IdleDominated) && has(&advice, HintCode::MemoryOverprovisioned));
    assert!(!has(&advice, HintCode::CpuStarved));
    assert!(advice.saving.per_million > PicoDollars::ZERO);
    assert!(advice.cost_change_percent < -50.0);
}

#[test]
fn few_invocations_still_give_advice_and_say_how_little_that_is() {
    let advice = advice(256, 150_000, 1_000, 60);
    assert_eq!(advice.confidence.level, ConfidenceLevel::Low);
    assert_eq!(advice.confidence.invocations, 30);
    assert_eq!(advice.saving.per_month, None, "thirty invocations at one moment say nothing of a month");
}

#[test]
fn cost_does_not_slow_a_function_down_for_no_money() {
    // A pure CPU burner costs the same at every size up to one vCPU.
    let cost = advice_with(1_769, rollup(1_769, 400_000, 0, 60), Strategy::Cost);
    assert!(cost.duration_change_percent < 30.0, "{cost:?}");
}

#[test]
fn advice_reads_as_json() {
    let json = serde_json::to_value(advice(256, 150_000, 1_000, 60)).unwrap();
    assert_eq!(json["verdict"], "change");
    assert_eq!(json["hints"][0]["code"], "cpu-starved");
    assert!(json["memory_mb"].as_u64().unwrap() > 256);
    assert!(json["curve"][0]["mean"]["interval_80"][0].as_f64().unwrap() > 0.0);
}

proptest! {
    #[test]
    fn no_evidence_panics_and_advice_stays_above_the_floor(
        memory in 0u32..40_000,
        second in 0u32..40_000,
        numbers in prop::collection::vec(prop_oneof![Just(0u64), Just(u64::MAX), 0u64..1 << 40], 30),
        counts in (0u64..3, 0u64..40),
        strategy in prop_oneof![
            Just(Strategy::Cost),
            Just(Strategy::Speed),
            any::<f64>().prop_map(|weight| Strategy::Balanced { weight }),
            (any::<f64>(), any::<f64>()).prop_map(|(quantile, target_ms)| Strategy::Slo { quantile, target_ms }),
        ],
    ) {
        let mut rollups = [Rollup::default(), Rollup::default()];
        for (rollup, count) in rollups.iter_mut().zip([counts.0, counts.1]) {
            for i in 0..count {
                let at = |k: usize| numbers[(k + i as usize) % numbers.len()];
                rollup.record(&Invocation {
                    outcome: if at(3) % 3 == 0 { Outcome::OutOfMemory } else { Outcome::Success },
                    cold_start: at(4) % 2 == 1,
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
            sizes: &sizes,
        };
        if let Ok(advice) = advise(&evidence, &PriceTable::embedded(), strategy) {
            prop_assert!(advice.memory == evidence.memory || advice.memory >= advice.floor.memory);
            prop_assert!(serde_json::to_string(&advice).is_ok());
        }
    }
}
