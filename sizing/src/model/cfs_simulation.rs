//! Simulation of the kernel's CFS quota: how long an invocation's work takes at a memory size.
//!
//! Lambda limits a size to `share = memory / 1769` vCPU with the kernel's CFS bandwidth control: every period of 20 ms
//! grants `20 ms × share` of run time (pwrdrvr/lambda-throttling, 2025). A function that used it up waits for the next
//! period. A tick-based kernel checks the quota only when a thread blocks and at its timer tick,
//! every 4 ms, so a burst may overrun its quota by up to a tick and pays it back in the periods after, unless
//! it has ended by then (arXiv 2506.01283, on overallocation by scheduling granularity); a high-resolution one stops it
//! at once. Duration is therefore not `idle + work / share`: a short burst is not slowed at all, and a longer
//! one in jumps. The simulation follows periods, ticks and debts. The work of an
//! invocation comes from [`crate::model::hypotheses`], and the kernel from [`crate::model::enforcement`].

use crate::model::collection;
use crate::units::Megabytes;

/// Period of the kernel's bandwidth control on Lambda, ms.
pub const PERIOD_MS: f64 = 20.0;

/// Timer tick of a tick-based kernel, ms (250 Hz).
pub const TICK_MS: f64 = 4.0;

/// Run time a CPU takes from the pool at once, ms (`sched_cfs_bandwidth_slice_us`).
pub(crate) const SLICE_MS: f64 = 5.0;

/// Bursts simulated in all, at several moments at which an invocation may begin, and the fewest such moments:
/// many bursts average over their own moments.
const SIMULATED_BURSTS: f64 = 24.0;
const MIN_PHASES: f64 = 4.0;

/// Steps of the golden ratio spread the tick's offset evenly over the phases.
const GOLDEN: f64 = 0.618_034;

/// The most of the first period's quota that was used before an invocation begins, ms and as a share of the quota: by the
/// runtime and extensions, by the end of the invocation before, and by run time that other CPUs keep (up to 1 ms each,
/// `min_cfs_rq_runtime`). It is between 0 and this with equal probability. The values with the least errors on the training
/// functions (decision 0004).
const USED_BEFORE_MS: f64 = 1.0;
const USED_BEFORE_SHARE: f64 = 0.10;

/// Steps of the inverse of the plastic ratio spread the used part of the first quota evenly over the phases, and independently of the
/// tick's offset.
const INVERSE_PLASTIC_RATIO: f64 = 0.754_877;

/// Bursts followed one by one; of an invocation with more bursts, this many are simulated and scaled up.
const MAX_BURSTS: f64 = 16.0;

/// Periods of a long burst that are followed at its end; those before are all alike and skipped at once.
const LAST_PERIODS: f64 = 4.0;

/// A burst of more periods than this is simulated with this many, and the rest counted: they are all alike.
const MAX_PERIODS: f64 = 16.0;

/// Shorter times count as zero, ms.
const EPSILON_MS: f64 = 1e-9;

/// CPU time that a refill waited for costs, since caches are cold after the wait, with one thread and besides
/// with threads that hand work to each other. CPU time grows by 3 % and 17 % of itself at 128 MB, and half of
/// that with each doubling. Medians over the functions to which the model is fitted are 6 % with one thread, and 7 to 30 % with
/// several: collectors and compilers have more to do where they are often interrupted.
const REFILL_MS: f64 = 0.05;
const REFILL_THREADED_MS: f64 = 0.20;

/// Share of a quota that a refill may cost at most.
pub const MAX_REFILL: f64 = 0.3;

/// One vCPU is not quite reached at 1,769 MB: single-threaded work runs there at 95.4 % of its full speed, at
/// 1,536 MB at 97 % of the CPU of the share, and at full speed from about 2,048 MB (medians over published
/// AWS curves relative to 1,024 MB; pwrdrvr measured a duty of 96.8 % at 1,769 MB).
const KNEE: f64 = 0.048;
const KNEE_MB: [f64; 3] = [1_024.0, 1_769.0, 2_048.0];

