//! The threads of one process: which there are, and how long each ran and waited.

use std::fs;

use super::files::{Allowance, View, read_once};
use super::parse;

/// Threads whose context switches are read each time. That file is dear (6 µs), and a function with more
/// busy threads than this is not understood by counting its switches.
const MAX_SWITCH_READS: usize = 4;

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
}

/// How often a thread gave up its CPU and was put off it, since it began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Switches {
    pub(super) voluntary: u64,
    pub(super) involuntary: u64,
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
}

#[derive(Debug)]
struct Thread {
    schedstat: View,
    last: ThreadReading,
    /// `timeslices` when the switches were read last.
    switches_at: u64,
}

impl Threads {
    /// The threads under `/proc/PID`, not listed yet.
    pub(super) fn of(pid: i32, allowance: &Allowance) -> Self {
        let allowance = allowance.clone();
        Self { pid, folder: format!("/proc/{pid}/task"), allowance, threads: vec![], count: 0 }
    }

    /// Lists the threads anew if some may have begun or ended since the last time.
    pub(super) fn refresh(&mut self, count: u64, may_have_begun: bool) {
        if !may_have_begun && count == self.count {
            return;
        }
        self.count = count;
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let mut tids: Vec<i32> =
            entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        tids.sort_unstable();
        self.threads.retain(|thread| tids.binary_search(&thread.last.tid).is_ok());
        for tid in tids {
            if let Err(place) = self.threads.binary_search_by_key(&tid, |thread| thread.last.tid) {
                let schedstat = View::of(self.path(tid, "schedstat"), &self.allowance);
                let last = ThreadReading { tid, ..ThreadReading::default() };
                self.threads.insert(place, Thread { schedstat, last, switches_at: 0 });
            }
        }
    }

    /// Reads run and wait times; those of threads that ended meanwhile stay as they were.
    pub(super) fn read_times(&mut self) -> impl Iterator<Item = ThreadReading> + '_ {
        self.threads.iter_mut().map(|thread| {
            if let Some([run_ns, wait_ns, timeslices]) = thread.schedstat.read(parse::schedstat) {
                thread.last = ThreadReading { run_ns, wait_ns, timeslices, ..thread.last };
            }
            thread.last
        })
    }

    /// Reads everything, context switches too, of the threads that were put on a CPU most often since the
    /// last time; a thread that was not cannot have switched. `first` are those of the process's first thread, when
    /// they are known already.
    pub(super) fn read(&mut self, first: Option<Switches>) -> Vec<ThreadReading> {
        self.read_times().for_each(drop);
        let mut ran: Vec<(u64, usize)> = self
            .threads
            .iter()
            .enumerate()
            .map(|(index, thread)| (thread.last.timeslices.saturating_sub(thread.switches_at), index))
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
        self.threads.iter().map(|thread| thread.last).collect()
    }

    fn path(&self, tid: i32, file: &str) -> String {
        format!("{}/{tid}/{file}", self.folder)
    }
}
