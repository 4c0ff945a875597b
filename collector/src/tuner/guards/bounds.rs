//! The sizes between which a change may go, and the largest step.

use serde::{Deserialize, Serialize};

use tailor_sizing::advice::{Advice, CurvePoint, Verdict};
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::units::Megabytes;

use super::{Facts, Refusal, refuse};

/// Hours in a month, as for monthly costs.
const MONTH_HOURS: f64 = 730.0;

/// A change of size after all limits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// Present size.
    pub from: Megabytes,
    /// Next size.
    pub to: Megabytes,
    /// The advised size before the limits.
    pub uncapped: Megabytes,
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
    /// Predicted 95th and 99th percentile of duration, now and then, ms.
    pub p95_ms: [f64; 2],
    /// Predicted 99th percentile, ms.
    pub p99_ms: f64,
    /// Predicted saving of a million invocations.
    pub saving_per_million: PicoDollars,
    /// Predicted saving in a month at the measured traffic, dollars; `None` when the traffic is unknown.
    pub saving_usd_month: Option<f64>,
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
    let after_out_of_memory = facts.evidence.out_of_memory > 0 && advice.memory >= from;
    let for_memory = advice.verdict == Verdict::RaiseForMemory || after_out_of_memory;
    if !for_memory && advice.verdict != Verdict::Change {
        return Err(refuse("not-advised", "no change is advised"));
    }
    let (floor, ceiling) = (floor(facts, advice), facts.permission.max_memory);
    // Memory was full: the true demand is not known, so the size is doubled at most.
    let uncapped = match after_out_of_memory {
        true => advice.memory.max(above_out_of_memory(facts, from)),
        false => advice.memory,
    };
    let to = limited(facts, from, uncapped.max(floor).min(ceiling));
    if floor > ceiling {
        let reason = format!("the memory floor {floor} is above the largest permitted size {ceiling}");
        return Err(refuse("out-of-bounds", reason));
    }
    if to < floor || to > ceiling || to == from {
        let reason = format!("{uncapped} is advised; between {floor} and {ceiling}, {from} stays");
        return Err(refuse("out-of-bounds", reason));
    }
    if (to < from) != (uncapped < from) {
        let reason =
            format!("{uncapped} is advised, but the limits {floor} to {ceiling} ask for the other direction");
        return Err(refuse("out-of-bounds", reason));
    }
    let (Some(now), Some(then)) = (at(advice, from), at(advice, to)) else {
        return Err(refuse("no-advice", format!("there is no prediction for {to}")));
    };
    let percent = |new: f64, old: f64| if old > 0.0 { 100.0 * (new / old - 1.0) } else { 0.0 };
    let saving = PicoDollars(now.cost_per_million.0.saturating_sub(then.cost_per_million.0));
    let hours = facts.evidence.last_at_us.saturating_sub(facts.evidence.first_at_us) as f64 / 3_600e6;
    let monthly =
        |hours: f64| saving.to_dollars() / 1e6 * facts.evidence.invocations as f64 / hours * MONTH_HOURS;
    Ok(Proposal {
        from,
        to,
        uncapped,
        floor,
        ceiling,
        for_memory,
        after_out_of_memory,
        cost_change_percent: percent(then.cost_per_million.to_dollars(), now.cost_per_million.to_dollars()),
        duration_change_percent: percent(then.mean.mean_ms, now.mean.mean_ms),
        duration_interval_ms: then.mean.interval_80,
        p95_ms: [now.p95.mean_ms, then.p95.mean_ms],
        p99_ms: then.p99.mean_ms,
        saving_per_million: saving,
        saving_usd_month: (hours >= 1.0).then(|| monthly(hours)),
    })
}

/// The smallest size: that of the owner, of the memory floor, and above each size that ran out of memory.
fn floor(facts: &Facts<'_>, advice: &Advice) -> Megabytes {
    let own = &advice.floor;
    let headroom = facts.limits.headroom;
    let seen = own.peak_mb.max(own.environment_peak_mb) * (1.0 + headroom);
    let seen = Megabytes(whole(seen));
    // Sizes that ran out of memory in earlier changes.
    let killed =
        facts.history.iter().filter(|change| change.after.is_some_and(|after| after.out_of_memory > 0));
    let killed = killed.map(|change| above_out_of_memory(facts, change.to)).max().unwrap_or(Megabytes::MIN);
    [own.memory, seen, killed, facts.permission.min_memory, Megabytes::MIN]
        .into_iter()
        .max()
        .unwrap_or(own.memory)
}

fn above_out_of_memory(facts: &Facts<'_>, size: Megabytes) -> Megabytes {
    let (factor, extra) = facts.limits.out_of_memory_floor;
    let size = f64::from(size.0);
    Megabytes(whole((size * factor).max(size + f64::from(extra)))).min(Megabytes::MAX)
}

/// The size after the largest permitted step in the direction of `to`.
fn limited(facts: &Facts<'_>, from: Megabytes, to: Megabytes) -> Megabytes {
    let size = f64::from(from.0);
    let lowest = Megabytes(whole(size * (1.0 - facts.limits.max_step_down)));
    let highest = Megabytes(whole(size * facts.limits.max_step_up));
    to.max(lowest).min(highest)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the value is clamped to the range of sizes before the cast"
)]
fn whole(mb: f64) -> u32 {
    mb.ceil().clamp(0.0, f64::from(Megabytes::MAX.0)) as u32
}

/// The prediction at one size, between two sizes of the curve if it is not one of them.
fn at(advice: &Advice, memory: Megabytes) -> Option<CurvePoint> {
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

pub(super) fn duration(facts: &Facts<'_>, proposal: &Proposal) -> Result<(), Refusal> {
    let limits = facts.limits;
    let timeout_ms = facts.live.timeout_ms as f64;
    if timeout_ms > 0.0
        && proposal.p99_ms > limits.max_timeout_share * timeout_ms
        && proposal.to < proposal.from
    {
        let reason = format!(
            "the 99th percentile would be {:.0} ms, more than {:.0} % of the timeout of {timeout_ms:.0} ms",
            proposal.p99_ms,
            100.0 * limits.max_timeout_share
        );
        return Err(refuse("near-timeout", reason));
    }
    if proposal.for_memory || proposal.to > proposal.from {
        return Ok(());
    }
    let [now_ms, then_ms] = proposal.p95_ms;
    let limit_ms = facts.permission.p95_slo_ms.unwrap_or(now_ms * (1.0 + limits.max_p95_increase));
    if then_ms <= limit_ms {
        return Ok(());
    }
    Err(refuse(
        "slower",
        format!("the 95th percentile would be {then_ms:.1} ms, the limit is {limit_ms:.1} ms"),
    ))
}
