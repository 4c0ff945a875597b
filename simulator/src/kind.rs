//! The kinds of functions and what is true of each: its work, its memory use and its traffic, at any time and size.

use serde::Serialize;

use crate::random::Random;

/// Milliseconds in which a vCPU of 1,769 MB does the work of one.
const FULL_VCPU_MB: f64 = 1_769.0;

/// A kind of function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The same all the time.
    Stationary,
    /// Less traffic at weekends, more work on Mondays.
    Weekly,
    /// Memory use grows slowly, by 0.2 to 0.8 % a day.
    Growing,
    /// Memory use grows from each deployment to the next one, in 21 to 40 days.
    Leaking,
    /// One invocation of twenty does six times the work with half more memory.
    Bimodal,
    /// The garbage collector needs more CPU time in less memory.
    CollectorBound,
    /// Nine tenths of the traffic of a day come in two hours.
    Bursty,
    /// Durations vary by a factor of several.
    Noisy,
    /// New code every working day.
    DeployedDaily,
}

impl Kind {
    /// All kinds with their share of a fleet, percent.
    pub const ALL: [(Self, f64); 9] = [
        (Self::Stationary, 40.0),
        (Self::Weekly, 12.0),
        (Self::Growing, 6.0),
        (Self::Leaking, 6.0),
        (Self::Bimodal, 8.0),
        (Self::CollectorBound, 8.0),
        (Self::Bursty, 8.0),
        (Self::Noisy, 6.0),
        (Self::DeployedDaily, 6.0),
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stationary => "stationary",
            Self::Weekly => "weekly",
            Self::Growing => "growing",
            Self::Leaking => "leaking",
            Self::Bimodal => "bimodal",
            Self::CollectorBound => "collector-bound",
            Self::Bursty => "bursty",
            Self::Noisy => "noisy",
            Self::DeployedDaily => "deployed-daily",
        }
    }

    /// Whether the memory use has the same distribution all the time, so that no reduction may cause an out-of-memory.
    #[must_use]
    pub const fn has_stationary_memory(self) -> bool {
        !matches!(self, Self::Growing | Self::Leaking)
    }
}

/// What is true of one function. The tuner sees measurements only.
#[derive(Debug, Clone)]
pub struct Truth {
    /// Its kind.
    pub kind: Kind,
    /// Memory size at the start, MB.
    pub start_mb: u32,
    /// Invocations a day, on average.
    pub per_day: f64,
    /// CPU time of an invocation, ms.
    pub cpu_ms: f64,
    /// Time without work of an invocation, ms.
    pub idle_ms: f64,
    /// Standard deviation of the logarithm of a duration.
    pub sigma: f64,
    /// How the duration depends on the share of the CPU, beside the usual rule: `share^(1 + exponent)`.
    pub exponent: f64,
    /// Median of the memory use, MB.
    pub memory_mb: f64,
    /// Standard deviation of its logarithm.
    pub memory_sigma: f64,
    /// Growth of the memory use, as a share per day.
    pub growth: f64,
    /// Days between two deployments; never when zero.
    pub deployed_days: u64,
    /// CPU time of the garbage collector, as a share of the other CPU time, in twice the memory that is used.
    pub collection: f64,
    /// Share of invocations that fail.
    pub error_rate: f64,
    /// Whether an alias is invoked; otherwise `$LATEST`.
    pub has_alias: bool,
    /// Environments that start in a day.
    pub environments_per_day: f64,
    /// The seed of its random numbers.
    pub seed: u64,
}

/// The sizes of new functions, MB, with their share.
const START_SIZES: [(u32, f64); 7] =
    [(128, 10.0), (256, 15.0), (512, 20.0), (1_024, 25.0), (1_536, 10.0), (2_048, 12.0), (3_008, 8.0)];

