//! One row per series and hour or day.

use std::collections::BTreeMap;

use tailor_billing::table::{Column, Kind, Value};
use tailor_sizing::pricing::prices::PriceTable;
use tailor_sizing::telemetry::histogram::LogHistogram;
use tailor_sizing::telemetry::rollup::Rollup;

use super::{Granularity, gb_seconds_pico, usage};
use crate::store::{SeriesKey, StoredRollup};

const COLUMNS: [(&str, Kind, bool); 22] = [
    ("account", Kind::Text, true),
    ("region", Kind::Text, false),
    ("function", Kind::Text, false),
    ("version", Kind::Text, false),
    ("memory_mb", Kind::Whole, false),
    ("architecture", Kind::Text, false),
    ("from", Kind::Time, false),
    ("until", Kind::Time, false),
    ("invocations", Kind::Whole, false),
    ("errors", Kind::Whole, false),
    ("timeouts", Kind::Whole, false),
    ("out_of_memory", Kind::Whole, false),
    ("cold_starts", Kind::Whole, false),
    ("billed_ms", Kind::Whole, false),
    ("init_us", Kind::Whole, false),
    ("gb_seconds", Kind::Decimal, false),
    ("cost_usd", Kind::Decimal, true),
    ("p50_us", Kind::Whole, true),
    ("p95_us", Kind::Whole, true),
    ("p99_us", Kind::Whole, true),
    ("max_peak_kib", Kind::Whole, false),
    ("max_memory_used_mb", Kind::Whole, false),
];

pub(super) fn columns() -> Vec<Column> {
    COLUMNS
        .iter()
        .map(|(name, kind, is_nullable)| Column { name, kind: *kind, is_nullable: *is_nullable })
        .collect()
}

pub(super) fn rows(
    prices: &PriceTable,
    rollups: &[StoredRollup],
    ephemeral_mb: Option<u32>,
    granularity: Granularity,
) -> Vec<Vec<Value>> {
    let mut sums: BTreeMap<(u64, u64, SeriesKey), Rollup> = BTreeMap::new();
    for stored in rollups {
        let (from_hour, hours) = granularity.period(stored);
        sums.entry((from_hour, hours, stored.key.clone())).or_default().merge(&stored.rollup);
    }
    let stored = sums.into_iter().map(|((from_hour, hours, key), rollup)| StoredRollup {
        key,
        from_hour,
        hours,
        rollup,
    });
    stored.map(|stored| row(prices, &stored, ephemeral_mb)).collect()
}

fn row(prices: &PriceTable, stored: &StoredRollup, ephemeral_mb: Option<u32>) -> Vec<Value> {
    let StoredRollup { key, from_hour, hours, rollup } = stored;
    let integer = |number: u64| Value::Whole(i64::try_from(number).unwrap_or(i64::MAX));
    let time = |hour: u64| Value::Time(i64::try_from(hour * 3_600).unwrap_or(i64::MAX));
    let usage = usage(stored, ephemeral_mb);
    let rates = prices.rates(&key.function.region, key.architecture).ok().filter(|_| ephemeral_mb.is_some());
    let cost = rates.map_or(Value::Null, |rates| Value::Decimal(rates.bill(&usage).total().0));
    vec![
        Value::text(&key.function.account),
        Value::Text(key.function.region.clone()),
        Value::Text(key.function.name.clone()),
        Value::Text(key.version.clone()),
        integer(key.memory.0.into()),
        Value::Text(key.architecture.to_string()),
        time(*from_hour),
        time(from_hour + hours),
        integer(rollup.invocations),
        integer(rollup.errors),
        integer(rollup.timeouts),
        integer(rollup.out_of_memory),
        integer(rollup.cold_starts),
        integer(rollup.billed_ms),
        integer(rollup.init_us),
        Value::Decimal(gb_seconds_pico(usage.memory_mb_ms)),
        cost,
        quantile(&rollup.duration_us, 0.5),
        quantile(&rollup.duration_us, 0.95),
        quantile(&rollup.duration_us, 0.99),
        integer(rollup.max_peak_kib),
        integer(rollup.max_memory_used_mb.into()),
    ]
}

fn quantile(histogram: &LogHistogram, q: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "a duration, and the cast saturates")]
    histogram.quantile(q).map_or(Value::Null, |us| Value::Whole(us.round() as i64))
}