/// When the kernel finds that a running thread has used up the quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kernel {
    /// At its timer tick, every 4 ms: a burst may overrun.
    #[default]
    TickBased,
    /// At once, by a high-resolution timer (`CONFIG_SCHED_HRTICK`).
    HighResolution,
}

/// An invocation's work, independent of the measured size. All values are finite and not negative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WorkShape {
    /// CPU time where nothing is throttled and garbage is seldom collected, ms.
    pub busy_ms: f64,
    /// CPU time that garbage collection adds at the smallest sizes, ms.
    pub collecting_ms: f64,
    /// Wall time in which no thread was ready to run, ms.
    pub idle_ms: f64,
    /// Bursts of CPU the work comes in, with the idle time spread between them; at least 1.
    pub bursts: f64,
    /// Threads that run in parallel when nothing limits them; at least 1.
    pub parallel: f64,
    /// How much of the work is handed between threads, from 0 (one thread) to 1.
    pub threaded: f64,
}

impl WorkShape {
    /// Expected wall time at `memory`, in ms, averaged over the moment at which it begins.
    #[must_use]
    pub fn wall_ms(&self, memory: Megabytes, kernel: Kernel) -> f64 {
        self.wall(memory, kernel).0
    }

    /// Expected wall time at `memory`, in ms, and its relative variance over the moments at which an
    /// invocation may begin.
    #[must_use]
    pub fn wall(&self, memory: Megabytes, kernel: Kernel) -> (f64, f64) {
        let share = memory.share();
        let parallel = self.parallel.min(f64::from(memory.visible_vcpus())).max(1.0);
        let busy_ms = self.busy_ms + self.collecting_ms * collection::added_at(memory);
        if busy_ms <= 0.0 || share <= 0.0 {
            return (self.idle_ms, 0.0);
        }
        let busy_ms = busy_ms * (1.0 + knee(memory) * (2.0 - parallel).clamp(0.0, 1.0));
        if share >= parallel {
            return (self.idle_ms + busy_ms / parallel, 0.0);
        }
        let all = self.bursts.round().max(1.0);
        let bursts = all.min(MAX_BURSTS);
        let quota_ms = PERIOD_MS * share;
        let refill_ms = refill_ms(memory, self.threaded);
        let net_ms = quota_ms - refill_ms;
        let skipped = (busy_ms / all / net_ms - MAX_PERIODS).floor().max(0.0);
        let burst = Burst {
            busy_ms: busy_ms / all - skipped * net_ms,
            refill_ms,
            gap_ms: self.idle_ms / all,
            quota_ms,
            parallel,
            kernel,
        };
        let (mut sum, mut square) = (0.0, 0.0);
        let phases = (SIMULATED_BURSTS / bursts).ceil().max(MIN_PHASES);
        let mut phase = 0.0;
        while phase < phases {
            let simulated = burst.repeat(bursts, phase, phases);
            sum += simulated;
            square += simulated * simulated;
            phase += 1.0;
        }
        let mean = sum / phases;
        let variance = (square / phases - mean * mean).max(0.0);
        let wall = mean * (all / bursts) + all * skipped * PERIOD_MS;
        // What was scaled up or skipped is many alike, whose spread averages out.
        (wall, variance * (all / bursts) / (wall * wall).max(f64::MIN_POSITIVE))
    }
}

/// What the soft knee of one vCPU adds to the time of single-threaded work at `memory`, as a share.
fn knee(memory: Megabytes) -> f64 {
    let [from, top, to] = KNEE_MB;
    let mb = f64::from(memory.0);
    KNEE * ((mb - from) / (top - from)).min((to - mb) / (to - top)).max(0.0)
}

/// CPU time that every refill waited for costs at `memory`, ms: well below the quota, so that work gets done.
#[must_use]
pub fn refill_ms(memory: Megabytes, threaded: f64) -> f64 {
    let costs = REFILL_MS + REFILL_THREADED_MS * threaded.clamp(0.0, 1.0);
    costs.min(MAX_REFILL * PERIOD_MS * memory.share())
}

/// One of the equal bursts and the gap around it.
struct Burst {
    busy_ms: f64,
    /// What a refill waited for costs.
    refill_ms: f64,
    gap_ms: f64,
    quota_ms: f64,
    parallel: f64,
    kernel: Kernel,
}

