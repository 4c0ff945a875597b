//! Decides whether to change a function, and whether to keep a change after measurement. No I/O, no clock.

use tailor_sizing::advice::Verdict;
use tailor_sizing::units::Megabytes;

use super::Settings;
use super::aws::{Configuration, Update};
use crate::changes::comparison::Measurements;
use crate::changes::{Change, Intent, State};
use crate::report::{self, Evaluation, MeasuredBy};

/// The tag that permits changes of a function, and its value.
pub const TAG: (&str, &str) = ("tailor:tune", "apply");

/// The tag of functions that CloudFormation manages: the next deployment of the stack would reset the size.
const STACK_TAG: &str = "aws:cloudformation:stack-name";

/// Relative excess over a prediction above which the change is rolled back.
const TOLERANCE: f64 = 0.10;

/// Standard errors by which a mean must exceed its bound; by chance this happens in 1 of 40 cases.
const MIN_STANDARD_ERRORS: f64 = 2.0;

/// Errors above the expected number from which the error rate counts as worse.
const MIN_EXTRA_ERRORS: u64 = 3;

/// Why the tuner does not change a function.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The function does not have the tag.
    #[error("it is not tagged `{} = {}`", TAG.0, TAG.1)]
    NotTagged,
    /// The measurements are of a function of another account.
    #[error(
        "the measurements are of account {measured}, the collector's credentials are for account {credentials}"
    )]
    OtherAccount {
        /// Account of the measurements.
        measured: String,
        /// Account of the credentials.
        credentials: String,
    },
    /// CloudFormation would reset the size.
    #[error("a CloudFormation stack manages it: use the snippet on its page")]
    ManagedByStack,
    /// Published versions are invoked; their size cannot be changed.
    #[error("it uses published versions or SnapStart, so a change of `$LATEST` would have no effect")]
    NotLatest,
    /// Nothing was measured in its environments.
    #[error("its invocations were imported from logs: attach the layer")]
    Imported,
    /// No change is recommended.
    #[error("no change is recommended")]
    NotRecommended,
    /// Too few invocations were measured at the current size.
    #[error("{have} warm invocations were measured at {memory}, {need} are needed")]
    TooLittleEvidence {
        /// Measured invocations.
        have: u64,
        /// Required invocations.
        need: u64,
        /// The current size.
        memory: Megabytes,
    },
    /// The recommended size is outside the permitted range.
    #[error("{to} is outside {floor} to {ceiling}")]
    OutOfBounds {
        /// Recommended size.
        to: Megabytes,
        /// The memory floor.
        floor: Megabytes,
        /// Largest permitted size.
        ceiling: Megabytes,
    },
    /// An earlier change of the function is open.
    #[error("an earlier change is open")]
    OpenChange,
    /// The last change was too recent.
    #[error("the cooldown after the last change is not over")]
    CoolingDown,
    /// The current size differs from the size of the latest measurements.
    #[error("its size is {now}, but the latest measurements are at {measured}: waiting for invocations")]
    SizeDiffers {
        /// The size that Lambda returns.
        now: Megabytes,
        /// The size of the latest measurements.
        measured: Megabytes,
    },
    /// An update of the function is in progress.
    #[error("an update is in progress")]
    Updating,
    /// Much of the environment's CPU time is of no known process, so the prediction is not reliable.
    #[error("{percent} % of the environment's CPU time is of no known process")]
    CpuUnaccounted {
        /// Its share, percent.
        percent: u8,
    },
}

/// Decides on one function. `before` has the measurements at its current size, `history` its changes.
///
/// # Errors
/// [`Refusal`]: why the function is not changed.
pub fn evaluate(
    evaluation: &Evaluation,
    before: Measurements,
    configuration: &Configuration,
    history: &[Change],
    settings: &Settings,
    now_us: u64,
) -> Result<Intent, Refusal> {
    permitted(evaluation, configuration)?;
    if history.iter().any(|change| change.state.is_open()) {
        return Err(Refusal::OpenChange);
    }
    if cooling_down(history, settings, now_us) {
        return Err(Refusal::CoolingDown);
    }
    if configuration.update != Update::Successful {
        return Err(Refusal::Updating);
    }
    if configuration.memory != evaluation.memory {
        return Err(Refusal::SizeDiffers { now: configuration.memory, measured: evaluation.memory });
    }
    let advice = evaluation.advice.as_ref().map_err(|_| Refusal::NotRecommended)?;
    if evaluation.unaccounted.is_relevant() && advice.verdict != Verdict::RaiseForMemory {
        return Err(Refusal::CpuUnaccounted { percent: evaluation.unaccounted.percent() });
    }
    if !matches!(advice.verdict, Verdict::Change | Verdict::RaiseForMemory)
        || advice.memory == evaluation.memory
    {
        return Err(Refusal::NotRecommended);
    }
    let have = before.warm;
    if have < settings.min_evidence_invocations {
        return Err(Refusal::TooLittleEvidence {
            have,
            need: settings.min_evidence_invocations,
            memory: evaluation.memory,
        });
    }
    let (to, floor, ceiling) = (advice.memory, advice.floor.memory, settings.ceiling);
    if to < floor || to < Megabytes::MIN || to > ceiling || to > Megabytes::MAX {
        return Err(Refusal::OutOfBounds { to, floor, ceiling });
    }
    let point = advice.curve.iter().find(|point| point.memory == to);
    Ok(Intent {
        from_mb: evaluation.memory.0,
        to_mb: to.0,
        revision_id: configuration.revision_id.clone(),
        code_sha256: configuration.code_sha256.clone(),
        before,
        cost_change_percent: advice.cost_change_percent,
        duration_change_percent: advice.duration_change_percent,
        duration_interval_ms: point.map_or([0.0, 0.0], |point| point.mean.interval_80),
        reasons: report::reasons(advice),
    })
}

