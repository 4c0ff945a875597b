//! One invocation as it was measured: what the platform billed and what the function's processes did.

use serde::{Deserialize, Serialize};

pub use super::initialization::Initialization;
pub use super::thread_class::{ClassWork, ThreadClass};

/// Lambda's request id: 128 bits, written as a UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RequestId(pub u128);

impl RequestId {
    /// Reads a UUID with or without hyphens; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut digits = 0u32;
        let mut value = 0u128;
        for byte in text.bytes() {
            if byte == b'-' {
                continue;
            }
            let digit = char::from(byte).to_digit(16)?;
            digits += 1;
            if digits > 32 {
                return None;
            }
            value = value << 4 | u128::from(digit);
        }
        (digits == 32).then_some(Self(value))
    }
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hex = format!("{:032x}", self.0);
        write!(f, "{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

/// How an invocation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The platform did not report an outcome, and nothing suggests a failure.
    #[default]
    Unknown,
    /// The handler answered.
    Success,
    /// The handler or its runtime failed.
    Error,
    /// The function's timeout ended it.
    Timeout,
    /// It was killed for exceeding its memory.
    OutOfMemory,
}

/// What is known of an invocation only in part. Each flag is a statement shown to the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Caveats {
    /// Durations come from the extension's own clock: the platform's telemetry was refused or lost.
    pub estimated: bool,
    /// `platform.report` never came: billed duration is derived, not the platform's own.
    pub report_missing: bool,
    /// Starved time was inferred from the CPU rate because the kernel hides run-queue waits.
    pub starved_inferred: bool,
    /// The peak is the highest of samples, not the kernel's high-water mark.
    pub peak_sampled: bool,
    /// The work is that of the last reading inside, late in the invocation and extended to its end: the platform ended the
    /// function's processes before they could be read.
    pub work_estimated: bool,
}

/// Additive counters of what the function's processes did.
///
/// Times are microseconds. Every field is a sum over all threads of all the function's processes, so
/// the counters of many invocations add up to the counters of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// CPU time in user mode.
    pub user_us: u64,
    /// CPU time in the kernel.
    pub system_us: u64,
    /// Time threads were runnable but had no CPU: throttled, or waiting for another thread.
    pub starved_us: u64,
    /// Wall time with nothing to run.
    pub idle_us: u64,
    /// CPU time of the busiest thread.
    pub top_busy_us: u64,
    /// Starved time of the busiest thread.
    pub top_starved_us: u64,
    /// Sum over invocations of the effective number of busy threads, `(Σ run)² / Σ run²`, in thousandths.
    pub effective_threads_milli: u64,
    /// Voluntary context switches: a thread blocked.
    pub voluntary_switches: u64,
    /// Context switches forced on a thread.
    pub involuntary_switches: u64,
    /// Times a thread was put on a CPU.
    pub timeslices: u64,
    /// Page faults served from memory.
    pub minor_faults: u64,
    /// Page faults that read from disk.
    pub major_faults: u64,
    /// TCP connections opened.
    pub sockets_opened: u64,
    /// Bytes received from the network.
    pub network_rx_bytes: u64,
    /// Bytes sent to the network.
    pub network_tx_bytes: u64,
    /// Bytes read from storage.
    pub disk_read_bytes: u64,
    /// Bytes written to storage.
    pub disk_written_bytes: u64,
    /// CPU time of the whole environment that no counted process, extension or platform process accounts for. It is not part
    /// of the busy time.
    pub unaccounted_us: u64,
    /// The thread that runs the handler in most runtimes. `threads` is zero when it was not read or did not run.
    pub main: ClassWork,
    /// Threads of the application, and those of processes other than the main one.
    pub pool: ClassWork,
    /// Garbage collectors.
    pub collector: ClassWork,
    /// Just-in-time compilers.
    pub compiler: ClassWork,
    /// Other threads of the runtime.
    pub other: ClassWork,
    /// The part of the busy time that no read thread has: of threads and children that ended before they were read.
    pub unseen_busy_us: u64,
    /// Time in which at least one thread of the environment waited for a CPU, from the kernel's pressure information. Zero
    /// where the kernel does not show it for the environment.
    pub pressure_us: u64,
    /// Periods of the CPU quota in which the environment ran. Zero where no control group file shows them, as on Lambda.
    pub quota_periods: u64,
    /// Those of them in which it was throttled.
    pub throttled_periods: u64,
}

impl Work {
    /// CPU time, user and system, in microseconds.
    #[must_use]
    pub const fn busy_us(&self) -> u64 {
        self.user_us.saturating_add(self.system_us)
    }

    /// The work of the threads of `class`.
    #[must_use]
    pub const fn class(&self, class: ThreadClass) -> &ClassWork {
        match class {
            ThreadClass::Main => &self.main,
            ThreadClass::Pool => &self.pool,
            ThreadClass::Collector => &self.collector,
            ThreadClass::Compiler => &self.compiler,
            ThreadClass::Other => &self.other,
        }
    }

    /// The same, to change it.
    pub const fn class_mut(&mut self, class: ThreadClass) -> &mut ClassWork {
        match class {
            ThreadClass::Main => &mut self.main,
            ThreadClass::Pool => &mut self.pool,
            ThreadClass::Collector => &mut self.collector,
            ThreadClass::Compiler => &mut self.compiler,
            ThreadClass::Other => &mut self.other,
        }
    }

