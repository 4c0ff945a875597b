//! Sums of invocations per hour and per day: what a time series is made of.

use std::collections::BTreeMap;

use tailor_sizing::pricing::bill::Usage;
use tailor_sizing::telemetry::histogram::{LogHistogram, MAX_BUCKET};
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::{Architecture, Megabytes};

use crate::report::varint::{put, take};
use crate::store::{HOUR_US, StoredRollup};

pub(super) const DAY_HOURS: u64 = 24;

/// Hours for which stored sums have one entry per hour: the hourly retention of the store.
pub(super) const HOURLY_HOURS: u64 = 8 * DAY_HOURS;

/// Days for which stored sums have one entry per day.
pub(super) const DAILY_DAYS: u64 = 400;

/// Days for which stored sums keep durations.
const DURATION_DAYS: u64 = 62;

/// Buckets of a stored histogram that become one: quantiles of large fleets are within 4.5 %.
const MERGED_BUCKETS: u16 = 4;

/// The version of the encoding.
const ENCODING: u128 = 1;

/// Sums over invocations.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Sums {
    pub(super) invocations: u64,
    pub(super) errors: u64,
    pub(super) cold_starts: u64,
    pub(super) billed_ms: u64,
    /// What is billed; nothing for managed instances.
    pub(super) usage: Usage,
    /// `duration_us` of every invocation.
    pub(super) durations: LogHistogram,
}

impl Sums {
    fn of(memory: Megabytes, rollup: &Rollup, billing: Billing) -> Self {
        let usage = match billing {
            Billing::Instances => Usage::default(),
            Billing::Invocations { ephemeral_mb } => {
                Usage::of(memory, rollup.billed_ms, rollup.invocations, ephemeral_mb)
                    .with_init(memory, rollup.billed_init_us() / 1_000)
            }
        };
        Self {
            invocations: rollup.invocations,
            errors: rollup.errors,
            cold_starts: rollup.cold_starts,
            billed_ms: rollup.billed_ms,
            usage,
            durations: rollup.duration_us.clone(),
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.merge_counts(other);
        self.usage.add(&other.usage);
    }

    /// Adds everything but the usage.
    pub(super) fn merge_counts(&mut self, other: &Self) {
        for (total, other) in [
            (&mut self.invocations, other.invocations),
            (&mut self.errors, other.errors),
            (&mut self.cold_starts, other.cold_starts),
            (&mut self.billed_ms, other.billed_ms),
        ] {
            *total = total.saturating_add(other);
        }
        self.durations.merge(&other.durations);
    }

    fn encode(&self, has_durations: bool, bytes: &mut Vec<u8>) {
        let Usage { requests, memory_mb_ms, init_mb_ms, storage_mb_ms } = self.usage;
        for value in [self.invocations, self.errors, self.cold_starts, self.billed_ms, requests] {
            put(bytes, value.into());
        }
        for value in [memory_mb_ms, init_mb_ms, storage_mb_ms] {
            put(bytes, value);
        }
        let mut merged: BTreeMap<u16, u64> = BTreeMap::new();
        for (bucket, count) in self.durations.buckets().filter(|_| has_durations) {
            *merged.entry(bucket / MERGED_BUCKETS).or_default() += count;
        }
        put(bytes, merged.len() as u128);
        let mut last = 0;
        for (bucket, count) in merged {
            put(bytes, u128::from(bucket - last));
            put(bytes, count.into());
            last = bucket;
        }
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let mut next = || u64::try_from(take(bytes)?).ok();
        let [invocations, errors, cold_starts, billed_ms, requests] =
            [next()?, next()?, next()?, next()?, next()?];
        let usage = Usage {
            requests,
            memory_mb_ms: take(bytes)?,
            init_mb_ms: take(bytes)?,
            storage_mb_ms: take(bytes)?,
        };
        let (mut buckets, mut last) = (vec![], 0u64);
        for _ in 0..take(bytes)? {
            last = last.checked_add(u64::try_from(take(bytes)?).ok()?)?;
            let middle = last.checked_mul(u64::from(MERGED_BUCKETS))? + u64::from(MERGED_BUCKETS / 2);
            buckets.push((middle.min(MAX_BUCKET.into()), u64::try_from(take(bytes)?).ok()?));
        }
        let durations = LogHistogram::from_buckets(buckets).ok()?;
        Some(Self { invocations, errors, cold_starts, billed_ms, usage, durations })
    }
}

/// What a function is billed for.
#[derive(Debug, Clone, Copy)]
pub(in crate::report) enum Billing {
    /// Each invocation, with this size of `/tmp`.
    Invocations {
        /// Size of `/tmp`, MB.
        ephemeral_mb: u32,
    },
    /// Managed instances.
    Instances,
}

/// The sums of invocations with one price, by hour and by day since the Unix epoch. Days have the hours, too.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Spans {
    pub(super) hours: BTreeMap<u64, Sums>,
    pub(super) days: BTreeMap<u64, Sums>,
}

