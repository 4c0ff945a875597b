//! The result of a simulation.

mod text;

use std::collections::BTreeMap;

use serde::Serialize;
use tailor_collector::changes::frequency::{self, most_in_30_days};
use tailor_collector::changes::{Cause, Change, State};
use tailor_collector::clock::{DAY_US, HOUR_US};
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::pricing::prices::Rates;
use tailor_sizing::units::Megabytes;

use crate::function::START_US;
use crate::kind::Kind;
use crate::strategies::{Costs, Outcome};
use crate::world::World;
use crate::{Losses, Simulation, share, sizes};

/// Changes that were rolled back because they were worse, or saved too little.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Rollbacks {
    /// Their number.
    pub count: u64,
    /// Of these, how many were rolled back before the new size served all invocations.
    pub in_canary: u64,
    /// Mean time for which the new size was in use, hours.
    pub mean_hours: f64,
    /// Longest time, hours.
    pub max_hours: f64,
    /// What the new size cost more in that time, dollars.
    pub cost_usd: f64,
}

/// The functions of one kind.
#[derive(Debug, Clone, Default, Serialize)]
pub struct KindReport {
    /// Their number.
    pub functions: u64,
    /// Changes that were in force at some time.
    pub changes: u64,
    /// Changes that were rolled back.
    pub rolled_back: u64,
    /// Part of what the oracle saves, percent.
    pub share_of_oracle_percent: f64,
    /// Invocations that ran out of memory below the size of the start.
    pub out_of_memory_below_start: u64,
    /// Share of what the oracle saves more on all functions, by the reason for which one of this kind was not changed, percent.
    pub missed_percent: BTreeMap<String, f64>,
}

/// The result of a simulation.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Number of functions.
    pub functions: usize,
    /// Days.
    pub days: u64,
    /// The seed.
    pub seed: u64,
    /// Cost without a change, dollars.
    pub unchanged_usd: f64,
    /// The sizes of the start.
    pub unchanged: Outcome,
    /// The best constant size of each function, known in advance, with the same limit of the 95th percentile.
    pub oracle: Outcome,
    /// The same without a limit of durations.
    pub oracle_any_speed: Outcome,
    /// The tuner.
    pub tuner: Outcome,
    /// One change by Compute Optimizer's rule after two weeks.
    pub compute_optimizer: Outcome,
    /// One run of Power Tuning at the start.
    pub power_tuning: Outcome,
    /// AWS's runbook every two weeks.
    pub runbook: Outcome,
    /// Changes of a function in 30 days, on average.
    pub changes_per_function_month: f64,
    /// Most changes of one function in any 30 days, without increases after out-of-memory.
    pub max_changes_in_30_days: usize,
    /// Most increases of one function after out-of-memory in any 30 days.
    pub max_repairs_in_30_days: usize,
    /// Functions that the tuner left to their templates at some time (`managed-elsewhere`).
    pub left_to_templates: usize,
    /// Part of what the oracle saves on all other functions, percent.
    pub share_without_left_percent: f64,
    /// Changes by their last state.
    pub states: BTreeMap<&'static str, u64>,
    /// Changes that were rolled back.
    pub rollbacks: Rollbacks,
    /// Settled changes that are worse by what is true of the function: more expensive, slower than the limit, or with kills.
    pub bad_settled: u64,
    /// Share of what the oracle saves more, by the reason for which a function was not changed, percent.
    pub missed_percent: BTreeMap<String, f64>,
    /// The functions by kind.
    pub kinds: BTreeMap<&'static str, KindReport>,
}

/// Computes the report.
pub(crate) fn of(
    simulation: &Simulation,
    world: &World,
    changes: &[Change],
    rates: &Rates,
    losses: Losses,
) -> Report {
    let mut report = Report {
        functions: simulation.functions,
        days: simulation.days,
        seed: simulation.seed,
        left_to_templates: losses.left.len(),
        rollbacks: rollbacks(changes),
        ..Report::default()
    };
    let mut sums = Sums::default();
    for (name, function) in &world.lock().functions {
        let costs = Costs { truth: &function.truth, rates, days: simulation.days };
        let tuned = sizes(&function.days, function.truth.start_mb);
        report.add_ways(&costs, &tuned);
        sums.add(&costs, &tuned, losses.left.contains(name));
        let own = changes.iter().filter(|change| change.function.name == *name && change.was_in_force());
        let own: Vec<Change> = own.cloned().collect();
        report.add_changes(&costs, &own);
        let (killed, below) = function
            .days
            .iter()
            .fold((0, 0), |(killed, below), day| (killed + day.killed, below + day.killed_below_start));
        sums.killed += killed;
        sums.killed_by_reductions += if costs.truth.kind.has_stationary_memory() { below } else { 0 };
        report.kind(costs.truth.kind).out_of_memory_below_start += below;
    }
    report.finish(sums);
    for change in changes {
        *report.states.entry(change.state.code()).or_default() += 1;
    }
    let in_force = changes.iter().filter(|change| change.was_in_force()).count();
    let months = simulation.days as f64 / frequency::DAYS as f64;
    report.changes_per_function_month = in_force as f64 / simulation.functions as f64 / months;
    report.add_losses(losses);
    report
}

/// Sums over functions from which parts of the oracle's savings are computed.
#[derive(Default)]
struct Sums {
    /// The tuner and the oracle.
    by_kind: BTreeMap<Kind, (Outcome, Outcome)>,
    /// The same of functions that were never left to their templates.
    without_left: (Outcome, Outcome),
    /// Invocations that ran out of memory.
    killed: u64,
    /// Those of functions whose memory use does not change, below the size of the start.
    killed_by_reductions: u64,
}

