//! The sizes between which a change may go, and the largest step.

use tailor_sizing::advice::{Advice, CurvePoint, Verdict};
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::units::Megabytes;

use super::floor::{Floor, above_out_of_memory, megabytes_rounded_up};
use super::speed::smallest_within_p95_limit;
use super::{Facts, Refusal, refuse, route};
use crate::changes::frequency::SPAN_US;
use crate::changes::{Change, Route, State};

/// A change of size after all limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// Present size.
    pub from: Megabytes,
    /// Next size.
    pub to: Megabytes,
    /// The size after the last change, when several are needed.
    pub end: Megabytes,
    /// The advised size before the limits.
    pub uncapped: Megabytes,
    /// Why the next size is not the advised one, as a sentence without its full stop.
    pub limited_by: Option<String>,
    /// The smallest size that is permitted.
    pub floor: Megabytes,
    /// The largest size that is permitted.
    pub ceiling: Megabytes,
    /// Whether the memory floor asks for it.
    pub for_memory: bool,
    /// Whether invocations at the present size ran out of memory.
    pub after_out_of_memory: bool,
    /// Predicted change of the cost of an invocation, percent.
    pub cost_change_percent: f64,
    /// Predicted change of mean duration, percent.
    pub duration_change_percent: f64,
    /// 80 % interval of the predicted mean duration, ms.
    pub duration_interval_ms: [f64; 2],
    /// Predicted 95th percentile of duration, now and then, ms.
    pub p95_ms: [f64; 2],
    /// Predicted 99th percentile, ms.
    pub p99_ms: f64,
    /// Predicted saving of a million invocations.
    pub saving_per_million: PicoDollars,
    /// Predicted saving in a month at the measured traffic, dollars; `None` when the traffic is unknown.
    pub saving_usd_month: Option<f64>,
    /// The same after the last change.
    pub saving_at_end_usd_month: Option<f64>,
}

/// The change that the advice asks for, within the limits.
///
/// # Errors
/// Why there is none.
pub fn propose(facts: &Facts<'_>) -> Result<Proposal, Refusal> {
    let advice = facts.evaluation.advice.as_ref();
    let advice =
        advice.map_err(|error| refuse("no-advice", format!("there is no advice for it: {error}")))?;
    let from = facts.evaluation.memory;
    let after_out_of_memory = facts.served.out_of_memory > 0 && advice.memory >= from;
    let for_memory = advice.verdict == Verdict::RaiseForMemory || after_out_of_memory;
    if !for_memory && advice.verdict != Verdict::Change {
        return Err(refuse("not-advised", "no change is advised"));
    }
    if for_memory && is_of_old_code(facts, advice) {
        let peak_mb = facts.served.peak_mb;
        let reason = format!(
            "the invocations that ran out of memory are of code that is not served any more; the code that is served used \
             {peak_mb:.0} MB"
        );
        return Err(refuse("old-code", reason));
    }
    let (floor, ceiling) = (Floor::of(facts, advice), facts.permission.max_memory);
    // Memory was full: the true demand is not known, so the size is doubled at most. Memory that grows needs more than it
    // uses now, or the function would be changed again and again.
    let uncapped = if after_out_of_memory || (for_memory && grew_lately(facts)) {
        advice.memory.max(above_out_of_memory(facts, from))
    } else {
        advice.memory
    };
    let within = uncapped.max(floor.memory).min(ceiling);
    keeps_direction([from, uncapped, within], &floor, ceiling)?;
    let end =
        if within < from && !for_memory { smallest_within_p95_limit(facts, advice, within) } else { within };
    let to = after_largest_step(facts, from, end);
    if to > ceiling {
        let reason = format!(
            "{uncapped} is advised; one change gives {to}, which is above the largest permitted size {ceiling}"
        );
        return Err(refuse("out-of-bounds", reason));
    }
    let (Some(now), Some(then)) = (prediction_at(advice, from), prediction_at(advice, to)) else {
        return Err(refuse("no-advice", format!("there is no prediction for {to}")));
    };
    let last = prediction_at(advice, end).unwrap_or(then);
    let percent = |new: f64, old: f64| if old > 0.0 { 100.0 * (new / old - 1.0) } else { 0.0 };
    let saving =
        |point: &CurvePoint| PicoDollars(now.cost_per_million.0.saturating_sub(point.cost_per_million.0));
    Ok(Proposal {
        from,
        to,
        end,
        uncapped,
        limited_by: limited_by(facts, &floor, [uncapped, within, end, to]),
        floor: floor.memory,
        ceiling,
        for_memory,
        after_out_of_memory,
        cost_change_percent: percent(then.cost_per_million.to_dollars(), now.cost_per_million.to_dollars()),
        duration_change_percent: percent(then.mean.mean_ms, now.mean.mean_ms),
        duration_interval_ms: then.mean.interval_80,
        p95_ms: [now.p95.mean_ms, then.p95.mean_ms],
        p99_ms: then.p99.mean_ms,
        saving_per_million: saving(&then),
        saving_usd_month: facts.evidence.monthly_usd(saving(&then)),
        saving_at_end_usd_month: facts.evidence.monthly_usd(saving(&last)),
    })
}

