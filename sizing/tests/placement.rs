//! Where a function should run: known loads with answers that can be computed by hand.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use tailor_sizing::placement::{
    HourLoad, Load, Place, PlaceReport, PlaceVerdict, Placement, PlacementError, PlacementEvidence, placement,
};
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::pricing::prices::PriceTable;
use tailor_sizing::telemetry::invocation::{Initialization, Invocation, Outcome, Work};
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::{Architecture, Megabytes};

/// Invocations of a second on 1,024 MB, of which `busy` is CPU time; every hundredth has an Init of `init_ms`.
fn rollup(busy_percent: u64, init_ms: u64) -> Rollup {
    let mut rollup = Rollup::default();
    for n in 0..1_000_u64 {
        let is_first = init_ms > 0 && n % 100 == 0;
        rollup.record(&Invocation {
            outcome: Outcome::Success,
            started_at_us: n + 1,
            duration_us: 1_000_000,
            billed_ms: 1_000 + if is_first { init_ms } else { 0 },
            init_us: if is_first { init_ms * 1_000 } else { 0 },
            initialization: if is_first { Initialization::OnDemand } else { Initialization::Warm },
            peak_kib: 200 * 1_024,
            work: Some(Work { user_us: busy_percent * 10_000, ..Work::default() }),
            ..Invocation::default()
        });
    }
    rollup
}

/// Two days with `concurrency` in the hours `from..until` of the day, and nothing in the others.
fn load(concurrency: u64, from: u64, until: u64) -> Load {
    let hours = (0..48).filter(|hour| (from..until).contains(&(hour % 24)));
    let entry = |hour| HourLoad {
        hour,
        invocations: concurrency * 3_600,
        duration_ms: concurrency * 3_600_000,
        inits: concurrency * 36,
    };
    Load::new(hours.map(entry).collect(), 0, 48)
}

fn place_with(rollup: &Rollup, load: &Load, runtime: &str) -> Placement {
    let evidence = PlacementEvidence {
        region: "us-east-1",
        runtime,
        architecture: Architecture::X86_64,
        memory: Megabytes(1_024),
        ephemeral_mb: 512,
        rollup,
        load,
    };
    placement(&evidence, &PriceTable::embedded()).unwrap()
}

fn at(placement: &Placement, place: Place) -> &PlaceReport {
    placement.places.iter().find(|report| report.place == place).unwrap()
}

#[test]
fn the_present_cost_is_the_bill_of_a_month() {
    let placement = place_with(&rollup(50, 0), &load(2, 0, 24), "nodejs24.x");
    let month = at(&placement, Place::OnDemand).month.unwrap();
    // 2 GB for 730 hours, and 7,200 requests an hour.
    let exact = 2 * 730 * 3_600 * 16_666_700_i128 + 7_200 * 730 * 200_000;
    assert!((month.expected_pico_usd.0 - exact).abs() < 1_000, "{month:?}");
    // The load is the same in every hour.
    assert_eq!(month.low_pico_usd, month.high_pico_usd);
}

#[test]
fn arm64_is_cheaper_where_little_time_is_cpu_time_and_may_not_be_where_all_is() {
    let waiting = place_with(&rollup(10, 0), &load(1, 0, 24), "nodejs24.x");
    assert_eq!(at(&waiting, Place::Arm64).verdict, PlaceVerdict::Cheaper);
    let computing = place_with(&rollup(100, 0), &load(1, 0, 24), "nodejs24.x");
    let arm64 = at(&computing, Place::Arm64);
    // 1.2 × 0.8 is 0.96 of the price, and requests cost the same.
    assert_eq!(arm64.verdict, PlaceVerdict::Cheaper);
    assert!((arm64.change_percent.unwrap() + 19.8).abs() < 0.2, "{arm64:?}");
    assert!(arm64.month.unwrap().high_pico_usd > at(&waiting, Place::Arm64).month.unwrap().high_pico_usd);
}

