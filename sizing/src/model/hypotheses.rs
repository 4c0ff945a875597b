//! Weighted hypotheses about an invocation's work that agree with the measurements.
//!
//! Counters show the CPU time and the waiting time, but not the number of bursts. Without counters the CPU time is
//! unknown too. So several hypotheses are kept. The weight of each depends on how well its simulation predicts the wall
//! time of every measured size. The spread of the hypotheses is part of the interval.

use crate::model::cfs_simulation::{Kernel, WorkShape};
use crate::model::profile::{Profile, by_size};
use crate::units::Megabytes;

/// Logarithms of the prior weights of idle times, relative to that with the waits of all threads on the critical path.
const ONLY_BUSIEST: f64 = -2.0;
const ONLY_MAIN: f64 = 1.0;
const NO_IDLE: f64 = 3.0;
const BY_PRESSURE: f64 = 3.0;

/// As above, where the kernel shows pressure, at 128 MB and from 256 MB on: no idle time, and the one that was measured.
const NO_IDLE_WITH_PRESSURE: [f64; 2] = [3.0, 4.0];
const SEEN: [f64; 2] = [2.5, 2.0];

/// By how much more the simulation of work with a measured idle time may be off: it is not chosen by how well the simulation
/// fits.
const MEASURED_TOLERANCE: f64 = 2.0;

/// Numbers of bursts tried.
const BURSTS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];

/// Longest burst, ms. Work that takes longer is interrupted, because a thread sometimes blocks or is migrated.
const LONGEST_BURST_MS: f64 = 80.0;

/// The expected number of equal bursts is the number of times a thread blocked to this power, within a factor of e. There
/// is little work between most of these times.
const BURSTS_POWER: f64 = 0.35;

/// Accepted error of the simulation at the measured size, besides the noise of its mean.
const SIMULATION_TOLERANCE: Tolerance = Tolerance { share: 0.03, ms: 0.3 };

/// Accepted error of the simulation at another size, as a standard deviation in logarithm.
const TRANSFER_ERROR: f64 = 0.10;

/// Limit of the logarithm of a scale factor (a factor of 20). A hypothesis beyond it is wrong and is not scaled.
const MAX_OFF: f64 = 3.0;

/// Relative variance below which no mean is known: a millisecond's rounding, and the histogram's buckets.
const MIN_NOISE: f64 = 1e-4;

/// Sizes whose counters are used to make hypotheses; all sizes' wall times weigh them.
const SOURCES: usize = 3;

/// Hypotheses kept, with counters (times two where parallelism is uncertain) and without: the rest have little
/// weight.
const KEPT: usize = 4;
const KEPT_WITHOUT_COUNTERS: usize = 16;

/// A kernel less probable than this contributes its likeliest hypothesis alone.
const UNLIKELY: f64 = 0.25;

/// Hypotheses with less weight are dropped, because their effect is negligible.
const MIN_WEIGHT: f64 = 0.04;

/// Logarithm of the weight, relative to the highest, below which a hypothesis has no effect on a prediction.
const NEGLIGIBLE: f64 = -10.0;

/// Possible shares of CPU work in the wall time when CPU was not measured, with their prior weights. Functions that were
/// measured at several sizes mostly use the CPU.
const BUSY_SHARES: [(f64, f64); 11] = [
    (0.0, 1.0),
    (0.03, 1.0),
    (0.1, 1.0),
    (0.2, 1.0),
    (0.35, 1.0),
    (0.5, 1.0),
    (0.65, 1.0),
    (0.8, 1.0),
    (0.9, 2.0),
    (0.97, 2.0),
    (1.0, 2.0),
];

/// Possible numbers of parallel threads when CPU was not measured, with their prior weights.
const PARALLELS: [(f64, f64); 3] = [(1.0, 0.80), (2.0, 0.12), (6.0, 0.08)];

/// Bursts the work may come in where CPU was not measured.
const BURSTS_WITHOUT_COUNTERS: [f64; 2] = [1.0, 8.0];

