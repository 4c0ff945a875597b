//! The threads of one process: which there are, and how long each ran and waited.
//!
//! All are read where they are few, as in ordinary runtimes. Of many only so many are read that they account for the
//! CPU time of the process, those first that ran last: a thread that did not run cannot have waited either, because
//! the kernel books a wait when it ends.

use std::cmp::Reverse;
use std::fs;

use super::files::{Allowance, View, read_once};
use super::parse;

/// Threads whose context switches are read each time. That file is dear (6 µs), and a function with more
/// busy threads than this is not understood by counting its switches.
const MAX_SWITCH_READS: usize = 4;

/// A process with more threads has many. Ordinary runtimes have a dozen or two, large thread pools a hundred.
const MANY: usize = 100;

/// The part of the process's CPU time, in hundredths, that accounts for all of it.
const ACCOUNTED_PERCENT: u128 = 99;

/// A difference this small is no reason to look for more threads: the kernel books to a running thread only now and
/// then what its process's clock shows at once.
const NOT_BOOKED_NS: u64 = 500_000;

/// A thread that ran in so many of the last looks is read before others.
const LATELY: u64 = 16;

/// How often in a row the list of many threads is left as it is; listing 500 takes as long as all other reading.
const MAX_LISTS_PUT_OFF: u32 = 16;

/// One thread at one moment. Counters run since the thread began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ThreadReading {
    /// Thread id.
    pub tid: i32,
    /// Nanoseconds on a CPU.
    pub run_ns: u64,
    /// Nanoseconds runnable without one, throttled time included.
    pub wait_ns: u64,
    /// Times it was put on a CPU.
    pub timeslices: u64,
    /// Context switches it asked for.
    pub voluntary_switches: u64,
    /// Context switches forced on it.
    pub involuntary_switches: u64,
    /// It was not read at the reading before: what it did since then is not known.
    pub is_baseless: bool,
}

/// How often a thread gave up its CPU and was put off it, since it began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Switches {
    pub(super) voluntary: u64,
    pub(super) involuntary: u64,
}

/// How much is worth knowing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Every thread, unless there are many.
    Full,
    /// No more than accounts for the CPU time.
    Accounted,
}

/// An open view of a process's threads.
#[derive(Debug)]
pub(super) struct Threads {
    pid: i32,
    folder: String,
    allowance: Allowance,
    threads: Vec<Thread>,
    /// As the process's `stat` told when the list was made.
    count: u64,
    lists_put_off: u32,
    /// Counts the looks at the threads; the last of them that was a reading.
    look: u64,
    reading_at: u64,
    /// The places of those read at the last look.
    read: Vec<usize>,
}

#[derive(Debug)]
struct Thread {
    schedstat: View,
    last: ThreadReading,
    /// Its run time at the reading that was look number `base_at`; zero if it began since.
    base_ns: u64,
    base_at: u64,
    /// The looks at which it was read last, and at which it was seen to have run.
    read_at: u64,
    ran_at: u64,
    /// `timeslices` when the switches were read last.
    switches_at: u64,
}

impl Threads {
    /// The threads under `/proc/PID`, not listed yet.
    pub(super) fn of(pid: i32, allowance: &Allowance) -> Self {
        let (folder, allowance) = (format!("/proc/{pid}/task"), allowance.clone());
        let (threads, read) = (vec![], vec![]);
        Self { pid, folder, allowance, threads, count: 0, lists_put_off: 0, look: 0, reading_at: 0, read }
    }

    /// Lists the threads anew if some may have begun or ended since the last time; many, only `at_leisure` or when
    /// that was put off too often.
    pub(super) fn refresh(&mut self, count: u64, may_have_begun: bool, at_leisure: bool) {
        if self.lists_put_off == 0 && !may_have_begun && count == self.count {
            return;
        }
        let are_many = self.threads.len() > MANY;
        if are_many && !at_leisure && self.lists_put_off < MAX_LISTS_PUT_OFF {
            self.lists_put_off += 1;
            return;
        }
        let listed_late = std::mem::take(&mut self.lists_put_off) > 0;
        self.count = count;
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let mut tids: Vec<i32> =
            entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        tids.sort_unstable();
        self.threads.retain(|thread| tids.binary_search(&thread.last.tid).is_ok());
        // Both rise; the new ones go to where they belong in one pass.
        let known = std::mem::take(&mut self.threads);
        let mut known = known.into_iter().peekable();
        self.threads = tids
            .into_iter()
            .map(|tid| {
                known.next_if(|thread| thread.last.tid == tid).unwrap_or_else(|| self.begun(tid, listed_late))
            })
            .collect();
    }

    fn begun(&self, tid: i32, listed_late: bool) -> Thread {
        Thread {
            schedstat: View::of(self.path(tid, "schedstat"), &self.allowance),
            last: ThreadReading { tid, ..ThreadReading::default() },
            base_ns: 0,
            // One that may have begun before the last reading has no base.
            base_at: if listed_late { u64::MAX } else { self.reading_at },
            read_at: 0,
            ran_at: 0,
            switches_at: 0,
        }
    }