#[test]
fn provisioned_concurrency_pays_in_busy_hours_only() {
    let placement = place_with(&rollup(50, 0), &load(10, 8, 18), "nodejs24.x");
    assert!((placement.provisioned_break_even.unwrap() - 0.6).abs() < 1e-4);
    for hour in &placement.provisioned_hours {
        // Of ten that run on average, at least nine run for more than 60 % of the time, and ten for 54 %.
        let expected = if (8..18).contains(&hour.hour) { 9 } else { 0 };
        assert_eq!(hour.concurrency, expected, "{hour:?}");
        assert_eq!(hour.saving_pico_usd > PicoDollars::ZERO, expected > 0);
    }
    assert_eq!(at(&placement, Place::ProvisionedConcurrency).verdict, PlaceVerdict::Cheaper);
    let steady = place_with(&rollup(50, 0), &load(10, 0, 24), "nodejs24.x");
    assert_eq!(at(&steady, Place::ProvisionedConcurrency).verdict, PlaceVerdict::Cheaper);
    let rarely_invoked = place_with(&rollup(50, 0), &load(1, 2, 3), "nodejs24.x");
    let report = at(&rarely_invoked, Place::ProvisionedConcurrency);
    // One invocation runs on average, and in 37 % of the time there is none: 63 % is above the break-even.
    assert_eq!(rarely_invoked.provisioned_hours[2].concurrency, 1);
    assert_eq!(report.verdict, PlaceVerdict::Depends);
    assert!(
        report.month.unwrap().expected_pico_usd
            <= at(&rarely_invoked, Place::OnDemand).month.unwrap().expected_pico_usd
    );
}

/// The capacity is not measured, so that the present cost is not known.
#[test]
fn a_function_with_provisioned_concurrency_is_not_compared_with_what_it_has() {
    let mut provisioned = rollup(50, 0);
    provisioned.record(&Invocation {
        initialization: Initialization::ProvisionedConcurrency,
        duration_us: 1_000_000,
        billed_ms: 1_000,
        started_at_us: 1,
        ..Invocation::default()
    });
    let without = place_with(&rollup(50, 0), &load(10, 0, 24), "nodejs24.x");
    assert_eq!(at(&without, Place::OnDemand).verdict, PlaceVerdict::Present);
    let placement = place_with(&provisioned, &load(10, 0, 24), "nodejs24.x");
    let present = at(&placement, Place::ProvisionedConcurrency);
    assert_eq!((present.verdict, present.month), (PlaceVerdict::Present, None));
    assert!(present.summary.contains("the capacity is not measured"), "{}", present.summary);
    let on_demand = at(&placement, Place::OnDemand);
    assert_eq!((on_demand.verdict, on_demand.change_percent), (PlaceVerdict::Unknown, None));
    for place in [Place::OnDemand, Place::Arm64, Place::ManagedInstances] {
        let assumptions = at(&placement, place).assumptions.join("; ");
        assert!(assumptions.contains("the same invocations on demand"), "{place:?}: {assumptions}");
        assert!(!at(&without, place).assumptions.join("; ").contains("provisioned"), "{place:?}");
    }
    // The hours in which it pays are listed as before.
    assert_eq!(placement.provisioned_hours, without.provisioned_hours);
}

#[test]
fn more_than_500_invocations_at_the_same_time_are_provisioned_for() {
    let placement = place_with(&rollup(50, 0), &load(1_000, 0, 24), "nodejs24.x");
    for hour in &placement.provisioned_hours {
        // The break-even of 60 % is a quarter of a standard deviation of 32 below the mean.
        assert!((985..1_000).contains(&hour.concurrency), "{hour:?}");
    }
    let half = place_with(&rollup(50, 0), &load(500, 0, 24), "nodejs24.x");
    let saving = |placement: &Placement| placement.provisioned_hours[0].saving_pico_usd.to_dollars();
    assert!((saving(&placement) / saving(&half) / 2.0 - 1.0).abs() < 0.05, "{}", saving(&placement));
}