/// Weighted hypotheses on an invocation's work.
#[derive(Debug, Clone)]
pub struct WorkHypotheses {
    hypotheses: Vec<Hypothesis>,
}

#[derive(Debug, Clone, Copy)]
struct Hypothesis {
    shape: WorkShape,
    kernel: Kernel,
    weight: f64,
}

/// Accepted difference between a simulated and a measured wall time: a share of it, and in ms.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tolerance {
    pub(crate) share: f64,
    pub(crate) ms: f64,
}

/// All measured sizes of a function, interpreted for one kind of kernel.
#[derive(Debug, Clone)]
pub struct KernelProfiles {
    /// The kernel.
    pub kernel: Kernel,
    /// Its probability. The probabilities of all kernels add up to about one.
    pub probability: f64,
    /// The sizes.
    pub profiles: Vec<Profile>,
}

impl WorkHypotheses {
    /// Fits the weights of the hypotheses for each kernel. The likeliest kernel must be first. Returns `None` without any
    /// size.
    #[must_use]
    pub fn fit(by_kernel: &[KernelProfiles]) -> Option<Self> {
        let likeliest = by_kernel.first()?;
        let of_all: f64 = by_kernel.iter().map(|on_kernel| on_kernel.probability).sum();
        let mut hypotheses = Vec::new();
        for on_kernel in by_kernel {
            let probability = on_kernel.probability / of_all.max(f64::MIN_POSITIVE);
            // One hypothesis is enough for an unlikely kernel.
            let kept =
                if on_kernel.kernel == likeliest.kernel || probability > UNLIKELY { usize::MAX } else { 1 };
            let explained = Self::explain(&on_kernel.profiles, on_kernel.kernel, kept)?;
            hypotheses.extend(
                explained
                    .into_iter()
                    .map(|hypothesis| Hypothesis { weight: hypothesis.weight * probability, ..hypothesis }),
            );
        }
        Some(Self { hypotheses })
    }

    /// The likeliest hypotheses on one kernel, `most` at most, likeliest first; their weights add up to one.
    fn explain(profiles: &[Profile], kernel: Kernel, most: usize) -> Option<Vec<Hypothesis>> {
        let mut sources: Vec<&Profile> = profiles.iter().collect();
        sources.sort_by(|a, b| source_weight(b).total_cmp(&source_weight(a)));
        let best = *sources.first()?;
        // A size with CPU counters outweighs any number of sizes without.
        sources.retain(|source| source.measured == best.measured);
        sources.truncate(if best.measured { SOURCES } else { 1 });

        let kept = match best {
            Profile { measured: false, .. } => KEPT_WITHOUT_COUNTERS,
            ambiguous if parallels(ambiguous).len() > 1 => 2 * KEPT,
            _ => KEPT,
        };
        let mut proposals: Vec<Proposal<'_>> = Vec::new();
        for source in sources {
            let prior = source_weight(source).ln();
            let of_source = if source.measured {
                measured(source, SIMULATION_TOLERANCE)
            } else {
                without_counters(source)
            };
            let with_prior = |(log_weight, shape)| Proposal { log_weight: prior + log_weight, shape, source };
            proposals.extend(of_source.into_iter().map(with_prior));
        }
        let kept = kept.min(most);
        Some(normalized(likeliest(proposals, profiles, kept), kept, kernel))
    }

    /// The weighted prediction of all hypotheses at `memory`.
    #[must_use]
    pub fn at(&self, memory: Megabytes) -> Simulated {
        let (mut sum, mut mean, mut square) = (0.0, 0.0, 0.0);
        let mut likeliest_spread = None;
        for Hypothesis { shape, kernel, weight } in &self.hypotheses {
            let (wall_ms, spread) = shape.wall(memory, *kernel);
            let log = log_ms(wall_ms);
            likeliest_spread.get_or_insert(spread);
            sum += weight;
            mean += weight * log;
            square += weight * log * log;
        }
        let mean = if sum > 0.0 { mean / sum } else { log_ms(0.0) };
        let between = if sum > 0.0 { (square / sum - mean * mean).max(0.0) } else { 0.0 };
        Simulated { log_ms: mean, between, quota_spread: likeliest_spread.unwrap_or(0.0) }
    }
}

