//! Costs that depend on the account or on settings of the function: monthly volume tiers, the free tier, provisioned
//! concurrency, SnapStart, and whether init was billed.
//!
//! [`crate::pricing::bill`] does not include them. Volume tiers and the free tier apply to a whole account and month, so the
//! bill of one function uses the first tier.

use serde::Serialize;

use crate::pricing::bill::{Bill, MB_MS_PER_GB_SECOND, Usage, mb_ms_at};
use crate::pricing::money::PicoDollars;
use crate::pricing::prices::{FreeTier, Rates};
use crate::units::Megabytes;

/// Provisioned concurrency is billed from enabling to disabling, rounded up to this many ms (AWS Lambda
/// pricing, "Provisioned Concurrency": five minutes).
const PROVISIONED_STEP_MS: u64 = 5 * 60_000;

/// A cached snapshot is billed for at least this long, ms (AWS Lambda pricing, "SnapStart": three hours).
const MIN_SNAPSHOT_MS: u64 = 3 * 3_600_000;

/// From this moment init is billed for every on-demand function, in microseconds since the epoch: 2025-08-01
/// (AWS Compute Blog, 2025-04-29).
pub const INIT_BILLED_FROM_US: u64 = 1_754_006_400_000_000;

impl Rates {
    /// The cost of `usage` when `before_mb_ms` were already used in this month in the same region and architecture. Each
    /// part has the price of its volume tier.
    #[must_use]
    pub fn bill_in_month(&self, usage: &Usage, before_mb_ms: u128) -> Bill {
        let end = before_mb_ms.saturating_add(usage.memory_mb_ms);
        let mut compute = PicoDollars::ZERO;
        for (i, tier) in self.tiers().iter().enumerate() {
            let limit = |tier: &crate::pricing::prices::Tier| {
                u128::from(tier.from_gb_seconds).saturating_mul(MB_MS_PER_GB_SECOND)
            };
            let from = limit(tier).max(before_mb_ms);
            let to = self.tiers().get(i + 1).map_or(u128::MAX, limit).min(end);
            compute += mb_ms_at(to.saturating_sub(from), tier.gb_second);
        }
        self.bill_with(usage, compute)
    }

    /// The cost of provisioned concurrency: `capacity` environments of `memory`, provisioned for `enabled_ms`, and `usage` on
    /// them. `None` where no price is known.
    #[must_use]
    pub fn bill_provisioned(
        &self,
        memory: Megabytes,
        capacity: u32,
        enabled_ms: u64,
        usage: &Usage,
    ) -> Option<ProvisionedBill> {
        let rates = self.provisioned?;
        let billed_ms = enabled_ms.div_ceil(PROVISIONED_STEP_MS).saturating_mul(PROVISIONED_STEP_MS);
        let ready = u128::from(memory.0) * u128::from(capacity) * u128::from(billed_ms);
        Some(ProvisionedBill {
            ready: mb_ms_at(ready, rates.idle_gb_second),
            used: self.bill_with(usage, mb_ms_at(usage.memory_mb_ms, rates.duration_gb_second)),
        })
    }

    /// The cost of SnapStart for one published version: its snapshot of `memory`, cached for `cached_ms`, and `restores` of it.
    /// `None` where no price is known. SnapStart is free for Java runtimes: do not call it for them.
    #[must_use]
    pub fn bill_snap_start(&self, memory: Megabytes, cached_ms: u64, restores: u64) -> Option<PicoDollars> {
        let rates = self.snap_start?;
        let cached = u128::from(memory.0) * u128::from(cached_ms.max(MIN_SNAPSHOT_MS));
        let restored = rates.restore_gb.times(restores).scaled(u128::from(memory.0), 1_024)?;
        Some(mb_ms_at(cached, rates.cache_gb_second) + restored)
    }

    /// The utilization above which provisioned concurrency is cheaper than on-demand invocations:
    /// `idle / (on demand - provisioned duration)`. `None` where no price is known or it is never cheaper.
    #[must_use]
    pub fn provisioned_break_even(&self) -> Option<f64> {
        let rates = self.provisioned?;
        let difference = self.gb_second() - rates.duration_gb_second;
        (difference > PicoDollars::ZERO).then(|| rates.idle_gb_second.0 as f64 / difference.0 as f64)
    }
}

/// A bill with provisioned concurrency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ProvisionedBill {
    /// Provisioned capacity, whether it was used or not.
    pub ready: PicoDollars,
    /// Invocations on it.
    pub used: Bill,
}

/// The part of `usage` that the free tier does not cover, when `before` was already used in this month.
///
/// The free tier applies to the whole account: all regions, both architectures, on-demand invocations only.
#[must_use]
pub fn after_free_tier(usage: &Usage, before: &Usage, free: FreeTier) -> Usage {
    let free_mb_ms = u128::from(free.gb_seconds) * MB_MS_PER_GB_SECOND;
    let memory = usage.memory_mb_ms.saturating_sub(free_mb_ms.saturating_sub(before.memory_mb_ms));
    Usage {
        requests: usage.requests.saturating_sub(free.requests.saturating_sub(before.requests)),
        memory_mb_ms: memory,
        init_mb_ms: usage.init_mb_ms.min(memory),
        storage_mb_ms: usage.storage_mb_ms,
    }
}

/// How the code of a function is packaged. Before 2025-08-01 it determined whether init was billed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Packaging {
    /// A zip file on a managed runtime.
    ManagedRuntime,
    /// A zip file on a custom runtime, a container image, or provisioned concurrency.
    Other,
}

