//! The result of a simulation.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use tailor_collector::changes::frequency::{self, most_in_30_days};
use tailor_collector::changes::{Cause, Change, State};
use tailor_collector::tuner::limits::HOUR_US;
use tailor_sizing::pricing::money::PicoDollars;
use tailor_sizing::pricing::prices::Rates;
use tailor_sizing::units::Megabytes;

use crate::kind::Kind;
use crate::strategies::{Costs, Outcome};
use crate::traffic::DAY_US;
use crate::world::{START_US, World};
use crate::{Losses, Simulation, share, sizes};

/// Changes that were undone because they were worse, or saved too little.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Rollbacks {
    /// Their number.
    pub count: u64,
    /// Of these, how many were undone before the new size served all invocations.
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
#[derive(Debug, Clone, Serialize)]
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
    /// Changes that were undone.
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
    let days = simulation.days;
    let mut report = Report {
        functions: simulation.functions,
        days,
        seed: simulation.seed,
        unchanged_usd: 0.0,
        unchanged: Outcome::default(),
        oracle: Outcome::default(),
        oracle_any_speed: Outcome::default(),
        tuner: Outcome::default(),
        compute_optimizer: Outcome::default(),
        power_tuning: Outcome::default(),
        runbook: Outcome::default(),
        changes_per_function_month: 0.0,
        max_changes_in_30_days: 0,
        max_repairs_in_30_days: 0,
        left_to_templates: losses.left.len(),
        share_without_left_percent: 0.0,
        states: BTreeMap::new(),
        rollbacks: rollbacks(changes),
        bad_settled: 0,
        missed_percent: BTreeMap::new(),
        kinds: BTreeMap::new(),
    };
    let mut by_kind: BTreeMap<Kind, (Outcome, Outcome)> = BTreeMap::new();
    let mut without_left = (Outcome::default(), Outcome::default());
    let mut killed = (0, 0);
    for (name, function) in &world.lock().functions {
        let truth = &function.truth;
        let costs = Costs { truth, rates, days };
        let constant = |size: Megabytes| vec![size; usize::try_from(days).unwrap_or(0)];
        report.unchanged_usd +=
            (0..days).map(|day| costs.on_day(day, Megabytes(truth.start_mb))).sum::<f64>();
        report.unchanged.add(&costs, &constant(Megabytes(truth.start_mb)));
        let tuned = sizes(&function.days, truth.start_mb);
        let best = constant(costs.best(true));
        report.oracle.add(&costs, &best);
        report.oracle_any_speed.add(&costs, &constant(costs.best(false)));
        report.tuner.add(&costs, &tuned);
        report.compute_optimizer.add(&costs, &costs.compute_optimizer());
        report.power_tuning.add(&costs, &costs.power_tuning());
        report.runbook.add(&costs, &costs.runbook());
        let (own, oracle) = by_kind.entry(truth.kind).or_default();
        own.add(&costs, &tuned);
        oracle.add(&costs, &best);
        if !losses.left.contains(name) {
            without_left.0.add(&costs, &tuned);
            without_left.1.add(&costs, &best);
        }
        let below: u64 = function.days.iter().map(|day| day.killed_below_start).sum();
        killed.0 += function.days.iter().map(|day| day.killed).sum::<u64>();
        killed.1 += if truth.kind.has_stationary_memory() { below } else { 0 };
        let own = changes.iter().filter(|change| change.function.name == *name && change.was_in_force());
        let own: Vec<Change> = own.cloned().collect();
        let most = most_in_30_days(&own, frequency::counts);
        report.max_changes_in_30_days = report.max_changes_in_30_days.max(most);
        let most = most_in_30_days(&own, Change::is_repair);
        report.max_repairs_in_30_days = report.max_repairs_in_30_days.max(most);
        let entry = report.kinds.entry(truth.kind.name()).or_default();
        entry.functions += 1;
        entry.changes += own.len() as u64;
        entry.rolled_back += own.iter().filter(|change| change.state.is_rolled_back()).count() as u64;
        entry.out_of_memory_below_start += below;
        report.bad_settled += own.iter().filter(|change| is_bad(&costs, change)).count() as u64;
    }
    // These were counted, invocation by invocation.
    (report.tuner.out_of_memory, report.tuner.out_of_memory_by_reductions) = killed;
    let oracle = report.oracle;
    for outcome in [
        &mut report.oracle_any_speed,
        &mut report.tuner,
        &mut report.compute_optimizer,
        &mut report.power_tuning,
        &mut report.runbook,
        &mut report.oracle,
    ] {
        *outcome = share(*outcome, oracle);
    }
    for (kind, (own, oracle)) in by_kind {
        let entry = report.kinds.entry(kind.name()).or_default();
        entry.share_of_oracle_percent = share(own, oracle).share_of_oracle_percent;
    }
    for change in changes {
        *report.states.entry(change.state.code()).or_default() += 1;
    }
    let in_force = changes.iter().filter(|change| change.was_in_force()).count();
    report.changes_per_function_month = in_force as f64 / simulation.functions as f64 / (days as f64 / 30.0);
    report.share_without_left_percent = share(without_left.0, without_left.1).share_of_oracle_percent;
    let total: f64 = losses.by_reason.values().sum();
    for ((kind, code), usd) in losses.by_reason {
        let percent = 100.0 * usd / total;
        *report.missed_percent.entry(code.clone()).or_default() += percent;
        report.kinds.entry(kind.name()).or_default().missed_percent.insert(code, percent);
    }
    report
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