/// A hypothesis before it is compared with the wall times of the other sizes.
struct Proposal<'a> {
    log_weight: f64,
    shape: WorkShape,
    source: &'a Profile,
}

/// The weights and shapes of proposals after the comparison with all sizes: at least the `kept` with the highest weights.
///
/// The comparison only lowers a weight. So the proposals are compared in the order of their weights, and those that cannot
/// become one of the `kept` any more, or would have a negligible weight, are not simulated.
fn likeliest(mut proposals: Vec<Proposal<'_>>, profiles: &[Profile], kept: usize) -> Vec<(f64, WorkShape)> {
    proposals.sort_by(|a, b| b.log_weight.total_cmp(&a.log_weight));
    let mut weighed: Vec<(f64, WorkShape)> = Vec::new();
    for Proposal { log_weight, shape, source } in proposals {
        let needed = weighed.get(kept.saturating_sub(1)).map_or(f64::NEG_INFINITY, |(last, _)| *last);
        let highest = weighed.first().map_or(f64::NEG_INFINITY, |(first, _)| *first);
        if log_weight < needed.max(highest + NEGLIGIBLE) {
            break;
        }
        let (fit, shape) = fitted(shape, source, profiles);
        let total = log_weight + fit;
        let rank = weighed.partition_point(|(other, _)| *other >= total);
        weighed.insert(rank, (total, shape));
    }
    weighed
}

/// The `kept` hypotheses with the highest weights, with logarithms converted to weights that add up to one.
/// The input is in the order of the weights.
fn normalized(mut weighed: Vec<(f64, WorkShape)>, kept: usize, kernel: Kernel) -> Vec<Hypothesis> {
    weighed.truncate(kept);
    let most = weighed.first().map_or(0.0, |(log_weight, _)| *log_weight);
    let mut hypotheses: Vec<Hypothesis> = Vec::with_capacity(weighed.len());
    for (log_weight, shape) in weighed {
        let weight = (log_weight - most).exp();
        // Several sizes often propose the same work, which is simulated once.
        match hypotheses.iter_mut().find(|hypothesis| hypothesis.shape == shape) {
            Some(same) => same.weight += weight,
            None => hypotheses.push(Hypothesis { shape, kernel, weight }),
        }
    }
    let sum: f64 = hypotheses.iter().map(|hypothesis| hypothesis.weight).sum();
    hypotheses.iter_mut().for_each(|hypothesis| hypothesis.weight /= sum.max(f64::MIN_POSITIVE));
    hypotheses.retain(|hypothesis| hypothesis.weight > MIN_WEIGHT);
    hypotheses
}

/// The weighted prediction of all hypotheses at one size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Simulated {
    /// Logarithm of the expected wall time in ms.
    pub log_ms: f64,
    /// Variance of that logarithm between the hypotheses.
    pub between: f64,
    /// Relative variance of the wall time that the quota alone gives, by the likeliest hypothesis.
    pub quota_spread: f64,
}