impl Truth {
    /// A function of a kind.
    #[must_use]
    pub fn new(kind: Kind, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let start_mb = START_SIZES[random.pick(&START_SIZES.map(|(_, share)| share))].0;
        let is = |other: Kind| f64::from(u8::from(kind == other));
        let growth = match kind {
            Kind::Growing => 0.002 + 0.006 * random.unit(),
            Kind::Leaking => 0.004 + 0.008 * random.unit(),
            _ => 0.0,
        };
        let largest = 0.75 * f64::from(start_mb);
        let per_day = random.around(60_000.0, 1.6).clamp(300.0, 3_000_000.0);
        Self {
            kind,
            start_mb,
            per_day,
            cpu_ms: random.around(14.0, 1.1).clamp(0.5, 2_000.0),
            idle_ms: random.around(60.0, 1.1).clamp(0.5, 5_000.0),
            sigma: 0.15 + 0.25 * random.unit() + 0.5 * is(Kind::Noisy),
            exponent: 0.06 * random.normal(),
            memory_mb: random.around(105.0, 0.45).clamp(45.0, largest.max(46.0)),
            memory_sigma: 0.02 + 0.05 * random.unit() + 0.05 * is(Kind::Noisy),
            growth,
            deployed_days: match kind {
                Kind::DeployedDaily => 1,
                Kind::Leaking => 21 + random.pick(&[1.0; 20]) as u64,
                _ => [0, 30, 14][random.pick(&[0.5, 0.35, 0.15])],
            },
            collection: is(Kind::CollectorBound) * (0.2 + 0.5 * random.unit()),
            error_rate: [0.0, 0.000_5, 0.004][random.pick(&[0.5, 0.35, 0.15])],
            has_alias: random.unit() < 0.6,
            environments_per_day: (per_day / 2_000.0).clamp(6.0, 400.0),
            seed,
        }
    }

    /// Traffic of a day as a multiple of the mean, and of the CPU time.
    #[must_use]
    pub fn day_factors(&self, day: u64) -> (f64, f64) {
        // Day 0 is a Monday.
        match (self.kind, day % 7) {
            (Kind::Weekly, 5 | 6) => (0.25, 1.0),
            (Kind::Weekly, 0) => (1.3, 1.15),
            (Kind::Weekly, _) => (1.3, 1.0),
            _ => (1.0, 1.0),
        }
    }

    /// Share of the day's traffic in an hour of the day.
    #[must_use]
    pub fn hour_share(&self, day: u64, hour: u64) -> f64 {
        if self.kind != Kind::Bursty {
            return 1.0 / 24.0;
        }
        let burst = Random::new(self.seed ^ (day << 20)).pick(&[1.0; 24]) as u64;
        if hour == burst || hour == (burst + 1) % 24 { 0.45 } else { 0.1 / 22.0 }
    }

    /// Median of the memory use on a day, MB. `deployed_day` is that of the present code.
    #[must_use]
    pub fn memory_on(&self, day: u64, deployed_day: u64) -> f64 {
        let age = if self.kind == Kind::Leaking { day.saturating_sub(deployed_day) } else { day };
        self.memory_mb * (1.0 + self.growth).powf(age as f64)
    }

    /// Mean duration of one invocation at a size, ms, and the CPU time in it. `work` is a multiple of the usual work, and
    /// `used_mb` the memory in use.
    #[must_use]
    pub fn duration_ms(&self, memory_mb: f64, work: f64, used_mb: f64) -> (f64, f64) {
        let free = (memory_mb - used_mb).max(0.03 * memory_mb);
        let collection = (self.collection * used_mb / free).min(5.0);
        let cpu = self.cpu_ms * work * (1.0 + collection);
        let share = (memory_mb / FULL_VCPU_MB).min(1.0);
        (self.idle_ms * work.sqrt() + cpu / share.powf(1.0 + self.exponent), cpu)
    }
}

/// The functions of a fleet: `count` of all kinds in proportion.
#[must_use]
pub fn fleet(count: usize, seed: u64) -> Vec<Truth> {
    let shares: Vec<f64> = Kind::ALL.iter().map(|(_, share)| *share).collect();
    let total: f64 = shares.iter().sum();
    (0..count)
        .map(|index| {
            // Every kind is in each fleet of at least nine functions.
            let place = if index < shares.len() {
                index
            } else {
                let mut left = total * ((index * 61) % count) as f64 / count as f64;
                shares
                    .iter()
                    .position(|share| {
                        left -= share;
                        left < 0.0
                    })
                    .unwrap_or(0)
            };
            Truth::new(
                Kind::ALL[place].0,
                seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ (index as u64 * 0x9e37_79b9),
            )
        })
        .collect()
}
