//! What each function costs at each size, and what an oracle and other ways to set sizes would do.

use serde::Serialize;
use tailor_sizing::pricing::prices::Rates;
use tailor_sizing::units::{Megabytes, round_to_u64};

use crate::kind::{Kind, Truth};
use crate::traffic::expected;

/// Largest increase of the 95th percentile that counts as none: the limit of the tuner and its tolerance.
const SLOWER: f64 = 1.05 * 1.10;

/// The sizes of AWS Lambda Power Tuning, MB.
const POWER_TUNING: [u32; 6] = [128, 256, 512, 1_024, 1_536, 3_008];

/// Largest memory size that Compute Optimizer accepts, MB.
const COMPUTE_OPTIMIZER_MAX_MB: u32 = 1_792;

/// Days that Compute Optimizer looks back.
const LOOK_BACK_DAYS: u64 = 14;

/// Deployed days and cost of one function.
pub struct Costs<'a> {
    /// The function.
    pub truth: &'a Truth,
    /// Prices.
    pub rates: &'a Rates,
    /// Days of the simulation.
    pub days: u64,
}

/// What a way to set sizes leads to.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Outcome {
    /// Cost of all functions, dollars.
    pub cost_usd: f64,
    /// What is saved against the sizes of the start, dollars.
    pub saved_usd: f64,
    /// Part of what the oracle saves, percent.
    pub share_of_oracle_percent: f64,
    /// Invocations that ran out of memory.
    pub out_of_memory: u64,
    /// Those of functions whose memory use does not change, at a size below that of the start.
    pub out_of_memory_by_reductions: u64,
    /// Functions whose 95th percentile is higher than at the start by more than 15.5 %.
    pub slower_functions: u64,
}

