//! The defaults of the guard-rails, in one place. `docs/guard-rails.md` has their sources.

use tailor_sizing::units::Megabytes;

use crate::clock::{DAY_US, HOUR_US};

/// The limits of the guard-rails.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Minimum time with measurements of the present size, microseconds.
    pub evidence_us: u64,
    /// The same after a change that was settled, because the size before it was measured for the whole time.
    pub evidence_after_change_us: u64,
    /// How many times the minimum numbers of invocations and environments are much. Half of the time suffices then.
    pub half_time_factor: u64,
    /// Minimum number of warm invocations of the present size.
    pub evidence_invocations: u64,
    /// The part of these invocations that must be of the code that is served, as a divisor: 10 is a tenth.
    pub evidence_code_divisor: u64,
    /// Minimum number of environments.
    pub evidence_environments: u64,
    /// Time after a deployment in which nothing is changed, microseconds.
    pub after_deployment_us: u64,
    /// Time without invocations after which a version without an alias does not count, microseconds.
    pub unused_version_us: u64,
    /// Minimum change of the size, as a share.
    pub min_size_change: f64,
    /// Minimum saving at the size to which the changes of a function lead, dollars a month.
    pub min_saving_usd_month: f64,
    /// The part of it that each of several changes must save.
    pub min_saving_of_one_change: f64,
    /// Minimum reduction of mean duration of a change that does not save, as a share.
    pub min_duration_change: f64,
    /// Headroom above the highest memory use, as a share.
    pub headroom: f64,
    /// The same before [`Self::evidence_us`] was measured.
    pub headroom_early: f64,
    /// Factor and MB above a size that ran out of memory; the larger one counts.
    pub out_of_memory_floor: (f64, u32),
    /// Largest size that is set.
    pub max_memory: Megabytes,
    /// Largest reduction in one change, as a share of the present size.
    pub max_step_down: f64,
    /// The same where all invocations get the new size at once, because there is no alias.
    pub max_step_down_latest: f64,
    /// Largest increase in one change, as a factor.
    pub max_step_up: f64,
    /// Minimum time after an increase, microseconds.
    pub cooldown_up_us: u64,
    /// Minimum time after a reduction, microseconds.
    pub cooldown_down_us: u64,
    /// Time without changes after a rollback, microseconds. It doubles with each further rollback.
    pub quarantine_us: u64,
    /// Increases after out-of-memory in 24 hours.
    pub max_out_of_memory_steps: usize,
    /// Largest predicted increase of the 95th percentile without a target, as a share.
    pub max_p95_increase: f64,
    /// Time in which all reductions of a function together may have this increase, microseconds.
    pub p95_increase_us: u64,
    /// Largest predicted 99th percentile, as a share of the timeout.
    pub max_timeout_share: f64,
    /// Largest use of reserved concurrency, as a share.
    pub max_concurrency_share: f64,
    /// Weights of the canary, hundredths of a percent, and the invocations that each needs.
    pub canary_steps: Vec<CanaryStep>,
    /// Minimum time at each weight, microseconds.
    pub canary_step_us: u64,
    /// Longest canary, microseconds.
    pub canary_deadline_us: u64,
    /// Longest time at one weight, microseconds.
    pub canary_stall_us: u64,
    /// Minimum time of a soak, microseconds.
    pub soak_us: u64,
    /// Minimum number of warm invocations in a soak.
    pub soak_invocations: u64,
    /// Longest soak, microseconds.
    pub soak_deadline_us: u64,
    /// Changes of one function in 30 days that are no repairs.
    pub max_changes_per_month: usize,
    /// Changes that may be open at once.
    pub open_changes: OpenChanges,
    /// Largest share of the fleet's cost that open changes may concern.
    pub max_open_spend: f64,
    /// Rollbacks in 24 hours that stop new changes.
    pub max_rollbacks: usize,
    /// Refusals of the same write of a rollback, one in each round, that freeze the tuner.
    pub max_rollback_refusals: usize,
    /// External changes of one function in 30 days from which it is left to its templates.
    pub max_external_changes: usize,
    /// Longest delay of telemetry, microseconds.
    pub max_delay_us: u64,
    /// Largest share of lost invocations.
    pub max_lost: f64,
    /// Largest difference between the clocks of environments and collector, microseconds.
    pub max_skew_us: u64,
    /// Largest age of the price table, days.
    pub max_price_age_days: i64,
    /// Smallest measured saving, as a share of the predicted one.
    pub min_realised: f64,
}

