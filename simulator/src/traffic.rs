//! The invocations of one function in a span of time at one size, as the extension would measure them.

use tailor_collector::clock::DAY_US;
use tailor_sizing::telemetry::invocation::{ClassWork, Initialization, Invocation, Outcome, RequestId, Work};
use tailor_sizing::telemetry::rollup::Rollup;
use tailor_sizing::units::{Megabytes, round_to_u64};

use crate::kind::{Kind, Truth};
use crate::random::{Random, normal_above, normal_quantile};

/// Memory of the environment beside the function's processes, MB.
const ENVIRONMENT_MB: f64 = 30.0;

/// Share of heavy invocations of a bimodal function, and their work and memory.
const HEAVY: (f64, f64, f64) = (0.05, 6.0, 1.5);

/// A span of time at one size.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// Its start, microseconds since the start of the simulation.
    pub from_us: u64,
    /// Its end.
    pub until_us: u64,
    /// Memory size.
    pub memory: Megabytes,
    /// Number of invocations.
    pub count: u64,
    /// First invocations of environments among them.
    pub first: u64,
    /// The day on which the present code was deployed.
    pub deployed_day: u64,
    /// Invocations that are simulated one by one. Others repeat them.
    pub samples: u64,
}

/// `rollup` added to itself `times` times.
#[must_use]
pub fn multiple(rollup: &Rollup, times: u64) -> Rollup {
    let (mut sum, mut power, mut left) = (Rollup::default(), rollup.clone(), times);
    while left > 0 {
        if left & 1 == 1 {
            sum.merge(&power);
        }
        left >>= 1;
        if left > 0 {
            power.merge(&power.clone());
        }
    }
    sum
}

/// Measures the invocations of a span.
#[must_use]
pub fn measure(truth: &Truth, span: &Span, start_us: u64, random: &mut Random) -> Rollup {
    let mut sum = Rollup::default();
    if span.count == 0 {
        return sum;
    }
    let day = span.from_us / DAY_US;
    let memory_mb = f64::from(span.memory.0);
    let used_mb = truth.memory_on(day, span.deployed_day);
    let killed = random.poisson(kill_share(truth, used_mb, memory_mb) * span.count as f64).min(span.count);
    let failed = random.poisson(truth.error_rate * span.count as f64).min(span.count - killed);
    let first = span.first.min(span.count - killed - failed);
    let warm = span.count - killed - failed - first;
    let draw = Draw { truth, span, start_us, day, used_mb, memory_mb };
    for (count, outcome, initialization) in [
        (warm, Outcome::Success, Initialization::Warm),
        (first, Outcome::Success, Initialization::OnDemand),
        (failed, Outcome::Error, Initialization::Warm),
        (killed, Outcome::OutOfMemory, Initialization::Warm),
    ] {
        let most = if initialization == Initialization::Warm && outcome == Outcome::Success {
            span.samples
        } else {
            4
        };
        sum.merge(&draw.many(count, most, outcome, initialization, random));
    }
    if warm > 0 {
        // The highest memory use of all, not of the simulated ones only.
        let highest = normal_quantile(random.unit().powf(1.0 / warm as f64).min(1.0 - 1e-12));
        let factor = if truth.kind == Kind::Bimodal { HEAVY.2 } else { 1.0 };
        let peak_mb = (used_mb * factor * (truth.memory_sigma * highest).exp()).min(memory_mb * 0.999);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "memory use is bounded by the size"
        )]
        {
            sum.max_peak_kib = sum.max_peak_kib.max((peak_mb * 1_024.0) as u64);
            sum.max_memory_used_mb =
                sum.max_memory_used_mb.max((peak_mb + ENVIRONMENT_MB).min(memory_mb) as u32);
        }
    }
    sum
}

/// Share of invocations that need more memory than there is.
fn kill_share(truth: &Truth, used_mb: f64, memory_mb: f64) -> f64 {
    let above =
        |median_mb: f64| normal_above(((memory_mb - ENVIRONMENT_MB) / median_mb).ln() / truth.memory_sigma);
    match truth.kind {
        Kind::Bimodal => (1.0 - HEAVY.0) * above(used_mb) + HEAVY.0 * above(used_mb * HEAVY.2),
        _ => above(used_mb),
    }
}

/// Mean duration of a successful warm invocation at a size on a day, and its 95th percentile, ms; and the share of kills.
#[must_use]
pub fn expected(truth: &Truth, memory: Megabytes, day: u64, deployed_day: u64) -> (f64, f64, f64) {
    let memory_mb = f64::from(memory.0);
    let used_mb = truth.memory_on(day, deployed_day);
    let (_, work) = truth.day_factors(day);
    let noise = (truth.sigma * truth.sigma / 2.0).exp();
    let (light, _) = truth.duration_ms(memory_mb, work, used_mb);
    let high = (1.645 * truth.sigma).exp();
    let killed = kill_share(truth, used_mb, memory_mb);
    match truth.kind {
        Kind::Bimodal => {
            let (heavy, _) = truth.duration_ms(memory_mb, work * HEAVY.1, used_mb * HEAVY.2);
            ((light * (1.0 - HEAVY.0) + heavy * HEAVY.0) * noise, light * high, killed)
        }
        _ => (light * noise, light * high, killed),
    }
}

/// What all invocations of a span have in common.
struct Draw<'a> {
    truth: &'a Truth,
    span: &'a Span,
    start_us: u64,
    day: u64,
    used_mb: f64,
    memory_mb: f64,
}

