//! The comparison of a bill with measured usage: AWS's rounding is equal, and each cause of a difference is found and named.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use tailor_billing::bill::Bill;
use tailor_billing::compare::{Inputs, Measured, ReasonCode, Row, Span, Status, compare};
use tailor_billing::decimal::PICO;
use tailor_billing::{BillRow, Charge, Function, meter, time};
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::pricing::prices::PriceTable;
use tailor_sizing::units::Architecture;

const HOUR: i64 = time::HOUR_S;

/// 2026-11-03 00:00 UTC, in hours.
const FIRST: i64 = 1_793_664_000 / HOUR;

fn function(name: &str) -> Function {
    Function { account: "123456789012".into(), region: "us-east-1".into(), name: name.into() }
}

fn span(hour: i64, mb_ms: u128, requests: u64) -> Span {
    Span {
        from_hour: FIRST + hour,
        hours: 1,
        architecture: Architecture::X86_64,
        memory_mb_ms: mb_ms,
        storage_mb_ms: 0,
        requests,
        billed_ms: u64::try_from(mb_ms / 512).unwrap(),
    }
}

fn spans(hours: std::ops::Range<i64>) -> Vec<Span> {
    hours.map(|hour| span(hour, 512 * (1_000_003 + u128::from(hour.unsigned_abs())), 1_000)).collect()
}

/// What AWS bills: one row per hour and meter, the quantity with nine decimals and the cost with ten.
fn bill_rows(name: &str, spans: &[Span]) -> Vec<BillRow> {
    let mut rows = vec![];
    for span in spans {
        let gb_seconds = i128::try_from(span.memory_mb_ms).unwrap() * PICO / 1_024_000;
        for (usage_type, quantity, price) in [
            ("Lambda-GB-Second", (gb_seconds + 500) / 1_000 * 1_000, 16_666_700),
            ("Request", i128::from(span.requests) * PICO, 200_000),
        ] {
            let cost = (quantity / 1_000 * price / (PICO / 1_000) + 50) / 100 * 100;
            rows.push(BillRow {
                account: "123456789012".into(),
                region: "us-east-1".into(),
                resource: function(name).to_string(),
                function: Some(function(name)),
                what: meter::recognize(usage_type, ""),
                charge: Charge::Usage,
                from_s: span.from_hour * HOUR,
                until_s: (span.from_hour + span.hours) * HOUR,
                quantity_pico: quantity,
                cost: PicoDollars(cost),
                list_cost: Some(PicoDollars(cost)),
            });
        }
    }
    rows
}

fn run(rows: &[BillRow], measured: Vec<(&str, Measured)>) -> Vec<Row> {
    let mut bill = Bill::default();
    rows.iter().for_each(|row| bill.add(row));
    let measured: BTreeMap<_, _> =
        measured.into_iter().map(|(name, found)| (function(name), found)).collect();
    compare(&mut bill, &Inputs { measured: &measured, prices: &PriceTable::embedded() })
}

fn measured(spans: Vec<Span>) -> Measured {
    Measured { spans, ..Measured::default() }
}

fn codes(rows: &[Row]) -> Vec<ReasonCode> {
    let mut codes: Vec<_> = rows.iter().flat_map(|row| &row.reasons).map(|reason| reason.code).collect();
    codes.sort_unstable();
    codes.dedup();
    codes
}

/// In every row, the reasons and what is unexplained add up to the difference, within rounding.
fn assert_adds_up(rows: &[Row]) {
    for row in rows.iter().filter(|row| row.status != Status::Equal) {
        let explained: PicoDollars = row.reasons.iter().map(|reason| reason.amount).sum();
        let rest = row.difference() - explained - row.unexplained;
        let largest = row.billed.0.abs().max(row.computed.0.abs());
        assert!(rest.0.abs() <= largest / 1_000 + 100 * 50, "{row:?}");
    }
}

#[test]
fn a_function_that_is_not_measured_is_named() {
    let mut rows = bill_rows("pay", &spans(0..48));
    rows.extend(bill_rows("ghost", &spans(0..48)));
    let result = run(&rows, vec![("pay", measured(spans(0..48)))]);
    assert_adds_up(&result);
    for row in &result {
        let is_ghost = row.function.name == "ghost";
        assert_eq!(row.status, if is_ghost { Status::Explained } else { Status::Equal }, "{row:?}");
        assert_eq!(row.reasons.iter().any(|reason| reason.code == ReasonCode::FunctionNotMeasured), is_ghost);
    }
    assert_eq!(result.len(), 2 * 2 * 2);
}

