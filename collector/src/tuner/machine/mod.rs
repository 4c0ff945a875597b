//! The state machine of a change: a pure function from what is logged and observed to the next event.
//!
//! Each call decides one event. An event with a write is on disk before the write is made. Whether a write took effect is
//! read back from Lambda, so an interrupted change continues from any point.

mod expected;
mod forward;
mod rollback;

use crate::changes::comparison::Measurements;
use crate::changes::{Cause, Change, State, StepDetail, Write};
use crate::clock::HOUR_US;
use crate::tuner::lambda::{LambdaError, Live, Update};
use crate::tuner::limits::Limits;
use crate::tuner::permission::is_time_code;

pub use expected::{alias_description, is_marked, version_marker};

/// Longest time for the writes before the canary, microseconds.
const PREPARATION_US: u64 = HOUR_US;

/// What is known at one point in time.
#[derive(Clone, Copy)]
pub struct Observation<'a> {
    /// The present time, microseconds since the Unix epoch.
    pub now_us: u64,
    /// The function in Lambda; `None` when it was deleted.
    pub live: Option<&'a Live>,
    /// Why the last attempt of the pending write failed, if it did.
    pub write_error: Option<&'a LambdaError>,
    /// Whether the tuner is frozen.
    pub frozen: bool,
    /// Whether the tag and the mode permit writes.
    pub may_write: bool,
    /// Whether they permit this direction.
    pub may_continue: bool,
    /// Why no more invocations may get the new size now: the window of the function, or a date of the policy. The way back is
    /// always permitted.
    pub closed: Option<&'a str>,
    /// Whether a person requested a rollback.
    pub rollback_requested: bool,
    /// End of the quarantine if the change is rolled back now, microseconds since the Unix epoch.
    pub quarantine_until_us: u64,
    /// What the measurements show.
    pub verdict: &'a Verdict,
    /// Whether checks are left out, for tests that must find it.
    pub omitted: Omitted,
}

/// Checks that tests leave out, to show that they find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[doc(hidden)]
pub enum Omitted {
    /// No check is left out.
    #[default]
    None,
    /// Changes outside the tuner are not noticed.
    Drift,
    /// Writes are made without the tag.
    Tag,
    /// A freeze is ignored.
    Freeze,
    /// A version is deleted that the tuner did not publish.
    Ownership,
    /// The weight of a canary stays after a rollback.
    Weight,
    /// The code of `$LATEST` is not compared before a version is published.
    Code,
}

/// What the measurements of the new size show.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// There are no new measurements, or they are not reliable. With the reason.
    NoData(String),
    /// More measurements are needed. With the reason and the number of invocations.
    Continue(String),
    /// The new size is as predicted or better.
    Pass {
        /// The reason.
        reason: String,
        /// Measurements at the new size.
        after: Measurements,
        /// Measurements at the previous size in the same time, where there are any.
        baseline: Option<Measurements>,
    },
    /// The new size is worse.
    Fail {
        /// What is worse.
        cause: Cause,
        /// The reason.
        reason: String,
        /// Measurements at the new size.
        after: Measurements,
        /// Measurements at the previous size in the same time, where there are any.
        baseline: Option<Measurements>,
    },
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Nothing, until something changes.
    Wait(String),
    /// Make the pending write, which is on disk, again.
    Retry(Write),
    /// Append an event, then make its write, if it has one.
    Log(State, Box<StepDetail>),
}

impl Decision {
    fn log(state: State, reason: impl Into<String>) -> Self {
        Self::Log(state, Box::new(StepDetail { reason: reason.into(), ..StepDetail::default() }))
    }

    fn log_with(state: State, detail: StepDetail) -> Self {
        Self::Log(state, Box::new(detail))
    }
}

/// The next step of an open change.
#[must_use]
pub fn step(change: &Change, seen: &Observation<'_>, limits: &Limits) -> Decision {
    let Some(live) = seen.live else {
        return Decision::log(State::ExternalChange, "the function was deleted");
    };
    if change.state.is_rolled_back() {
        return rollback::next(change, live, seen, limits);
    }
    if live.update == Update::InProgress {
        return overdue(change, seen, limits)
            .unwrap_or_else(|| Decision::Wait("an update is in progress".to_owned()));
    }
    if let Some((cause, reason)) = interruption(change, seen) {
        return rollback::start(change, live, cause, reason, seen);
    }
    forward::next(change, live, seen, limits)
}

/// Why the change must not go on, independent of its measurements.
fn interruption(change: &Change, seen: &Observation<'_>) -> Option<(Cause, String)> {
    if seen.frozen && seen.omitted != Omitted::Freeze {
        return Some((Cause::Frozen, "the tuner was frozen".to_owned()));
    }
    if seen.rollback_requested {
        return Some((Cause::Operator, "a rollback was requested".to_owned()));
    }
    if !seen.may_write && seen.omitted != Omitted::Tag {
        return Some((Cause::Permission, "the tag or the mode does not permit changes any more".to_owned()));
    }
    if !seen.may_continue && !change.promoted {
        return Some((Cause::Permission, "the mode does not permit this direction any more".to_owned()));
    }
    None
}

/// Whether a reason is that of a canary that waits for its window, and not for measurements.
fn is_for_window(reason: &str) -> bool {
    is_time_code(reason.split(':').next().unwrap_or_default())
}

/// How long a canary waited for its window since a time, microseconds.
fn waited_us(change: &Change, from_us: u64, now_us: u64) -> u64 {
    let ends = change.steps.iter().skip(1).map(|step| step.at_us).chain([now_us]);
    let waits = change.steps.iter().zip(ends);
    let waits = waits.filter(|(step, _)| step.state == State::Hold && is_for_window(&step.reason));
    waits.map(|(step, end_us)| end_us.saturating_sub(step.at_us.max(from_us))).sum()
}

/// The end of a change that took too long.
fn overdue(change: &Change, seen: &Observation<'_>, limits: &Limits) -> Option<Decision> {
    let live = seen.live?;
    let since = |at_us: u64| seen.now_us.saturating_sub(at_us);
    let reason = match change.state {
        State::Planned | State::Updating | State::Published => (since(change.planned_at_us) > PREPARATION_US)
            .then(|| "it could not be prepared within an hour".to_owned()),
        State::Canary | State::Hold => {
            // The time in which a canary waits for its window is no time of the canary.
            let used = |from_us: u64| since(from_us).saturating_sub(waited_us(change, from_us, seen.now_us));
            let total = used(change.canary_at_us.unwrap_or(change.planned_at_us));
            let stalled = used(change.weighted_at_us);
            (total > limits.canary_deadline_us || stalled > limits.canary_stall_us).then(|| {
                format!(
                    "the canary did not end in time: {:.1} hours in total, {:.1} hours at {} %",
                    total as f64 / HOUR_US as f64,
                    stalled as f64 / HOUR_US as f64,
                    f64::from(change.weight) / 100.0
                )
            })
        }
        State::Soaking => (since(change.applied_at_us.unwrap_or(change.planned_at_us))
            > limits.soak_deadline_us)
            .then(|| "there were too few invocations to judge the new size".to_owned()),
        _ => None,
    }?;
    Some(rollback::start(change, live, Cause::Deadline, reason, seen))
}
