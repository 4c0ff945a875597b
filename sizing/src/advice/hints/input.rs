//! The input of hints, and the savings that several hints compute in the same way.

use crate::advice::evidence::FunctionEvidence;
use crate::model::curve::Curve;
use crate::model::memory_floor::MemoryFloor;
use crate::model::profile::Profile;
use crate::pricing::cost_model::CostModel;
use crate::pricing::money::PicoDollars;
use crate::telemetry::rollup::Rollup;
use crate::units::Megabytes;

/// The input of hints.
pub(crate) struct HintInput<'a> {
    pub(crate) evidence: &'a FunctionEvidence<'a>,
    /// What was measured at the current size, or where most was.
    pub(crate) rollup: &'a Rollup,
    /// Its means.
    pub(crate) profile: &'a Profile,
    pub(crate) floor: &'a MemoryFloor,
    pub(crate) curve: &'a Curve,
    pub(crate) costs: &'a CostModel,
    /// The costs on arm64, when it is on x86_64 and the price is known.
    pub(crate) on_arm64: Option<CostModel>,
    /// The size that the advice recommends: no hint contradicts it.
    pub(crate) recommended: Megabytes,
}

impl HintInput<'_> {
    /// Expected warm duration at the current size, ms.
    pub(super) fn now_ms(&self) -> f64 {
        self.curve.mean_ms(self.evidence.memory)
    }

    /// Expected cost per million invocations now.
    pub(super) fn cost_now(&self) -> PicoDollars {
        self.costs.per_million(self.evidence.memory, self.now_ms())
    }

    /// What a million invocations save when each is so much shorter at the same size.
    pub(super) fn saving_of_ms(&self, ms: f64) -> Option<PicoDollars> {
        let shorter = self.costs.per_million(self.evidence.memory, (self.now_ms() - ms).max(0.0));
        positive(self.cost_now() - shorter)
    }

    /// What a million invocations save when so much less time of each is billed. Other than with [`Self::saving_of_ms`], it can
    /// be more than the time of the handler.
    pub(super) fn saving_of_billed_ms(&self, ms: f64) -> Option<PicoDollars> {
        positive(self.costs.time_per_million(self.evidence.memory, ms))
    }

    /// What a million invocations save at another size.
    pub(super) fn saving_at(&self, memory: Megabytes) -> Option<PicoDollars> {
        positive(self.cost_now() - self.costs.per_million(memory, self.curve.mean_ms(memory)))
    }
}

pub(super) fn positive(amount: PicoDollars) -> Option<PicoDollars> {
    (amount > PicoDollars::ZERO).then_some(amount)
}

/// A part of a whole, zero when the whole is.
pub(super) fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}
