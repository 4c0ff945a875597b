//! The threads of one process: their list, the class of each, and its run and wait times.
//!
//! In ordinary runtimes all threads are read. When there are many, threads are read only until they account for the CPU
//! time of the process, beginning with those that ran most recently. A thread that did not run has no new wait time,
//! because the kernel adds a wait when it ends.

use std::cmp::Reverse;
use std::fs;

use tailor_sizing::telemetry::invocation::ThreadClass;

use super::files::{DescriptorBudget, ReadBudget, ReadableFile, read_once};
use super::parse;
use super::thread_class::{self, MIN_CLASSIFIED_NS};

/// The most threads whose context switches are read each time. Reading that file takes 6 µs, and with more busy threads
/// the switches do not explain much.
const MAX_SWITCH_READS: usize = 4;

/// With more threads than this, not all are read. Ordinary runtimes have 10 to 20, large thread pools a hundred.
const MANY_THREADS: usize = 100;

/// The percentage of the process's CPU time at which no more threads are read.
const ACCOUNTED_PERCENT: u128 = 99;

/// The largest difference to the process's clock at which no more threads are read. The clock of the process is exact,
/// and the kernel updates that of a running thread less often.
const MAX_UNACCOUNTED_NS: u64 = 500_000;

/// A thread that ran in one of this many last readings or samples is read before others.
const RECENT_ROUNDS: u64 = 16;

/// How often in a row the list of many threads may be reused. Listing 500 threads takes as long as all other reads.
const MAX_LISTS_SKIPPED: u32 = 16;

/// One thread at one moment. Counters count from the start of the thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ThreadReading {
    /// Thread id.
    pub tid: i32,
    /// Nanoseconds on a CPU.
    pub run_ns: u64,
    /// Nanoseconds runnable without a CPU, throttled time included.
    pub wait_ns: u64,
    /// The number of time slices on a CPU.
    pub timeslices: u64,
    /// Voluntary context switches.
    pub voluntary_switches: u64,
    /// Involuntary context switches.
    pub involuntary_switches: u64,
    /// It was not read at the previous reading, so its times since then are unknown.
    pub has_no_baseline: bool,
    /// `None` until it has used enough CPU time to be classified.
    pub class: Option<ThreadClass>,
}

/// The context switches of a thread since it began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Switches {
    pub(super) voluntary: u64,
    pub(super) involuntary: u64,
}

/// How many threads to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadScope {
    /// All threads, unless there are many.
    Full,
    /// Only enough to account for the CPU time.
    Accounted,
}

/// Reads the threads of one process.
#[derive(Debug)]
pub(super) struct Threads {
    pid: i32,
    folder: String,
    descriptor_budget: DescriptorBudget,
    threads: Vec<Thread>,
    /// The number of threads in the process's `stat` when the list was made.
    count: u64,
    lists_skipped: u32,
    /// Counts readings and samples.
    round: u64,
    /// The value of `round` at the last reading.
    reading_at: u64,
    /// The indices of the threads read in the last reading or sample.
    read: Vec<usize>,
}

#[derive(Debug)]
struct Thread {
    schedstat: ReadableFile,
    last: ThreadReading,
    /// Its run time at the reading with number `base_at`; zero if it began since.
    base_ns: u64,
    base_at: u64,
    /// The value of `round` when it was read last, and when it had run.
    read_at: u64,
    ran_at: u64,
    /// `timeslices` when the switches were read last.
    switches_at: u64,
}

impl Threads {
    /// The threads of process `pid`, not listed yet.
    pub(super) fn of(pid: i32, descriptor_budget: &DescriptorBudget) -> Self {
        let (folder, descriptor_budget) = (format!("/proc/{pid}/task"), descriptor_budget.clone());
        let (threads, read) = (vec![], vec![]);
        Self {
            pid,
            folder,
            descriptor_budget,
            threads,
            count: 0,
            lists_skipped: 0,
            round: 0,
            reading_at: 0,
            read,
        }
    }

