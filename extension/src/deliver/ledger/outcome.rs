//! How an invocation ended, and what is evidence that it was killed for exceeding its memory.
//!
//! `maxMemoryUsedMB` is the environment's highest use since it began. Once it equals the memory size, it shows nothing about
//! the invocations that follow. A kill needs one of these:
//!
//! - an error type for it;
//! - the mark grew to the memory size in this invocation, and the invocation failed;
//! - the kernel counted a kill, and the invocation failed with the mark at the memory size;
//! - the runtime ended without a response, and its processes used nearly all of the memory;
//! - a timeout with the mark at the memory size, unless the processes used little: a function without free memory is slow.

use std::ops::RangeInclusive;

use tailor_sizing::model::memory_floor::FULL;
use tailor_sizing::telemetry::invocation::Outcome;

use crate::lambda::telemetry::EndRecord;

/// The error type of a runtime that ended without a response.
const EXIT: &str = "Runtime.ExitError";

/// Names of errors, at the end of the error type, with which Python and Ruby report that an allocation failed. It also
/// fails for a single impossible size.
const FAILED_ALLOCATION: [&str; 2] = ["MemoryError", "NoMemoryError"];

/// Processes that ended were sampled some time before: from this share of the memory size on they may have used the rest.
const USED_MOST: f64 = 0.90;

/// Below this share of the memory size a function is not slow for lack of memory.
const USED_LITTLE: f64 = 0.50;

/// What is known of the memory in one invocation.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct MemoryEvidence {
    /// Memory size, MB.
    pub(super) memory_mb: u32,
    /// `maxMemoryUsedMB`; zero when it is unknown.
    pub(super) mark_mb: u32,
    /// The same of the invocation before; `None` when it is unknown, as after the processes were ended.
    pub(super) mark_before_mb: Option<u32>,
    /// Highest memory of the function's processes at any sample, MB: a range, because several processes share pages. `None`
    /// when it was not measured.
    pub(super) used_mb: Option<RangeInclusive<f64>>,
    /// Processes that the kernel killed for memory; `None` when it is unknown.
    pub(super) kills: Option<u64>,
}

/// The ending of an invocation that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// The runtime lived on.
    Responded,
    /// The runtime ended.
    Exit,
    Timeout,
}

impl MemoryEvidence {
    fn is_kill(&self, failure: Failure) -> bool {
        let Self { mark_mb, kills, .. } = *self;
        let has_grown = self.mark_before_mb.is_some_and(|before_mb| before_mb < mark_mb);
        let was_killed = has_grown || kills.is_some_and(|kills| kills > 0);
        match failure {
            Failure::Responded => self.is_full() && was_killed,
            Failure::Timeout => self.is_full() && (was_killed || !self.used_less_than(USED_LITTLE)),
            Failure::Exit => {
                let is_all_that_is_known =
                    self.mark_before_mb.is_none() && kills.is_none() && self.used_mb.is_none();
                let used_most = self.used_at_least(USED_MOST);
                self.is_nearly_full() && (was_killed || used_most || is_all_that_is_known)
            }
        }
    }

    const fn is_full(&self) -> bool {
        self.mark_mb > 0 && self.mark_mb >= self.memory_mb
    }

    /// A runtime that limits its own memory ends some percent below the size.
    fn is_nearly_full(&self) -> bool {
        self.mark_mb > 0 && f64::from(self.mark_mb) >= FULL * f64::from(self.memory_mb)
    }

    /// The processes used certainly this share of the memory.
    fn used_at_least(&self, share: f64) -> bool {
        self.used_mb.as_ref().is_some_and(|used_mb| *used_mb.start() >= share * f64::from(self.memory_mb))
    }

    /// The processes used certainly less than this share of the memory.
    fn used_less_than(&self, share: f64) -> bool {
        self.used_mb.as_ref().is_some_and(|used_mb| *used_mb.end() < share * f64::from(self.memory_mb))
    }
}

/// How an invocation ended. `records` are those of its end, the most reliable first, and `init_error` is the error of an Init
/// inside it.
pub(super) fn outcome(
    records: [Option<&EndRecord>; 2],
    init_error: Option<&str>,
    memory: &MemoryEvidence,
) -> Outcome {
    let status = records.iter().find_map(|record| record.as_ref()?.status.as_deref());
    let error_is = |test: &dyn Fn(&str) -> bool| {
        let reported = records.iter().filter_map(|record| record.as_ref()?.error_type.as_deref());
        reported.chain(init_error).any(test)
    };
    let failed = match status {
        None => {
            error_is(&|error| ["Error", "Runtime.", "Extension."].iter().any(|part| error.contains(part)))
        }
        Some(status) => status != "success",
    };
    let allocation_failed = error_is(&|error| {
        let name = error.rsplit(['.', ':', '/']).next().unwrap_or_default();
        FAILED_ALLOCATION.contains(&name)
    });
    if error_is(&|error| error.contains("OutOfMemory")) || allocation_failed && memory.is_nearly_full() {
        return Outcome::OutOfMemory;
    }
    let failure = match status {
        Some("timeout") => Failure::Timeout,
        _ if error_is(&|error| error == EXIT) => Failure::Exit,
        _ => Failure::Responded,
    };
    match status {
        _ if failed && memory.is_kill(failure) => Outcome::OutOfMemory,
        Some("timeout") => Outcome::Timeout,
        _ if failed => Outcome::Error,
        Some(_) => Outcome::Success,
        // A report without a status is one of a success (the documentation's own example has none).
        None if records[0].is_some() => Outcome::Success,
        None => Outcome::Unknown,
    }
}