/// Hypotheses from counters: how many bursts, and how many threads at once. Weighted by what is common and by
/// the wall time measured.
fn measured(source: &Profile, tolerance: Tolerance) -> Vec<(f64, WorkShape)> {
    let expected = BURSTS_POWER * source.switches.ln();
    let tolerance_ms =
        (tolerance.share * tolerance.share + source.noise).sqrt() * source.wall_ms + tolerance.ms;
    let parallels = parallels(source);
    BURSTS
        .into_iter()
        .filter(|&bursts| bursts <= source.switches.max(least_bursts(source)))
        .filter(|&bursts| bursts >= least_bursts(source))
        .flat_map(|bursts| {
            let shape = source.shape(bursts);
            let uncommon = bursts.ln() - expected;
            let parallels = &parallels;
            let mut simulated: Option<(f64, f64)> = None;
            idle_times(source, shape.idle_ms).flat_map(move |idle| {
                let shape = WorkShape { idle_ms: idle.ms, ..shape };
                // Different threads often leave the same idle time.
                let wall_ms = match simulated {
                    Some((idle_ms, wall_ms)) if idle_ms == shape.idle_ms => wall_ms,
                    _ => shape.wall_ms(source.memory, source.kernel),
                };
                simulated = Some((shape.idle_ms, wall_ms));
                let off = (wall_ms - source.wall_ms) / (tolerance_ms * idle.tolerance);
                let log_weight = idle.log_prior - 0.5 * (uncommon * uncommon + off * off);
                let parallels = idle.parallel.map_or_else(|| parallels.clone(), |parallel| vec![parallel]);
                parallels.into_iter().map(move |parallel| (log_weight, WorkShape { parallel, ..shape }))
            })
        })
        .collect()
}

/// An idle time that the measurements allow.
#[derive(Debug, Clone, Copy)]
struct IdleTime {
    ms: f64,
    /// Logarithm of its prior weight.
    log_prior: f64,
    /// What the accepted error of the simulation is multiplied by.
    tolerance: f64,
    /// How many threads run at once in this case; `None` where it does not depend on it.
    parallel: Option<f64>,
}

impl IdleTime {
    const fn new(ms: f64, log_prior: f64) -> Self {
        Self { ms, log_prior, tolerance: 1.0, parallel: None }
    }
}

/// Each idle time that the measurements allow. `of_all_ms` is the one with the waits of all threads on the critical path.
///
/// Of several threads it is not known which ones the invocation waited for. The waits of all of them may be on the critical
/// path, or those of the busiest thread, or those of the main thread, beside which the others then run. The kernel's pressure,
/// where it is shown, has the waits of whichever thread there was, but not all of them, and the time in which no thread ran or
/// waited was measured. Where waits were not seen, because threads ended or because one that waits for a throttled
/// thread sleeps, all of the rest may be waits, so that there may be no idle time.
fn idle_times(source: &Profile, of_all_ms: f64) -> impl Iterator<Item = IdleTime> + use<> {
    let no_idle = match (source.idle_pressure_ms, source.hidden_waits) {
        (Some(_), _) => Some(by_size(source.memory, NO_IDLE_WITH_PRESSURE)),
        (None, true) => Some(NO_IDLE),
        (None, false) => None,
    };
    let measured = |ms, log_prior| IdleTime { tolerance: MEASURED_TOLERANCE, ..IdleTime::new(ms, log_prior) };
    [
        Some(IdleTime::new(of_all_ms, 0.0)),
        source.idle_top_ms.map(|ms| IdleTime::new(ms, ONLY_BUSIEST)),
        source
            .main
            .map(|main| IdleTime { parallel: Some(main.parallel), ..IdleTime::new(main.idle_ms, ONLY_MAIN) }),
        no_idle.map(|log_prior| IdleTime::new(0.0, log_prior)),
        source.idle_pressure_ms.map(|ms| measured(ms, BY_PRESSURE)),
        source.idle_seen_ms.map(|ms| measured(ms, by_size(source.memory, SEEN))),
    ]
    .into_iter()
    .flatten()
}

/// Logarithm of how likely a measured wall time is on the kernel that its profile was read for, all numbers of
/// bursts taken together; but for a constant of the profile.
pub(crate) fn log_likelihood(profile: &Profile, tolerance: Tolerance) -> f64 {
    let weights = measured(profile, tolerance).into_iter().map(|(log_weight, _)| log_weight.exp());
    weights.sum::<f64>().max(f64::MIN_POSITIVE).ln()
}

