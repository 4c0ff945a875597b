//! What the threads of a function did, by class.

use serde::{Deserialize, Serialize};

use tailor_sizing::telemetry::invocation::{ClassWork, Work};

use super::round_to_micros;

/// What the threads did by class, in one invocation or as means. docs/threads.md describes the classes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ThreadClasses {
    /// The thread that runs the handler in most runtimes.
    pub main: ThreadTimes,
    /// Threads of the application, and of processes other than the main one.
    pub pool: ThreadTimes,
    /// Garbage collectors.
    pub collector: ThreadTimes,
    /// Just-in-time compilers.
    pub compiler: ThreadTimes,
    /// Other threads of the runtime.
    pub other: ThreadTimes,
    /// CPU time of threads and child processes that ended before they were read, ms.
    pub unseen_busy_ms: f64,
}

/// The threads of one class.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ThreadTimes {
    /// CPU time, ms.
    pub busy_ms: f64,
    /// Time they were ready to run and had no CPU, ms.
    pub starved_ms: f64,
    /// How many ran.
    pub threads: f64,
}

impl ThreadClasses {
    /// The means of `invocations`; `None` when no thread was classified, as by earlier versions of the extension.
    #[must_use]
    pub fn of(work: &Work, invocations: u64) -> Option<Self> {
        let mean = |total: u64| total as f64 / invocations as f64;
        let mean_ms = |total_us: u64| round_to_micros(mean(total_us) / 1_000.0);
        let times = |class: &ClassWork| ThreadTimes {
            busy_ms: mean_ms(class.busy_us),
            starved_ms: mean_ms(class.starved_us),
            threads: round_to_micros(mean(class.threads)),
        };
        let threads = [&work.main, &work.pool, &work.collector, &work.compiler, &work.other];
        let is_measured = invocations > 0 && threads.iter().any(|class| class.threads > 0);
        is_measured.then(|| Self {
            main: times(&work.main),
            pool: times(&work.pool),
            collector: times(&work.collector),
            compiler: times(&work.compiler),
            other: times(&work.other),
            unseen_busy_ms: mean_ms(work.unseen_busy_us),
        })
    }
}
