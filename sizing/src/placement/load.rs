//! The load of a function by hour.

use serde::Serialize;

/// Half width of an 80 % interval, in standard deviations.
const Z80: f64 = 1.2816;

/// What ran in one hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct HourLoad {
    /// The hour, in hours since the Unix epoch.
    pub hour: u64,
    /// Invocations that started in it.
    pub invocations: u64,
    /// The sum of their durations, ms.
    pub duration_ms: u64,
    /// Inits that belong to them.
    pub inits: u64,
}

/// The mean load of an hour of the day.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct HourOfDay {
    /// Hour of the day, UTC.
    pub hour: u8,
    /// Days on which it was measured.
    pub days: u64,
    /// Mean number of invocations at the same time.
    pub concurrency: f64,
    /// Mean number of invocations in the hour.
    pub invocations: f64,
}

/// The load of a function over a window, with an entry for each hour in which something ran.
#[derive(Debug, Clone, PartialEq)]
pub struct Load {
    entries: Vec<HourLoad>,
    from_hour: u64,
    until_hour: u64,
}

impl Load {
    /// The load from one hour to another, which is excluded. Hours without an entry had no invocation. Entries of the same hour are
    /// added up.
    #[must_use]
    pub fn new(mut entries: Vec<HourLoad>, from_hour: u64, until_hour: u64) -> Self {
        entries.retain(|entry| (from_hour..until_hour).contains(&entry.hour));
        entries.sort_by_key(|entry| entry.hour);
        entries.dedup_by(|next, entry| {
            let is_same = next.hour == entry.hour;
            if is_same {
                entry.invocations = entry.invocations.saturating_add(next.invocations);
                entry.duration_ms = entry.duration_ms.saturating_add(next.duration_ms);
                entry.inits = entry.inits.saturating_add(next.inits);
            }
            is_same
        });
        Self { entries, from_hour, until_hour }
    }

    /// Number of hours.
    #[must_use]
    pub const fn hours(&self) -> u64 {
        self.until_hour.saturating_sub(self.from_hour)
    }

    fn mean(&self, of: impl Fn(&HourLoad) -> u64) -> f64 {
        self.entries.iter().map(|entry| of(entry) as f64).sum::<f64>() / self.hours().max(1) as f64
    }

    /// Mean number of invocations in an hour.
    #[must_use]
    pub fn mean_invocations(&self) -> f64 {
        self.mean(|entry| entry.invocations)
    }

    /// Mean number of Inits in an hour.
    #[must_use]
    pub fn mean_inits(&self) -> f64 {
        self.mean(|entry| entry.inits)
    }

    /// Mean number of invocations at the same time.
    #[must_use]
    pub fn mean_concurrency(&self) -> f64 {
        self.mean(|entry| entry.duration_ms) / 3_600_000.0
    }

    /// Mean number of invocations at the same time in the busiest hour.
    #[must_use]
    pub fn busiest_concurrency(&self) -> f64 {
        let busiest = self.entries.iter().map(|entry| entry.duration_ms).max().unwrap_or(0);
        busiest as f64 / 3_600_000.0
    }

    /// Relative half width of the 80 % interval of the mean number of invocations in an hour; 0 to 1. With fewer than two hours
    /// nothing is known of it.
    #[must_use]
    pub fn spread(&self) -> f64 {
        let (count, mean) = (self.hours() as f64, self.mean_invocations());
        if count < 2.0 || mean <= 0.0 {
            return 1.0;
        }
        let squares: f64 = self.entries.iter().map(|entry| (entry.invocations as f64 - mean).powi(2)).sum();
        let empty = (count - self.entries.len() as f64).max(0.0) * mean * mean;
        let deviation = ((squares + empty) / (count - 1.0)).sqrt();
        (Z80 * deviation / count.sqrt() / mean).min(1.0)
    }

