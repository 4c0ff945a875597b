//! The CPU time and the memory of the whole environment, to compare with what was counted of the function's processes.
//!
//! Only where `/proc` describes this environment alone: in Lambda's virtual machine, and where a container manager replaces
//! the files by those of the container.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use nix::time::ClockId;

use super::clock_ns;
use super::files::{DescriptorBudget, ReadableFile, read_once};
use super::parse::{self, TICK_NS};
use super::scan::{Namespace, Scanner};

/// The shortest interval between two comparisons of CPU time: the file is the most expensive one. What is found counts for
/// the invocation that ends then; nothing is lost.
const COMPARISON_INTERVAL: Duration = Duration::from_millis(500);

/// The kernel counts the CPU time of the whole environment at its ticks, and may be wrong by this much, nanoseconds.
const TOLERANCE_NS: u64 = 2 * TICK_NS;

/// And by one part in this many of it.
const TOLERANCE_PART: u64 = 20;

/// Compares the whole environment with what was counted.
#[derive(Debug)]
pub(super) struct EnvironmentCpu {
    is_own: bool,
    stat: ReadableFile,
    meminfo: ReadableFile,
    compared_at: Option<Instant>,
    balance: Balance,
    /// The last known CPU time of the platform and of the extensions that live, by process id, nanoseconds.
    others_ns: HashMap<i32, u64>,
    /// The same of those that ended.
    ended_others_ns: u64,
    /// Memory of the platform and the extensions that no file backs, KiB.
    others_kib: u64,
}

impl EnvironmentCpu {
    pub(super) fn new(namespace: Namespace, interfaces: &str, descriptor_budget: &DescriptorBudget) -> Self {
        Self {
            is_own: namespace == Namespace::Environment && describes_environment("/proc/stat", interfaces),
            stat: ReadableFile::of("/proc/stat".to_owned(), descriptor_budget),
            meminfo: ReadableFile::of("/proc/meminfo".to_owned(), descriptor_budget),
            compared_at: None,
            balance: Balance::default(),
            others_ns: HashMap::new(),
            ended_others_ns: 0,
            others_kib: 0,
        }
    }

    /// The function's processes used `counted_us` more. Returns the CPU time of the environment, microseconds, that nothing
    /// accounts for and that was not returned before.
    pub(super) fn unaccounted_us(&mut self, counted_us: u64, scanner: &Scanner) -> u64 {
        if !self.is_own {
            return 0;
        }
        self.balance.count(counted_us.saturating_mul(1_000));
        if self.compared_at.is_some_and(|at| at.elapsed() < COMPARISON_INTERVAL) {
            return 0;
        }
        self.compared_at = Some(Instant::now());
        let Some(whole_ns) = self.stat.read(parse::busy_ns) else { return 0 };
        let others_ns = self.read_others(scanner);
        self.balance.compare(whole_ns, others_ns) / 1_000
    }

    /// The memory in use that counts once for several processes, KiB: what no file backs, and what is mapped; without that
    /// of the platform and the extensions. `None` where it is unknown.
    pub(super) fn used_kib(&mut self) -> Option<u64> {
        if !self.is_own {
            return None;
        }
        let [anonymous, mapped] =
            self.meminfo.read(|text| Some(parse::values(text, ["AnonPages:", "Mapped:"])))?;
        Some(anonymous.saturating_add(mapped).saturating_sub(self.others_kib)).filter(|&kib| kib > 0)
    }

    /// The CPU time of the platform and of all extensions since they began, ended ones included, nanoseconds.
    fn read_others(&mut self, scanner: &Scanner) -> u64 {
        let mut others_ns = HashMap::new();
        let mut anonymous_kib = 0;
        let platform = scanner.platform_pid();
        let this = i32::try_from(std::process::id()).unwrap_or_default();
        for pid in scanner.extension_pids().chain([platform, this]) {
            let cpu_ns = |stat: parse::Stat| {
                // The platform's process waited for runtimes that ended; they were counted.
                let children = if pid == platform { 0 } else { stat.ended_children_ticks };
                stat.cpu_ns().saturating_add(children.saturating_mul(TICK_NS))
            };
            let read = || read_once(&format!("/proc/{pid}/stat"), |text| parse::stat(text).map(cpu_ns));
            // The id may belong to a new process; its CPU time is then lower, and the difference is lost.
            if let Some(cpu_ns) =
                if pid == this { clock_ns(ClockId::CLOCK_PROCESS_CPUTIME_ID) } else { read() }
            {
                others_ns.insert(pid, cpu_ns);
            }
            let anonymous = |text: &str| Some(parse::value(text, "RssAnon:"));
            anonymous_kib += read_once(&format!("/proc/{pid}/status"), anonymous).unwrap_or_default();
        }
        for (pid, cpu_ns) in &self.others_ns {
            if !others_ns.contains_key(pid) {
                self.ended_others_ns = self.ended_others_ns.saturating_add(*cpu_ns);
            }
        }
        self.others_ns = others_ns;
        self.others_kib = anonymous_kib;
        self.others_ns.values().sum::<u64>().saturating_add(self.ended_others_ns)
    }
}

