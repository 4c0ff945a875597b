//! Each hint is present for a workload that needs it, and absent for one that does not.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::unwrap_used,
    reason = "small numbers, and a test"
)]

mod common;

use common::{advice_of, evidence, invocation, rollup, rollup_of};
use proptest::prelude::*;
use proptest::strategy::Strategy as _;
use tailor_sizing::advice::FunctionEvidence;
use tailor_sizing::advice::hints::{Hint, HintCode};
use tailor_sizing::advice::strategy::Strategy;
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::telemetry::invocation::{Initialization, Invocation, Outcome, Work};
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::{Architecture, Megabytes};

fn hints(evidence: &FunctionEvidence<'_>) -> Vec<Hint> {
    advice_of(evidence, Strategy::default()).hints
}

/// The hint of `code` at the first of `sizes`.
fn hint(sizes: &[(Megabytes, Rollup)], code: HintCode) -> Option<Hint> {
    hints(&evidence(sizes)).into_iter().find(|hint| hint.code == code)
}

fn one(memory: u32, rollup: Rollup) -> [(Megabytes, Rollup); 1] {
    [(Megabytes(memory), rollup)]
}

/// A function whose size fits: not throttled, half of the time idle, half of its memory in use.
fn plain() -> [(Megabytes, Rollup); 1] {
    one(1_769, rollup(1_769, 60_000, 60_000, 900))
}

fn saves(hint: &Hint) -> bool {
    hint.saving_per_million.is_some_and(|saving| saving > PicoDollars::ZERO)
}

#[test]
fn a_plain_function_gets_no_hint() {
    let sizes = plain();
    let evidence = FunctionEvidence { architecture: Architecture::Arm64, ..evidence(&sizes) };
    assert_eq!(hints(&evidence), []);
}

#[test]
fn memory_underprovisioned() {
    let hint = hint(&one(512, rollup(512, 30_000, 30_000, 490)), HintCode::MemoryUnderprovisioned).unwrap();
    assert!(hint.evidence.contains("490 MB of 512 MB"), "{}", hint.evidence);
    let mut killed = rollup(512, 30_000, 30_000, 100);
    killed.record(&Invocation { outcome: Outcome::OutOfMemory, ..invocation(512, 1_000, 0, 100) });
    let hint = self::hint(&one(512, killed), HintCode::MemoryUnderprovisioned).unwrap();
    assert!(hint.evidence.contains("one out-of-memory kill"), "{}", hint.evidence);
}

#[test]
fn memory_overprovisioned() {
    let idle = hint(&one(2_048, rollup(2_048, 3_000, 200_000, 90)), HintCode::MemoryOverprovisioned).unwrap();
    assert!(saves(&idle));
    let needed = one(2_048, rollup(2_048, 3_000, 200_000, 1_500));
    assert_eq!(hint(&needed, HintCode::MemoryOverprovisioned), None);
}

#[test]
fn extension_overhead() {
    let after_runtime = |us: u64| {
        rollup_of(|vary| {
            let invocation = invocation(1_024, vary(20_000), 20_000, 400);
            Invocation {
                runtime_us: invocation.duration_us,
                duration_us: invocation.duration_us + us,
                ..invocation
            }
        })
    };
    let slow = hint(&one(1_024, after_runtime(28_000)), HintCode::ExtensionOverhead).unwrap();
    assert!(slow.evidence.contains("28.0 ms after the runtime") && saves(&slow), "{}", slow.evidence);
    assert_eq!(hint(&one(1_024, after_runtime(1_500)), HintCode::ExtensionOverhead), None);
}