impl Spans {
    pub(super) fn merge(&mut self, other: &Self) {
        for (mine, others) in [(&mut self.hours, &other.hours), (&mut self.days, &other.days)] {
            for (span, sums) in others {
                mine.entry(*span).or_default().merge(sums);
            }
        }
    }
}

/// The spans of one function, by instruction set.
#[derive(Debug, Clone, PartialEq, Default)]
pub(in crate::report) struct Timeline(pub(super) Vec<(Architecture, Spans)>);

impl Timeline {
    pub(in crate::report) fn of(rollups: &[StoredRollup], billing: Billing) -> Self {
        let mut timeline = Self::default();
        for StoredRollup { key, from_hour, hours, rollup } in rollups {
            let spans = timeline.spans(key.architecture);
            let sums = Sums::of(key.memory, rollup, billing);
            if *hours == 1 {
                spans.hours.entry(*from_hour).or_default().merge(&sums);
            }
            spans.days.entry(from_hour / DAY_HOURS).or_default().merge(&sums);
        }
        timeline
    }

    fn spans(&mut self, architecture: Architecture) -> &mut Spans {
        let known = self.0.iter().position(|(known, _)| *known == architecture);
        let index = known.unwrap_or_else(|| {
            self.0.push((architecture, Spans::default()));
            self.0.len() - 1
        });
        &mut self.0[index].1
    }

    /// Invocations that started in `from_us..until_us` (microseconds since the Unix epoch), in whole hours, or in whole days
    /// where hours are not known any more.
    pub(in crate::report) fn invocations(&self, from_us: u64, until_us: u64) -> u64 {
        let (from_hour, until_hour) = (from_us.div_ceil(HOUR_US), until_us / HOUR_US);
        let of = |spans: &Spans| {
            let is_hourly = spans.hours.keys().next().is_some_and(|first| *first <= from_hour);
            let (spans, hours) = if is_hourly { (&spans.hours, 1) } else { (&spans.days, DAY_HOURS) };
            let whole = spans.range(from_hour.div_ceil(hours)..);
            whole
                .take_while(|(span, _)| span.saturating_add(1).saturating_mul(hours) <= until_hour)
                .fold(0u64, |sum, (_, sums)| sum.saturating_add(sums.invocations))
        };
        self.0.iter().fold(0u64, |total, (_, spans)| total.saturating_add(of(spans)))
    }

    /// The sums to store at `now_hour` (hours since the Unix epoch).
    pub(in crate::report) fn encode(&self, now_hour: u64) -> Vec<u8> {
        let mut bytes = vec![];
        put(&mut bytes, ENCODING);
        put(&mut bytes, self.0.len() as u128);
        let today = now_hour / DAY_HOURS;
        for (architecture, spans) in &self.0 {
            put(&mut bytes, u128::from(*architecture == Architecture::Arm64));
            encode_spans(&spans.hours, now_hour.saturating_sub(HOURLY_HOURS), 0, &mut bytes);
            let durations_from = today.saturating_sub(DURATION_DAYS);
            encode_spans(&spans.days, today.saturating_sub(DAILY_DAYS), durations_from, &mut bytes);
        }
        bytes
    }

