//! Whether the measurements can be trusted.

use tailor_sizing::advice::Verdict;

use super::{Facts, Refusal, refuse};
use crate::report::MeasuredBy;

pub(super) fn telemetry(facts: &Facts<'_>) -> Result<(), Refusal> {
    telemetry_within_limits(facts.health, facts.limits)
}

/// Whether the telemetry is healthy.
pub(in crate::tuner) fn telemetry_within_limits(
    health: &super::Health,
    limits: &crate::tuner::limits::Limits,
) -> Result<(), Refusal> {
    let longest_us = limits.max_delay_us.min(limits.max_skew_us);
    if health.delay_us > longest_us {
        let reason = format!("batches arrive {} s after they were sent", health.delay_us / 1_000_000);
        return Err(refuse("late-telemetry", reason));
    }
    if health.lost > limits.max_lost {
        return Err(refuse(
            "lost-telemetry",
            format!("{:.1} % of the batches did not arrive", 100.0 * health.lost),
        ));
    }
    Ok(())
}

pub(super) fn measured_by_layer(facts: &Facts<'_>) -> Result<(), Refusal> {
    if facts.evaluation.measured_by == MeasuredBy::Logs {
        return Err(refuse("imported", "its invocations were imported from logs: attach the layer"));
    }
    Ok(())
}

pub(super) fn prices(facts: &Facts<'_>) -> Result<(), Refusal> {
    let most = facts.limits.max_price_age_days;
    let Some(age) = facts.health.price_age_days else {
        return Err(refuse(
            "stale-prices",
            "the date of the prices cannot be read; give newer ones with --prices",
        ));
    };
    if age <= most {
        return Ok(());
    }
    Err(refuse("stale-prices", format!("the prices are {age} days old; give newer ones with --prices")))
}

pub(super) fn unaccounted(facts: &Facts<'_>) -> Result<(), Refusal> {
    let for_memory =
        facts.evaluation.advice.as_ref().is_ok_and(|advice| advice.verdict == Verdict::RaiseForMemory);
    if facts.evaluation.unaccounted.is_relevant() && !for_memory {
        let percent = facts.evaluation.unaccounted.percent();
        let reason = format!("{percent} % of the environment's CPU time is of no known process");
        return Err(refuse("cpu-unaccounted", reason));
    }
    Ok(())
}