/// Checks that the tuner may change this function.
///
/// # Errors
/// [`Refusal`]: why it may not.
pub fn permitted(evaluation: &Evaluation, configuration: &Configuration) -> Result<(), Refusal> {
    is_tagged(configuration)?;
    if evaluation.measured_by == MeasuredBy::Logs {
        return Err(Refusal::Imported);
    }
    if !evaluation.key.account.is_empty() && evaluation.key.account != configuration.account {
        return Err(Refusal::OtherAccount {
            measured: evaluation.key.account.clone(),
            credentials: configuration.account.clone(),
        });
    }
    if configuration.tags.contains_key(STACK_TAG) {
        return Err(Refusal::ManagedByStack);
    }
    if configuration.snap_start || evaluation.versions.iter().any(|version| version != "$LATEST") {
        return Err(Refusal::NotLatest);
    }
    Ok(())
}

/// Checks that the function has the tag. The owner may remove it at any time.
///
/// # Errors
/// [`Refusal::NotTagged`].
pub fn is_tagged(configuration: &Configuration) -> Result<(), Refusal> {
    let tagged = configuration.tags.get(TAG.0).is_some_and(|value| value == TAG.1);
    if tagged { Ok(()) } else { Err(Refusal::NotTagged) }
}

/// Whether the last change is too recent. After abandoned changes the wait is shorter, and doubles with each.
fn cooling_down(history: &[Change], settings: &Settings, now_us: u64) -> bool {
    let Some(last) = history.iter().max_by_key(|change| change.planned_at_us) else { return false };
    let micros = |duration: std::time::Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let cooldown = micros(settings.cooldown);
    let wait = if last.state == State::Abandoned {
        let attempts = history.iter().rev().take_while(|change| change.state == State::Abandoned).count();
        let rounds = 1u64 << attempts.min(16);
        micros(settings.interval).saturating_mul(rounds).min(cooldown)
    } else {
        cooldown
    };
    now_us < last.moved_at_us.saturating_add(wait)
}

/// The result of comparing an applied change with its prediction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assessment {
    /// There are too few measurements.
    Wait,
    /// Keep the new size. Holds the reason.
    Keep(String),
    /// Roll back, because the function got worse. Holds the reason.
    RollBack(String),
}

/// Compares the measurements after a change with the prediction.
#[must_use]
pub fn assess(change: &Change, after: &Measurements, settings: &Settings) -> Assessment {
    let before = &change.intent.before;
    if after.out_of_memory > 0 {
        return Assessment::RollBack(format!("{} invocations ran out of memory", after.out_of_memory));
    }
    let error_rate = before.errors as f64 / before.invocations.max(1) as f64;
    let expected = error_rate * after.invocations as f64;
    if after.errors >= MIN_EXTRA_ERRORS
        && after.errors as f64 > 2.0 * expected + MIN_EXTRA_ERRORS as f64 - 1.0
    {
        return Assessment::RollBack(format!(
            "{} of {} invocations failed, {expected:.1} were expected",
            after.errors, after.invocations
        ));
    }
    if after.warm < settings.min_comparison_invocations {
        return Assessment::Wait;
    }
    let predicted_ms = change.predicted_mean_ms();
    let bound_ms = (predicted_ms * (1.0 + TOLERANCE)).max(change.intent.duration_interval_ms[1]);
    if after.mean_ms - MIN_STANDARD_ERRORS * after.mean_error_ms > bound_ms {
        return Assessment::RollBack(format!(
            "mean duration is {:.2} ms, {predicted_ms:.2} ms was predicted, the limit is {bound_ms:.2} ms",
            after.mean_ms
        ));
    }
    if let Some(measured) = change.measured_cost_change_percent() {
        let noise = 100.0 * MIN_STANDARD_ERRORS * after.mean_error_ms / after.mean_ms.max(f64::MIN_POSITIVE);
        let bound = change.intent.cost_change_percent.max(0.0) + 100.0 * TOLERANCE;
        if measured - noise > bound {
            return Assessment::RollBack(format!(
                "an invocation costs {measured:+.1} %, {:+.1} % was predicted",
                change.intent.cost_change_percent
            ));
        }
    }
    Assessment::Keep(format!(
        "mean duration is {:.2} ms, {predicted_ms:.2} ms was predicted, over {} warm invocations",
        after.mean_ms, after.warm
    ))
}
