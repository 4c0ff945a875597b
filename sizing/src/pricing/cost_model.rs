//! Expected cost of one invocation at any memory size, relative to the billed duration at a measured size.
//!
//! Init runs with full CPU at every size. Rounding up to whole milliseconds and failed invocations do not depend on the size
//! either. So the mean billed duration at another size is the measured mean plus the predicted change of the handler's
//! duration. [`crate::pricing::bill`] has the exact bills of measured invocations.

use crate::pricing::money::PicoDollars;
use crate::pricing::prices::Rates;
use crate::telemetry::rollup::Rollup;
use crate::units::Megabytes;

/// Invocations in the unit that costs are shown in.
pub const MILLION: u64 = 1_000_000;

/// Mean of the rounding up to a whole millisecond, used when no billed duration is known.
const ROUNDING_MS: f64 = 0.5;

/// The parts of a function's mean billed duration, and its prices.
#[derive(Debug, Clone)]
pub struct CostModel {
    rates: Rates,
    ephemeral_mb: u32,
    /// Mean billed duration at the measured size, ms.
    billed_ms: f64,
    /// Predicted mean duration of all invocations at the measured size, ms.
    handler_ms: f64,
    /// Mean duration of first invocations, relative to warm invocations.
    cold_ratio: f64,
    /// First invocations of an environment per invocation.
    cold_share: f64,
    /// Mean init time per invocation, ms.
    init_ms: f64,
    /// The billed part of it, ms.
    billed_init_ms: f64,
}

impl CostModel {
    /// The model of the invocations in `rollup`. The predicted warm duration at its memory size is `mean_ms`.
    #[must_use]
    pub fn new(rates: Rates, ephemeral_mb: u32, rollup: &Rollup, mean_ms: f64) -> Self {
        let count = rollup.invocations.max(1) as f64;
        let cold_share = (rollup.first_invocations() as f64 / count).clamp(0.0, 1.0);
        let cold_ms = rollup.cold.wall_us as f64 / 1e3 / rollup.cold.invocations.max(1) as f64;
        let cold_ratio = if cold_ms > 0.0 && mean_ms > 0.0 { cold_ms / mean_ms } else { 1.0 };
        let init_ms = rollup.init_us as f64 / 1e3 / count;
        let billed_init_ms = rollup.billed_init_us() as f64 / 1e3 / count;
        let handler_ms = mean_ms * (1.0 + cold_share * (cold_ratio - 1.0));
        let billed_ms = if rollup.billed_ms > 0 {
            rollup.billed_ms as f64 / count
        } else {
            handler_ms + init_ms + ROUNDING_MS
        };
        Self { rates, ephemeral_mb, billed_ms, handler_ms, cold_ratio, cold_share, init_ms, billed_init_ms }
    }

    /// The same function at other prices.
    #[must_use]
    pub fn with_rates(&self, rates: Rates) -> Self {
        Self { rates, ..self.clone() }
    }

    /// The same function with another amount of `/tmp`, MB.
    #[must_use]
    pub fn with_storage(&self, ephemeral_mb: u32) -> Self {
        Self { ephemeral_mb, ..self.clone() }
    }

    /// Its prices.
    #[must_use]
    pub const fn rates(&self) -> &Rates {
        &self.rates
    }

    /// Init time per invocation, a mean over all invocations, ms.
    #[must_use]
    pub const fn init_ms(&self) -> f64 {
        self.init_ms
    }

    /// The billed part of it, ms.
    #[must_use]
    pub const fn billed_init_ms(&self) -> f64 {
        self.billed_init_ms
    }

    /// The share of invocations that are the first of their environment, 0 to 1, and their expected duration with Init where
    /// the warm duration is `mean_ms`, ms.
    #[must_use]
    pub fn cold_start(&self, mean_ms: f64) -> (f64, f64) {
        let init_ms = if self.cold_share > 0.0 { self.init_ms / self.cold_share } else { 0.0 };
        (self.cold_share, init_ms + self.cold_ratio * mean_ms)
    }

    /// Expected billed time of an invocation whose warm duration is `mean_ms`, ms; at least 1.
    #[must_use]
    pub fn billed_ms(&self, mean_ms: f64) -> f64 {
        let handler_ms = mean_ms * (1.0 + self.cold_share * (self.cold_ratio - 1.0));
        (self.billed_ms + handler_ms - self.handler_ms).max(1.0)
    }

    /// Expected cost of one invocation at `memory` whose warm duration there is `mean_ms`, pico-dollars.
    #[must_use]
    pub fn pico(&self, memory: Megabytes, mean_ms: f64) -> f64 {
        self.rates.expected_pico(memory, self.billed_ms(mean_ms), self.ephemeral_mb)
    }

    /// The cost of `billed_ms` at `memory` in each of a million invocations, without the price of requests.
    #[must_use]
    pub fn time_per_million(&self, memory: Megabytes, billed_ms: f64) -> PicoDollars {
        money(self.rates.expected_time_pico(memory, billed_ms, self.ephemeral_mb) * MILLION as f64)
    }

    /// Expected cost of a million invocations at `memory` whose warm duration there is `mean_ms`.
    #[must_use]
    pub fn per_million(&self, memory: Megabytes, mean_ms: f64) -> PicoDollars {
        money(self.pico(memory, mean_ms) * MILLION as f64)
    }
}

/// Converts a float of pico-dollars to money. Values outside the range saturate, and NaN is zero.
#[expect(clippy::cast_possible_truncation, reason = "float to integer casts saturate")]
#[must_use]
pub(crate) fn money(pico: f64) -> PicoDollars {
    PicoDollars(pico.round() as i128)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pricing::prices::PriceTable;
    use crate::units::Architecture;

    #[test]
    fn the_cost_at_the_measured_size_is_the_bill_and_init_is_constant() {
        let rates = PriceTable::embedded().rates("us-east-1", Architecture::X86_64).unwrap();
        let rollup = Rollup {
            invocations: 10,
            cold_starts: 1,
            billed_ms: 2_000,
            init_us: 1_000_000,
            ..Rollup::default()
        };
        let model = CostModel::new(rates.clone(), 512, &rollup, 99.0);
        let billed = rates.cost(Megabytes(512), 2_000, 10, 512).0 as f64 / 10.0;
        assert!((model.pico(Megabytes(512), 99.0) - billed).abs() < 1.0);
        // With half of the handler duration, the 100 ms of init per invocation remain.
        assert!((model.billed_ms(49.5) - 150.5).abs() < 1e-9);
    }
}