/// Whether only code that is not served any more ran out of memory, and the code that is served uses less than there is.
fn is_of_old_code(facts: &Facts<'_>, advice: &Advice) -> bool {
    let (floor, served) = (&advice.floor, facts.served);
    let needed_mb = served.peak_mb * (1.0 + floor.margin);
    floor.out_of_memory > 0 && served.out_of_memory == 0 && needed_mb <= f64::from(facts.evaluation.memory.0)
}

/// Whether the function already got more memory in the last month, and kept it.
fn grew_lately(facts: &Facts<'_>) -> bool {
    let since_us = facts.now_us.saturating_sub(SPAN_US);
    let is_kept = |change: &Change| change.state == State::Settled && change.intent.for_memory;
    facts.history.iter().any(|change| is_kept(change) && change.planned_at_us > since_us)
}

/// Refuses a change where the limits leave no size in the advised direction. `sizes` are the present one, the advised one, and
/// the advised one within the limits.
fn keeps_direction(sizes: [Megabytes; 3], floor: &Floor, ceiling: Megabytes) -> Result<(), Refusal> {
    let [from, uncapped, within] = sizes;
    if floor.memory > ceiling {
        let reason =
            format!("the memory floor {} is above the largest permitted size {ceiling}", floor.memory);
        return Err(refuse("out-of-bounds", reason));
    }
    if uncapped < from && within >= from {
        let reason = format!("{uncapped} is advised; {}: {from} stays", floor.reason);
        return Err(refuse(floor.code, reason));
    }
    if uncapped >= from && within <= from {
        let reason = format!("{uncapped} is advised; the largest permitted size is {ceiling}: {from} stays");
        return Err(refuse("out-of-bounds", reason));
    }
    Ok(())
}

/// Why the next size is not the advised one, if it is not. `sizes` are the advised one, the same within the limits, the one
/// after the last change, and the next one.
fn limited_by(facts: &Facts<'_>, floor: &Floor, sizes: [Megabytes; 4]) -> Option<String> {
    let [uncapped, within, end, to] = sizes;
    if to == uncapped {
        return None;
    }
    let cause = if to == end && end != within {
        let percent = 100.0 * facts.limits.max_p95_increase;
        match facts.permission.p95_slo_ms {
            Some(target_ms) => {
                format!("smaller sizes than {to} would exceed the target of {target_ms:.1} ms")
            }
            None => format!(
                "smaller sizes than {to} would increase the 95th percentile of duration by more than {percent:.0} %"
            ),
        }
    } else if to == within && within == floor.memory {
        floor.reason.clone()
    } else if to == within {
        format!("the largest permitted size is {to}")
    } else {
        format!("the limits of one change give {to}")
    };
    Some(format!("{uncapped} is advised; {cause}"))
}

/// The size after the largest permitted step in the direction of `to`.
fn after_largest_step(facts: &Facts<'_>, from: Megabytes, to: Megabytes) -> Megabytes {
    let size = f64::from(from.0);
    let max_step_down = match route(facts) {
        Ok(Route::Latest) => facts.limits.max_step_down_latest.min(facts.limits.max_step_down),
        _ => facts.limits.max_step_down,
    };
    let lowest = Megabytes(megabytes_rounded_up(size * (1.0 - max_step_down)));
    let highest = Megabytes(megabytes_rounded_up(size * facts.limits.max_step_up));
    to.max(lowest).min(highest)
}

/// The prediction at one size, between two sizes of the curve if it is not one of them.
pub(super) fn prediction_at(advice: &Advice, memory: Megabytes) -> Option<CurvePoint> {
    let above = advice.curve.iter().find(|point| point.memory >= memory)?;
    if above.memory == memory {
        return Some(*above);
    }
    let below = advice.curve.iter().rev().find(|point| point.memory < memory)?;
    let part = f64::from(memory.0 - below.memory.0) / f64::from(above.memory.0 - below.memory.0);
    let mix = |low: f64, high: f64| low + part * (high - low);
    let pair = |low: [f64; 2], high: [f64; 2]| [mix(low[0], high[0]), mix(low[1], high[1])];
    let mut point = *below;
    point.memory = memory;
    point.observed = false;
    for (value, low, high) in [
        (&mut point.mean, below.mean, above.mean),
        (&mut point.p95, below.p95, above.p95),
        (&mut point.p99, below.p99, above.p99),
    ] {
        value.mean_ms = mix(low.mean_ms, high.mean_ms);
        value.interval_80 = pair(low.interval_80, high.interval_80);
        value.interval_95 = pair(low.interval_95, high.interval_95);
    }
    let (low, high) = (below.cost_per_million.0, above.cost_per_million.0);
    #[expect(clippy::cast_possible_truncation, reason = "costs of a million invocations are far below 2^63")]
    let cost = low + ((high - low) as f64 * part) as i128;
    point.cost_per_million = PicoDollars(cost);
    Some(point)
}
