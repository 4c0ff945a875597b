//! The full bill of any usage: it never fails, and its sums are those of its lines.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use tailor_sizing::pricing::bill::Usage;
use tailor_sizing::pricing::full_bill::{
    GivenUsage, LineStatus, MeasuredUsage, ProvisionedCapacity, Terms, full_bill,
};
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
