//! The class of the initialization, and Inits inside invocations.

use super::*;
use crate::deliver::ledger::entry::microseconds;

const OTHER: &str = "22222222-2222-4333-8444-555555555555";

fn ended(id: &str, status: &str, duration_ms: f64) -> EndRecord {
    let metrics = Metrics {
        duration_ms: Some(duration_ms),
        billed_duration_ms: Some(duration_ms.ceil()),
        ..Metrics::default()
    };
    EndRecord { request_id: id.into(), ..record(status, metrics) }
}

fn init(phase: &str, status: &str, duration_ms: f64) -> InitReport {
    let (phase, status) = (Some(phase.into()), Some(status.into()));
    InitReport { phase, status, error_type: None, duration_ms: Some(duration_ms) }
}

/// After a crash the next invocation begins with an Init, which is part of its duration and is not measured.
#[test]
fn an_init_inside_an_invocation_is_not_idle_time() {
    // The Init ends at 400 ms, its invocation at 450 ms, and the next invocation at 460 ms.
    let finished = |order: [usize; 3]| {
        let mut ledger = Ledger::new(1_769);
        for id in [ID, OTHER] {
            ledger.on_invoke(id, 405_000, false);
            ledger.on_measured(id, Some(measured()), None);
        }
        for event in order {
            match event {
                0 => ledger.on_init_report(&init("invoke", "success", 350.0), RecordTime::exact(400_000)),
                1 => _ = ledger.on_report(ended(ID, "success", 400.0), RecordTime::exact(450_000)),
                _ => _ = ledger.on_report(ended(OTHER, "success", 9.5), RecordTime::exact(460_000)),
            }
        }
        ledger.take_finished()
    };
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [0, 2, 1]] {
        let invocations = finished(order);
        let [with, without] = &invocations[..] else { panic!("{invocations:?}") };
        assert_eq!(with.initialization, Initialization::InsideInvocation, "{order:?}");
        assert_eq!((with.duration_us, with.init_us, with.billed_ms), (400_000, 350_000, 400), "{order:?}");
        assert_eq!(with.started_at_us, 50_000, "it began before the Init");
        assert_eq!(with.work.unwrap().idle_us, 50_000 - 13_000);
        assert_eq!((without.duration_us, without.init_us), (9_500, 0));
        assert_eq!(without.initialization, Initialization::Warm);
    }
}

/// The platform measures the Init and the invocation separately. The Init has no INVOKE event.
#[test]
fn an_init_that_runs_into_the_timeout_is_the_whole_invocation() {
    for (init_ms, duration_ms) in [(10_001.07, 10_000.0), (9_999.9, 10_000.0), (180_000.45, 180_000.0)] {
        let mut ledger = Ledger::new(128);
        ledger.on_init_start(Some("invoke"));
        assert!(ledger.awaits_report(), "its invocation is not known yet");
        ledger.on_init_report(&init("invoke", "timeout", init_ms), RecordTime::exact(500_000_000));
        ledger.on_start(ID, RecordTime::exact(500_000_000));
        ledger.on_report(ended(ID, "timeout", duration_ms), RecordTime::exact(500_002_000));
        let invocation = ledger.take_finished()[0];
        assert!(!ledger.awaits_report());
        assert_eq!(invocation.initialization, Initialization::InsideInvocation, "{init_ms}");
        assert_eq!(invocation.duration_us, microseconds(duration_ms));
        assert_eq!(invocation.init_us, microseconds(f64::min(init_ms, duration_ms)));
        assert_eq!((invocation.outcome, invocation.billed_ms as f64), (Outcome::Timeout, duration_ms));
        assert_eq!(invocation.work, None);
    }
}

/// As in the REPORT lines of a function with a timeout of 31 seconds.
#[test]
fn a_timeout_after_an_init_is_billed_with_the_init() {
    for (init_ms, billed_ms) in [(3_439.0, 34_440), (3_568.54, 34_569), (3_074.91, 34_075), (2_189.8, 33_190)]
    {
        let finished = |billed_duration_ms| {
            let mut ledger = Ledger::new(128);
            ledger.on_invoke(ID, 1, true);
            ledger.on_measured(ID, None, None);
            let metrics = Metrics {
                duration_ms: Some(31_000.0),
                billed_duration_ms,
                init_duration_ms: Some(init_ms),
                ..Metrics::default()
            };
            ledger.on_report(record("timeout", metrics), NOW);
            ledger.take_finished()[0]
        };
        let invocation = finished(Some(f64::from(billed_ms)));
        assert_eq!(invocation.initialization, Initialization::OnDemand);
        assert_eq!((invocation.duration_us, invocation.init_us), (31_000_000, microseconds(init_ms)));
        assert_eq!(invocation.billed_ms, u64::try_from(billed_ms).unwrap());
        // The platform rounds up from more digits than it writes.
        assert!(finished(None).billed_ms.abs_diff(invocation.billed_ms) <= 1);
    }
}

/// Without a report the durations are put together from the other records.
#[test]
fn an_init_is_billed_without_a_report() {
    let finished = |phase: &str| {
        let mut ledger = Ledger::new(128);
        ledger.on_init_report(&init(phase, "success", 300.0), RecordTime::exact(1_000));
        ledger.on_invoke(ID, 2_000, true);
        ledger.on_runtime_done(ended(ID, "success", 20.5), NOW);
        ledger.take_all()[0]
    };
    let before = finished("init");
    assert_eq!((before.initialization, before.init_us), (Initialization::OnDemand, 300_000));
    assert_eq!((before.duration_us, before.billed_ms), (20_500, 321));
    let inside = finished("invoke");
    assert_eq!((inside.initialization, inside.init_us), (Initialization::InsideInvocation, 300_000));
    assert_eq!((inside.duration_us, inside.billed_ms, inside.runtime_us), (320_500, 321, 20_500));
}

#[test]
fn each_first_invocation_has_the_class_of_its_environment() {
    let classes = |initialization_type: &str, invoked_at_us, restore_duration_ms| {
        let mut ledger =
            Ledger::new(128).with_initialization(InitializationType::from(initialization_type.to_owned()));
        ledger.on_init_report(&init("init", "success", 300.0), RecordTime::exact(1_000_000));
        let mut one = |id: &str, is_first, metrics| {
            ledger.on_invoke(id, invoked_at_us, is_first);
            ledger.on_measured(id, None, None);
            ledger.on_report(EndRecord { request_id: id.into(), ..record("success", metrics) }, NOW);
            ledger.take_finished()[0].initialization
        };
        let first = Metrics { restore_duration_ms, ..Metrics::default() };
        let first = one(ID, true, first);
        assert_eq!(one(OTHER, false, Metrics::default()), Initialization::Warm);
        first
    };
    let (soon_us, later_us) = (1_020_000, 2_500_000);
    assert_eq!(classes("on-demand", soon_us, None), Initialization::OnDemand);
    assert_eq!(classes("", soon_us, None), Initialization::OnDemand);
    assert_eq!(classes("on-demand", later_us, None), Initialization::Proactive);
    assert_eq!(classes("provisioned-concurrency", soon_us, None), Initialization::ProvisionedConcurrency);
    assert_eq!(classes("snap-start", later_us, Some(400.0)), Initialization::SnapStart);
    assert_eq!(classes("on-demand", later_us, Some(400.0)), Initialization::SnapStart);
    assert_eq!(classes("lambda-managed-instances", later_us, None), Initialization::Warm);
}