    /// Adds the counters of another invocation or of many.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.counters_mut().into_iter().zip(other.counters()) {
            *mine = mine.saturating_add(theirs);
        }
    }

    /// All counters in declaration order: the form to store and to send.
    #[must_use]
    pub fn counters(mut self) -> [u64; Self::COUNTERS] {
        self.counters_mut().map(|counter| *counter)
    }

    /// The inverse of [`Work::counters`]; missing trailing counters are zero.
    #[must_use]
    pub fn from_counters(values: impl IntoIterator<Item = u64>) -> Self {
        let mut work = Self::default();
        for (counter, value) in work.counters_mut().into_iter().zip(values) {
            *counter = value;
        }
        work
    }

    /// How many counters there are. New ones are appended, so that stored arrays stay readable.
    pub const COUNTERS: usize = 37;

    fn counters_mut(&mut self) -> [&mut u64; Self::COUNTERS] {
        [
            &mut self.user_us,
            &mut self.system_us,
            &mut self.starved_us,
            &mut self.idle_us,
            &mut self.top_busy_us,
            &mut self.top_starved_us,
            &mut self.effective_threads_milli,
            &mut self.voluntary_switches,
            &mut self.involuntary_switches,
            &mut self.timeslices,
            &mut self.minor_faults,
            &mut self.major_faults,
            &mut self.sockets_opened,
            &mut self.network_rx_bytes,
            &mut self.network_tx_bytes,
            &mut self.disk_read_bytes,
            &mut self.disk_written_bytes,
            &mut self.unaccounted_us,
            &mut self.main.busy_us,
            &mut self.main.starved_us,
            &mut self.main.threads,
            &mut self.pool.busy_us,
            &mut self.pool.starved_us,
            &mut self.pool.threads,
            &mut self.collector.busy_us,
            &mut self.collector.starved_us,
            &mut self.collector.threads,
            &mut self.compiler.busy_us,
            &mut self.compiler.starved_us,
            &mut self.compiler.threads,
            &mut self.other.busy_us,
            &mut self.other.starved_us,
            &mut self.other.threads,
            &mut self.unseen_busy_us,
            &mut self.pressure_us,
            &mut self.quota_periods,
            &mut self.throttled_periods,
        ]
    }
}

/// One request handled by one environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Invocation {
    /// The platform's id of it.
    pub request_id: RequestId,
    /// When it began, microseconds since the Unix epoch.
    pub started_at_us: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// How its environment was initialized, and whether it is a cold start.
    pub initialization: Initialization,
    /// What is known only in part.
    pub caveats: Caveats,
    /// `platform.report`'s `durationMs`: handler and extensions. An Init inside the invocation is part of it, any other
    /// is not.
    pub duration_us: u64,
    /// `platform.runtimeDone`'s `durationMs`: the handler alone. Zero when it never came.
    pub runtime_us: u64,
    /// `billedDurationMs`: init and billed restore are already inside.
    pub billed_ms: u64,
    /// Duration of the Init that belongs to this invocation; zero without one. See [`Initialization`].
    pub init_us: u64,
    /// `restoreDurationMs` after a SnapStart restore; zero otherwise.
    pub restore_us: u64,
    /// Bytes of the response.
    pub produced_bytes: u64,
    /// `maxMemoryUsedMB`: the whole environment's high-water mark, MB. Zero when it never came.
    pub max_memory_used_mb: u32,
    /// Highest resident memory of the function's processes within this invocation, KiB. Zero when unknown.
    pub peak_kib: u64,
    /// Resident memory of the function's processes as it began, KiB. Zero when unknown.
    pub start_kib: u64,
    /// Most threads seen at once.
    pub threads: u32,
    /// Most file descriptors seen at once.
    pub descriptors: u32,
    /// `/tmp` in use at the end, KiB.
    pub tmp_used_kib: u64,
    /// What its processes did; `None` when they could not be measured.
    pub work: Option<Work>,
}

impl Invocation {
    /// Whether its caller waited for an environment.
    #[must_use]
    pub const fn is_cold_start(&self) -> bool {
        self.initialization.is_cold_start()
    }

    /// Whether the platform reported the duration and that of the handler, so that the time between is known.
    #[must_use]
    pub const fn has_post_runtime_time(&self) -> bool {
        self.runtime_us > 0 && !self.caveats.report_missing && !self.caveats.estimated
    }

    /// Time after the runtime answered, microseconds: extensions use it. Zero when it is not known.
    #[must_use]
    pub const fn post_runtime_us(&self) -> u64 {
        if self.has_post_runtime_time() {
            self.duration_without_init_us().saturating_sub(self.runtime_us)
        } else {
            0
        }
    }

    /// `duration_us` without an Init inside the invocation.
    #[must_use]
    pub const fn duration_without_init_us(&self) -> u64 {
        match self.initialization {
            Initialization::InsideInvocation => self.duration_us.saturating_sub(self.init_us),
            _ => self.duration_us,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_id_round_trips_and_refuses_other_text() {
        let text = "11111111-2222-4333-8444-55555555555f";
        assert_eq!(RequestId::parse(text).unwrap().to_string(), text);
        for bad in
            ["", "1111", "11111111-2222-4333-8444-5555555555555", "zzzzzzzz-2222-4333-8444-555555555555"]
        {
            assert_eq!(RequestId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn counters_round_trip_and_add() {
        let work = Work::from_counters(1..=37);
        assert_eq!(work.counters(), std::array::from_fn::<u64, { Work::COUNTERS }, _>(|i| i as u64 + 1));
        let mut twice = work;
        twice.add(&work);
        assert_eq!(twice.disk_written_bytes, 34);
        assert_eq!(twice.busy_us(), 2 * (1 + 2));
    }
}
