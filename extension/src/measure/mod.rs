//! Measuring the function's processes from outside, through `/proc` and their CPU clocks.
//!
//! Between freeze and thaw the counters stand still, so one reading at the next INVOKE closes one
//! invocation and opens the next, exactly, and no handler ever waits for it.

pub mod cpu_budget;
mod delta;
mod environment_counters;
mod files;
mod parse;
mod probe;
mod read_selection;
mod scan;
mod threads;
pub mod ticker;

use std::collections::HashMap;
use std::rc::Rc;

use nix::time::{ClockId, clock_gettime};

pub use delta::{Measured, between};
pub use environment_counters::EnvironmentCounters;
pub use probe::Reading;
pub use threads::ThreadReading;

use environment_counters::EnvironmentReader;
use files::{Allowance, View};
use probe::Probe;
use read_selection::{Candidate, choose};
use scan::Scanner;

use crate::settings::Peak;

/// Files that are held open at most, over all processes: enough for a runtime of a hundred threads, and an
/// eighth of the 1,024 that Lambda gives the function and its extensions together.
const MAX_HELD: usize = 128;

/// Files of threads that are opened in one look at most, where threads are many or no more can be held: each costs ten
/// times a held one.
const MAX_DEAR: usize = 16;

/// Processes that are read at most: as many as Lambda lets an environment have.
const MAX_PROCESSES: usize = 1_024;

/// Processes that are first met in one look at most: each costs as much as several known ones. Others wait for the
/// next.
const MAX_MET: usize = 8;

/// Threads that ticks remember for one invocation at most. More than Lambda lets live at once; a function that
/// starts and ends more than these in one invocation is one whose waits are inferred.
const MAX_TICKED: usize = 4_096;

/// The function's processes: every descendant of the platform's process that is not an extension.
#[derive(Debug)]
pub struct Processes {
    scanner: Scanner,
    probes: Vec<Probe>,
    peak: Peak,
    /// Threads as the ticks of this invocation last saw them, by process and thread id. Those that end take
    /// their counters with them, and this is what is left.
    ticked: HashMap<(i32, i32), ThreadReading>,
    /// Something was looked at in this invocation, and the most that processes begun in it held at any look, KiB.
    looked: bool,
    newcomers_peak_kib: u64,
    watch: EnvironmentReader,
    loadavg: View,
    allowance: Allowance,
    /// The id that was given last when we looked last. Unchanged, no process and no thread has begun since.
    last_id: Option<u64>,
    /// When the last reading was, in the clock ticks in which the beginnings of processes are told.
    read_at_ticks: Option<u64>,
    /// Something to measure was found once.
    found_any: bool,
    /// More was found than is met in one look.
    are_unmet: bool,
}

/// All of the function's processes at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// One reading per live process, by rising identity.
    pub processes: Vec<Rc<Reading>>,
    /// Whether the peaks in this snapshot go back to a reset at the start of the invocation only.
    pub peaks_reset: bool,
    /// The most that processes begun in the invocation were seen to hold at once before some of them ended, KiB.
    pub newcomers_peak_kib: u64,
    /// There are processes of which nothing is known yet.
    pub are_unmet: bool,
    /// What is counted for the environment as a whole.
    pub machine: EnvironmentCounters,
}

impl Processes {
    /// Nothing is read before the first [`Processes::read`].
    #[must_use]
    pub fn new(peak: Peak) -> Self {
        Self::with(Scanner::of_this_process(), peak)
    }

    /// The descendants of this very process instead: what a benchmark can start itself.
    #[must_use]
    pub fn of_children(peak: Peak) -> Self {
        Self::with(Scanner::of_children(), peak)
    }

    fn with(scanner: Scanner, peak: Peak) -> Self {
        let allowance = Allowance::of(MAX_HELD);
        Self {
            scanner,
            probes: vec![],
            peak,
            ticked: HashMap::new(),
            looked: false,
            newcomers_peak_kib: 0,
            watch: EnvironmentReader::new(&allowance),
            loadavg: View::of("/proc/loadavg".to_owned(), &allowance),
            allowance,
            last_id: None,
            read_at_ticks: None,
            found_any: false,
            are_unmet: false,
        }
    }