    /// The mean load of each hour of the day that was measured.
    #[must_use]
    pub fn by_hour_of_day(&self) -> Vec<HourOfDay> {
        (0..24_u8)
            .filter_map(|hour| {
                let is_at = |at: u64| at % 24 == u64::from(hour);
                let first = (self.from_hour..self.until_hour).take(24).find(|at| is_at(*at))?;
                let days = (self.until_hour - first).div_ceil(24);
                let sum = |of: fn(&HourLoad) -> u64| {
                    let entries = self.entries.iter().filter(|entry| is_at(entry.hour));
                    entries.map(|entry| of(entry) as f64).sum::<f64>() / days as f64
                };
                let concurrency = sum(|entry| entry.duration_ms) / 3_600_000.0;
                Some(HourOfDay { hour, days, concurrency, invocations: sum(|entry| entry.invocations) })
            })
            .collect()
    }
}

/// How much of the time environments are busy, when invocations always go to the first that is free.
pub(super) struct BusyShares {
    /// Environments that are busy all of the time.
    pub(super) always: u64,
    /// The shares of the time of the further ones, in falling order. They end where a share is below 1e-9.
    pub(super) further: Vec<f64>,
}

/// The probabilities that at least 1, 2, 3 and more invocations run at the same time, when they arrive independently of each
/// other and `mean` run on average (Poisson).
pub(super) fn busy_shares(mean: f64) -> BusyShares {
    /// Above this mean, the numbers that are always exceeded are not computed one by one: their probabilities are too small
    /// for a float.
    const SMALL_MEAN: f64 = 500.0;
    /// Standard deviations from the mean beyond which a number of invocations does not occur.
    const DEVIATIONS: f64 = 8.0;
    /// Far more than Lambda permits. It limits the memory for the shares.
    const MAX_MEAN: f64 = 1e8;
    let mean = mean.clamp(0.0, MAX_MEAN);
    let distance = DEVIATIONS * mean.sqrt();
    let first = if mean > SMALL_MEAN { (mean - distance).floor() } else { 0.0 };
    let last = mean + distance + 20.0;
    let mut exactly = probability(first, mean);
    let (mut count, mut below, mut further) = (first, exactly, vec![]);
    while below < 1.0 - 1e-9 && count < last {
        further.push(1.0 - below);
        count += 1.0;
        exactly *= mean / count;
        below += exactly;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between zero and the largest mean"
    )]
    let always = first as u64;
    BusyShares { always, further }
}

/// The probability of exactly `count` of a Poisson distribution. A `count` above zero is taken to be large (Stirling's formula).
fn probability(count: f64, mean: f64) -> f64 {
    if count == 0.0 {
        return (-mean).exp();
    }
    let log_of_factorial_part = (std::f64::consts::TAU * count).ln() / 2.0 + 1.0 / (12.0 * count);
    (count - mean + count * (mean / count).ln() - log_of_factorial_part).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_without_invocations_count_and_hours_of_the_day_are_means() {
        let entry = |hour, invocations| HourLoad { hour, invocations, duration_ms: 3_600_000, inits: 1 };
        let load = Load::new(vec![entry(30, 5), entry(6, 10), entry(30, 5), entry(99, 1)], 0, 48);
        assert!((load.mean_invocations() - 20.0 / 48.0).abs() < 1e-12);
        let hours = load.by_hour_of_day();
        assert_eq!(hours.len(), 24);
        assert_eq!((hours[6].days, hours[6].invocations), (2, 10.0));
        assert!((hours[6].concurrency - 1.5).abs() < 1e-12);
        assert!((load.busiest_concurrency() - 2.0).abs() < 1e-12);
        assert!(load.spread() > 0.5);
        let even = Load::new((0..48).map(|hour| entry(hour, 7)).collect(), 0, 48);
        assert!(even.spread() < 1e-9);
    }

    #[test]
    fn the_tail_of_the_distribution_adds_up_to_its_mean() {
        for mean in [0.0, 0.1, 1.0, 7.5, 120.0, 450.0, 501.0, 5_000.0, 250_000.0] {
            let shares = busy_shares(mean);
            let sum = shares.always as f64 + shares.further.iter().sum::<f64>();
            assert!((sum - mean).abs() < 1e-3 * mean.max(1e-3), "{sum} {mean}");
            assert!(shares.further.is_sorted_by(|a, b| a >= b) && shares.further.len() < 10_000, "{mean}");
        }
        // The median is the mean: environments up to it are busy for more than half of the time.
        let shares = busy_shares(10_000.0);
        let busy = shares.further.iter().filter(|share| **share > 0.5).count() as u64;
        assert!((shares.always + busy).abs_diff(10_000) <= 1);
    }
}