/// An extension that does not end makes the invocation a timeout, also that of a cold start.
#[test]
fn extension_overhead_of_a_single_invocation() {
    let with_one = |runtime_us: u64, class: Initialization, init_us: u64| {
        let mut rollup = rollup(1_024, 20_000, 20_000, 400);
        rollup.record(&Invocation {
            outcome: Outcome::Timeout,
            initialization: class,
            init_us,
            runtime_us,
            duration_us: 30_000_000,
            billed_ms: 30_000,
            ..Invocation::default()
        });
        hint(&one(1_024, rollup), HintCode::ExtensionOverhead)
    };
    for class in [Initialization::Warm, Initialization::OnDemand] {
        let hint = with_one(2_000_000, class, 0).unwrap();
        assert!(hint.evidence.contains("1 of 31 invocations") && saves(&hint), "{}", hint.evidence);
        assert!(hint.evidence.ends_with("the longest 28.0 of 30.0 s"), "{}", hint.evidence);
    }
    assert_eq!(with_one(29_500_000, Initialization::Warm, 0), None, "the handler took most of it");
    assert_eq!(with_one(2_000_000, Initialization::InsideInvocation, 27_000_000), None, "so did the Init");
    assert_eq!(with_one(0, Initialization::Warm, 0), None, "the time of the handler is not known");
}

#[test]
fn memory_pressure() {
    let tight = rollup(512, 90_000, 10_000, 480);
    let roomy = rollup(1_024, 50_000, 10_000, 600);
    let both = [(Megabytes(512), tight.clone()), (Megabytes(1_024), roomy)];
    assert!(saves(&hint(&both, HintCode::MemoryPressure).unwrap()));
    assert_eq!(hint(&one(512, tight), HintCode::MemoryPressure), None, "one size alone gives no comparison");
    let reloading = rollup_of(|vary| {
        let mut invocation = invocation(512, vary(50_000), 10_000, 480);
        invocation.work = invocation.work.map(|work| Work { major_faults: 40, ..work });
        invocation
    });
    assert!(hint(&one(512, reloading), HintCode::MemoryPressure).unwrap().evidence.contains("40 pages"));
}

#[test]
fn cpu_starved() {
    let hint = hint(&one(256, rollup(256, 100_000, 5_000, 60)), HintCode::CpuStarved).unwrap();
    assert!(hint.evidence.contains("0.14 vCPU"), "{}", hint.evidence);
    assert_eq!(self::hint(&one(256, rollup(256, 500, 90_000, 60)), HintCode::CpuStarved), None);
}

#[test]
fn single_threaded() {
    let alone = hint(&one(3_008, rollup(3_008, 100_000, 10_000, 60)), HintCode::SingleThreaded).unwrap();
    assert!(saves(&alone));
    let parallel = rollup_of(|vary| {
        let mut invocation = invocation(3_008, vary(100_000), 10_000, 60);
        invocation.work = invocation.work.map(|work| Work {
            user_us: vary(160_000),
            effective_threads_milli: 2_000,
            ..work
        });
        invocation
    });
    assert_eq!(hint(&one(3_008, parallel), HintCode::SingleThreaded), None);
}

#[test]
fn idle_dominated() {
    assert!(saves(&hint(&one(256, rollup(256, 1_000, 200_000, 60)), HintCode::IdleDominated).unwrap()));
    assert_eq!(hint(&plain(), HintCode::IdleDominated), None);
}

#[test]
fn connections_per_invocation() {
    let opening = |sockets_opened: u64| {
        let rollup = rollup_of(|vary| {
            let mut invocation = invocation(512, vary(10_000), 50_000, 60);
            invocation.work = invocation.work.map(|work| Work { sockets_opened, ..work });
            invocation
        });
        hint(&one(512, rollup), HintCode::ConnectionsPerInvocation)
    };
    assert!(saves(&opening(2).unwrap()));
    assert_eq!(opening(0), None);
}

#[test]
fn cold_starts_dominate() {
    let with_cold_starts = |every: u64| {
        let mut rollup = rollup(512, 10_000, 20_000, 60);
        for _ in 0..30 / every {
            let mut cold = invocation(512, 20_000, 20_000, 60);
            cold.initialization = Initialization::OnDemand;
            cold.init_us = 800_000;
            cold.billed_ms += 800;
            rollup.record(&cold);
        }
        hint(&one(512, rollup), HintCode::ColdStartsDominate)
    };
    let frequent = with_cold_starts(3).unwrap();
    // 200 ms of 0.5 GB in each of a million invocations, which is longer than the handler.
    assert_eq!(frequent.saving_per_million, Some(PicoDollars(1_666_670_000_000)));
    assert!(frequent.action.contains("provisioned concurrency pays"), "{}", frequent.action);
    assert!(frequent.evidence.contains("800 ms each"), "{}", frequent.evidence);
    assert_eq!(with_cold_starts(31), None);
    // Until August 2025 the Init of managed runtimes was not billed.
    let mut unbilled = rollup(512, 10_000, 20_000, 60);
    for _ in 0..10 {
        unbilled.record(&Invocation {
            initialization: Initialization::OnDemand,
            init_us: 800_000,
            ..invocation(512, 20_000, 20_000, 60)
        });
    }
    assert_eq!(hint(&one(512, unbilled), HintCode::ColdStartsDominate), None);
}