impl Costs<'_> {
    /// The day on which the code of a day was deployed.
    #[must_use]
    pub fn deployed_day(&self, day: u64) -> u64 {
        match self.truth.deployed_days {
            0 => 0,
            every => {
                let mut last = day - day % every;
                while last > 0 && last % 7 >= 5 {
                    last -= every;
                }
                last
            }
        }
    }

    /// Expected cost of a day at a size, dollars.
    #[must_use]
    pub fn on_day(&self, day: u64, memory: Megabytes) -> f64 {
        let (traffic, _) = self.truth.day_factors(day);
        let (mean_ms, _, killed) = expected(self.truth, memory, day, self.deployed_day(day));
        let one = self.rates.expected_pico(memory, mean_ms + 0.5, 512) / 1e12;
        one * self.truth.per_day * traffic * (1.0 - killed)
    }

    /// Expected kills of a day at a size.
    #[must_use]
    pub fn kills_on_day(&self, day: u64, memory: Megabytes) -> f64 {
        let (traffic, _) = self.truth.day_factors(day);
        let (.., killed) = expected(self.truth, memory, day, self.deployed_day(day));
        killed * self.truth.per_day * traffic
    }

    /// Whether a size is slower than the first one, on the first day.
    #[must_use]
    pub fn is_slower(&self, memory: Megabytes, limit: f64) -> bool {
        let p95 = |memory| expected(self.truth, memory, 1, 0).1;
        p95(memory) > limit * p95(Megabytes(self.truth.start_mb))
    }

    /// The cheapest size for the whole time without kills. With `keeps_speed`, the 95th percentile rises by 5 % at most.
    #[must_use]
    pub fn best(&self, keeps_speed: bool) -> Megabytes {
        let start = Megabytes(self.truth.start_mb);
        let kills = |memory: Megabytes| (0..self.days).map(|day| self.kills_on_day(day, memory)).sum::<f64>();
        let cost = |memory: Megabytes| {
            (0..self.days).step_by(7).map(|day| self.on_day(day + 1, memory)).sum::<f64>()
        };
        let sizes = (128..=3_008).step_by(64).map(Megabytes).chain([start]);
        let feasible = sizes.filter(|size| {
            let is_fast = !keeps_speed || *size >= start || !self.is_slower(*size, 1.05);
            is_fast && kills(*size) < 0.5
        });
        let priced = feasible.map(|size| (cost(size), size));
        priced.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(start, |(_, size)| size)
    }

    /// The highest memory use that was seen until a day, MB.
    fn peak_mb(&self, day: u64) -> f64 {
        let truth = self.truth;
        let count = truth.per_day * LOOK_BACK_DAYS as f64;
        let highest = crate::random::normal_quantile(1.0 - 0.5 / count.max(2.0));
        let factor = if truth.kind == Kind::Bimodal { 1.5 } else { 1.0 };
        let days = day.saturating_sub(LOOK_BACK_DAYS)..=day;
        let median = days.map(|day| truth.memory_on(day, self.deployed_day(day))).fold(0.0, f64::max);
        median * factor * (truth.memory_sigma * highest).exp() + 30.0
    }

    /// The size that the memory use of two weeks requires: the highest use and 15 %, in steps of 64 MB. Durations are not
    /// looked at. Compute Optimizer's own rule is not published; tools that describe it use this one.
    fn by_memory_use(&self, day: u64, present: Megabytes) -> Megabytes {
        let few = self.truth.per_day * (LOOK_BACK_DAYS as f64) < 50.0;
        if few || present.0 > COMPUTE_OPTIMIZER_MAX_MB {
            return present;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a memory size")]
        let size = ((self.peak_mb(day) * 1.15 / 64.0).ceil() * 64.0) as u32;
        Megabytes(size.clamp(128, 3_008))
    }

    /// The sizes of each day by Compute Optimizer's rule, followed once by hand after two weeks.
    #[must_use]
    pub fn compute_optimizer(&self) -> Vec<Megabytes> {
        let start = Megabytes(self.truth.start_mb);
        let advised = self.by_memory_use(LOOK_BACK_DAYS, start);
        (0..self.days).map(|day| if day < LOOK_BACK_DAYS { start } else { advised }).collect()
    }

    /// The sizes of each day when AWS's runbook follows the same rule every two weeks.
    #[must_use]
    pub fn runbook(&self) -> Vec<Megabytes> {
        let mut size = Megabytes(self.truth.start_mb);
        let sizes = (0..self.days).map(|day| {
            if day > 0 && day.is_multiple_of(LOOK_BACK_DAYS) {
                size = self.by_memory_use(day, size);
            }
            size
        });
        sizes.collect()
    }

    /// The sizes of each day after one run of Power Tuning at the start with the usual event, strategy `cost`.
    #[must_use]
    pub fn power_tuning(&self) -> Vec<Megabytes> {
        let used_mb = self.truth.memory_on(0, 0) + 30.0;
        let fits = POWER_TUNING.into_iter().filter(|size| f64::from(*size) > used_mb);
        let cost = |size: &u32| {
            let (ms, _) = self.truth.duration_ms(f64::from(*size), 1.0, self.truth.memory_on(0, 0));
            self.rates.expected_pico(Megabytes(*size), ms + 0.5, 512)
        };
        let best = fits.min_by(|a, b| cost(a).total_cmp(&cost(b))).unwrap_or(self.truth.start_mb);
        vec![Megabytes(best); usize::try_from(self.days).unwrap_or(0)]
    }
}

impl Outcome {
    /// Adds a function that had these sizes, one a day.
    pub fn add(&mut self, costs: &Costs<'_>, sizes: &[Megabytes]) {
        let start = Megabytes(costs.truth.start_mb);
        let (mut kills, mut by_reductions) = (0.0, 0.0);
        for (day, size) in (0..costs.days).zip(sizes) {
            let cost = costs.on_day(day, *size);
            self.cost_usd += cost;
            self.saved_usd += costs.on_day(day, start) - cost;
            let killed = costs.kills_on_day(day, *size);
            kills += killed;
            if *size < start && costs.truth.kind.has_stationary_memory() {
                by_reductions += killed;
            }
        }
        self.out_of_memory += round_to_u64(kills);
        self.out_of_memory_by_reductions += round_to_u64(by_reductions);
        let last = sizes.last().copied().unwrap_or(start);
        self.slower_functions += u64::from(last < start && costs.is_slower(last, SLOWER));
    }
}