#[test]
fn hours_without_telemetry_are_listed() {
    let rows = bill_rows("pay", &spans(0..24));
    let mut kept = spans(0..24);
    kept.retain(|span| ![FIRST + 5, FIRST + 17].contains(&span.from_hour));
    let result = run(&rows, vec![("pay", measured(kept.clone()))]);
    assert_adds_up(&result);
    for row in &result {
        assert_eq!(row.status, Status::Explained);
        let [reason] = row.reasons.as_slice() else { panic!("{row:?}") };
        assert_eq!(reason.code, ReasonCode::NoTelemetry);
        assert_eq!(reason.detail, "2026-11-03 05:00, 17:00 UTC");
    }
    // Half of the invocations of an hour, without any evidence of a loss, are not explained.
    kept.push(span(5, 512 * 500_000, 500));
    let result = run(&rows, vec![("pay", measured(kept.clone()))]);
    assert_adds_up(&result);
    assert!(result.iter().all(|row| row.status == Status::Unexplained), "{result:?}");
    // With counted losses they are.
    let lossy =
        Measured { lost_invocations: 500, losses: "batches that did not arrive: 1".into(), spans: kept };
    let result = run(&rows, vec![("pay", lossy)]);
    assert_adds_up(&result);
    assert!(result.iter().all(|row| row.status == Status::Explained), "{result:?}");
    assert_eq!(codes(&result), [ReasonCode::NoTelemetry, ReasonCode::Lost]);
}

#[test]
fn each_part_of_the_price_is_named() {
    let usage = spans(0..24);
    let base = bill_rows("pay", &usage);
    let changed = |change: fn(&mut BillRow)| {
        let mut rows = base.clone();
        rows.iter_mut().for_each(change);
        let result = run(&rows, vec![("pay", measured(usage.clone()))]);
        assert_adds_up(&result);
        result
    };
    let discounted = changed(|row| row.cost = PicoDollars(row.cost.0 * 88 / 100));
    assert_eq!(codes(&discounted), [ReasonCode::Discount]);
    assert_eq!(discounted[0].reasons[0].detail, "12.0 %");
    let free = changed(|row| {
        row.what.is_free = true;
        (row.cost, row.list_cost) = (PicoDollars::ZERO, Some(PicoDollars::ZERO));
    });
    assert_eq!(codes(&free), [ReasonCode::FreeTier]);
    let covered = changed(|row| {
        row.charge = Charge::Covered;
        row.cost = PicoDollars(row.cost.0 * 83 / 100);
    });
    assert_eq!(codes(&covered), [ReasonCode::SavingsPlan]);
    let tiered = changed(|row| {
        row.what.tier = Some(2);
        row.cost = PicoDollars(row.cost.0 * 9 / 10);
        row.list_cost = Some(row.cost);
    });
    assert_eq!(codes(&tiered), [ReasonCode::VolumeTier]);
    let provisioned = changed(|row| {
        row.what.is_provisioned = true;
        row.cost = PicoDollars(row.cost.0 * 7 / 12);
        row.list_cost = Some(row.cost);
    });
    assert_eq!(codes(&provisioned), [ReasonCode::ProvisionedConcurrency]);
    let repriced = changed(|row| {
        row.cost = PicoDollars(row.cost.0 * 11 / 10);
        row.list_cost = Some(row.cost);
    });
    assert_eq!(codes(&repriced), [ReasonCode::OtherPrice]);
    for result in [discounted, free, covered, tiered, provisioned, repriced] {
        assert!(result.iter().all(|row| row.status == Status::Explained), "{result:?}");
    }
    // A discount in rows of its own.
    let mut rows = base.clone();
    rows.extend(base.iter().map(|row| BillRow {
        charge: Charge::Discount,
        cost: PicoDollars(-row.cost.0 / 10),
        list_cost: None,
        quantity_pico: 0,
        ..row.clone()
    }));
    let result = run(&rows, vec![("pay", measured(usage.clone()))]);
    assert_adds_up(&result);
    assert_eq!(codes(&result), [ReasonCode::Discount]);
}

