//! The bill: the exact cost of measured invocations.
//!
//! Lambda charges memory × billed time. Both are integers. Their products are summed exactly, and the sum is multiplied
//! by the price and rounded once. `billedDurationMs` already contains init and billed restore (Lambda developer guide, "Lambda
//! execution environment lifecycle"; in force for every function since 2025-08-01): they are not added again.
//! Monthly tiers, the free tier, provisioned concurrency and SnapStart are in [`crate::pricing::plan`].

use serde::{Deserialize, Serialize};

use crate::pricing::money::PicoDollars;
use crate::pricing::prices::Rates;
use crate::units::Megabytes;

/// MB·ms in one GB-second: 1,024 MB for 1,000 ms.
pub const MB_MS_PER_GB_SECOND: u128 = 1_024_000;

/// `/tmp` without a charge, MB.
pub const FREE_STORAGE_MB: u32 = 512;

/// Metered usage: a sum over invocations of one region and architecture, at any memory sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Requests.
    pub requests: u64,
    /// Memory × billed time, MB·ms, init included.
    pub memory_mb_ms: u128,
    /// The part of `memory_mb_ms` that is init.
    pub init_mb_ms: u128,
    /// `/tmp` above the free 512 MB × billed time, MB·ms.
    pub storage_mb_ms: u128,
}

impl Usage {
    /// The usage of `requests` invocations at one memory size with `billed_ms` in total.
    #[must_use]
    pub fn of(memory: Megabytes, billed_ms: u64, requests: u64, ephemeral_mb: u32) -> Self {
        let billed = u128::from(billed_ms);
        Self {
            requests,
            memory_mb_ms: u128::from(memory.0) * billed,
            init_mb_ms: 0,
            storage_mb_ms: u128::from(ephemeral_mb.saturating_sub(FREE_STORAGE_MB)) * billed,
        }
    }

    /// The same usage, with `init_ms` of its billed time as init. It is at most the whole billed time.
    #[must_use]
    pub fn with_init(mut self, memory: Megabytes, init_ms: u64) -> Self {
        self.init_mb_ms = (u128::from(memory.0) * u128::from(init_ms)).min(self.memory_mb_ms);
        self
    }

    /// Adds other usage of the same region and architecture.
    pub fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.memory_mb_ms = self.memory_mb_ms.saturating_add(other.memory_mb_ms);
        self.init_mb_ms = self.init_mb_ms.saturating_add(other.init_mb_ms);
        self.storage_mb_ms = self.storage_mb_ms.saturating_add(other.storage_mb_ms);
    }
}

/// A cost and its parts. The sum of the parts is exactly [`Bill::total`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Bill {
    /// Memory × time of handlers.
    pub compute: PicoDollars,
    /// Memory × time of init.
    pub init: PicoDollars,
    /// Requests.
    pub requests: PicoDollars,
    /// `/tmp` above 512 MB.
    pub storage: PicoDollars,
    /// Whether `/tmp` above 512 MB was used and the table has no price for it. `storage` is then too low.
    pub storage_unpriced: bool,
}

impl Bill {
    /// All parts together.
    #[must_use]
    pub fn total(&self) -> PicoDollars {
        self.compute + self.init + self.requests + self.storage
    }
}

impl Rates {
    /// The cost of `usage` in the first volume tier.
    #[must_use]
    pub fn bill(&self, usage: &Usage) -> Bill {
        self.bill_with(usage, mb_ms_at(usage.memory_mb_ms, self.gb_second()))
    }

    /// As [`Rates::bill`], with a cost of compute (init included) that the caller computed.
    pub(crate) fn bill_with(&self, usage: &Usage, compute: PicoDollars) -> Bill {
        // The part of init is taken from the rounded sum, so that the parts always add up to it.
        let init = share_of(compute, usage.init_mb_ms, usage.memory_mb_ms);
        let storage = self.storage_gb_second.unwrap_or(PicoDollars::ZERO);
        Bill {
            compute: compute - init,
            init,
            requests: self.request.times(usage.requests),
            storage: mb_ms_at(usage.storage_mb_ms, storage),
            storage_unpriced: usage.storage_mb_ms > 0 && self.storage_gb_second.is_none(),
        }
    }

    /// The cost of `invocations` at one memory size with `billed_ms` in total, in the first volume tier.
    ///
    /// `round_half_up(memory_mb × billed_ms × price / 1,024,000) + invocations × request price`, and the
    /// same for `/tmp` above 512 MB.
    #[must_use]
    pub fn cost(
        &self,
        memory: Megabytes,
        billed_ms: u64,
        invocations: u64,
        ephemeral_mb: u32,
    ) -> PicoDollars {
        self.bill(&Usage::of(memory, billed_ms, invocations, ephemeral_mb)).total()
    }

    /// Expected cost of one invocation of `billed_ms` (a mean, so not whole), in pico-dollars as a float.
    ///
    /// Only to compare predictions. [`Rates::bill`] computes bills.
    #[must_use]
    pub fn expected_pico(&self, memory: Megabytes, billed_ms: f64, ephemeral_mb: u32) -> f64 {
        self.expected_time_pico(memory, billed_ms, ephemeral_mb) + self.request.0 as f64
    }

    /// The same without the price of the request.
    #[must_use]
    pub(crate) fn expected_time_pico(&self, memory: Megabytes, billed_ms: f64, ephemeral_mb: u32) -> f64 {
        let storage_mb = f64::from(ephemeral_mb.saturating_sub(FREE_STORAGE_MB));
        let storage = self.storage_gb_second.unwrap_or(PicoDollars::ZERO).0 as f64;
        let per_ms = (f64::from(memory.0) * self.gb_second().0 as f64 + storage_mb * storage)
            / MB_MS_PER_GB_SECOND as f64;
        per_ms * billed_ms
    }
}