    /// Lists the threads again if one may have begun or ended. A list of many threads is reused unless `may_list_many`, or
    /// when it was reused too often.
    pub(super) fn refresh(&mut self, count: u64, may_be_new: bool, may_list_many: bool) {
        if self.lists_skipped == 0 && !may_be_new && count == self.count {
            return;
        }
        let are_many = self.threads.len() > MANY_THREADS;
        if are_many && !may_list_many && self.lists_skipped < MAX_LISTS_SKIPPED {
            self.lists_skipped += 1;
            return;
        }
        let was_skipped = std::mem::take(&mut self.lists_skipped) > 0;
        self.count = count;
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let mut tids: Vec<i32> =
            entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        tids.sort_unstable();
        self.threads.retain(|thread| tids.binary_search(&thread.last.tid).is_ok());
        // Both are in ascending order, so one pass merges them.
        let known = std::mem::take(&mut self.threads);
        let mut known = known.into_iter().peekable();
        self.threads = tids
            .into_iter()
            .map(|tid| {
                known.next_if(|thread| thread.last.tid == tid).unwrap_or_else(|| self.begun(tid, was_skipped))
            })
            .collect();
    }

    fn begun(&self, tid: i32, was_skipped: bool) -> Thread {
        Thread {
            schedstat: ReadableFile::of(self.path(tid, "schedstat"), &self.descriptor_budget),
            last: ThreadReading { tid, ..ThreadReading::default() },
            base_ns: 0,
            // A thread that may have begun before the last reading has no baseline.
            base_at: if was_skipped { u64::MAX } else { self.reading_at },
            read_at: 0,
            ran_at: 0,
            switches_at: 0,
        }
    }

    /// Reads run and wait times; those of threads that ended stay. The process ran for `ran_ns` since its last reading, if
    /// that is known.
    pub(super) fn read_times(&mut self, ran_ns: Option<u64>, scope: ReadScope, budget: &mut ReadBudget) {
        self.round += 1;
        self.read.clear();
        if scope == ReadScope::Full && self.threads.len() <= MANY_THREADS {
            for index in 0..self.threads.len() {
                if self.threads[index].schedstat.is_open()
                    || self.descriptor_budget.left() > 0
                    || budget.take()
                {
                    self.read_one(index, budget);
                }
            }
            return;
        }
        let is_enough = |seen_ns: u64| {
            ran_ns.is_some_and(|ran_ns| u128::from(seen_ns) * 100 >= u128::from(ran_ns) * ACCOUNTED_PERCENT)
        };
        if is_enough(0) {
            return;
        }
        // First the threads that ran recently, then those that were not read for the longest time.
        let recent = self.round.saturating_sub(RECENT_ROUNDS);
        let (mut first, mut others): (Vec<usize>, Vec<usize>) =
            (0..self.threads.len()).partition(|&index| self.threads[index].ran_at > recent);
        first.sort_unstable_by_key(|&index| Reverse(self.threads[index].ran_at));
        let seen_ns = self.read_some(&first, 0, is_enough, budget);
        if !first.is_empty()
            && ran_ns.is_some_and(|ran_ns| ran_ns.saturating_sub(seen_ns) <= MAX_UNACCOUNTED_NS)
        {
            return;
        }
        others.sort_unstable_by_key(|&index| {
            let thread = &self.threads[index];
            (thread.read_at, Reverse(thread.ran_at), thread.last.tid)
        });
        self.read_some(&others, seen_ns, is_enough, budget);
        let to_keep_open = |&&index: &&usize| {
            let thread = &self.threads[index];
            !thread.schedstat.is_open() && thread.ran_at == self.round
        };
        self.evict(self.read.iter().filter(to_keep_open).count());
    }

    /// Reads these in order until it `is_enough` or the budget is used. Returns the CPU time that they account for.
    fn read_some(
        &mut self,
        places: &[usize],
        mut seen_ns: u64,
        is_enough: impl Fn(u64) -> bool,
        budget: &mut ReadBudget,
    ) -> u64 {
        for &index in places {
            if is_enough(seen_ns) {
                break;
            }
            if self.threads[index].schedstat.is_open() || budget.take() {
                seen_ns += self.read_one(index, budget);
            }
        }
        seen_ns
    }

    /// Reads one. Returns its CPU time since the last reading; zero when unknown.
    fn read_one(&mut self, index: usize, budget: &mut ReadBudget) -> u64 {
        let Some(thread) = self.threads.get_mut(index) else { return 0 };
        let has_base = thread.base_at == self.reading_at;
        thread.read(self.round, has_base);
        self.read.push(index);
        let (last, ran_ns) =
            (thread.last, if has_base { thread.last.run_ns.saturating_sub(thread.base_ns) } else { 0 });
        if last.class.is_none() && last.run_ns >= MIN_CLASSIFIED_NS {
            let class = self.classify(last.tid, index, budget);
            if let Some(thread) = self.threads.get_mut(index) {
                thread.last.class = class;
            }
        }
        ran_ns
    }

