//! Classes of threads, and the work of one class.

use serde::{Deserialize, Serialize};

/// What a thread of the function does. `docs/threads.md` has the names of threads by runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThreadClass {
    /// The first thread of the function's main process: it runs the handler in most runtimes.
    Main,
    /// Threads of the application and of thread pools, and the threads of other processes.
    Pool,
    /// Garbage collectors.
    Collector,
    /// Just-in-time compilers.
    Compiler,
    /// Other threads of the runtime, and threads that used almost no CPU time.
    Other,
}

impl ThreadClass {
    /// All classes.
    pub const ALL: [Self; 5] = [Self::Main, Self::Pool, Self::Collector, Self::Compiler, Self::Other];
}

/// The work of the threads of one class. Times are microseconds. Only threads that were read are in here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClassWork {
    /// CPU time.
    pub busy_us: u64,
    /// Time they were ready to run and had no CPU.
    pub starved_us: u64,
    /// Sum over invocations of the number of threads that ran.
    pub threads: u64,
}