    /// Reads run and wait times; those of threads that ended meanwhile stay as they were. The process ran for `ran_ns`
    /// since it was read last, if that is known; `dear` is how many files that are not held may be read, over all.
    pub(super) fn read_times(&mut self, ran_ns: Option<u64>, depth: Depth, dear: &mut usize) {
        self.look += 1;
        self.read.clear();
        if depth == Depth::Full && self.threads.len() <= MANY {
            for index in 0..self.threads.len() {
                if self.threads[index].schedstat.is_held() || self.allowance.left() > 0 || take_one(dear) {
                    self.read_one(index);
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
        // Those that ran last; of others, those not read for longest.
        let lately = self.look.saturating_sub(LATELY);
        let (mut first, mut others): (Vec<usize>, Vec<usize>) =
            (0..self.threads.len()).partition(|&index| self.threads[index].ran_at > lately);
        first.sort_unstable_by_key(|&index| Reverse(self.threads[index].ran_at));
        let seen_ns = self.read_some(&first, 0, is_enough, dear);
        if !first.is_empty() && ran_ns.is_some_and(|ran_ns| ran_ns.saturating_sub(seen_ns) <= NOT_BOOKED_NS) {
            return;
        }
        others.sort_unstable_by_key(|&index| {
            let thread = &self.threads[index];
            (thread.read_at, Reverse(thread.ran_at), thread.last.tid)
        });
        self.read_some(&others, seen_ns, is_enough, dear);
        let wanting = |&&index: &&usize| {
            let thread = &self.threads[index];
            !thread.schedstat.is_held() && thread.ran_at == self.look
        };
        self.make_room(self.read.iter().filter(wanting).count());
    }

    /// Reads these in order until it `is_enough`, as far as they are cheap or `dear` lasts; tells how much was seen.
    fn read_some(
        &mut self,
        places: &[usize],
        mut seen_ns: u64,
        is_enough: impl Fn(u64) -> bool,
        dear: &mut usize,
    ) -> u64 {
        for &index in places {
            if is_enough(seen_ns) {
                break;
            }
            if self.threads[index].schedstat.is_held() || take_one(dear) {
                seen_ns += self.read_one(index);
            }
        }
        seen_ns
    }

    /// Reads one, and tells what it ran since the last reading as far as that is known.
    fn read_one(&mut self, index: usize) -> u64 {
        let Some(thread) = self.threads.get_mut(index) else { return 0 };
        let has_base = thread.base_at == self.reading_at;
        thread.read(self.look, has_base);
        self.read.push(index);
        if has_base { thread.last.run_ns - thread.base_ns } else { 0 }
    }

    /// Releases the files of so many threads that have not run for longest, for others that do.
    fn make_room(&mut self, wanted: usize) {
        for _ in 0..wanted {
            let held = self.threads.iter_mut().filter(|thread| thread.schedstat.is_held());
            match held.min_by_key(|thread| thread.ran_at).filter(|thread| thread.ran_at < self.look) {
                Some(thread) => thread.schedstat.release(),
                None => return,
            }
        }
    }

    /// Those that were read at the last look, by rising id.
    pub(super) fn seen(&self) -> impl Iterator<Item = ThreadReading> + '_ {
        self.read.iter().filter_map(|&index| self.threads.get(index)).map(|thread| {
            let is_baseless = thread.base_at != self.reading_at;
            ThreadReading { is_baseless, ..thread.last }
        })
    }

    /// The same for a reading, which is where the next begins.
    pub(super) fn readings(&mut self) -> Vec<ThreadReading> {
        self.read.sort_unstable();
        let readings = self.seen().collect();
        self.reading_at = self.look;
        for &index in &self.read {
            if let Some(thread) = self.threads.get_mut(index) {
                (thread.base_ns, thread.base_at) = (thread.last.run_ns, self.look);
            }
        }
        readings
    }

    /// How many there are.
    pub(super) const fn count(&self) -> usize {
        self.threads.len()
    }

    /// Lets others hold files: the process does not run.
    pub(super) fn release(&mut self) {
        self.threads.iter_mut().for_each(|thread| thread.schedstat.release());
    }

    /// Reads context switches, too, of the threads that were put on a CPU most often since the
    /// last time; a thread that was not cannot have switched. `first` are those of the process's first thread, when
    /// they are known already.
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
    fn read(&mut self, look: u64, has_base: bool) {
        // Of one that is read for the first time long after it began, nobody knows when it ran.
        let is_known = self.read_at > 0 || has_base;
        self.read_at = look;
        if let Some([run_ns, wait_ns, timeslices]) = self.schedstat.read(parse::schedstat) {
            if is_known && run_ns > self.last.run_ns {
                self.ran_at = look;
            }
            // A counter of the kernel's does not fall; whatever shows one that does is not worth a panic.
            let run_ns = run_ns.max(self.last.run_ns);
            self.last = ThreadReading { run_ns, wait_ns, timeslices, ..self.last };
        }
    }
}

fn take_one(dear: &mut usize) -> bool {
    let left = dear.checked_sub(1);
    *dear = left.unwrap_or_default();
    left.is_some()
}
