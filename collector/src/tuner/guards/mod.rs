//! The guard-rails: pure functions that refuse a change, one file for each family.
//!
//! Each refusal has a stable code and a sentence. [`GUARD_RAILS`] has their defaults, and `docs/guard-rails.md` shows them
//! with their sources; a test compares the two.

mod benefit;
mod bounds;
mod evidence;
mod fleet;
mod floor;
pub(super) mod pace;
mod permission;
mod preflight;
mod speed;
mod table;
pub(super) mod trust;
mod versions;

use std::fmt;

use serde::Serialize;

use tailor_sizing::model::memory_floor::peak_memory_mb;
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::pricing::prices::Rates;
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::{Architecture, Megabytes};

use super::lambda::Live;
use super::limits::Limits;
use super::permission::Permission;
use crate::changes::{Change, Route};
use crate::report::Evaluation;

pub use bounds::{Proposal, propose};
pub(super) use fleet::{open_changes, waits_for_others, waits_for_spend};
pub use preflight::{STACK_TAG, route};
pub use table::{GUARD_RAILS, GuardRail, markdown};
pub(super) use versions::needs_list;

/// Hours in a month, as for monthly costs.
const MONTH_HOURS: f64 = 730.0;

/// Why the tuner does not change a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The stable code of the guard-rail.
    pub code: &'static str,
    /// The reason as a sentence without its full stop.
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.reason)
    }
}

impl std::error::Error for Refusal {}

/// A refusal with a code of [`GUARD_RAILS`].
pub(super) fn refuse(code: &'static str, reason: impl Into<String>) -> Refusal {
    debug_assert!(GUARD_RAILS.iter().any(|rail| rail.code == code), "{code}");
    Refusal { code, reason: reason.into() }
}

/// What was measured at the present size and version.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evidence {
    /// Warm invocations.
    pub warm: u64,
    /// All invocations.
    pub invocations: u64,
    /// Environments that started.
    pub environments: u64,
    /// The earliest invocation, microseconds since the Unix epoch.
    pub first_at_us: u64,
    /// The latest invocation, microseconds since the Unix epoch.
    pub last_at_us: u64,
    /// Out-of-memory kills.
    pub out_of_memory: u64,
    /// Cost in the window, dollars.
    pub cost_usd: f64,
    /// Instruction set of the invocations.
    pub architecture: Architecture,
}

impl Evidence {
    /// The evidence of the invocations at one size, with their cost if `rates` are known.
    #[must_use]
    pub fn of(rollup: &Rollup, memory: Megabytes, architecture: Architecture, rates: Option<&Rates>) -> Self {
        let cost = rates.map(|rates| rates.cost(memory, rollup.billed_ms, rollup.invocations, 512));
        Self {
            warm: rollup.warm_duration_us.count(),
            invocations: rollup.invocations,
            environments: rollup.first_invocations(),
            first_at_us: rollup.first_at_us,
            last_at_us: rollup.last_at_us,
            out_of_memory: rollup.out_of_memory,
            cost_usd: cost.map_or(0.0, PicoDollars::to_dollars),
            architecture,
        }
    }

    /// A saving of a million invocations as a saving in a month at the measured traffic, dollars; `None` when less than an
    /// hour was measured.
    pub(super) fn monthly_usd(&self, saving_per_million: PicoDollars) -> Option<f64> {
        let hours = self.last_at_us.saturating_sub(self.first_at_us) as f64 / 3_600e6;
        let millions = self.invocations as f64 / 1e6;
        (hours >= 1.0).then(|| saving_per_million.to_dollars() * millions / hours * MONTH_HOURS)
    }
}

/// What was measured of the code that is served, at the present size.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Served {
    /// Warm invocations.
    pub warm: u64,
    /// Out-of-memory kills.
    pub out_of_memory: u64,
    /// Highest memory use, MB.
    pub peak_mb: f64,
}

impl Served {
    /// The measurements of a rollup.
    #[must_use]
    pub fn of(rollup: &Rollup) -> Self {
        Self {
            warm: rollup.warm_duration_us.count(),
            out_of_memory: rollup.out_of_memory,
            peak_mb: peak_memory_mb(rollup),
        }
    }
}

