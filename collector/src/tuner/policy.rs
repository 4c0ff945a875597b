//! Whether a function is to be moved, and what to make of a move once it is measured. No I/O, no clock.

use tailor_sizing::advice::Verdict;
use tailor_sizing::units::Megabytes;

use super::Settings;
use super::aws::{Configuration, Update};
use crate::changes::comparison::Figures;
use crate::changes::{Change, Intent, State};
use crate::report::{self, Evaluation};

/// The tag a function must carry, and its value.
pub const TAG: (&str, &str) = ("tailor:tune", "apply");

/// A tag of functions whose stack would set the size back: those get a snippet instead.
const STACK_TAG: &str = "aws:cloudformation:stack-name";

/// How far beyond its prediction a figure may be before the change is taken back.
const TOLERANCE: f64 = 0.10;

/// Standard errors a mean must be beyond its bound: chance alone does that once in forty times.
const MIN_STANDARD_ERRORS: f64 = 2.0;

/// Failures beyond the usual that count as a change for the worse.
const FEW_ERRORS: u64 = 3;

/// Why a function is left as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It does not carry the tag.
    #[error("it is not tagged `{} = {}`", TAG.0, TAG.1)]
    NotTagged,
    /// What was measured is of another account's function of the same name.
    #[error("the measurements are of account {measured}, this collector's credentials are for {ours}")]
    OtherAccount {
        /// Account that was measured.
        measured: String,
        /// Account of the credentials.
        ours: String,
    },
    /// CloudFormation would set it back.
    #[error("a CloudFormation stack manages it: use the snippet of its page")]
    ManagedByStack,
    /// Its size is fixed with each published version.
    #[error("it is invoked by published versions or starts from snapshots: `$LATEST` is not what runs")]
    NotLatest,
    /// No change is recommended.
    #[error("no change is recommended")]
    NotRecommended,
    /// Not enough was measured at the size it has.
    #[error("{have} warm invocations were measured at {memory}, {need} are needed")]
    TooLittleEvidence {
        /// Measured.
        have: u64,
        /// Needed.
        need: u64,
        /// At this size.
        memory: Megabytes,
    },
    /// The recommended size is not one the tuner may choose.
    #[error("{to} is outside {floor} to {ceiling}")]
    OutOfBounds {
        /// Recommended.
        to: Megabytes,
        /// Smallest safe one.
        floor: Megabytes,
        /// Largest allowed one.
        ceiling: Megabytes,
    },
    /// An earlier change of it is not closed.
    #[error("a change of it is open")]
    OpenChange,
    /// It was changed not long ago.
    #[error("it was changed not long ago: waiting before the next change")]
    CoolingDown,
    /// Its size now is not the one that was measured last.
    #[error("it has {now} now and was measured at {measured}: waiting for invocations")]
    SizeDiffers {
        /// Lambda's word.
        now: Megabytes,
        /// The latest invocations'.
        measured: Megabytes,
    },
    /// Somebody is updating it.
    #[error("an update of it is not finished")]
    Updating,
}

/// Decides on one function. `before` are the figures at its present size; `history` its changes.
///
/// # Errors
/// [`Refusal`]: the reason it is left as it is.
pub fn evaluate(
    evaluation: &Evaluation,
    before: Figures,
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
    if !matches!(advice.verdict, Verdict::Change | Verdict::RaiseForMemory)
        || advice.memory == evaluation.memory
    {
        return Err(Refusal::NotRecommended);
    }
    let have = before.warm;
    if have < settings.least_evidence {
        return Err(Refusal::TooLittleEvidence {
            have,
            need: settings.least_evidence,
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

/// Whether the tuner may write to this function at all.
///
/// # Errors
/// [`Refusal`]: the reason it may not.
pub fn permitted(evaluation: &Evaluation, configuration: &Configuration) -> Result<(), Refusal> {
    is_tagged(configuration)?;
    if !evaluation.key.account.is_empty() && evaluation.key.account != configuration.account {
        return Err(Refusal::OtherAccount {
            measured: evaluation.key.account.clone(),
            ours: configuration.account.clone(),
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

/// Whether the function carries the tag now; it may be taken away at any time.
///
/// # Errors
/// [`Refusal::NotTagged`].
pub fn is_tagged(configuration: &Configuration) -> Result<(), Refusal> {
    let tagged = configuration.tags.get(TAG.0).is_some_and(|value| value == TAG.1);
    if tagged { Ok(()) } else { Err(Refusal::NotTagged) }
}

/// Waits after a change; after a failed attempt for a few rounds, more with each.
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

/// What is to become of a change that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// Too little was measured yet.
    Wait,
    /// It stays.
    Keep(String),
    /// The function got worse.
    RollBack(String),
}

/// Compares what was measured since with what was predicted.
#[must_use]
pub fn judge(change: &Change, after: &Figures, settings: &Settings) -> Judgement {
    let before = &change.intent.before;
    if after.out_of_memory > 0 {
        return Judgement::RollBack(format!("{} invocations ran out of memory", after.out_of_memory));
    }
    let usual = before.errors as f64 / before.invocations.max(1) as f64;
    let expected = usual * after.invocations as f64;
    if after.errors >= FEW_ERRORS && after.errors as f64 > 2.0 * expected + FEW_ERRORS as f64 - 1.0 {
        return Judgement::RollBack(format!(
            "{} of {} invocations failed, {expected:.1} would be usual",
            after.errors, after.invocations
        ));
    }
    if after.warm < settings.least_comparison {
        return Judgement::Wait;
    }
    let predicted_ms = change.predicted_mean_ms();
    let bound_ms = (predicted_ms * (1.0 + TOLERANCE)).max(change.intent.duration_interval_ms[1]);
    if after.mean_ms - MIN_STANDARD_ERRORS * after.mean_error_ms > bound_ms {
        return Judgement::RollBack(format!(
            "mean duration is {:.2} ms, {predicted_ms:.2} ms was predicted and {bound_ms:.2} ms tolerated",
            after.mean_ms
        ));
    }
    if let Some(measured) = change.measured_cost_change_percent() {
        let noise = 100.0 * MIN_STANDARD_ERRORS * after.mean_error_ms / after.mean_ms.max(f64::MIN_POSITIVE);
        let bound = change.intent.cost_change_percent.max(0.0) + 100.0 * TOLERANCE;
        if measured - noise > bound {
            return Judgement::RollBack(format!(
                "an invocation costs {measured:+.1} %, {:+.1} % was predicted",
                change.intent.cost_change_percent
            ));
        }
    }
    Judgement::Keep(format!(
        "mean duration is {:.2} ms, {predicted_ms:.2} ms was predicted, over {} warm invocations",
        after.mean_ms, after.warm
    ))
}
