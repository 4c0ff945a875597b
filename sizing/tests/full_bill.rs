//! The full bill: of any usage it never fails, and its sums are those of its lines; and what is assumed or not known.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use tailor_sizing::pricing::bill::Usage;
use tailor_sizing::pricing::full_bill::{
    BillLine, FullBill, GivenUsage, ImportedPart, LineStatus, LogDestination, MeasuredUsage,
    ProvisionedCapacity, Terms, full_bill, full_bill_in_month,
};
use tailor_sizing::pricing::meters::{Meter, UsedAmounts};
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::pricing::prices::PriceTable;
use tailor_sizing::telemetry::initialization::Initializations;
use tailor_sizing::units::{Architecture, Megabytes};

/// Amounts of every magnitude, the largest included.
fn amount() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(u64::MAX), any::<u64>(), 0u64..1_000_000]
}

fn given() -> impl Strategy<Value = GivenUsage> {
    let some = || proptest::option::of(amount());
    let capacity = (any::<u32>(), amount(), proptest::option::of(any::<u32>()));
    (
        proptest::option::of(proptest::collection::vec(capacity, 0..3)),
        [some(), some(), some(), some()],
        [some(), some(), some(), some()],
    )
        .prop_map(|(capacity, [a, b, c, d], [e, f, g, h])| GivenUsage {
            provisioned_concurrency: capacity.map(|capacity| {
                let entry =
                    |(concurrency, hours, memory_mb)| ProvisionedCapacity { concurrency, hours, memory_mb };
                capacity.into_iter().map(entry).collect()
            }),
            snap_start_versions: a,
            streamed_bytes: b,
            durable_operations: c,
            durable_written_bytes: d,
            durable_kept_bytes: e,
            tenant_environments: f,
            log_bytes: g,
            log_stored_bytes: h,
            transfer_out_bytes: a,
            kafka_poller_hours: b,
            sqs_poller_hours: c,
            ..GivenUsage::default()
        })
}

/// A month of a function of 1 GB in us-east-1 whose handlers run for this many seconds.
fn month(seconds: u64) -> MeasuredUsage<'static> {
    let memory = Megabytes(1_024);
    MeasuredUsage {
        region: "us-east-1",
        runtime: "python3.13",
        memory,
        usage: vec![(Architecture::X86_64, Usage::of(memory, seconds * 1_000, 1_000, 512))],
        initializations: Initializations::default(),
        restored_mb: 0,
        versions: 1,
        sent_bytes: None,
        log_bytes: None,
        is_managed: false,
        imported: ImportedPart::None,
        hours: 720,
    }
}

fn bill_of(measured: &MeasuredUsage<'_>, given: &GivenUsage) -> FullBill {
    full_bill(measured, given, &PriceTable::embedded(), &Terms::default())
}

fn lines(bill: &FullBill, meter: Meter) -> Vec<&BillLine> {
    bill.lines.iter().filter(|line| line.meter == meter).collect()
}

/// Ten environments of 1 GB in a month are ready for 7,200 h.
#[test]
fn provisioned_concurrency_is_used_also_when_no_first_invocation_was_seen() {
    const READY_S: u64 = 10 * 720 * 3_600;
    let capacity = ProvisionedCapacity { concurrency: 10, hours: 720, memory_mb: None };
    let given = GivenUsage { provisioned_concurrency: Some(vec![capacity]), ..GivenUsage::default() };
    let prices = PriceTable::embedded().rates("us-east-1", Architecture::X86_64).unwrap();
    let provisioned = prices.provisioned.unwrap();

    // 80 % busy: $108.00 for the capacity and $201.60 for the duration.
    let busy_s = READY_S / 10 * 8;
    let bill = bill_of(&month(busy_s), &given);
    let capacity_meters = [Meter::ProvisionedConcurrencyUsed, Meter::ProvisionedConcurrencyIdle];
    assert_eq!(bill.cost_of(&capacity_meters), provisioned.idle_gb_second.times(READY_S));
    assert_eq!(bill.cost_of(&[Meter::ProvisionedDuration]), provisioned.duration_gb_second.times(busy_s));
    assert_eq!(bill.cost_of(&[Meter::Compute]), PicoDollars::ZERO);
    let requests = bill.cost_of(&[Meter::Requests]);
    assert_eq!(format!("{:.2}", (bill.total_pico_usd - requests).to_dollars()), "309.60");
    let idle = bill.quantity_of(Meter::ProvisionedConcurrencyIdle).unwrap();
    assert!((idle / READY_S as f64 - 0.2).abs() < 1e-9, "{idle}");
    for meter in capacity_meters.into_iter().chain([Meter::ProvisionedDuration]) {
        let [line] = lines(&bill, meter)[..] else { panic!("{meter}") };
        assert_eq!(line.status, LineStatus::Assumed);
        assert!(line.note.contains("no first invocation of a provisioned environment"), "{}", line.note);
    }

    // More than the capacity can serve: the rest is on demand.
    let bill = bill_of(&month(READY_S + 1_000), &given);
    assert_eq!(bill.cost_of(&[Meter::ProvisionedDuration]), provisioned.duration_gb_second.times(READY_S));
    assert_eq!(bill.cost_of(&[Meter::Compute]), prices.gb_second().times(1_000));
    assert_eq!(bill.cost_of(&[Meter::ProvisionedConcurrencyIdle]), PicoDollars::ZERO);

    // Without provisioned concurrency, and where nothing is given, all is on demand.
    for none in [GivenUsage { provisioned_concurrency: Some(vec![]), ..given }, GivenUsage::default()] {
        let bill = bill_of(&month(busy_s), &none);
        assert_eq!(bill.cost_of(&[Meter::Compute]), prices.gb_second().times(busy_s));
    }
}