impl Burst {
    /// Wall time of `count` bursts and their gaps, begun at one of so many phases of the period.
    fn repeat(&self, count: f64, phase: f64, phases: f64) -> f64 {
        let used_ms = (USED_BEFORE_MS + USED_BEFORE_SHARE * self.quota_ms)
            * (phase * INVERSE_PLASTIC_RATIO + 0.5 / phases).fract();
        let mut cpu = Cpu {
            kernel: self.kernel,
            tick_ms: TICK_MS,
            quota_ms: self.quota_ms,
            refill_ms: self.refill_ms,
            elapsed: 0.0,
            to_period: PERIOD_MS * (1.0 - (phase + 0.5) / phases),
            to_tick: TICK_MS * (1.0 - (phase * GOLDEN).fract()),
            mine: 0.0,
            pool: (self.quota_ms - used_ms).max(0.0),
        };
        let mut done = 0.0;
        while done < count {
            cpu.sleep(self.gap_ms / 2.0);
            cpu.run(self.busy_ms, self.parallel);
            cpu.sleep(self.gap_ms / 2.0);
            done += 1.0;
        }
        cpu.elapsed
    }
}

/// Wall times in ms of single-threaded bursts of work that follow each other without idle time, each of so many ms of CPU
/// time, on a kernel with a timer tick of `tick_ms`. A high-resolution kernel does not use the tick. The first tick is
/// `offset` (0 to 1) of the tick after the first refill. Each burst must be positive. `share` is the quota in vCPU.
#[must_use]
pub fn consecutive_ms(busy_ms: &[f64], share: f64, kernel: Kernel, tick_ms: f64, offset: f64) -> Vec<f64> {
    let quota_ms = PERIOD_MS * share.clamp(1e-3, 1.0);
    let tick_ms = tick_ms.max(EPSILON_MS * 10.0);
    let mut cpu = Cpu {
        kernel,
        tick_ms,
        quota_ms,
        // What a refill costs is part of the CPU time that was measured at this size.
        refill_ms: 0.0,
        elapsed: 0.0,
        to_period: PERIOD_MS,
        to_tick: tick_ms * offset.clamp(0.01, 1.0),
        mine: 0.0,
        pool: quota_ms,
    };
    let wall_ms = |&busy_ms: &f64| {
        let start = cpu.elapsed;
        cpu.run(busy_ms, 1.0);
        cpu.elapsed - start
    };
    busy_ms.iter().map(wall_ms).collect()
}

/// State of the bandwidth controller for one run queue.
struct Cpu {
    kernel: Kernel,
    /// Time between two timer ticks.
    tick_ms: f64,
    quota_ms: f64,
    /// CPU time that every refill waited for costs.
    refill_ms: f64,
    elapsed: f64,
    /// Until the next refill.
    to_period: f64,
    /// Until the next timer tick.
    to_tick: f64,
    /// Run time taken from the pool and not used; negative when overrun.
    mine: f64,
    /// Run time left in the pool.
    pool: f64,
}

impl Cpu {
    /// Runs a burst of `need` ms of CPU time with `parallel` threads at once.
    fn run(&mut self, mut need: f64, parallel: f64) {
        self.take();
        if self.mine <= 0.0 {
            need += self.wait_for_quota();
        }
        while need > EPSILON_MS {
            let to_look = match self.kernel {
                Kernel::TickBased => self.to_tick,
                Kernel::HighResolution => self.mine.max(0.0) / parallel,
            };
            let step = (need / parallel).min(to_look).min(self.to_period);
            need -= step * parallel;
            self.mine -= step * parallel;
            let (ticked, refilled) = self.pass(step);
            if refilled {
                self.pool = self.quota_ms;
            }
            let looked = ticked || self.kernel == Kernel::HighResolution;
            if need > EPSILON_MS && looked && self.mine <= EPSILON_MS {
                self.take();
                if self.mine <= EPSILON_MS {
                    let net_ms = self.quota_ms - self.refill_ms;
                    let alike = (fast_trunc(need / net_ms) - LAST_PERIODS).max(0.0);
                    need -= alike * net_ms;
                    self.elapsed += alike * PERIOD_MS;
                    need += self.wait_for_quota();
                }
            }
        }
        // A thread that blocks returns its unused run time to the pool.
        if self.mine > 0.0 {
            self.pool = (self.pool + self.mine).min(self.quota_ms);
            self.mine = 0.0;
        }
    }