/// One weight of the canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CanaryStep {
    /// The part of the invocations, hundredths of a percent.
    pub weight: u32,
    /// Minimum number of invocations of the new version, all weights together.
    pub invocations: u64,
}

/// How many changes may be open at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenChanges {
    /// The number in a small fleet.
    pub min: usize,
    /// The number in a larger fleet, as a percentage of the tuned functions.
    pub percent: usize,
    /// The largest number.
    pub max: usize,
    /// How many repairs may be open beyond that number.
    pub repairs: usize,
}

impl OpenChanges {
    /// The default. Each round reads every open change from Lambda with at least four requests: those of 50 changes take about
    /// two of the five minutes of a round, at two requests a second.
    pub const DEFAULT: Self = Self { min: 5, percent: 2, max: 50, repairs: 5 };

    /// The same number in any fleet, repairs included.
    #[must_use]
    pub const fn fixed(number: usize) -> Self {
        Self { min: number, percent: 0, max: number, repairs: 0 }
    }

    /// How many changes may be open with this number of tuned functions.
    #[must_use]
    pub fn limit(&self, tuned: usize) -> usize {
        (tuned.saturating_mul(self.percent) / 100).min(self.max).max(self.min)
    }
}

impl Limits {
    /// Minimum number of warm invocations of the code that is served, at the present size.
    #[must_use]
    pub const fn evidence_of_code(&self) -> u64 {
        match self.evidence_code_divisor {
            0 => 0,
            divisor => self.evidence_invocations.div_ceil(divisor),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let step = |weight, invocations| CanaryStep { weight, invocations };
        Self {
            evidence_us: 14 * DAY_US,
            evidence_after_change_us: 7 * DAY_US,
            half_time_factor: 5,
            evidence_invocations: 1_000,
            evidence_code_divisor: 10,
            evidence_environments: 20,
            after_deployment_us: HOUR_US,
            unused_version_us: 7 * DAY_US,
            min_size_change: 0.10,
            min_saving_usd_month: 5.0,
            min_saving_of_one_change: 0.25,
            min_duration_change: 0.10,
            headroom: 0.25,
            headroom_early: 0.40,
            out_of_memory_floor: (1.2, 100),
            max_memory: Megabytes(3_008),
            max_step_down: 0.25,
            max_step_down_latest: 0.15,
            max_step_up: 2.0,
            cooldown_up_us: DAY_US,
            cooldown_down_us: 7 * DAY_US,
            quarantine_us: 30 * DAY_US,
            max_out_of_memory_steps: 2,
            max_p95_increase: 0.05,
            p95_increase_us: 90 * DAY_US,
            max_timeout_share: 0.60,
            max_concurrency_share: 0.50,
            canary_steps: vec![step(100, 50), step(500, 150), step(2_500, 450), step(5_000, 900)],
            canary_step_us: 10 * 60_000_000,
            canary_deadline_us: DAY_US,
            canary_stall_us: 6 * HOUR_US,
            soak_us: DAY_US,
            soak_invocations: 3_000,
            soak_deadline_us: 7 * DAY_US,
            max_changes_per_month: 2,
            open_changes: OpenChanges::DEFAULT,
            max_open_spend: 0.05,
            max_rollbacks: 2,
            max_rollback_refusals: 3,
            max_external_changes: 2,
            max_delay_us: 300_000_000,
            max_lost: 0.01,
            max_skew_us: 120_000_000,
            max_price_age_days: 60,
            min_realised: 0.50,
        }
    }
}