/// `billedDurationMs` when the platform did not report it: the duration, and init where it is billed, rounded up to a whole
/// millisecond.
///
/// `at_us` is when the invocation began, microseconds since the epoch. An Init inside the invocation is part of its duration,
/// and a restore is not an Init: pass zero. A timeout is not a limit: it is billed with the Init before it.
#[must_use]
pub fn derived_billed_ms(duration_us: u64, init_us: u64, packaging: Packaging, at_us: u64) -> u64 {
    let init_billed = packaging == Packaging::Other || at_us >= INIT_BILLED_FROM_US;
    duration_us.saturating_add(if init_billed { init_us } else { 0 }).div_ceil(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pricing::prices::PriceTable;
    use crate::units::Architecture;
    use proptest::prelude::*;

    fn rates() -> Rates {
        PriceTable::embedded().rates("us-east-1", Architecture::X86_64).unwrap()
    }

    fn gb_seconds(amount: u64) -> Usage {
        Usage { memory_mb_ms: u128::from(amount) * MB_MS_PER_GB_SECOND, ..Usage::default() }
    }

    #[test]
    fn volume_is_billed_tier_by_tier() {
        // 20 billion GB-seconds: 6 at 16.6667, 9 at 15 and 5 at 13.3334 dollars a million; here in 1/10,000 dollar.
        let bill = rates().bill_in_month(&gb_seconds(20_000_000_000), 0);
        let dollars: u64 = 6_000 * 166_667 + 9_000 * 150_000 + 5_000 * 133_334;
        assert_eq!(bill.total(), PicoDollars(i128::from(dollars) * 100_000_000));
        let last = rates().bill_in_month(&gb_seconds(1), 16_000_000_000 * MB_MS_PER_GB_SECOND);
        assert_eq!(last.total(), PicoDollars(13_333_400));
    }

    #[test]
    fn the_free_tier_is_used_up_once() {
        let free = PriceTable::embedded().free_tier();
        let usage = Usage { requests: 1_500_000, ..gb_seconds(500_000) };
        let first = after_free_tier(&usage, &Usage::default(), free);
        assert_eq!((first.requests, first.memory_mb_ms), (500_000, 100_000 * MB_MS_PER_GB_SECOND));
        assert_eq!(after_free_tier(&usage, &usage, free), usage);
    }

    #[test]
    fn provisioned_concurrency_rounds_its_time_up_and_keeps_its_price() {
        // One GB for six minutes counts as ten: 600 × 4.1667e-6, and one used second 9.7222e-6.
        let usage = Usage::of(Megabytes(1_024), 1_000, 1, 512);
        let bill = rates().bill_provisioned(Megabytes(1_024), 1, 360_000, &usage).unwrap();
        assert_eq!(bill.ready, PicoDollars(600 * 4_166_700));
        assert_eq!(bill.used.compute, PicoDollars(9_722_200));
        // 4.1667 / (16.6667 - 9.7222)
        assert!((rates().provisioned_break_even().unwrap() - 0.6).abs() < 1e-4);
    }

    #[test]
    fn snap_start_bills_three_hours_at_least_and_every_restore() {
        let cost = rates().bill_snap_start(Megabytes(2_048), 1, 10).unwrap();
        assert_eq!(cost, PicoDollars(2 * 10_800 * 1_504_600 + 2 * 10 * 139_799_800));
        let elsewhere = PriceTable::embedded().rates("eu-west-1", Architecture::X86_64).unwrap();
        assert_eq!(elsewhere.bill_snap_start(Megabytes(2_048), 1, 10), None);
    }

    #[test]
    fn init_was_free_on_managed_runtimes_until_august_2025() {
        let before = INIT_BILLED_FROM_US - 1;
        let after = INIT_BILLED_FROM_US;
        // The examples of the current documentation: 133.61 + 80.00 is billed as 214.
        assert_eq!(derived_billed_ms(133_610, 80_000, Packaging::ManagedRuntime, after), 214);
        assert_eq!(derived_billed_ms(133_610, 80_000, Packaging::ManagedRuntime, before), 134);
        assert_eq!(derived_billed_ms(133_610, 80_000, Packaging::Other, before), 214);
    }

    /// REPORT lines of a function with a timeout of 31 seconds. The platform rounds up from more digits than it writes.
    #[test]
    fn a_timeout_is_billed_with_the_init_before_it() {
        for (init_us, billed_ms) in
            [(3_439_000, 34_440), (3_568_540, 34_569), (3_074_910, 34_075), (2_189_800, 33_190)]
        {
            let derived =
                derived_billed_ms(31_000_000, init_us, Packaging::ManagedRuntime, INIT_BILLED_FROM_US);
            assert!(derived.abs_diff(billed_ms) <= 1, "{derived} for {billed_ms}");
        }
    }

    proptest! {
        #[test]
        fn tiers_never_cost_more_than_the_first_and_add_up(used in 0u64..1 << 36, before in 0u64..1 << 36, cut in 0.0f64..=1.0) {
            let whole = rates().bill_in_month(&gb_seconds(used), u128::from(before) * MB_MS_PER_GB_SECOND).total();
            prop_assert!(whole <= rates().bill(&gb_seconds(used)).total());
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of u64")]
            let first = (used as f64 * cut) as u64;
            let first = first.min(used);
            let at = |used: u64, before: u64| rates().bill_in_month(&gb_seconds(used), u128::from(before) * MB_MS_PER_GB_SECOND).total();
            prop_assert_eq!(at(first, before) + at(used - first, before + first), whole);
        }
    }
}