/// The CPU time of a period: of the whole environment, and of what is known.
#[derive(Debug, Default)]
struct Balance {
    /// The CPU time of the whole environment and of the others at the start of the period; `None` before the first
    /// comparison.
    start: Option<(u64, u64)>,
    /// The function's CPU time in the period.
    counted_ns: u64,
}

impl Balance {
    /// The function used this much more.
    const fn count(&mut self, counted_ns: u64) {
        self.counted_ns = self.counted_ns.saturating_add(counted_ns);
    }

    /// Compares at this moment. Returns what nothing accounts for. A part that may be the resolution of the counter stays in
    /// the period, and counts when it grows.
    fn compare(&mut self, whole_now_ns: u64, others_now_ns: u64) -> u64 {
        let (start_ns, start_others_ns) = self.start.unwrap_or((whole_now_ns, others_now_ns));
        let whole_ns = whole_now_ns.saturating_sub(start_ns);
        let others_ns = others_now_ns.saturating_sub(start_others_ns);
        let rest_ns = whole_ns.saturating_sub(self.counted_ns).saturating_sub(others_ns);
        let is_small = rest_ns <= whole_ns / TOLERANCE_PART;
        if !is_small && rest_ns <= TOLERANCE_NS {
            return 0;
        }
        *self = Self { start: Some((whole_now_ns, others_now_ns)), counted_ns: 0 };
        if is_small { 0 } else { rest_ns }
    }
}

/// Whether the file at `path` in `/proc` describes this environment: it has Lambda's network interfaces, or another file
/// system is mounted on the file.
pub(super) fn describes_environment(path: &str, interfaces: &str) -> bool {
    let device = |path: &str| fs::metadata(path).map(|file| file.dev()).ok();
    let is_replaced = device(path).is_some() && device(path) != device("/proc/self");
    is_replaced || read_once("/proc/net/dev", |text| parse::interface_bytes(text, interfaces)).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// The sum of what each comparison returns, ms. `periods` has the CPU time of the whole environment, of the function and
    /// of the others in each, ms.
    fn unaccounted_ms(periods: &[[u64; 3]]) -> u64 {
        let (mut balance, mut whole_ns, mut others_ns, mut sum_ns) =
            (Balance::default(), 500 * MS, 70 * MS, 0);
        assert_eq!(
            balance.compare(whole_ns, others_ns),
            0,
            "the CPU time of Init is not part of an invocation"
        );
        for [whole_ms, counted_ms, others_ms] in periods {
            whole_ns += whole_ms * MS;
            others_ns += others_ms * MS;
            balance.count(counted_ms * MS);
            sum_ns += balance.compare(whole_ns, others_ns);
        }
        sum_ns / MS
    }

    #[test]
    fn what_nothing_accounts_for_is_returned_once() {
        assert_eq!(unaccounted_ms(&[[435, 375, 0]; 10]), 600);
        assert_eq!(unaccounted_ms(&[[435, 375, 60]; 10]), 0, "the others used it");
        assert_eq!(unaccounted_ms(&[[435, 420, 0]; 10]), 0, "a small part");
        assert_eq!(unaccounted_ms(&[[10, 1, 0]; 10]), 81, "small parts add up to more than the resolution");
        let late = [[400, 400, 0]; 100].into_iter().chain([[460, 400, 0]]).collect::<Vec<_>>();
        assert_eq!(unaccounted_ms(&late), 60, "however long the environment lived before");
    }
}