    /// Lets `gap` ms pass without work. Of the refills at most one quota is kept, and a debt stays until the
    /// next burst: the kernel settles it when a thread is ready to run, and not while all sleep.
    fn sleep(&mut self, gap: f64) {
        self.elapsed += gap;
        self.to_tick = next_tick(self.to_tick, gap, self.tick_ms);
        if gap < self.to_period {
            self.to_period -= gap;
            return;
        }
        let refills = fast_trunc((gap - self.to_period) / PERIOD_MS) + 1.0;
        self.pool = self.quota_ms;
        self.to_period = (self.to_period + refills * PERIOD_MS - gap).clamp(EPSILON_MS, PERIOD_MS);
    }

    /// Takes run time from the pool, up to a slice.
    fn take(&mut self) {
        let amount = self.pool.min(SLICE_MS - self.mine).max(0.0);
        self.pool -= amount;
        self.mine += amount;
    }

    /// Throttled: waits for as many refills as the debt takes, and returns the CPU time that costs.
    fn wait_for_quota(&mut self) -> f64 {
        let refills = fast_trunc((-self.mine / self.quota_ms).max(0.0)) + 1.0;
        let wait = self.to_period + (refills - 1.0) * PERIOD_MS;
        // The kernel assigns only what makes the queue runnable again; the rest of the refill stays in the pool.
        self.pool = (self.mine + refills * self.quota_ms).clamp(0.0, self.quota_ms);
        self.mine = 0.0;
        self.elapsed += wait;
        self.to_period = PERIOD_MS;
        self.to_tick = next_tick(self.to_tick, wait, self.tick_ms);
        refills * self.refill_ms
    }

    /// Advances the time, at most to the next tick or refill, and returns which of them happened.
    fn pass(&mut self, time: f64) -> (bool, bool) {
        self.elapsed += time;
        self.to_tick -= time;
        self.to_period -= time;
        let ticked = self.to_tick <= EPSILON_MS;
        let refilled = self.to_period <= EPSILON_MS;
        if ticked {
            self.to_tick = self.tick_ms;
        }
        if refilled {
            self.to_period = PERIOD_MS;
        }
        (ticked, refilled)
    }
}

/// Time to the first tick after `passed` ms, which is `to_tick` before them.
fn next_tick(to_tick: f64, passed: f64, tick_ms: f64) -> f64 {
    if passed < to_tick {
        return to_tick - passed;
    }
    let since = passed - to_tick;
    tick_ms - (since - fast_trunc(since / tick_ms) * tick_ms).clamp(0.0, tick_ms - EPSILON_MS)
}