    /// Reads every process, new ones included. Processes that ended are dropped.
    ///
    /// The CPU clocks of known processes are read before anything else: the thawed handler is running
    /// already, and each microsecond later is a microsecond of the next invocation counted to the last. They also
    /// say which processes ran at all: of the others nothing else needs reading. When more ran than is cheap to read,
    /// the rest are passed over.
    pub fn read(&mut self) -> Snapshot {
        let clocks: Vec<_> = self.probes.iter().map(Probe::cpu_ns).collect();
        let may_have_begun = self.something_began();
        let mut chosen = self.choose_since(&clocks, Probe::ran_since_read).into_iter().peekable();
        let mut processes = Vec::with_capacity(self.probes.len());
        let mut peaks_reset = self.peak == Peak::Reset;
        let (mut dear, mut wanted) = (MAX_DEAR, false);
        let mut clocks = clocks.into_iter().enumerate();
        let ticked = &self.ticked;
        self.probes.retain_mut(|probe| {
            let Some((index, cpu_ns)) = clocks.next() else { return true };
            let was_reset = probe.peak_was_reset() || probe.is_new;
            let ran = probe.ran_since_read(cpu_ns).is_some();
            let reading = if probe.is_gone(cpu_ns) {
                None
            } else if chosen.next_if_eq(&index).is_some() {
                let reading = probe.read(cpu_ns, may_have_begun, &mut dear);
                wanted |= !probe.is_held();
                reading.map(|mut reading| {
                    add_ended_threads(&mut reading, ticked);
                    probe.keep(reading)
                })
            } else if ran {
                probe.pass_over(cpu_ns, may_have_begun)
            } else {
                probe.repeat()
            };
            peaks_reset &= was_reset && !reading.as_ref().is_some_and(|reading| reading.passed_over);
            (probe.is_new, probe.glance, probe.rests) = (false, None, !ran);
            let alive = reading.is_some();
            processes.extend(reading);
            alive
        });
        if may_have_begun {
            self.meet_new(&mut processes, &mut dear);
        }
        if processes.is_empty() && !self.found_any && self.scanner.ask_for_no_signs() {
            tracing::warn!(
                "no process has the variables of a Lambda runtime: all that are no extensions are measured"
            );
            self.meet_new(&mut processes, &mut dear);
        }
        self.found_any |= !processes.is_empty();
        if wanted {
            self.probes.iter_mut().filter(|probe| probe.rests).for_each(Probe::release);
        }
        processes.sort_unstable_by_key(|process| process.identity);
        self.ticked.clear();
        self.looked = false;
        self.read_at_ticks = now_ticks();
        let newcomers_peak_kib = std::mem::take(&mut self.newcomers_peak_kib);
        let (are_unmet, machine) = (self.are_unmet, self.watch.read());
        Snapshot { processes, peaks_reset, newcomers_peak_kib, are_unmet, machine }
    }

    /// Reads those that were not known before.
    fn meet_new(&mut self, processes: &mut Vec<Rc<Reading>>, dear: &mut usize) {
        for mut probe in self.find_new() {
            // Found only now: all of its life lies in this invocation, or before the first.
            probe.is_new = false;
            if let Some(reading) = probe.read(probe.cpu_ns(), true, dear) {
                processes.push(probe.keep(reading));
                self.probes.push(probe);
            }
        }
    }

    /// What the last look saw, as far as it looked: for an invocation whose processes are gone.
    #[must_use]
    pub fn last_look(&self) -> Snapshot {
        if !self.looked {
            return Snapshot::default();
        }
        let reading = |probe: &Probe| {
            let glance = probe.glance.or_else(|| probe.glance_at_rest())?;
            let (cpu_ns, peak_kib) = (glance.cpu_ns, glance.peak_kib);
            let mut reading = Reading { identity: probe.identity(), cpu_ns, peak_kib, ..Reading::default() };
            add_ended_threads(&mut reading, &self.ticked);
            reading.live_threads = reading.threads.len();
            Some(Rc::new(reading))
        };
        let mut processes: Vec<_> = self.probes.iter().filter_map(reading).collect();
        processes.sort_unstable_by_key(|process| process.identity);
        Snapshot { processes, ..Snapshot::default() }
    }

    /// Looks inside in the middle of an invocation, so that what ends before it does is not lost without a trace:
    /// threads, memory, and the invocation itself. Tells whether any process lives that could be looked at.
    pub fn tick(&mut self) -> bool {
        let may_have_begun = self.something_began();
        if may_have_begun {
            let new = self.find_new();
            self.probes.extend(new);
        }
        self.look(|probe, cpu_ns, dear| probe.tick(cpu_ns, may_have_begun, dear), may_have_begun)
    }

    /// The same as cheaply as can be: clocks, and of what ran memory and the threads that account for it.
    pub fn look_back(&mut self) -> bool {
        self.look(Probe::look_back, false)
    }

