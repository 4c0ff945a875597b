//! What is known of a function at an export.

use tailor_sizing::pricing::money::PicoDollars;

use super::Distributions;

/// How the sums of an export relate to those of the exports before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Temporality {
    /// Sums since the start of the counters.
    #[default]
    Cumulative,
    /// Sums since the export before.
    Delta,
}

/// Sums over the invocations of a function since `start_us`.
#[derive(Debug, Clone, PartialEq)]
pub struct FunctionTotals {
    /// Since when they are counted, microseconds since the Unix epoch.
    pub start_us: u64,
    /// All invocations.
    pub invocations: u64,
    /// Those that failed, with timeouts and those that ran out of memory.
    pub errors: u64,
    /// Those that the timeout ended.
    pub timeouts: u64,
    /// Those that ran out of memory.
    pub out_of_memory: u64,
    /// Cold starts.
    pub cold_starts: u64,
    /// Billed time, ms.
    pub billed_ms: u64,
    /// Cost, without what has no known price.
    pub cost: PicoDollars,
    /// The histograms.
    pub distributions: Distributions,
}

impl FunctionTotals {
    /// What was counted after `base`, an earlier state of the same counters, which is known at `base_us`.
    #[must_use]
    pub fn since(&self, base: &Self, base_us: u64) -> Self {
        Self {
            start_us: base_us,
            invocations: self.invocations.saturating_sub(base.invocations),
            errors: self.errors.saturating_sub(base.errors),
            timeouts: self.timeouts.saturating_sub(base.timeouts),
            out_of_memory: self.out_of_memory.saturating_sub(base.out_of_memory),
            cold_starts: self.cold_starts.saturating_sub(base.cold_starts),
            billed_ms: self.billed_ms.saturating_sub(base.billed_ms),
            cost: (self.cost - base.cost).max(PicoDollars::ZERO),
            distributions: self.distributions.since(&base.distributions),
        }
    }

    /// Invocations that did not fail.
    #[must_use]
    pub const fn successes(&self) -> u64 {
        self.invocations.saturating_sub(self.errors)
    }
}

/// What is recommended for a function now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FunctionGauges {
    /// Memory size of the latest invocations, bytes.
    pub memory_bytes: u64,
    /// Recommended memory size, bytes.
    pub recommended_bytes: u64,
    /// What the recommended size would have saved in the last 30 days.
    pub savings: PicoDollars,
}
