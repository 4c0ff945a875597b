//! Hints on CPU: too little of it, more than one thread can use, or mostly idle time.

use super::hint::{Hint, HintCode};
use super::input::{HintInput, share};
use crate::units::{MB_PER_VCPU, Megabytes};

/// Share of the wall time that must be throttled for a function to be called starved.
const STARVED: f64 = 0.20;

/// Share of its wall time in which nothing runs, from which a function is called idle.
const IDLE: f64 = 0.70;

/// Waiting for two things at once instead of one after the other halves it.
const OVERLAPPED: f64 = 0.5;

/// Mean threads at once up to which a function is called single-threaded.
const ALONE: f64 = 1.2;

/// Share of its wall time a single thread must be busy for its number to matter.
const BUSY: f64 = 0.30;

/// One thread gets a little faster beyond one vCPU, since helpers run beside it: sizes up to this much above
/// are not called wasted (measured on AWS: full speed at 1,850 to 2,048 MB).
const KNEE: f64 = 1.16;

pub(super) fn starved(input: &HintInput<'_>) -> Option<Hint> {
    let profile = input.profile;
    // Waiting behind others is not shortened by memory.
    let starved = profile.measured && share(profile.throttled_ms(), profile.wall_ms) >= STARVED;
    starved.then(|| Hint {
        code: HintCode::CpuStarved,
        evidence: format!(
            "for {:.0} of {:.0} ms an invocation was ready to run and had no CPU: {} gives {:.2} vCPU",
            profile.throttled_ms(),
            profile.wall_ms,
            profile.memory,
            profile.memory.share()
        ),
        action: "more memory gives more CPU and shortens this time".to_owned(),
        saving_per_million: (input.recommended > input.evidence.memory)
            .then(|| input.saving_at(input.recommended))
            .flatten(),
    })
}

pub(super) fn idle(input: &HintInput<'_>) -> Option<Hint> {
    let profile = input.profile;
    let idle = profile.measured && share(profile.idle_ms, profile.wall_ms) >= IDLE;
    idle.then(|| Hint {
        code: HintCode::IdleDominated,
        evidence: format!(
            "for {:.0} of {:.0} ms an invocation was idle: it waited for the network, a disk or a timer",
            profile.idle_ms, profile.wall_ms
        ),
        action: "run several waits at the same time, or batch: more memory does not shorten them".to_owned(),
        saving_per_million: input.saving_of_ms(profile.idle_ms * OVERLAPPED),
    })
}

pub(super) fn single_threaded(input: &HintInput<'_>) -> Option<Hint> {
    let (profile, memory) = (input.profile, input.evidence.memory);
    let alone =
        profile.measured && profile.parallel < ALONE && share(profile.busy_ms, profile.wall_ms) >= BUSY;
    (alone && f64::from(memory.0) > KNEE * f64::from(MB_PER_VCPU)).then(|| Hint {
        code: HintCode::SingleThreaded,
        evidence: format!("one thread is busy at a time, and {memory} gives {:.2} vCPU", memory.share()),
        action: format!(
            "above {MB_PER_VCPU} MB only parallel code gets faster: split the work, or choose a smaller size"
        ),
        saving_per_million: input.saving_at(input.floor.memory.max(Megabytes(MB_PER_VCPU))),
    })
}