impl Sums {
    fn add(&mut self, costs: &Costs<'_>, tuned: &[Megabytes], is_left: bool) {
        let best = constant(costs, costs.best(true));
        let by_kind = self.by_kind.entry(costs.truth.kind).or_default();
        for (own, oracle) in [by_kind].into_iter().chain((!is_left).then_some(&mut self.without_left)) {
            own.add(costs, tuned);
            oracle.add(costs, &best);
        }
    }
}

/// The same size on each day.
fn constant(costs: &Costs<'_>, size: Megabytes) -> Vec<Megabytes> {
    vec![size; usize::try_from(costs.days).unwrap_or(0)]
}

impl Report {
    fn kind(&mut self, kind: Kind) -> &mut KindReport {
        self.kinds.entry(kind.name()).or_default()
    }

    /// Adds what each way to set sizes gives for one function.
    fn add_ways(&mut self, costs: &Costs<'_>, tuned: &[Megabytes]) {
        let start = Megabytes(costs.truth.start_mb);
        self.unchanged_usd += (0..costs.days).map(|day| costs.on_day(day, start)).sum::<f64>();
        self.unchanged.add(costs, &constant(costs, start));
        self.oracle.add(costs, &constant(costs, costs.best(true)));
        self.oracle_any_speed.add(costs, &constant(costs, costs.best(false)));
        self.tuner.add(costs, tuned);
        self.compute_optimizer.add(costs, &costs.compute_optimizer());
        self.power_tuning.add(costs, &costs.power_tuning());
        self.runbook.add(costs, &costs.runbook());
    }

    /// Adds the changes of one function that were in force.
    fn add_changes(&mut self, costs: &Costs<'_>, own: &[Change]) {
        let (most, repairs) =
            (most_in_30_days(own, frequency::counts), most_in_30_days(own, Change::is_repair));
        self.max_changes_in_30_days = self.max_changes_in_30_days.max(most);
        self.max_repairs_in_30_days = self.max_repairs_in_30_days.max(repairs);
        self.bad_settled += own.iter().filter(|change| is_bad(costs, change)).count() as u64;
        let entry = self.kind(costs.truth.kind);
        entry.functions += 1;
        entry.changes += own.len() as u64;
        entry.rolled_back += own.iter().filter(|change| change.state.is_rolled_back()).count() as u64;
    }

    /// Computes what depends on all functions.
    fn finish(&mut self, sums: Sums) {
        // These were counted, invocation by invocation.
        self.tuner.out_of_memory = sums.killed;
        self.tuner.out_of_memory_by_reductions = sums.killed_by_reductions;
        let oracle = self.oracle;
        for outcome in [
            &mut self.oracle_any_speed,
            &mut self.tuner,
            &mut self.compute_optimizer,
            &mut self.power_tuning,
            &mut self.runbook,
            &mut self.oracle,
        ] {
            *outcome = share(*outcome, oracle);
        }
        for (kind, (own, oracle)) in sums.by_kind {
            self.kind(kind).share_of_oracle_percent = share(own, oracle).share_of_oracle_percent;
        }
        let (own, oracle) = sums.without_left;
        self.share_without_left_percent = share(own, oracle).share_of_oracle_percent;
    }

    /// Adds what kept savings from functions.
    fn add_losses(&mut self, losses: Losses) {
        let total: f64 = losses.by_reason.values().sum();
        for ((kind, code), usd) in losses.by_reason {
            let percent = 100.0 * usd / total;
            *self.missed_percent.entry(code.clone()).or_default() += percent;
            self.kind(kind).missed_percent.insert(code, percent);
        }
    }
}

/// Whether a change that stays is worse, by what is true of the function.
fn is_bad(costs: &Costs<'_>, change: &Change) -> bool {
    if change.state != State::Settled || change.intent.for_memory {
        return false;
    }
    let day = (change.planned_at_us - START_US) / DAY_US;
    let is_dearer = costs.on_day(day, change.to) > costs.on_day(day, change.from) * 1.01;
    let kills = costs.kills_on_day(day, change.to) > costs.kills_on_day(day, change.from) + 0.01;
    is_dearer || kills
}

fn rollbacks(changes: &[Change]) -> Rollbacks {
    let mut rollbacks = Rollbacks::default();
    let mut hours = 0.0;
    for change in changes {
        let is_worse = matches!(change.cause, Some(Cause::Worse | Cause::NoSaving));
        if !is_worse || !change.state.is_rolled_back() {
            continue;
        }
        rollbacks.count += 1;
        rollbacks.in_canary += u64::from(!change.promoted);
        let from_us = change.canary_at_us.or(change.applied_at_us).unwrap_or(change.planned_at_us);
        let duration = change.moved_at_us.saturating_sub(from_us) as f64 / HOUR_US as f64;
        hours += duration;
        rollbacks.max_hours = rollbacks.max_hours.max(duration);
        let cost = |measured: Option<tailor_collector::changes::comparison::Measurements>| {
            measured.and_then(|measured| measured.cost_per_million_pico_usd).map(PicoDollars::to_dollars)
        };
        let before = cost(change.baseline).or_else(|| cost(Some(change.intent.before)));
        if let (Some(after), Some(new), Some(old)) = (change.after, cost(change.after), before) {
            rollbacks.cost_usd += (new - old).max(0.0) * after.invocations as f64 / 1e6;
        }
    }
    rollbacks.mean_hours = if rollbacks.count > 0 { hours / rollbacks.count as f64 } else { 0.0 };
    rollbacks
}
