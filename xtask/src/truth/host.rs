//! Whether the host is undisturbed: a measurement is repeated when other work on the host disturbed it.

use std::fs;
use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

/// The length of a spin when the host is undisturbed.
const SPIN: Duration = Duration::from_millis(2);

/// The shortest of this many spins counts, so that interrupts and other measurements at the same time do not: on an undisturbed host
/// one spin in ten is within 3 % of the fastest of all.
const SPINS: usize = 30;

/// A spin that is slower than the fastest one by more than this is disturbed.
const MAX_SLOWDOWN: f64 = 0.06;

/// How often, and how long each time, to wait for an undisturbed host before a measurement begins anyway.
const WAITS: u32 = 3;
const WAIT: Duration = Duration::from_millis(500);

/// Clock ticks of `/proc/stat` in a second: `USER_HZ`, which is 100 on all architectures of Lambda.
const TICKS_PER_SECOND: f64 = 100.0;

/// The state of the host.
#[derive(Debug)]
pub(super) struct Host {
    rounds: u64,
    fastest: Duration,
}

/// The start of a measurement.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    slowdown: f64,
    steal_ticks: u64,
    at: Instant,
}

impl Host {
    /// Determines how much work [`SPIN`] is.
    pub(super) fn new() -> Self {
        let mut rounds = 10_000;
        while time_of(rounds) < SPIN {
            rounds += rounds / 4;
        }
        let mut host = Self { rounds, fastest: Duration::MAX };
        for _ in 0..20 {
            host.slowdown();
        }
        host
    }

    /// How much slower a spin is now than the fastest one: 0.03 is three percent.
    fn slowdown(&mut self) -> f64 {
        let shortest = (0..SPINS).map(|_| time_of(self.rounds)).min().unwrap_or(Duration::MAX);
        self.fastest = self.fastest.min(shortest);
        shortest.as_secs_f64() / self.fastest.as_secs_f64() - 1.0
    }

    /// Waits until the host is undisturbed, for a limited time.
    pub(super) fn start(&mut self) -> Start {
        let mut slowdown = self.slowdown();
        for _ in 0..WAITS {
            if slowdown <= MAX_SLOWDOWN {
                break;
            }
            thread::sleep(WAIT);
            slowdown = self.slowdown();
        }
        Start { slowdown, steal_ticks: steal_ticks(), at: Instant::now() }
    }

    /// The disturbance since `start`: how much slower a spin is, at most 0.03 on an undisturbed host, and the time that the
    /// hypervisor gave to other guests as a share of one CPU. Some hosts always give a tick in a few seconds to others, which
    /// changes a mean less than a slower CPU does.
    #[expect(clippy::cast_precision_loss, reason = "few ticks")]
    pub(super) fn disturbance(&mut self, start: Start) -> f64 {
        let stolen_s = steal_ticks().saturating_sub(start.steal_ticks) as f64 / TICKS_PER_SECOND;
        let stolen_share = stolen_s / start.at.elapsed().as_secs_f64().max(1.0 / TICKS_PER_SECOND);
        self.slowdown().max(start.slowdown) + stolen_share
    }
}

/// Whether a measurement with this disturbance is kept without repetition.
pub(super) fn is_undisturbed(disturbance: f64) -> bool {
    disturbance <= MAX_SLOWDOWN
}

fn time_of(rounds: u64) -> Duration {
    let begin = Instant::now();
    let mut state = 1u64;
    for round in 0..rounds {
        state = black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round));
    }
    black_box(state);
    begin.elapsed()
}

/// Clock ticks that the hypervisor gave to other guests: the eighth number of the first line of `/proc/stat`.
fn steal_ticks() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let field = text.lines().next().and_then(|line| line.split_ascii_whitespace().nth(8));
    field.and_then(|ticks| ticks.parse().ok()).unwrap_or_default()
}
