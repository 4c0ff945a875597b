//! Histograms with fixed bounds, in whole units, so that each value is in its bucket exactly.

/// The bounds that the semantic conventions advise for durations, microseconds.
const DURATION_BOUNDS_US: &[u64] = &[
    5_000, 10_000, 25_000, 50_000, 75_000, 100_000, 250_000, 500_000, 750_000, 1_000_000, 2_500_000,
    5_000_000, 7_500_000, 10_000_000,
];

const MIB: u64 = 1 << 20;

/// Memory, bytes. Lambda has sizes from 128 to 10,240 MiB.
const MEMORY_BOUNDS: &[u64] = &[
    16 * MIB,
    32 * MIB,
    64 * MIB,
    96 * MIB,
    128 * MIB,
    192 * MIB,
    256 * MIB,
    384 * MIB,
    512 * MIB,
    1_024 * MIB,
    2_048 * MIB,
    4_096 * MIB,
    8_192 * MIB,
    10_240 * MIB,
];

/// Network traffic, bytes.
const NETWORK_BOUNDS: &[u64] = &[
    1 << 10,
    4 << 10,
    16 << 10,
    64 << 10,
    256 << 10,
    MIB,
    4 * MIB,
    16 * MIB,
    64 * MIB,
    256 * MIB,
    1_024 * MIB,
];

/// Most bounds of a histogram.
const MAX_BOUNDS: usize = 14;

/// A histogram of values in a whole unit, such as microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution {
    bounds: &'static [u64],
    /// How many of the unit are one of the metric's unit.
    units: u32,
    counts: [u64; MAX_BOUNDS + 1],
    sum: u64,
}

impl Distribution {
    const fn new(bounds: &'static [u64], units: u32) -> Self {
        Self { bounds, units, counts: [0; MAX_BOUNDS + 1], sum: 0 }
    }

    /// Records a value.
    pub fn record(&mut self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket] = self.counts[bucket].saturating_add(1);
        self.sum = self.sum.saturating_add(value);
    }

    /// Adds another of the same kind.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count = count.saturating_add(more);
        }
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// What was recorded after `base`, an earlier state of the same histogram.
    #[must_use]
    pub fn since(&self, base: &Self) -> Self {
        let mut rest = self.clone();
        for (count, before) in rest.counts.iter_mut().zip(base.counts) {
            *count = count.saturating_sub(before);
        }
        rest.sum = self.sum.saturating_sub(base.sum);
        rest
    }

    /// Upper bounds in the metric's unit; a bound belongs to its bucket.
    #[must_use]
    pub fn bounds(&self) -> Vec<f64> {
        self.bounds.iter().map(|bound| self.in_unit(*bound)).collect()
    }

    /// Values per bucket; the last bucket has no upper bound.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts[..=self.bounds.len()]
    }

    /// Number of values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Sum of the values in the metric's unit.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.in_unit(self.sum)
    }

    fn in_unit(&self, value: u64) -> f64 {
        value as f64 / f64::from(self.units)
    }
}

/// The histograms of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distributions {
    /// Duration of invocations; recorded in microseconds.
    pub duration: Distribution,
    /// Duration of Init; recorded in microseconds.
    pub init: Distribution,
    /// Highest memory of an invocation; recorded in bytes.
    pub memory: Distribution,
    /// CPU time of an invocation; recorded in microseconds.
    pub cpu: Distribution,
    /// Bytes received and sent by an invocation.
    pub network: Distribution,
}

impl Default for Distributions {
    fn default() -> Self {
        const DURATION: Distribution = Distribution::new(DURATION_BOUNDS_US, 1_000_000);
        Self {
            duration: DURATION,
            init: DURATION,
            memory: Distribution::new(MEMORY_BOUNDS, 1),
            cpu: DURATION,
            network: Distribution::new(NETWORK_BOUNDS, 1),
        }
    }
}

impl Distributions {
    /// Adds those of more invocations.
    pub fn add(&mut self, other: &Self) {
        let Self { duration, init, memory, cpu, network } = other;
        self.duration.add(duration);
        self.init.add(init);
        self.memory.add(memory);
        self.cpu.add(cpu);
        self.network.add(network);
    }

    /// What was recorded after `base`.
    #[must_use]
    pub fn since(&self, base: &Self) -> Self {
        let Self { duration, init, memory, cpu, network } = self;
        Self {
            duration: duration.since(&base.duration),
            init: init.since(&base.init),
            memory: memory.since(&base.memory),
            cpu: cpu.since(&base.cpu),
            network: network.since(&base.network),
        }
    }
}