/// How reliable the telemetry is.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Health {
    /// Longest time from sending to storing a batch in the last hour, microseconds.
    pub delay_us: u64,
    /// Share of batches that did not arrive.
    pub lost: f64,
    /// Age of the price table, days; `None` when its date cannot be read.
    pub price_age_days: Option<i64>,
}

/// What concerns all functions.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FleetState {
    /// Why the tuner is frozen.
    pub frozen: Option<String>,
    /// Open changes.
    pub open: usize,
    /// Tuned functions, as far as their tags were read.
    pub tuned: usize,
    /// Share of the fleet's cost that open changes concern, without functions that alone have more than the limit.
    pub open_spend: f64,
    /// Whether a change of a function that alone has more than the limit is open.
    pub is_large_open: bool,
    /// A function that only the cost of open changes keeps from its change. Those after it in the queue wait for it.
    pub waiting: Option<String>,
    /// Cost of all functions in the window, dollars.
    pub spend_usd: f64,
    /// Rollbacks in the last 24 hours.
    pub rollbacks: usize,
}

/// Everything that the guard-rails read.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The present time, microseconds since the Unix epoch.
    pub now_us: u64,
    /// The function in Lambda.
    pub live: &'a Live,
    /// Its measurements and advice.
    pub evaluation: &'a Evaluation,
    /// What was measured at its present size.
    pub evidence: &'a Evidence,
    /// What was measured of the code that is served.
    pub served: &'a Served,
    /// Its out-of-memory kills since the last increase was rolled back; all of them when none was.
    pub recent_kills: u64,
    /// The telemetry of the function.
    pub health: &'a Health,
    /// Its changes, oldest first.
    pub history: &'a [Change],
    /// All functions.
    pub fleet: &'a FleetState,
    /// What is permitted.
    pub permission: &'a Permission,
    /// The limits.
    pub limits: &'a Limits,
}

impl Facts<'_> {
    /// The latest changes of the function that were written to Lambda.
    fn written(&self) -> impl DoubleEndedIterator<Item = &Change> {
        use crate::changes::State;
        self.history.iter().filter(|change| !matches!(change.state, State::Blocked))
    }
}

/// A change that passed all guard-rails.
#[derive(Debug, Clone, PartialEq)]
pub struct Approved {
    /// The sizes.
    pub proposal: Proposal,
    /// What the invocations go through.
    pub route: Route,
}

/// Checks one function.
///
/// # Errors
/// All refusals, the most fundamental one first.
pub fn check(facts: &Facts<'_>) -> Result<Approved, Vec<Refusal>> {
    let mut refusals = Vec::new();
    let mut add = |result: Result<(), Refusal>| refusals.extend(result.err());
    for rail in [
        permission::may_write,
        permission::account,
        permission::region,
        permission::stack,
        permission::external,
        fleet::frozen,
        trust::measured_by_layer,
        trust::telemetry,
        trust::prices,
        trust::unaccounted,
        preflight::update,
        preflight::kind,
        preflight::size,
        pace::open_change,
        pace::deployment,
    ] {
        add(rail(facts));
    }
    let route = route(facts).map_err(|refusal| add(Err(refusal)));
    let proposal = propose(facts).map_err(|refusal| add(Err(refusal)));
    if let Ok(proposal) = &proposal {
        for rail in [
            evidence::minimum_evidence,
            evidence::minimum_evidence_of_served_code,
            benefit::outside_dead_band,
            speed::duration_within_limits,
            permission::direction,
            pace::cooldown,
            pace::quarantine,
            pace::monthly_changes,
            pace::out_of_memory,
            permission::window,
            fleet::blast_radius,
            fleet::rollbacks,
        ] {
            add(rail(facts, proposal));
        }
        if let Ok(route) = &route {
            add(permission::direct_reduction(facts, proposal, route));
            add(evidence::traffic_for_canary(facts, route));
            add(preflight::concurrency(facts, route));
        }
    }
    match (route, proposal) {
        (Ok(route), Ok(proposal)) if refusals.is_empty() => Ok(Approved { proposal, route }),
        _ => Err(refusals),
    }
}

/// The memory sizes of a sentence.
fn sizes(from: Megabytes, to: Megabytes) -> String {
    format!("{from} to {to}")
}