#[test]
fn snap_start_does_not_save_an_init_that_was_not_billed() {
    let mut unbilled = Rollup::default();
    for n in 0..1_000_u64 {
        let is_first = n % 100 == 0;
        unbilled.record(&Invocation {
            duration_us: 1_000_000,
            billed_ms: 1_000,
            init_us: if is_first { 9_500_000 } else { 0 },
            initialization: if is_first { Initialization::OnDemand } else { Initialization::Warm },
            started_at_us: n + 1,
            ..Invocation::default()
        });
    }
    let placement = place_with(&unbilled, &load(10, 0, 24), "java21");
    let report = at(&placement, Place::SnapStart);
    assert_eq!(report.verdict, PlaceVerdict::NotCheaper);
    assert!(report.summary.contains("Inits of 9500 ms"), "{}", report.summary);
    assert!(report.assumptions.join("; ").contains("of an Init 0 ms are billed"), "{:?}", report.assumptions);
}

#[test]
fn snap_start_pays_for_long_inits_and_is_free_for_java() {
    let long = place_with(&rollup(50, 8_000), &load(10, 0, 24), "python3.13");
    assert_eq!(at(&long, Place::SnapStart).verdict, PlaceVerdict::NotCheaper);
    // The restore of 1 GB costs as much as 8.4 s of compute: 0.0001397998 / 0.0000166667.
    let longer = place_with(&rollup(50, 9_500), &load(10, 0, 24), "python3.13");
    assert_eq!(at(&longer, Place::SnapStart).verdict, PlaceVerdict::Cheaper);
    let java = place_with(&rollup(50, 500), &load(10, 0, 24), "java21");
    assert_eq!(at(&java, Place::SnapStart).verdict, PlaceVerdict::Cheaper);
    for (runtime, reason) in [("nodejs24.x", "does not support"), ("python3.9", "does not support")] {
        let placement = place_with(&rollup(50, 500), &load(10, 0, 24), runtime);
        assert!(at(&placement, Place::SnapStart).summary.contains(reason));
    }
}

#[test]
fn managed_instances_need_a_large_steady_load() {
    let rollup = rollup(25, 0);
    let evidence = |load| PlacementEvidence {
        region: "us-east-1",
        runtime: "python3.13",
        architecture: Architecture::Arm64,
        memory: Megabytes(1_024),
        ephemeral_mb: 512,
        rollup: &rollup,
        load,
    };
    let prices = PriceTable::embedded();
    let small = load(1, 0, 24);
    let small = placement(&evidence(&small), &prices).unwrap();
    assert_eq!(at(&small, Place::ManagedInstances).verdict, PlaceVerdict::NotCheaper);
    let large = load(400, 0, 24);
    let large = placement(&evidence(&large), &prices).unwrap();
    assert_eq!(at(&large, Place::ManagedInstances).verdict, PlaceVerdict::Cheaper);
    let plan = large.managed.unwrap();
    // 400 and three deviations of 20; four invocations of a quarter of a vCPU on each vCPU.
    assert!((plan.concurrency - 460.0).abs() < 1e-9 && (plan.cpu - 0.25).abs() < 1e-9);
    assert_eq!(plan.capacity.environments, 460_u64.div_ceil(plan.max_concurrency));
    assert!(plan.capacity.instances >= 3 && plan.memory_mb == 200);
    assert!(large.remarks[0].contains("100.000 vCPU"), "{:?}", large.remarks);
    // Without CPU telemetry, nothing is assumed.
    let mut blind = Rollup::default();
    blind.record(&Invocation { duration_us: 1_000, billed_ms: 1, started_at_us: 1, ..Invocation::default() });
    let load = load(400, 0, 24);
    let evidence = PlacementEvidence { rollup: &blind, ..evidence(&load) };
    let placement = placement(&evidence, &prices).unwrap();
    assert_eq!(at(&placement, Place::ManagedInstances).verdict, PlaceVerdict::Unknown);
}

#[test]
fn without_invocations_or_prices_there_is_no_answer() {
    let (empty, load) = (Rollup::default(), load(1, 0, 24));
    let evidence = PlacementEvidence {
        region: "us-east-1",
        runtime: "",
        architecture: Architecture::X86_64,
        memory: Megabytes(128),
        ephemeral_mb: 512,
        rollup: &empty,
        load: &load,
    };
    let prices = PriceTable::embedded();
    assert_eq!(placement(&evidence, &prices), Err(PlacementError::NoEvidence));
    let unknown = PlacementEvidence { region: "mars-north-1", ..evidence };
    assert!(matches!(placement(&unknown, &prices), Err(PlacementError::Price(_))));
}