#[test]
fn request_cost_dominates() {
    assert!(saves(&hint(&one(128, rollup(128, 100, 1_000, 60)), HintCode::RequestCostDominates).unwrap()));
    assert_eq!(hint(&plain(), HintCode::RequestCostDominates), None);
}

#[test]
fn arm64_cheaper() {
    let sizes = plain();
    assert!(saves(&hint(&sizes, HintCode::Arm64Cheaper).unwrap()));
    let already = FunctionEvidence { architecture: Architecture::Arm64, ..evidence(&sizes) };
    assert!(hints(&already).iter().all(|hint| hint.code != HintCode::Arm64Cheaper));
    let unpriced = FunctionEvidence { region: "us-gov-west-1", ..evidence(&sizes) };
    assert!(hints(&unpriced).iter().all(|hint| hint.code != HintCode::Arm64Cheaper));
}

#[test]
fn timeouts_paid() {
    let mut timing_out = rollup(512, 10_000, 20_000, 60);
    let timeout = Invocation {
        outcome: Outcome::Timeout,
        duration_us: 10_000_000,
        billed_ms: 10_000,
        ..Invocation::default()
    };
    timing_out.record(&timeout);
    let hint = hint(&one(512, timing_out), HintCode::TimeoutsPaid).unwrap();
    assert!(saves(&hint) && hint.evidence.contains("1 of 31"), "{}", hint.evidence);
    assert_eq!(self::hint(&plain(), HintCode::TimeoutsPaid), None);

    // The Init before a timeout is billed with it.
    let mut cold = rollup(512, 10_000, 20_000, 60);
    cold.record(&Invocation {
        initialization: Initialization::OnDemand,
        init_us: 5_000_000,
        billed_ms: 15_000,
        ..timeout
    });
    let share = |lost_ms: u64| {
        format!(": {:.0} % of the billed time", 100.0 * lost_ms as f64 / cold.billed_ms as f64)
    };
    let evidence =
        |rollup: &Rollup| self::hint(&one(512, rollup.clone()), HintCode::TimeoutsPaid).unwrap().evidence;
    assert!(evidence(&cold).ends_with(&share(15_000)), "{}", evidence(&cold));
    // Rollups of earlier versions have the number of timeouts only.
    let earlier = Rollup { timeouts_billed_ms: 0, ..cold.clone() };
    assert!(evidence(&earlier).ends_with(&share(10_000)), "{}", evidence(&earlier));
}

#[test]
fn ephemeral_storage_unused() {
    let with = |ephemeral_mb: u32, used_mb: u64| {
        let rollup = rollup_of(|vary| Invocation {
            tmp_used_kib: used_mb * 1_024,
            ..invocation(512, vary(10_000), 20_000, 60)
        });
        let sizes = one(512, rollup);
        let evidence = FunctionEvidence { ephemeral_mb, ..evidence(&sizes) };
        hints(&evidence).into_iter().find(|hint| hint.code == HintCode::EphemeralStorageUnused)
    };
    let unused = with(10_240, 100).unwrap();
    assert!(saves(&unused) && unused.action.contains("512 MB"), "{}", unused.action);
    assert_eq!(with(512, 0), None);
    assert_eq!(with(2_048, 1_900), None);
}