/// The price of MB·ms, rounded half up once.
pub(crate) fn mb_ms_at(mb_ms: u128, gb_second: PicoDollars) -> PicoDollars {
    // Whole GB-seconds are multiplied separately, so that no product of realistic amounts overflows.
    let whole = i128::try_from(mb_ms / MB_MS_PER_GB_SECOND).unwrap_or(i128::MAX);
    let rest = PicoDollars(gb_second.0).scaled(mb_ms % MB_MS_PER_GB_SECOND, MB_MS_PER_GB_SECOND);
    PicoDollars(whole.saturating_mul(gb_second.0)) + rest.unwrap_or(PicoDollars::ZERO)
}

/// `amount × part / whole`, for parts of any magnitude; zero when `whole` is zero.
fn share_of(amount: PicoDollars, part: u128, whole: u128) -> PicoDollars {
    if part == 0 || whole == 0 {
        return PicoDollars::ZERO;
    }
    if part >= whole {
        return amount;
    }
    // Only the 40 highest bits are used, which is exact to one part in 10^12 and does not overflow i128.
    let shift = (u128::BITS - whole.leading_zeros()).saturating_sub(40);
    amount.scaled(part >> shift, whole >> shift).unwrap_or(PicoDollars::ZERO)
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

    #[test]
    fn one_function_by_hand() {
        // 1,024 MB for 1,000 ms is one GB-second.
        assert_eq!(rates().cost(Megabytes(1_024), 1_000, 1, 512), PicoDollars(16_666_700 + 200_000));
        // 128 MB × 7 ms = 896 MB·ms; × 16,666,700 / 1,024,000 = 14,583.3625.
        assert_eq!(rates().cost(Megabytes(128), 7, 1, 512), PicoDollars(14_583 + 200_000));
        // A thousand of them round once: 14,583,362.5, half up.
        assert_eq!(rates().cost(Megabytes(128), 7_000, 1_000, 512), PicoDollars(14_583_363 + 200_000_000));
        // 1,024 MB of paid /tmp for a second.
        assert_eq!(
            rates().cost(Megabytes(1_024), 1_000, 1, 1_536),
            PicoDollars(16_666_700 + 200_000 + 30_900)
        );
    }

    #[test]
    fn unpriced_storage_is_reported() {
        let rates = PriceTable::embedded().rates("us-gov-west-1", Architecture::X86_64).unwrap();
        assert!(rates.bill(&Usage::of(Megabytes(128), 10, 1, 1_024)).storage_unpriced);
        assert!(!rates.bill(&Usage::of(Megabytes(128), 10, 1, 512)).storage_unpriced);
    }

    fn usage() -> impl Strategy<Value = Usage> {
        (128u32..=10_240, 0u64..1 << 40, 0u64..1 << 40, 512u32..=10_240, 0u64..1 << 40).prop_map(
            |(memory, billed_ms, requests, ephemeral_mb, init_ms)| {
                let memory = Megabytes(memory);
                Usage::of(memory, billed_ms, requests, ephemeral_mb).with_init(memory, init_ms)
            },
        )
    }

    proptest! {
        #[test]
        fn compute_is_the_exact_product_rounded_half_up(usage in usage()) {
            let bill = rates().bill(&usage);
            let exact = usage.memory_mb_ms * 16_666_700;
            let rounded = (exact + MB_MS_PER_GB_SECOND / 2) / MB_MS_PER_GB_SECOND;
            prop_assert_eq!((bill.compute + bill.init).0, i128::try_from(rounded).unwrap());
            prop_assert!(bill.init >= PicoDollars::ZERO && bill.compute >= PicoDollars::ZERO);
        }

        #[test]
        fn bill_of_a_sum_is_within_a_rounding_of_the_sum_of_bills(a in usage(), b in usage()) {
            let mut both = a;
            both.add(&b);
            let apart = rates().bill(&a).total() + rates().bill(&b).total();
            prop_assert!((rates().bill(&both).total() - apart).0.abs() <= 2);
        }

        #[test]
        fn more_use_never_costs_less(usage in usage(), more_ms in 0u64..1 << 30) {
            let mut more = usage;
            more.add(&Usage::of(Megabytes(128), more_ms, 1, 512));
            prop_assert!(rates().bill(&more).total() > rates().bill(&usage).total());
        }

        #[test]
        fn no_amount_panics(memory in any::<u32>(), ms in any::<u64>(), requests in any::<u64>(), ephemeral in any::<u32>(), init in any::<u64>()) {
            let usage = Usage::of(Megabytes(memory), ms, requests, ephemeral).with_init(Megabytes(memory), init);
            let mut twice = usage;
            twice.add(&usage);
            prop_assert!(rates().bill(&twice).total() >= PicoDollars::ZERO);
            prop_assert!(rates().expected_pico(Megabytes(memory), ms as f64, ephemeral).is_finite());
        }

        #[test]
        fn expectation_agrees_with_the_bill(usage_ms in 1u64..1 << 30, memory in 128u32..=10_240) {
            let exact = rates().cost(Megabytes(memory), usage_ms, 1, 600).0 as f64;
            let expected = rates().expected_pico(Megabytes(memory), usage_ms as f64, 600);
            prop_assert!((exact - expected).abs() <= 2.0 + exact * 1e-9);
        }
    }
}
