//! The type of a hint and its stable codes.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::pricing::money::PicoDollars;

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
    /// One busy thread where the size gives more CPU.
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
    /// Extensions run for long after the runtime answered.
    ExtensionOverhead,
    /// Extra `/tmp` is paid for and not used.
    EphemeralStorageUnused,
    /// The logs cost more than the compute.
    LogCostDominates,
    /// Provisioned concurrency waits for invocations most of the time.
    ProvisionedConcurrencyIdle,
    /// Timeouts and crashes end environments, and the next invocation pays for another Init.
    InitAfterTimeout,
    /// Environments are initialized and serve few invocations.
    InitRarelyUsed,
}

/// How urgent a hint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The function costs more than it must.
    Info,
    /// The function is slower than it must be, because of something that can be repaired.
    Warning,
    /// Invocations fail, or may fail soon.
    Error,
}

/// One finding, with its evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hint {
    /// What it is about.
    pub code: HintCode,
    /// What was measured, as text.
    pub evidence: String,
    /// What to do about it, as text.
    pub action: String,
    /// What acting would save per million invocations; `None` when it gains time or safety and no money.
    pub saving_per_million: Option<PicoDollars>,
}

impl HintCode {
    /// All codes, in order of importance of their subjects.
    pub const ALL: [Self; 17] = [
        Self::MemoryUnderprovisioned,
        Self::MemoryOverprovisioned,
        Self::MemoryPressure,
        Self::CpuStarved,
        Self::SingleThreaded,
        Self::IdleDominated,
        Self::ConnectionsPerInvocation,
        Self::ColdStartsDominate,
        Self::RequestCostDominates,
        Self::Arm64Cheaper,
        Self::TimeoutsPaid,
        Self::ExtensionOverhead,
        Self::EphemeralStorageUnused,
        Self::LogCostDominates,
        Self::ProvisionedConcurrencyIdle,
        Self::InitAfterTimeout,
        Self::InitRarelyUsed,
    ];

    /// How urgent a hint with this code is.
    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::MemoryUnderprovisioned | Self::TimeoutsPaid => Severity::Error,
            Self::MemoryPressure
            | Self::CpuStarved
            | Self::ConnectionsPerInvocation
            | Self::ColdStartsDominate
            | Self::InitAfterTimeout
            | Self::ExtensionOverhead => Severity::Warning,
            Self::MemoryOverprovisioned
            | Self::SingleThreaded
            | Self::IdleDominated
            | Self::RequestCostDominates
            | Self::Arm64Cheaper
            | Self::EphemeralStorageUnused
            | Self::LogCostDominates
            | Self::ProvisionedConcurrencyIdle
            | Self::InitRarelyUsed => Severity::Info,
        }
    }

    /// Whether the hint recommends more memory, less memory, or neither.
    pub(super) const fn direction(self) -> Option<Ordering> {
        match self {
            Self::MemoryUnderprovisioned | Self::MemoryPressure | Self::CpuStarved => Some(Ordering::Greater),
            Self::MemoryOverprovisioned | Self::SingleThreaded | Self::IdleDominated => Some(Ordering::Less),
            Self::ConnectionsPerInvocation
            | Self::ColdStartsDominate
            | Self::RequestCostDominates
            | Self::Arm64Cheaper
            | Self::TimeoutsPaid
            | Self::ExtensionOverhead
            | Self::EphemeralStorageUnused
            | Self::LogCostDominates
            | Self::ProvisionedConcurrencyIdle
            | Self::InitAfterTimeout
            | Self::InitRarelyUsed => None,
        }
    }
}