impl Draw<'_> {
    /// `count` invocations, of which at most `most` are simulated one by one.
    fn many(
        &self,
        count: u64,
        most: u64,
        outcome: Outcome,
        initialization: Initialization,
        random: &mut Random,
    ) -> Rollup {
        let samples = count.min(most);
        let mut sum = Rollup::default();
        if samples == 0 {
            return sum;
        }
        let is_sampled = samples < count;
        let (whole, rest) = (count / samples, count % samples);
        let (mut common, mut more) = (Rollup::default(), Rollup::default());
        // An odd step visits the quantiles in another order than that of time.
        let step = (samples / 2) | 1;
        for index in 0..samples {
            let place = (index * step) % samples;
            let quantile = if is_sampled {
                // Many invocations together have the quantiles of the distribution.
                (place as f64 + random.unit()) / samples as f64
            } else {
                random.unit()
            };
            let one = self.one(index, samples, quantile, outcome, initialization, random);
            common.record(&one);
            if index < rest {
                more.record(&one);
            }
        }
        sum.merge(&multiple(&common, whole));
        sum.merge(&more);
        sum
    }

    fn one(
        &self,
        index: u64,
        samples: u64,
        quantile: f64,
        outcome: Outcome,
        initialization: Initialization,
        random: &mut Random,
    ) -> Invocation {
        let truth = self.truth;
        let (_, day_work) = truth.day_factors(self.day);
        let heavy_every = if samples >= 20 { index % 20 == 7 } else { random.unit() < HEAVY.0 };
        let is_heavy = truth.kind == Kind::Bimodal && heavy_every;
        let (work, memory) = if is_heavy { (HEAVY.1, HEAVY.2) } else { (1.0, 1.0) };
        let used_mb = self.used_mb * memory * (truth.memory_sigma * random.normal()).exp();
        let peak_mb = match outcome {
            Outcome::OutOfMemory => self.memory_mb,
            _ => used_mb.min((self.memory_mb - ENVIRONMENT_MB).max(20.0)),
        };
        let (mean_ms, cpu_ms) = truth.duration_ms(self.memory_mb, day_work * work, self.used_mb * memory);
        let noise = (truth.sigma * normal_quantile(quantile.clamp(1e-9, 1.0 - 1e-9))).exp();
        let micros = |ms: f64| round_to_u64(ms * noise * 1_000.0);
        let (duration_us, busy_us) = (micros(mean_ms).max(100), micros(cpu_ms));
        let init_us = if initialization == Initialization::OnDemand { 220_000 } else { 0 };
        let length_us = self.span.until_us - self.span.from_us;
        let start = self.span.from_us + length_us * index / samples;
        invocation(Measured {
            started_at_us: self.start_us + start,
            outcome,
            initialization,
            duration_us,
            init_us,
            busy_us: busy_us.min(duration_us),
            idle_us: micros(truth.idle_ms * (day_work * work).sqrt()).min(duration_us),
            peak_kib: round_to_u64(peak_mb * 1_024.0),
            used_mb: round_to_u64((peak_mb + ENVIRONMENT_MB).min(self.memory_mb)),
        })
    }
}

struct Measured {
    started_at_us: u64,
    outcome: Outcome,
    initialization: Initialization,
    duration_us: u64,
    init_us: u64,
    busy_us: u64,
    idle_us: u64,
    peak_kib: u64,
    used_mb: u64,
}

fn invocation(measured: Measured) -> Invocation {
    let Measured { duration_us, busy_us, .. } = measured;
    let idle_us = measured.idle_us.min(duration_us - busy_us);
    let starved_us = duration_us - busy_us - idle_us;
    Invocation {
        request_id: RequestId(u128::from(measured.started_at_us)),
        started_at_us: measured.started_at_us,
        outcome: measured.outcome,
        initialization: measured.initialization,
        duration_us,
        runtime_us: duration_us.saturating_sub(300),
        billed_ms: (duration_us + measured.init_us).div_ceil(1_000),
        init_us: measured.init_us,
        max_memory_used_mb: u32::try_from(measured.used_mb).unwrap_or(u32::MAX),
        peak_kib: measured.peak_kib,
        start_kib: measured.peak_kib * 7 / 10,
        threads: 1,
        descriptors: 12,
        work: Some(Work {
            user_us: busy_us * 9 / 10,
            system_us: busy_us - busy_us * 9 / 10,
            starved_us,
            idle_us,
            top_busy_us: busy_us,
            top_starved_us: starved_us,
            effective_threads_milli: 1_000,
            timeslices: 4,
            voluntary_switches: 3,
            involuntary_switches: 1,
            main: ClassWork { busy_us, starved_us, threads: 1 },
            ..Work::default()
        }),
        ..Invocation::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measured_durations_and_kills_are_the_expected_ones() {
        for (index, (kind, _)) in Kind::ALL.into_iter().enumerate() {
            let truth = Truth::new(kind, 40 + index as u64);
            let memory = Megabytes(truth.start_mb);
            let (mean_ms, ..) = expected(&truth, memory, 2, 0);
            let span = Span {
                from_us: 2 * DAY_US,
                until_us: 3 * DAY_US,
                memory,
                count: 100_000,
                first: 50,
                deployed_day: 0,
                samples: 400,
            };
            let rollup = measure(&truth, &span, 0, &mut Random::new(9));
            assert_eq!(rollup.invocations, 100_000);
            let measured = rollup.warm_duration_us.mean().unwrap_or(0.0) / 1_000.0;
            assert!(
                (measured / mean_ms - 1.0).abs() < 0.05,
                "{kind:?}: {measured} ms, {mean_ms} ms expected"
            );
        }
    }

    #[test]
    fn too_little_memory_kills_invocations() {
        let truth = Truth::new(Kind::Stationary, 5);
        let (.., killed) = expected(&truth, Megabytes(128), 0, 0);
        let used = truth.memory_on(0, 0);
        assert_eq!(killed > 0.5, used + ENVIRONMENT_MB > 128.0, "{used} MB");
    }
}