    /// Reads what [`Timeline::encode`] wrote; `None` when it is damaged or of another version.
    pub(in crate::report) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let bytes = &mut bytes;
        if take(bytes)? != ENCODING {
            return None;
        }
        let mut timeline = Self::default();
        for _ in 0..take(bytes)? {
            let architecture = if take(bytes)? == 1 { Architecture::Arm64 } else { Architecture::X86_64 };
            let (hours, days) = (decode_spans(bytes)?, decode_spans(bytes)?);
            timeline.spans(architecture).merge(&Spans { hours, days });
        }
        bytes.is_empty().then_some(timeline)
    }
}

fn encode_spans(spans: &BTreeMap<u64, Sums>, from: u64, durations_from: u64, bytes: &mut Vec<u8>) {
    put(bytes, spans.range(from..).count() as u128);
    let mut last = 0;
    for (span, sums) in spans.range(from..) {
        put(bytes, u128::from(span - last));
        sums.encode(*span >= durations_from, bytes);
        last = *span;
    }
}

fn decode_spans(bytes: &mut &[u8]) -> Option<BTreeMap<u64, Sums>> {
    let (mut spans, mut last) = (BTreeMap::new(), 0u64);
    for _ in 0..take(bytes)? {
        last = last.checked_add(u64::try_from(take(bytes)?).ok()?)?;
        spans.insert(last, Sums::decode(bytes)?);
    }
    Some(spans)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{FunctionKey, SeriesKey};

    fn stored(from_hour: u64, hours: u64, memory: u32, architecture: Architecture) -> StoredRollup {
        let function =
            FunctionKey { account: String::new(), region: "eu-west-1".to_owned(), name: "f".to_owned() };
        let mut rollup = Rollup { invocations: 300, errors: 2, billed_ms: 9_000, ..Rollup::default() };
        (1..300u64).for_each(|ms| rollup.duration_us.record(ms * 1_000));
        let key = SeriesKey { function, version: "1".to_owned(), memory: Megabytes(memory), architecture };
        StoredRollup { key, from_hour, hours, rollup }
    }

    #[test]
    fn stored_sums_are_read_back_and_damaged_ones_are_noticed() {
        let now_hour = 480_000;
        let rollups = [
            stored(now_hour, 1, 128, Architecture::X86_64),
            stored(now_hour, 1, 256, Architecture::X86_64),
            stored(now_hour - 1, 1, 10_240, Architecture::Arm64),
            stored(now_hour - 24 * 30, 24, 512, Architecture::X86_64),
            stored(now_hour - 24 * 399, 24, 512, Architecture::X86_64),
            stored(now_hour - 24 * 500, 24, 512, Architecture::X86_64),
        ];
        let timeline = Timeline::of(&rollups, Billing::Invocations { ephemeral_mb: 1_024 });
        let bytes = timeline.encode(now_hour);
        let read = Timeline::decode(&bytes).unwrap();
        let (_, x86) = &read.0[0];
        let now = &x86.hours[&now_hour];
        assert_eq!((now.invocations, now.errors, now.usage.requests), (600, 4, 600));
        assert_eq!(now.usage.memory_mb_ms, u128::from(128u32 + 256) * 9_000);
        assert_eq!(now.usage.storage_mb_ms, 512 * 18_000);
        // The day of 500 days ago is not kept, and the durations of 399 days ago are not.
        assert_eq!(x86.days.len(), 3);
        let oldest = x86.days.values().next().unwrap();
        assert!(oldest.invocations == 300 && oldest.durations.is_empty());
        for quantile in [0.5, 0.95, 0.99] {
            let exact = rollups[0].rollup.duration_us.quantile(quantile).unwrap();
            let kept = now.durations.quantile(quantile).unwrap();
            assert!((kept / exact - 1.0).abs() < 0.055, "{quantile}: {kept} for {exact}");
        }
        for length in 0..bytes.len() {
            assert_eq!(Timeline::decode(&bytes[..length]), None, "cut after {length} bytes");
        }
    }
}