    /// The class of a thread from its name, which is read once. `None` when the budget is used.
    fn classify(&self, tid: i32, index: usize, budget: &mut ReadBudget) -> Option<ThreadClass> {
        if tid == self.pid {
            return Some(ThreadClass::Main);
        }
        if !budget.take() {
            return None;
        }
        read_once(&self.path(tid, "comm"), |name| Some(thread_class::of(name.trim_end(), index)))
    }

    /// Closes the files of `count` threads that have not run for the longest time.
    fn evict(&mut self, count: usize) {
        for _ in 0..count {
            let open = self.threads.iter_mut().filter(|thread| thread.schedstat.is_open());
            match open.min_by_key(|thread| thread.ran_at).filter(|thread| thread.ran_at < self.round) {
                Some(thread) => thread.schedstat.release(),
                None => return,
            }
        }
    }

    /// The threads of the last reading or sample.
    pub(super) fn seen(&self) -> impl Iterator<Item = ThreadReading> + '_ {
        self.read.iter().filter_map(|&index| self.threads.get(index)).map(|thread| {
            let has_no_baseline = thread.base_at != self.reading_at;
            ThreadReading { has_no_baseline, ..thread.last }
        })
    }

    /// The same for a reading, which is the baseline of the next one; by ascending id.
    pub(super) fn readings(&mut self) -> Vec<ThreadReading> {
        self.read.sort_unstable();
        let readings = self.seen().collect();
        self.reading_at = self.round;
        for &index in &self.read {
            if let Some(thread) = self.threads.get_mut(index) {
                (thread.base_ns, thread.base_at) = (thread.last.run_ns, self.round);
            }
        }
        readings
    }

    /// The number of threads.
    pub(super) const fn count(&self) -> usize {
        self.threads.len()
    }

    /// Closes the files, because the process does not run.
    pub(super) fn release(&mut self) {
        self.threads.iter_mut().for_each(|thread| thread.schedstat.release());
    }

    /// Reads the context switches of the threads with the most time slices since the last time. A thread without a time
    /// slice has no switch. `first` are those of the process's first thread, when they are known.
    pub(super) fn read_switches(&mut self, first: Option<Switches>) {
        let slices = |thread: &Thread| thread.last.timeslices.saturating_sub(thread.switches_at);
        let mut ran: Vec<(u64, usize)> = self
            .read
            .iter()
            .filter_map(|&index| Some((slices(self.threads.get(index)?), index)))
            .filter(|&(slices, _)| slices > 0)
            .collect();
        ran.sort_unstable_by(|a, b| b.cmp(a));
        for &(_, index) in ran.iter().take(MAX_SWITCH_READS) {
            let tid = self.threads[index].last.tid;
            let switches = match first {
                Some(first) if tid == self.pid => Some(first),
                _ => read_once(&self.path(tid, "status"), |status| {
                    let keys = ["voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"];
                    let [voluntary, involuntary] = parse::values(status, keys);
                    Some(Switches { voluntary, involuntary })
                }),
            };
            if let (Some(switches), Some(thread)) = (switches, self.threads.get_mut(index)) {
                thread.last.voluntary_switches = switches.voluntary;
                thread.last.involuntary_switches = switches.involuntary;
                thread.switches_at = thread.last.timeslices;
            }
        }
    }

    fn path(&self, tid: i32, file: &str) -> String {
        format!("{}/{tid}/{file}", self.folder)
    }
}

impl Thread {
    fn read(&mut self, round: u64, has_base: bool) {
        // At the first reading of an older thread, the time when it ran is unknown.
        let is_known = self.read_at > 0 || has_base;
        self.read_at = round;
        if let Some([run_ns, wait_ns, timeslices]) = self.schedstat.read(parse::schedstat) {
            if is_known && run_ns > self.last.run_ns {
                self.ran_at = round;
            }
            // A counter of the kernel does not decrease. If one does, the id belongs to a new thread now.
            let class = if run_ns < self.last.run_ns { None } else { self.last.class };
            let run_ns = run_ns.max(self.last.run_ns);
            self.last = ThreadReading { run_ns, wait_ns, timeslices, class, ..self.last };
        }
    }
}
