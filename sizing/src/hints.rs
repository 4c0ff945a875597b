//! Hints: one reason each, from measurements, with a stable code.

use serde::{Deserialize, Serialize};

use crate::advice::FunctionEvidence;
use crate::cost_model::CostModel;
use crate::floor::Floor;
use crate::money::PicoDollars;
use crate::profile::Profile;
use crate::units::{MB_PER_VCPU, Megabytes};

/// Share of its wall time for which a function must want for CPU to be called starved.
const STARVED_SHARE: f64 = 0.20;

/// Share of its wall time in which nothing runs, from which a function is called idle.
const IDLE_SHARE: f64 = 0.70;

/// A floor below this share of the size means memory is bought for nothing but its CPU.
const OVERPROVISIONED_SHARE: f64 = 0.60;

/// What a hint is about. The names are stable: scripts and dashboards rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HintCode {
    /// Much more memory than needed, and the CPU that comes with it is not needed either.
    MemoryOverprovisioned,
    /// Peaks near the limit, or kills.
    MemoryUnderprovisioned,
    /// Threads were ready to run and had no CPU.
    CpuStarved,
    /// Most of the time is waiting.
    IdleDominated,
    /// One busy thread where the size pays for more.
    SingleThreaded,
    /// CPU per invocation grows as memory runs out.
    MemoryPressure,
    /// Connections are opened anew in every invocation.
    ConnectionsPerInvocation,
    /// Init is a large part of the bill.
    ColdStartsDominate,
    /// The request price is most of the bill.
    RequestCostDominates,
    /// The same work would cost less on arm64.
    Arm64Cheaper,
    /// Time is paid for that ends in a timeout.
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
    /// What acting would save per million invocations; `None` where it saves time rather than money.
    pub saving_per_million: Option<PicoDollars>,
}

/// What hints are drawn from.
pub(crate) struct Facts<'a> {
    pub(crate) evidence: &'a FunctionEvidence<'a>,
    pub(crate) profile: &'a Profile,
    pub(crate) floor: &'a Floor,
    pub(crate) costs: &'a CostModel,
    /// Expected warm duration at the current size, ms.
    pub(crate) now_ms: f64,
    /// The cheapest size with its expected duration.
    pub(crate) cheapest: (Megabytes, f64),
}

pub(crate) fn hints(facts: &Facts<'_>) -> Vec<Hint> {
    [memory_underprovisioned, memory_overprovisioned, cpu_starved, idle_dominated, single_threaded]
        .into_iter()
        .filter_map(|hint| hint(facts))
        .collect()
}

fn memory_underprovisioned(facts: &Facts<'_>) -> Option<Hint> {
    let (floor, memory) = (facts.floor, facts.evidence.memory);
    if floor.unmeasured && floor.out_of_memory == 0 || floor.memory <= memory {
        return None;
    }
    let kills = match floor.out_of_memory {
        0 => String::new(),
        1 => ", and it was killed for memory once".to_owned(),
        n => format!(", and it was killed for memory {n} times"),
    };
    Some(Hint {
        code: HintCode::MemoryUnderprovisioned,
        evidence: format!("up to {:.0} MB of {memory} were in use{kills}", floor.peak_mb),
        action: format!("give it at least {}, or make it need less", floor.memory),
        saving_per_million: None,
    })
}

fn memory_overprovisioned(facts: &Facts<'_>) -> Option<Hint> {
    let memory = facts.evidence.memory;
    let (cheapest, cheapest_ms) = facts.cheapest;
    let spare = f64::from(facts.floor.memory.0) < OVERPROVISIONED_SHARE * f64::from(memory.0);
    let saving =
        facts.costs.per_million(memory, facts.now_ms) - facts.costs.per_million(cheapest, cheapest_ms);
    (spare && cheapest < memory && saving > PicoDollars::ZERO && !facts.floor.unmeasured).then(|| Hint {
        code: HintCode::MemoryOverprovisioned,
        evidence: format!(
            "at most {:.0} MB of {memory} were in use, and {} is enough with a margin of {:.0} %",
            facts.floor.peak_mb,
            facts.floor.memory,
            100.0 * facts.floor.margin
        ),
        action: format!("{cheapest} is the cheapest size"),
        saving_per_million: Some(saving),
    })
}

fn cpu_starved(facts: &Facts<'_>) -> Option<Hint> {
    let profile = facts.profile;
    let share = profile.starved_ms / profile.wall_ms.max(f64::MIN_POSITIVE);
    (profile.measured && share >= STARVED_SHARE).then(|| Hint {
        code: HintCode::CpuStarved,
        evidence: format!(
            "{:.0} of {:.0} ms an invocation wanted to run and had no CPU: {} buys {:.2} vCPU",
            profile.starved_ms,
            profile.wall_ms,
            profile.memory,
            profile.memory.share()
        ),
        action: "more memory brings more CPU and shortens this part in proportion".to_owned(),
        saving_per_million: None,
    })
}

fn idle_dominated(facts: &Facts<'_>) -> Option<Hint> {
    let profile = facts.profile;
    let share = profile.idle_ms / profile.wall_ms.max(f64::MIN_POSITIVE);
    let memory = facts.evidence.memory;
    (profile.measured && share >= IDLE_SHARE).then(|| Hint {
        code: HintCode::IdleDominated,
        evidence: format!(
            "{:.0} of {:.0} ms an invocation had nothing to run: it waits for the network, a disk or a timer",
            profile.idle_ms, profile.wall_ms
        ),
        action:
            "wait for several things at once, batch, or use the least memory: waiting does not get faster"
                .to_owned(),
        saving_per_million: Some(
            facts.costs.per_million(memory, facts.now_ms)
                - facts.costs.per_million(memory, facts.now_ms - profile.idle_ms / 2.0),
        ),
    })
}

fn single_threaded(facts: &Facts<'_>) -> Option<Hint> {
    let (profile, memory) = (facts.profile, facts.evidence.memory);
    let alone = profile.measured && profile.parallel < 1.2 && profile.busy_ms > 0.3 * profile.wall_ms;
    (alone && f64::from(memory.0) > 1.15 * f64::from(MB_PER_VCPU)).then(|| Hint {
        code: HintCode::SingleThreaded,
        evidence: format!("one thread is busy at a time, and {memory} pays for {:.2} vCPU", memory.share()),
        action: format!("above {MB_PER_VCPU} MB only parallel code gets faster: split the work, or go down"),
        saving_per_million: None,
    })
}