impl Report {
    /// The report as text for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} functions, {} days, seed {}: ${:.0} without a change\n\n",
            self.functions, self.days, self.seed, self.unchanged_usd
        );
        text.push_str("way                              saved  of the oracle  out of memory  by reductions  slower functions\n");
        for (name, outcome) in [
            ("no change", &self.unchanged),
            ("oracle, same speed", &self.oracle),
            ("oracle, any speed", &self.oracle_any_speed),
            ("tuner", &self.tuner),
            ("Compute Optimizer's rule, once", &self.compute_optimizer),
            ("AWS's runbook, every 14 days", &self.runbook),
            ("Power Tuning, once at the start", &self.power_tuning),
        ] {
            let _ = writeln!(
                text,
                "{name:<32} {:>5.1} %  {:>10.1} %  {:>13}  {:>13}  {:>16}",
                100.0 * outcome.saved_usd / self.unchanged_usd.max(f64::MIN_POSITIVE),
                outcome.share_of_oracle_percent,
                outcome.out_of_memory,
                outcome.out_of_memory_by_reductions,
                outcome.slower_functions
            );
        }
        let rollbacks = &self.rollbacks;
        let _ = writeln!(
            text,
            "\nchanges: {:.2} for each function and month, at most {} in 30 days and {} increases after out-of-memory\nrolled back: {}, \
             of them {} in the canary, after {:.1} hours on average and {:.1} at most, ${:.2} more in that time\nsettled \
             although worse: {}",
            self.changes_per_function_month,
            self.max_changes_in_30_days,
            self.max_repairs_in_30_days,
            rollbacks.count,
            rollbacks.in_canary,
            rollbacks.mean_hours,
            rollbacks.max_hours,
            rollbacks.cost_usd,
            self.bad_settled
        );
        let _ = writeln!(
            text,
            "left to their templates (`managed-elsewhere`): {} functions; without them {:.1} % of the oracle. A patch that nobody \
             applies saves nothing, so none is counted.",
            self.left_to_templates, self.share_without_left_percent
        );
        let _ = writeln!(
            text,
            "states: {:?}\n\nwhat the tuner saves less than the oracle, by reason:",
            self.states
        );
        for (code, percent) in largest(&self.missed_percent) {
            let _ = writeln!(text, "{percent:>6.1} %  {code}");
        }
        text.push_str("\nkind             functions  changes  rolled back  of the oracle  out of memory below the start\n");
        for (name, kind) in &self.kinds {
            let _ = writeln!(
                text,
                "{name:<16} {:>9}  {:>7}  {:>11}  {:>11.1} %  {:>29}",
                kind.functions,
                kind.changes,
                kind.rolled_back,
                kind.share_of_oracle_percent,
                kind.out_of_memory_below_start
            );
        }
        text.push_str("\nthe same reasons by kind:\n");
        for (name, kind) in &self.kinds {
            let reasons = largest(&kind.missed_percent).into_iter().take(REASONS_OF_KIND);
            let reasons: Vec<String> =
                reasons.map(|(code, percent)| format!("{code} {percent:.1} %")).collect();
            let _ = writeln!(text, "{name:<16} {}", reasons.join(", "));
        }
        text
    }
}

/// Reasons that are shown of one kind.
const REASONS_OF_KIND: usize = 4;

/// The reasons, the largest share first.
fn largest(missed: &BTreeMap<String, f64>) -> Vec<(&String, f64)> {
    let mut missed: Vec<_> = missed.iter().map(|(code, percent)| (code, *percent)).collect();
    missed.sort_by(|a, b| b.1.total_cmp(&a.1));
    missed
}