/// The integer part of a number, as `f64::trunc`. The conversion is several times as fast, because `trunc` is a function
/// call on the baseline of x86-64.
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "periods of one invocation")]
fn fast_trunc(number: f64) -> f64 {
    number as i64 as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn single(busy_ms: f64, idle_ms: f64, bursts: f64) -> WorkShape {
        WorkShape { busy_ms, collecting_ms: 0.0, idle_ms, bursts, parallel: 1.0, threaded: 0.0 }
    }

    #[test]
    fn long_work_takes_its_share() {
        let shape = single(5_000.0, 0.0, 1.0);
        let kernels = [Kernel::TickBased, Kernel::HighResolution];
        for (memory, kernel) in [128, 256, 512, 1_024].into_iter().flat_map(|mb| kernels.map(|k| (mb, k))) {
            let memory = Megabytes(memory);
            let quota_ms = PERIOD_MS * memory.share();
            let expected = 5_000.0 * PERIOD_MS / (quota_ms - refill_ms(memory, 0.0));
            let wall = shape.wall_ms(memory, kernel);
            assert!((wall / expected - 1.0).abs() < 0.02, "{memory}: {wall} against {expected}");
        }
    }

    #[test]
    fn a_burst_within_quota_and_tick_is_not_slowed() {
        let wall = single(1.0, 50.0, 1.0).wall_ms(Megabytes(512), Kernel::TickBased);
        assert!((wall - 51.0).abs() < 1e-6, "{wall}");
        // Measured: 7.1 ms of CPU at 512 MB, whose quota is 5.8 ms, took 7.2 ms, and 21 ms at 256 MB.
        let burst = single(7.1, 0.0, 1.0);
        assert!(burst.wall_ms(Megabytes(512), Kernel::TickBased) < 11.0);
        assert!((15.0..28.0).contains(&burst.wall_ms(Megabytes(256), Kernel::TickBased)));
    }

    #[test]
    fn the_end_of_a_long_burst_is_not_paid_back() {
        // Measured: 63.5 ms of CPU at 256 MB took 407 ms, not 439.
        let wall = single(63.5, 0.0, 1.0).wall_ms(Megabytes(256), Kernel::TickBased);
        assert!((395.0..430.0).contains(&wall), "{wall}");
    }

    #[test]
    fn a_high_resolution_kernel_stops_a_burst_at_its_quota() {
        let high_resolution =
            |shape: WorkShape, memory| shape.wall_ms(Megabytes(memory), Kernel::HighResolution);
        // Measured: 34.6 ms of CPU took 118.7 ms at 512 MB and 228 to 235 at 256.
        assert!((106.0..121.0).contains(&high_resolution(single(34.6, 0.0, 1.0), 512)));
        assert!((220.0..240.0).contains(&high_resolution(single(34.6, 0.0, 1.0), 256)));
        // 3.8 ms at 256 MB, whose quota is 2.9 ms, take 19 at most and as much as they need at least.
        let burst = single(3.8, 0.0, 1.0);
        assert!((8.0..19.0).contains(&high_resolution(burst, 256)));
        assert!(burst.wall_ms(Megabytes(256), Kernel::TickBased) < 8.0);
        assert!((high_resolution(burst, 512) - 3.8).abs() < 0.5);
    }

    #[test]
    fn the_knee_is_soft() {
        let work = single(1_000.0, 0.0, 1.0);
        let speed = |memory: u32| {
            work.wall_ms(Megabytes(1_024), Kernel::TickBased) * 0.579
                / work.wall_ms(Megabytes(memory), Kernel::TickBased)
        };
        // Medians over published single-threaded AWS curves, relative to 1,024 MB.
        for (memory, published) in [(1_536, 0.843), (1_769, 0.954), (2_048, 1.02), (3_008, 1.0)] {
            assert!((speed(memory) / published - 1.0).abs() < 0.03, "{memory} MB: {}", speed(memory));
        }
    }

    #[test]
    fn threads_share_the_quota() {
        let shape = WorkShape {
            busy_ms: 400.0,
            collecting_ms: 0.0,
            idle_ms: 0.0,
            bursts: 1.0,
            parallel: 2.0,
            threaded: 0.0,
        };
        assert!((shape.wall_ms(Megabytes(3_538), Kernel::TickBased) - 200.0).abs() < 1e-6);
        assert!((shape.wall_ms(Megabytes(1_769), Kernel::TickBased) / 400.0 - 1.0).abs() < 0.08);
    }

    proptest! {
        #[test]
        fn wall_is_never_less_than_work_allows(busy in 0.0f64..1e5, idle in 0.0f64..1e5, bursts in 0.0f64..1e5, parallel in 0.0f64..9.0, threaded in 0.0f64..=1.0, memory in 1u32..20_000, high_resolution: bool) {
            let kernel = if high_resolution { Kernel::HighResolution } else { Kernel::TickBased };
            let wall = WorkShape { busy_ms: busy, collecting_ms: 0.0, idle_ms: idle, bursts, parallel, threaded }.wall_ms(Megabytes(memory), kernel);
            prop_assert!(wall.is_finite() && wall >= idle * 0.999);
            prop_assert!(wall >= busy / parallel.max(1.0) * 0.999);
        }
    }
}
