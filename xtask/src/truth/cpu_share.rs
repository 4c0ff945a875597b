//! Limits what is measured at the same time, so that the functions do not compete for the host's CPUs.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};

use super::lock;

/// What a block uses beside the function's share: the sandbox, the caller and the receiver of telemetry, CPUs.
const OVERHEAD: f64 = 0.1;

/// The CPUs of the host that are not in use.
#[derive(Debug)]
pub(super) struct CpuShares {
    state: Mutex<State>,
    changed: Condvar,
    cpus: f64,
}

#[derive(Debug, Default)]
struct State {
    used: f64,
    /// The blocks that wait, in the order in which they came, so that small ones do not overtake a large one for ever.
    waiting: VecDeque<u64>,
    next: u64,
}

/// The share of one block. It is free again when this is dropped.
#[derive(Debug)]
pub(super) struct CpuShare<'a> {
    of: &'a CpuShares,
    share: f64,
}

impl CpuShares {
    pub(super) fn new(cpus: usize) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), cpus: cpus as f64 }
    }

    /// Waits until the host has `cpus` for a block, and what it uses beside them. A block that needs more than there is runs
    /// alone.
    pub(super) fn acquire(&self, cpus: f64) -> CpuShare<'_> {
        let share = (cpus + OVERHEAD).min(self.cpus);
        let mut state = lock(&self.state);
        let ticket = state.next;
        state.next += 1;
        state.waiting.push_back(ticket);
        while state.waiting.front() != Some(&ticket) || state.used + share > self.cpus + 1e-9 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting.pop_front();
        state.used += share;
        drop(state);
        self.changed.notify_all();
        CpuShare { of: self, share }
    }
}

impl Drop for CpuShare<'_> {
    fn drop(&mut self) {
        lock(&self.of.state).used -= self.share;
        self.of.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::Duration;

    #[test]
    fn a_large_size_runs_alone_and_is_not_overtaken() {
        let shares = CpuShares::new(2);
        let small = [shares.acquire(0.3), shares.acquire(0.3)];
        let large_began = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let _large = shares.acquire(1.7);
                large_began.store(true, Ordering::SeqCst);
            });
            thread::sleep(Duration::from_millis(50));
            assert!(!large_began.load(Ordering::SeqCst));
            let later = scope.spawn(|| {
                let _small = shares.acquire(0.3);
                assert!(large_began.load(Ordering::SeqCst), "a later block overtook the large one");
            });
            thread::sleep(Duration::from_millis(50));
            drop(small);
            later.join().unwrap();
        });
        assert!(lock(&shares.state).used.abs() < 1e-9);
    }
}