#[test]
fn usage_beside_midnight_and_after_the_end_of_the_export_is_named() {
    // Measured before midnight, billed after it.
    let mut rows = bill_rows("pay", &spans(0..48));
    for row in rows.iter_mut().filter(|row| row.from_s == (FIRST + 23) * HOUR) {
        row.from_s += HOUR;
        row.until_s += HOUR;
    }
    let result = run(&rows, vec![("pay", measured(spans(0..48)))]);
    assert_adds_up(&result);
    assert_eq!(codes(&result), [ReasonCode::PeriodBoundary]);
    assert_eq!(result[0].reasons[0].detail, "with 2026-11-04");
    // The export ends in the middle of the second day; measured usage after its end is not compared.
    let result = run(&bill_rows("pay", &spans(0..40)), vec![("pay", measured(spans(0..48)))]);
    assert_adds_up(&result);
    assert_eq!(codes(&result), [ReasonCode::ExportIncomplete]);
    assert!(result.iter().all(|row| row.status != Status::Unexplained));
    // An export of another zone: its days begin at 22:00, and the store has whole UTC days.
    let whole = vec![Span { hours: 24, ..span(0, 512 * 24_000_000, 24_000) }];
    let mut rows = bill_rows("pay", &whole);
    for row in &mut rows {
        row.from_s -= 2 * HOUR;
        row.until_s -= 2 * HOUR;
    }
    let result = run(&rows, vec![("pay", measured(whole))]);
    assert_adds_up(&result);
    assert_eq!(codes(&result), [ReasonCode::WholeDays]);
}

/// A request that runs at midnight can be billed on the other day. A function with few requests has a large difference by it.
#[test]
fn requests_that_run_at_midnight_are_named() {
    let rows = bill_rows("pay", &(0..24).map(|hour| span(hour, 512 * 3_000, 30)).collect::<Vec<_>>());
    let mut kept: Vec<Span> = (0..24).map(|hour| span(hour, 512 * 3_000, 30)).collect();
    kept[0] = span(0, 512 * 2_900, 29);
    let result = run(&rows, vec![("pay", measured(kept.clone()))]);
    assert_adds_up(&result);
    assert_eq!(codes(&result), [ReasonCode::PeriodBoundary]);
    // More than that is missing.
    kept[0] = span(0, 512 * 2_000, 20);
    let result = run(&rows, vec![("pay", measured(kept))]);
    assert!(result.iter().all(|row| row.status == Status::Unexplained), "{result:?}");
}

/// Usage that is not of a function, and meters that are not measured, are listed.
#[test]
fn what_cannot_be_compared_is_listed() {
    let mut rows = bill_rows("pay", &spans(0..24));
    let mut idle = rows[0].clone();
    idle.what = meter::recognize("Lambda-Provisioned-Concurrency", "");
    let mut transfer = rows[0].clone();
    (transfer.function, transfer.what) = (None, meter::recognize("DataTransfer-Out-Bytes", ""));
    let tax = BillRow { charge: Charge::Tax, ..rows[0].clone() };
    rows.extend([idle, transfer.clone(), tax]);
    let result = run(&rows, vec![("pay", measured(spans(0..24)))]);
    assert_eq!(codes(&result), [ReasonCode::MeterNotMeasured]);
    let mut bill = Bill::default();
    rows.iter().for_each(|row| bill.add(row));
    let rest: Vec<&str> = bill.rest.keys().map(String::as_str).collect();
    assert_eq!(rest, ["data transfer without a function", "taxes"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// AWS's rounding of every row never makes a difference, whatever the usage and the order of the rows.
    #[test]
    fn a_complete_bill_is_equal(hours in prop::collection::btree_map(0i64..200, (128u128..1 << 40, 1u64..1 << 30), 1..60), seed in any::<u64>()) {
        let spans: Vec<Span> = hours.iter().map(|(hour, (mb_ms, requests))| span(*hour, *mb_ms, *requests)).collect();
        let mut rows = bill_rows("pay", &spans);
        rows.sort_by_key(|row| row.quantity_pico.wrapping_mul(i128::from(seed)));
        let result = run(&rows, vec![("pay", measured(spans))]);
        prop_assert!(result.iter().all(|row| row.status == Status::Equal), "{result:?}");
    }

    /// Whatever is missing on either side, the reasons and the rest add up, and nothing panics.
    #[test]
    fn reasons_add_up(billed in prop::collection::vec((0i64..72, 0u128..1 << 50, 0u64..1 << 40), 0..30), kept in prop::collection::vec((0i64..72, 0u128..1 << 50, 0u64..1 << 40), 0..30), lost in 0u64..1 << 40) {
        let make = |parts: Vec<(i64, u128, u64)>| parts.into_iter().map(|(hour, mb_ms, requests)| span(hour, mb_ms, requests)).collect::<Vec<_>>();
        let measured = Measured { lost_invocations: lost, ..measured(make(kept)) };
        let result = run(&bill_rows("pay", &make(billed)), vec![("pay", measured)]);
        assert_adds_up(&result);
    }
}