    fn look(
        &mut self,
        mut look_at: impl FnMut(&mut Probe, Option<u64>, &mut usize),
        may_have_begun: bool,
    ) -> bool {
        let clocks: Vec<_> = self.probes.iter().map(Probe::cpu_ns).collect();
        let mut chosen = self.choose_since(&clocks, Probe::ran_since_look).into_iter().peekable();
        let (mut dear, mut newcomers_kib, mut any_lives) = (MAX_DEAR, 0, false);
        for (index, (probe, cpu_ns)) in self.probes.iter_mut().zip(clocks).enumerate() {
            let is_chosen = chosen.next_if_eq(&index).is_some();
            if probe.is_gone(cpu_ns) {
                // What was seen of it stands.
                continue;
            }
            any_lives = true;
            if is_chosen {
                look_at(probe, cpu_ns, &mut dear);
                for thread in probe.threads().filter(|thread| !thread.is_baseless) {
                    let key = (probe.pid(), thread.tid);
                    if self.ticked.len() < MAX_TICKED || self.ticked.contains_key(&key) {
                        self.ticked.insert(key, thread);
                    }
                }
            } else {
                probe.glance_over(cpu_ns, may_have_begun);
            }
            newcomers_kib += probe.glance.filter(|_| probe.is_new).map_or(0, |glance| glance.peak_kib);
        }
        self.looked |= any_lives;
        self.newcomers_peak_kib = self.newcomers_peak_kib.max(newcomers_kib);
        any_lives
    }

    /// The indices of the processes to read, when their clocks say `clocks` and `ran` tells what that means.
    fn choose_since(
        &self,
        clocks: &[Option<u64>],
        ran: impl Fn(&Probe, Option<u64>) -> Option<u64>,
    ) -> Vec<usize> {
        let all = || self.probes.iter().zip(clocks);
        let gone: Vec<&Probe> =
            all().filter(|(probe, clock)| probe.is_gone(**clock)).map(|(probe, _)| probe).collect();
        // Who waited for one that is gone is told of it, and whom it left behind has another parent now.
        let inherits = |probe: &Probe| {
            gone.iter().any(|gone| gone.parent() == Some(probe.pid()) || probe.parent() == Some(gone.pid()))
        };
        let candidate = |(index, (probe, &clock)): (usize, (&Probe, &Option<u64>))| {
            let (ran_ns, is_heir) = (ran(probe, clock), inherits(probe));
            let is_due = !probe.is_gone(clock) && (ran_ns.is_some() || is_heir);
            is_due.then(|| Candidate {
                index,
                is_heir,
                ran_ns: ran_ns.unwrap_or_default(),
                is_held: probe.is_held(),
            })
        };
        choose(all().enumerate().filter_map(candidate).collect())
    }

    /// Whether any process or thread may have begun since this was asked last: one read that saves a scan.
    fn something_began(&mut self) -> bool {
        let last_id = self.loadavg.read(parse::last_id);
        last_id.is_none() || std::mem::replace(&mut self.last_id, last_id) != last_id
    }

    fn find_new(&mut self) -> Vec<Probe> {
        let mut known: Vec<i32> = self.probes.iter().map(Probe::pid).collect();
        known.sort_unstable();
        let room = MAX_PROCESSES.saturating_sub(known.len()).min(MAX_MET);
        let (new, are_more) = self.scanner.new_pids(&known, room);
        self.are_unmet = are_more;
        if are_more && room > 0 {
            self.last_id = None;
        }
        new.into_iter().filter_map(|pid| Probe::open(pid, self.read_at_ticks, &self.allowance)).collect()
    }

    /// Starts a new peak for every process that was read, where that is wanted and permitted.
    pub fn reset_peaks(&mut self) {
        if self.peak == Peak::Reset {
            self.probes.iter_mut().for_each(Probe::reset_peak);
        }
    }
}

/// The time since the machine started, in the clock ticks of `/proc`.
fn now_ticks() -> Option<u64> {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?;
    let nanoseconds = i128::from(now.tv_sec()) * 1_000_000_000 + i128::from(now.tv_nsec());
    u64::try_from(nanoseconds / i128::from(parse::TICK_NS)).ok()
}

/// Adds the threads that ticks saw and that were not read since: most are gone.
fn add_ended_threads(reading: &mut Reading, ticked: &HashMap<(i32, i32), ThreadReading>) {
    let live = reading.threads.len();
    if ticked.is_empty() {
        return;
    }
    for (&(pid, tid), &thread) in ticked {
        let is_live = reading.threads[..live].binary_search_by_key(&tid, |thread| thread.tid).is_ok();
        if pid == reading.identity.0 && !is_live {
            reading.threads.push(thread);
        }
    }
    reading.threads.sort_unstable_by_key(|thread| thread.tid);
}

/// Our own resident memory, KiB. Not `getrusage`'s maximum: that is inherited from whoever started us.
#[must_use]
pub fn own_resident_kib() -> u64 {
    parse::value(&std::fs::read_to_string("/proc/self/status").unwrap_or_default(), "VmRSS:")
}

impl Snapshot {
    /// The reading of one process.
    fn named(&self, identity: (i32, u64)) -> Option<&Reading> {
        let place = self.processes.binary_search_by_key(&identity, |process| process.identity).ok()?;
        Some(&*self.processes[place])
    }

    /// Resident memory of all processes, KiB. Pages they share count once for each.
    #[must_use]
    pub fn resident_kib(&self) -> u64 {
        self.processes.iter().map(|process| process.resident_kib).sum()
    }
}

#[cfg(test)]
mod tests;