/// Forty functions with a TB of logs each: 10 TB at $0.50, 20 TB at $0.25 and 10 TB at $0.10 for a GB.
#[test]
fn volume_tiers_continue_from_function_to_function() {
    let dollars = |destination: LogDestination, meter: Meter| {
        let given = GivenUsage {
            log_bytes: Some(1 << 40),
            log_destination: destination,
            transfer_out_bytes: Some(1 << 30),
            ..GivenUsage::default()
        };
        let (prices, mut used) = (PriceTable::embedded(), UsedAmounts::default());
        let bills = (0..40).map(|_| {
            let bill = full_bill_in_month(&month(1), &given, &prices, &Terms::default(), &mut used);
            bill.cost_of(&[meter])
        });
        bills.sum::<PicoDollars>().to_dollars()
    };
    assert!((dollars(LogDestination::Cloudwatch, Meter::LogIngestion) - 11_264.0).abs() < 1e-6);
    // $0.25, $0.15 and $0.075.
    assert!((dollars(LogDestination::S3, Meter::LogDeliveryS3) - 6_400.0).abs() < 1e-6);
    assert!((dollars(LogDestination::None, Meter::DataTransferOut) - 40.0 * 0.09).abs() < 1e-6);
}

#[test]
fn what_imported_logs_do_not_show_is_assumed_or_not_known() {
    let bill_with = |imported| bill_of(&MeasuredUsage { imported, ..month(100) }, &GivenUsage::default());
    let measured = bill_with(ImportedPart::None);
    assert_eq!(lines(&measured, Meter::Compute)[0].status, LineStatus::Known);
    assert!(lines(&measured, Meter::EphemeralStorage).is_empty());
    for (imported, is_unknown) in [(ImportedPart::Some, false), (ImportedPart::All, true)] {
        let bill = bill_with(imported);
        for meter in [Meter::Compute, Meter::Requests] {
            let line = lines(&bill, meter)[0];
            assert_eq!(line.status, LineStatus::Assumed, "{meter}");
            assert!(line.note.contains("was given at the import"), "{}", line.note);
        }
        assert_eq!(bill.unknown.contains(&Meter::EphemeralStorage), is_unknown);
        assert_eq!(bill.total_pico_usd, measured.total_pico_usd);
    }
}

/// SnapStart is free for Java runtimes, so that nothing is known of its cost without the runtime.
#[test]
fn snap_start_of_an_unknown_runtime_is_not_known() {
    let bill_with = |runtime| {
        let initializations = Initializations { snap_start: 10, ..Initializations::default() };
        let measured = MeasuredUsage { runtime, initializations, restored_mb: 10 * 1_024, ..month(100) };
        bill_of(&measured, &GivenUsage::default())
    };
    let meters = [Meter::SnapStartCache, Meter::SnapStartRestore];
    let unknown = bill_with("");
    for meter in meters {
        let line = lines(&unknown, meter)[0];
        assert_eq!((line.status, line.cost_pico_usd), (LineStatus::Unknown, None), "{meter}");
        assert!(line.note.contains("the runtime is not known") && line.quantity.is_some(), "{line:?}");
    }
    assert_eq!(bill_with("java21").cost_of(&meters), PicoDollars::ZERO);
    assert!(bill_with("python3.13").cost_of(&meters) > PicoDollars::ZERO);
}

proptest! {
    #[test]
    fn no_usage_fails_and_sums_are_those_of_the_lines(
        given in given(),
        (memory, billed_ms, requests, hours) in (any::<u32>(), amount(), amount(), 1u64..1_000_000),
        (provisioned, on_demand, restores) in (0u64..100, 0u64..100, amount()),
        factors in (-1.0..2.0f64, -1.0..2.0f64),
        region in prop::sample::select(vec!["us-east-1", "eu-west-1", "us-gov-west-1", "mars-north-1"]),
    ) {
        let measured = MeasuredUsage {
            region,
            runtime: "python3.13",
            memory: Megabytes(memory),
            usage: vec![(Architecture::X86_64, Usage::of(Megabytes(memory), billed_ms, requests, 10_240))],
            initializations: Initializations {
                provisioned_concurrency: provisioned,
                on_demand,
                snap_start: restores,
                ..Initializations::default()
            },
            restored_mb: u128::from(restores) * u128::from(memory),
            versions: 2,
            sent_bytes: Some(requests),
            log_bytes: None,
            is_managed: false,
            imported: ImportedPart::None,
            hours,
        };
        let terms = Terms {
            savings_plan_factor: factors.0,
            discount_factor: factors.1,
            used_gb_seconds: requests,
            free_tier: hours % 2 == 0,
        };
        let bill = full_bill(&measured, &given, &PriceTable::embedded(), &terms);
        let sum: i128 = bill.lines.iter().filter_map(|line| line.cost_pico_usd).fold(0, |sum, cost| sum.saturating_add(cost.0));
        prop_assert_eq!(bill.total_pico_usd.0, sum);
        for line in &bill.lines {
            prop_assert!(line.cost_pico_usd.is_none_or(|cost| cost.0 >= 0), "{line:?}");
            prop_assert_eq!(line.status == LineStatus::Unknown, line.cost_pico_usd.is_none(), "{:?}", line);
            prop_assert_eq!(bill.unknown.contains(&line.meter), line.cost_pico_usd.is_none(), "{:?}", line);
        }
    }
}