/// Pairs of hints that contradict each other.
const CONTRADICTIONS: [(HintCode, HintCode); 9] = [
    (HintCode::MemoryUnderprovisioned, HintCode::MemoryOverprovisioned),
    (HintCode::MemoryUnderprovisioned, HintCode::SingleThreaded),
    (HintCode::MemoryUnderprovisioned, HintCode::IdleDominated),
    (HintCode::MemoryPressure, HintCode::MemoryOverprovisioned),
    (HintCode::MemoryPressure, HintCode::SingleThreaded),
    (HintCode::MemoryPressure, HintCode::IdleDominated),
    (HintCode::CpuStarved, HintCode::MemoryOverprovisioned),
    (HintCode::CpuStarved, HintCode::SingleThreaded),
    (HintCode::CpuStarved, HintCode::IdleDominated),
];

#[test]
fn queued_time_gives_neither_the_idle_nor_the_starved_hint() {
    // Queued for 80 of 160 ms at 1,024 MB, where the quota does not throttle 9 ms of CPU time.
    let queued = rollup_of(|vary| {
        let mut invocation = invocation(1_024, 9_000, 0, 60);
        invocation.duration_us = vary(160_000);
        invocation.work = invocation.work.map(|work| Work {
            starved_us: 80_000,
            top_starved_us: 80_000,
            idle_us: 71_000,
            ..work
        });
        invocation
    });
    let codes: Vec<HintCode> = hints(&evidence(&one(1_024, queued))).iter().map(|hint| hint.code).collect();
    assert!(!codes.contains(&HintCode::IdleDominated) && !codes.contains(&HintCode::CpuStarved), "{codes:?}");
}

/// The table of hints in the README lists each code once. serde lists the codes when it reads one that does not exist.
#[test]
fn the_documented_hints_are_the_codes() {
    let mut codes: Vec<String> = serde_json::from_str::<HintCode>("\"\"")
        .unwrap_err()
        .to_string()
        .split('`')
        .filter(|part| part.contains(|letter: char| letter.is_ascii_lowercase()) && !part.contains(' '))
        .map(str::to_owned)
        .collect();
    let readme = include_str!("../README.md");
    let section = readme.split("\n## Hints").nth(1).unwrap();
    let mut documented: Vec<_> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(code, _)| code.to_owned())
        .collect();
    codes.sort();
    documented.sort();
    assert!(codes.len() >= 13, "{codes:?}");
    assert_eq!(documented, codes);
}

proptest! {
    #[test]
    fn no_hint_contradicts_another_or_the_recommendation(
        memory in 128u32..=10_240,
        (busy_us, idle_us, peak_mb) in (1u64..2_000_000, 0u64..2_000_000, 1u64..12_000),
        (queued_us, threads, faults) in (0u64..500_000, 1_000u64..6_000, 0u64..50),
        strategy in prop_oneof![
            Just(Strategy::default()),
            Just(Strategy::Speed),
            (0.0..=1.0).prop_map(|weight| Strategy::Balanced { weight }),
            (1.0..3_000.0).prop_map(|target_ms| Strategy::Slo { quantile: 0.95, target_ms, cold_starts: true }),
        ],
    ) {
        let rollup = rollup_of(|vary| {
            let mut invocation = invocation(memory, vary(busy_us), vary(idle_us), peak_mb);
            invocation.duration_us += queued_us;
            invocation.work = invocation.work.map(|work| Work {
                starved_us: work.starved_us + queued_us,
                top_starved_us: work.top_starved_us + queued_us,
                effective_threads_milli: threads,
                major_faults: faults,
                ..work
            });
            invocation
        });
        let sizes = one(memory, rollup);
        let advice = advice_of(&evidence(&sizes), strategy);
        let has = |code: HintCode| advice.hints.iter().any(|hint| hint.code == code);
        for (one, other) in CONTRADICTIONS {
            prop_assert!(!(has(one) && has(other)), "{one:?} and {other:?}");
            prop_assert!(advice.memory >= advice.current || !has(one), "{one:?}, yet {}", advice.memory);
            prop_assert!(advice.memory <= advice.current || !has(other), "{other:?}, yet {}", advice.memory);
        }
        for hint in &advice.hints {
            prop_assert!(!hint.action.contains("go down to") || hint.action.ends_with(&advice.memory.to_string()));
        }
    }
}
