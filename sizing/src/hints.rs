//! Hints: one reason each, from measurements, with a stable code, evidence, what to do and what it saves.
//!
//! A hint is shown when its measurement is plain, not when it may be: thresholds are named where they are
//! used. What size to choose is not a hint but [`crate::advice`].

mod bill;
mod cpu;
mod memory;
mod waste;

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::advice::FunctionEvidence;
use crate::cost_model::CostModel;
use crate::curve::Curve;
use crate::floor::Floor;
use crate::money::PicoDollars;
use crate::profile::Profile;
use crate::rollup::Rollup;
use crate::units::Megabytes;

/// What a hint is about. The names are stable: scripts and dashboards rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HintCode {
    /// Peaks near the limit, or kills.
    MemoryUnderprovisioned,
    /// Much more memory than needed, and the CPU that comes with it is not needed either.
    MemoryOverprovisioned,
    /// CPU per invocation grows as memory runs out.
    MemoryPressure,
    /// Threads were ready to run and had no CPU.
    CpuStarved,
    /// One busy thread where the size pays for more.
    SingleThreaded,
    /// Most of the time is waiting.
    IdleDominated,
    /// Connections are opened anew in every invocation.
    ConnectionsPerInvocation,
    /// Init is a large part of the bill.
    ColdStartsDominate,
    /// The request price is most of the bill.
    RequestCostDominates,
    /// The same work would cost less on arm64.
    #[serde(rename = "arm64-cheaper")]
    Arm64Cheaper,
    /// Time is paid for that ends in a timeout or an error.
    TimeoutsPaid,
    /// Extra `/tmp` is paid for and not used.
    EphemeralStorageUnused,
}

/// One reason to act, with its evidence.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hint {
    /// What it is about.
    pub code: HintCode,
    /// What was measured, for people.
    pub evidence: String,
    /// What to do about it, for people.
    pub action: String,
    /// What acting would save per million invocations; `None` where it buys time or safety, not money.
    pub saving_per_million: Option<PicoDollars>,
}

/// What hints are drawn from.
pub(crate) struct Facts<'a> {
    pub(crate) evidence: &'a FunctionEvidence<'a>,
    /// What was measured at the current size, or where most was.
    pub(crate) rollup: &'a Rollup,
    /// Its means.
    pub(crate) profile: &'a Profile,
    pub(crate) floor: &'a Floor,
    pub(crate) curve: &'a Curve,
    pub(crate) costs: &'a CostModel,
    /// The costs on arm64, when it is on x86_64 and the price is known.
    pub(crate) on_arm64: Option<CostModel>,
    /// The size that the advice recommends: hints give its reasons and never speak against it.
    pub(crate) recommended: Megabytes,
}

impl Facts<'_> {
    /// Expected warm duration at the current size, ms.
    fn now_ms(&self) -> f64 {
        self.curve.mean_ms(self.evidence.memory)
    }

    /// Expected cost per million invocations now.
    fn cost_now(&self) -> PicoDollars {
        self.costs.per_million(self.evidence.memory, self.now_ms())
    }

    /// What a million invocations save when each is so much shorter at the same size.
    fn saving_of_ms(&self, ms: f64) -> Option<PicoDollars> {
        let shorter = self.costs.per_million(self.evidence.memory, (self.now_ms() - ms).max(0.0));
        positive(self.cost_now() - shorter)
    }

    /// What a million invocations save at another size.
    fn saving_at(&self, memory: Megabytes) -> Option<PicoDollars> {
        positive(self.cost_now() - self.costs.per_million(memory, self.curve.mean_ms(memory)))
    }
}

fn positive(amount: PicoDollars) -> Option<PicoDollars> {
    (amount > PicoDollars::ZERO).then_some(amount)
}

/// A part of a whole, zero when the whole is.
fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

impl HintCode {
    /// Where the hint points: to more memory, to less, or elsewhere.
    const fn direction(self) -> Option<Ordering> {
        match self {
            Self::MemoryUnderprovisioned | Self::MemoryPressure | Self::CpuStarved => Some(Ordering::Greater),
            Self::MemoryOverprovisioned | Self::SingleThreaded | Self::IdleDominated => Some(Ordering::Less),
            _ => None,
        }
    }
}

/// Every hint that holds, the most pressing first, and none that contradicts the recommended size or one
/// before it: those that point to more memory come before those that point to less.
pub(crate) fn hints(facts: &Facts<'_>) -> Vec<Hint> {
    let all = [
        memory::underprovisioned,
        memory::pressure,
        cpu::starved,
        waste::timeouts,
        memory::overprovisioned,
        cpu::single_threaded,
        cpu::idle,
        bill::cold_starts,
        bill::requests,
        bill::arm64,
        waste::connections,
        waste::storage,
    ];
    let mut towards = match facts.recommended.cmp(&facts.evidence.memory) {
        Ordering::Equal => None,
        changed => Some(changed),
    };
    let mut agrees = |hint: &Hint| {
        let direction = hint.code.direction();
        let agreed = direction.is_none() || towards.is_none() || direction == towards;
        towards = towards.or(direction);
        agreed
    };
    all.into_iter().filter_map(|hint| hint(facts)).filter(|hint| agrees(hint)).collect()
}