/// Possible numbers of parallel threads. When more threads were ready to run than the measured size has CPUs, it is unknown
/// whether they could run in parallel or waited for each other. Both values are then kept, and the interval is wide where
/// their predictions differ.
fn parallels(source: &Profile) -> Vec<f64> {
    let shown = f64::from(source.memory.visible_vcpus());
    if source.parallel > shown { vec![source.parallel, shown] } else { vec![source.parallel] }
}

/// The fewest bursts of [`BURSTS`] the work can come in.
fn least_bursts(source: &Profile) -> f64 {
    let least = source.busy_ms / LONGEST_BURST_MS;
    BURSTS.into_iter().find(|&bursts| bursts >= least).unwrap_or(BURSTS[BURSTS.len() - 1])
}

/// Hypotheses from a wall time alone.
fn without_counters(source: &Profile) -> Vec<(f64, WorkShape)> {
    let mut proposals = Vec::new();
    for (busy_share, as_common) in BUSY_SHARES {
        for (parallel, common) in PARALLELS {
            for bursts in BURSTS_WITHOUT_COUNTERS {
                let rate = source.memory.share().min(parallel);
                let shape = WorkShape {
                    busy_ms: busy_share * source.wall_ms * rate,
                    collecting_ms: 0.0,
                    idle_ms: (1.0 - busy_share) * source.wall_ms,
                    bursts,
                    parallel,
                    threaded: 0.0,
                };
                proposals.push(((as_common * common).ln(), shape));
            }
        }
    }
    proposals
}

/// Log-likelihood of the wall times measured at all sizes, and the shape scaled to their common level where
/// only wall times are known: the source's own mean is then no better than the others'.
fn fitted(shape: WorkShape, source: &Profile, profiles: &[Profile]) -> (f64, WorkShape) {
    // With counters the source's own fit is weighed where its hypotheses are made.
    let offs: Vec<(f64, f64)> = profiles
        .iter()
        .filter(|seen| !source.measured || seen.memory != source.memory)
        .map(|seen| {
            let transfer = if seen.memory == source.memory { 0.0 } else { TRANSFER_ERROR };
            let off = log_ms(seen.wall_ms) - log_ms(shape.wall_ms(seen.memory, seen.kernel));
            (off, 1.0 / (transfer * transfer + seen.noise + MIN_NOISE))
        })
        .collect();
    let level = if source.measured {
        0.0
    } else {
        // The level of least relative error: durations err upwards, by cold starts and competing processes, so that low
        // ones have more weight.
        let ratio = |off: f64| (-off).clamp(-MAX_OFF, MAX_OFF).exp();
        let (sum, square) = offs.iter().fold((0.0, 0.0), |(sum, square), (off, weight)| {
            (sum + weight * ratio(*off), square + weight * ratio(*off) * ratio(*off))
        });
        (sum / square).ln()
    };
    // Limited to five standard deviations: a larger difference does not make the hypothesis less likely.
    let unlike = |(off, weight): &(f64, f64)| ((off - level) * (off - level) * weight).min(25.0);
    let fit = offs.iter().map(|off| -0.5 * unlike(off)).sum();
    let by = level.exp();
    (fit, WorkShape { busy_ms: shape.busy_ms * by, idle_ms: shape.idle_ms * by, ..shape })
}

/// Weight of a size as the source of hypotheses: sizes with CPU counters first, then by number of invocations, and
/// small sizes least, since throttling there outweighs the work.
#[must_use]
pub fn source_weight(profile: &Profile) -> f64 {
    let measured = if profile.measured { 1e6 } else { 1.0 };
    let evidence = (profile.invocations as f64).clamp(1.0, 100.0).sqrt();
    measured * evidence * profile.memory.share().clamp(0.01, 1.0)
}

/// Logarithm of a wall time, kept away from zero so that it exists.
pub(crate) fn log_ms(wall_ms: f64) -> f64 {
    wall_ms.max(1e-3).ln()
}
