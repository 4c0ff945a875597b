//! What can go wrong at the control plane: faults of writes, and writes by others.

#![allow(dead_code, reason = "not every file that includes this module uses all of it")]

/// What happens at one operation of the tuner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The process ends before the operation.
    CrashBefore,
    /// The process ends after the operation.
    CrashAfter,
    /// The operation takes effect, and its answer is lost.
    AnswerLost,
    /// The request limit: the operation does not take effect.
    Throttled,
    /// Lambda refuses the operation.
    Refused,
    /// Another program writes before the operation.
    Foreign(Foreign),
}

/// A write outside the tuner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Foreign {
    Memory(u32),
    Code,
    /// Another timeout of `$LATEST`, which is not published.
    Configuration,
    /// New code, a new version, and the alias on it.
    Release,
    /// A version of `$LATEST` as it is, without an alias.
    Publish,
    Description,
    Weights,
    NoWeights,
    /// All versions that no alias uses are deleted.
    Prune,
}
