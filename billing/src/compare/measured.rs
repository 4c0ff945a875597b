//! What was measured of a function.

use std::collections::BTreeSet;

use tailor_sizing::units::Architecture;

use super::gb_seconds_pico;
use crate::bill::Period;
use crate::decimal::PICO;
use crate::meter::{Meter, MeterKind};

/// Usage in one hour or one day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its first hour, in hours since the Unix epoch.
    pub from_hour: i64,
    /// Its length: 1 or 24 hours.
    pub hours: i64,
    /// Instruction set.
    pub architecture: Architecture,
    /// Memory × billed time, MB·ms.
    pub memory_mb_ms: u128,
    /// `/tmp` above the free 512 MB × billed time, MB·ms.
    pub storage_mb_ms: u128,
    /// Requests.
    pub requests: u64,
    /// Their billed time, ms.
    pub billed_ms: u64,
}

impl Span {
    const fn is_within(&self, period: Period) -> bool {
        self.from_hour >= period.from_hour && self.from_hour + self.hours <= period.until_hour()
    }

    /// Whether a part of it is in the period.
    const fn overlaps(&self, period: Period) -> bool {
        self.from_hour < period.until_hour() && self.from_hour + self.hours > period.from_hour
    }

    fn quantity_pico(&self, meter: Meter) -> i128 {
        match meter.kind {
            MeterKind::Compute if meter.architecture == Some(self.architecture) => {
                gb_seconds_pico(self.memory_mb_ms)
            }
            MeterKind::Requests => i128::from(self.requests) * PICO,
            MeterKind::EphemeralStorage => gb_seconds_pico(self.storage_mb_ms),
            _ => 0,
        }
    }
}

/// What was measured of a function.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Measured {
    /// Its usage. There may be several spans of the same time.
    pub spans: Vec<Span>,
    /// Most invocations that are known to be missing: lost, unsent, or in batches that did not arrive.
    pub lost_invocations: u64,
    /// The losses in words.
    pub losses: String,
}

impl Measured {
    /// The instruction set with the most usage.
    #[must_use]
    pub fn architecture(&self) -> Option<Architecture> {
        self.spans.iter().max_by_key(|span| span.memory_mb_ms).map(|span| span.architecture)
    }

    /// The measured quantity of a meter, 10⁻¹².
    #[must_use]
    pub fn quantity_pico(&self, period: Period, meter: Meter) -> i128 {
        // MB·ms are summed before they become GB-seconds, so that nothing is rounded twice.
        let sum =
            self.spans.iter().filter(|span| span.is_within(period)).fold(None, |sum: Option<Span>, span| {
                if meter.kind == MeterKind::Compute && meter.architecture != Some(span.architecture) {
                    return sum;
                }
                Some(sum.map_or(*span, |sum| Span {
                    memory_mb_ms: sum.memory_mb_ms.saturating_add(span.memory_mb_ms),
                    storage_mb_ms: sum.storage_mb_ms.saturating_add(span.storage_mb_ms),
                    requests: sum.requests.saturating_add(span.requests),
                    ..sum
                }))
            });
        sum.map_or(0, |span| span.quantity_pico(meter))
    }

    /// The quantity by hour; `None` when the store has the whole day only.
    pub(super) fn by_hour(&self, period: Period, meter: Meter) -> Option<[i128; 24]> {
        let mut hours = [0; 24];
        for span in self.spans.iter().filter(|span| span.is_within(period)) {
            let slot =
                usize::try_from(span.from_hour - period.from_hour).ok().and_then(|hour| hours.get_mut(hour));
            match slot {
                Some(slot) if span.hours == 1 => *slot += span.quantity_pico(meter),
                _ => return None,
            }
        }
        Some(hours)
    }

    /// The share of the requests of a period that can have run across its start or its end: AWS can bill these in another
    /// period than that in which they started. At least two requests.
    pub(super) fn share_at_boundaries(&self, period: Period) -> f64 {
        let spans = self.spans.iter().filter(|span| span.is_within(period));
        let (requests, billed_ms) = spans.fold((0.0, 0.0), |(requests, billed_ms), span| {
            (requests + span.requests as f64, billed_ms + span.billed_ms as f64)
        });
        // As many requests run at a moment as the mean of the period, and a few more by chance.
        let running = billed_ms / (period.hours.max(1) as f64 * 3_600_000.0);
        let at_one_boundary = running + 4.0 * running.sqrt() + 1.0;
        (2.0 * at_one_boundary / f64::max(requests, 1.0)).min(1.0)
    }

    /// Whether it has a span that is only partly in the period.
    pub(super) fn has_partial_spans(&self, period: Period) -> bool {
        self.spans.iter().any(|span| span.overlaps(period) && !span.is_within(period))
    }

    /// The UTC days and meters with usage that the bill covers, except where the bill has a period with the same time.
    pub(super) fn keys(
        &self,
        (first, end): (i64, i64),
        billed: impl Iterator<Item = Period>,
    ) -> BTreeSet<(Period, Meter)> {
        let billed: BTreeSet<Period> = billed.collect();
        let mut keys = BTreeSet::new();
        for span in
            self.spans.iter().filter(|span| span.from_hour >= first && span.from_hour + span.hours <= end)
        {
            let day = Period { from_hour: span.from_hour.div_euclid(24) * 24, hours: 24 };
            let covering = billed.iter().filter(|period| span.overlaps(**period)).copied();
            let mut periods: Vec<Period> = covering.collect();
            if periods.is_empty() {
                periods.push(day);
            }
            for kind in [MeterKind::Compute, MeterKind::Requests, MeterKind::EphemeralStorage] {
                let architecture = (kind == MeterKind::Compute).then_some(span.architecture);
                let meter = Meter { kind, architecture };
                if span.quantity_pico(meter) > 0 {
                    keys.extend(periods.iter().map(|period| (*period, meter)));
                }
            }
        }
        keys
    }
}
