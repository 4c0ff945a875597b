//! Runs the tuner against simulated functions in simulated time.
//!
//! The rounds, the guard-rails, the state machine and the canary are those of the collector. Simulated are the functions:
//! their invocations, Lambda's control plane and the clock.

pub mod function;
pub mod kind;
pub mod random;
mod report;
pub mod strategies;
pub mod traffic;
pub mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tailor_collector::changes;
use tailor_collector::clock::{Clock, DAY_US};
use tailor_collector::tuner::limits::Limits;
use tailor_collector::tuner::{Settings, Tuner};
use tailor_sizing::pricing::prices::Rates;
use tailor_sizing::units::{Architecture, Megabytes};

use function::{Day, Detail};
use kind::Kind;
use strategies::{Costs, Outcome};
use world::World;

pub use report::{KindReport, Report, Rollbacks};

/// Microseconds in a minute.
const MINUTE_US: u64 = 60_000_000;

/// What is simulated.
#[derive(Debug, Clone)]
pub struct Simulation {
    /// Number of functions.
    pub functions: usize,
    /// Days.
    pub days: u64,
    /// Seed of all random numbers.
    pub seed: u64,
    /// How finely traffic is simulated.
    pub detail: Detail,
    /// Minutes between two rounds while an alias has a weight, and else.
    pub round_minutes: [u64; 2],
    /// The limits of the guard-rails.
    pub limits: Limits,
}

impl Simulation {
    /// A simulation of this size with the tuner's own defaults.
    #[must_use]
    pub fn new(functions: usize, days: u64, seed: u64) -> Self {
        let detail =
            Detail { samples: 24, canary_samples: 200, evaluation_us: DAY_US, window_us: 15 * DAY_US };
        Self { functions, days, seed, detail, round_minutes: [20, 120], limits: Limits::default() }
    }
}

/// The reason of functions that the tuner leaves to their templates.
const MANAGED_ELSEWHERE: &str = "managed-elsewhere";

/// What kept savings from functions.
#[derive(Debug, Default)]
struct Losses {
    /// Dollars by kind and reason.
    by_reason: BTreeMap<(Kind, String), f64>,
    /// The names of functions that were left to their templates at some time.
    left: BTreeSet<String>,
}

/// Runs a simulation.
///
/// # Errors
/// When the tuner fails.
pub fn run(simulation: &Simulation) -> anyhow::Result<Report> {
    let fleet = kind::fleet(simulation.functions, simulation.seed);
    let world = World::new(&fleet, simulation.detail);
    let rates = world.prices().rates("eu-west-1", Architecture::X86_64)?;
    let clock = {
        let world = Arc::clone(&world);
        Clock::from_fn(move || world.now_us())
    };
    let settings = Settings {
        limits: simulation.limits.clone(),
        poll: std::time::Duration::ZERO,
        ..Settings::default()
    };
    let tuner = Tuner::with_telemetry(Arc::clone(&world) as _, Arc::clone(&world) as _, settings, clock);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let best: Vec<Megabytes> =
        fleet.iter().map(|truth| Costs { truth, rates: &rates, days: simulation.days }.best(true)).collect();
    let mut losses = Losses::default();
    let end_us = simulation.days * DAY_US;
    let (mut now_us, mut day) = (0, 0);
    while now_us < end_us {
        runtime.block_on(tuner.round())?;
        if now_us / DAY_US > day {
            day = now_us / DAY_US;
            add_losses(&mut losses, &world, &tuner, &best, &rates, simulation.days);
        }
        let [canary, idle] = simulation.round_minutes;
        let pause_us = if world.has_canary() { canary } else { idle } * MINUTE_US;
        world.pass(pause_us);
        now_us += pause_us;
    }
    world.advance_all();
    let log = runtime.block_on(tailor_collector::tuner::telemetry::Telemetry::log(world.as_ref()))?;
    Ok(report::of(simulation, &world, &changes::fold(log), &rates, losses))
}

/// Adds what each function costs more today than at its best size, by the reason for which it is not changed now.
fn add_losses(
    losses: &mut Losses,
    world: &World,
    tuner: &Tuner,
    best: &[Megabytes],
    rates: &Rates,
    days: u64,
) {
    let latest_round = tuner.latest_round();
    let reasons: BTreeMap<&str, &str> = latest_round
        .functions
        .iter()
        .filter_map(|planned| Some((planned.function.name.as_str(), planned.refusals.first()?.0.as_str())))
        .collect();
    let is_left = |(_, reason): &(&&str, &&str)| **reason == MANAGED_ELSEWHERE;
    losses.left.extend(reasons.iter().filter(is_left).map(|(name, _)| (*name).to_owned()));
    let state = world.lock();
    let mut names: Vec<(usize, &String)> = state
        .functions
        .keys()
        .filter_map(|name| Some((name.rsplit_once('-')?.1.parse().ok()?, name)))
        .collect();
    names.sort_unstable();
    for ((_, name), best) in names.into_iter().zip(best) {
        let function = &state.functions[name];
        let Some(today) = function.days.last() else { continue };
        let day = (function.days.len() as u64).saturating_sub(1);
        let costs = Costs { truth: &function.truth, rates, days };
        let more = costs.on_day(day, Megabytes(today.memory_mb)) - costs.on_day(day, *best);
        if today.memory_mb > 0 && more > 0.0 {
            let reason = reasons.get(name.as_str()).copied().unwrap_or("not-advised");
            *losses.by_reason.entry((function.truth.kind, reason.to_owned())).or_default() += more;
        }
    }
}

/// The sizes of a function, one a day.
fn sizes(days: &[Day], start_mb: u32) -> Vec<Megabytes> {
    let mut last = start_mb;
    days.iter()
        .map(|day| {
            if day.memory_mb > 0 {
                last = day.memory_mb;
            }
            Megabytes(last)
        })
        .collect()
}

fn share(outcome: Outcome, oracle: Outcome) -> Outcome {
    let percent = if oracle.saved_usd > 0.0 { 100.0 * outcome.saved_usd / oracle.saved_usd } else { 0.0 };
    Outcome { share_of_oracle_percent: percent, ..outcome }
}
