//! Measures the function's processes from outside, with `/proc` and their CPU clocks.
//!
//! The counters do not change between freeze and thaw. So one reading at the next INVOKE ends one invocation and begins
//! the next, exactly, and no handler waits for it.

mod brief;
pub mod cpu_budget;
mod cpu_contention;
mod delta;
mod environment_counters;
mod environment_cpu;
mod files;
mod parse;
mod peaks;
mod probe;
mod read_selection;
pub mod sampling;
mod scan;
mod thread_class;
mod threads;
pub mod utilization;

use std::collections::HashMap;
use std::rc::Rc;

use nix::time::{ClockId, clock_gettime};

pub use delta::{Measured, between};
pub use environment_counters::EnvironmentCounters;
pub use probe::Reading;
pub use threads::ThreadReading;

use brief::BriefInvocations;
use environment_counters::{EnvironmentReader, LAMBDA_INTERFACES};
use environment_cpu::EnvironmentCpu;
use files::{DescriptorBudget, ReadBudget, ReadableFile};
use probe::Probe;
use read_selection::{Candidate, select};
use scan::Scanner;

use crate::settings::Peak;

/// The most files that stay open, over all processes: enough for a runtime with a hundred threads, and an eighth of the
/// 1,024 descriptors that the function and its extensions share.
const MAX_OPEN_FILES: usize = 128;

/// The most processes that are read: as many as Lambda allows in an environment.
const MAX_PROCESSES: usize = 1_024;

/// The most new processes in one reading: each costs as much as several known ones. The others are read the next time.
const MAX_NEW_PROCESSES: usize = 8;

/// The most threads that samples record for one invocation: more than Lambda allows at one moment. If more threads than
/// that start and end in one invocation, their waits are inferred.
const MAX_SAMPLED_THREADS: usize = 4_096;

/// The function's processes: the descendants of the platform's process, without the extensions.
#[derive(Debug)]
pub struct Processes {
    scanner: Scanner,
    probes: Vec<Probe>,
    peak: Peak,
    /// The last sample of each thread in this invocation, by process and thread id. The kernel drops the counters of a
    /// thread that ends; this keeps them.
    sampled_threads: HashMap<(i32, i32), ThreadReading>,
    /// There was a sample in this invocation.
    was_sampled: bool,
    sampled_peaks: SampledPeaks,
    environment_cpu: EnvironmentCpu,
    environment: EnvironmentReader,
    loadavg: ReadableFile,
    descriptor_budget: DescriptorBudget,
    /// The newest id of a process or thread, when it was read last. While it does not change, none has begun.
    last_id: Option<u64>,
    /// The time of the last reading, in clock ticks since the system started, as the start times in `/proc`.
    read_at_ticks: Option<u64>,
    /// A process to measure was found at least once.
    found_any: bool,
    /// There are more new processes than one reading takes.
    is_incomplete: bool,
    brief: BriefInvocations,
}

/// The function's processes at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// One reading for each live process, by ascending identity.
    pub processes: Vec<Rc<Reading>>,
    /// Whether the peaks were reset at the start of the invocation.
    pub peaks_reset: bool,
    /// The highest memory at any sample.
    pub sampled_peaks: SampledPeaks,
    /// Memory that all processes use, where pages that they share count once, KiB. `None` with one process, and where it is
    /// unknown.
    pub used_kib: Option<u64>,
    /// There are processes that have not been read yet.
    pub is_incomplete: bool,
    /// The counters of the whole environment.
    pub environment: EnvironmentCounters,
}

/// The highest memory of an invocation at any sample, KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SampledPeaks {
    /// The total of the processes begun in the invocation.
    pub new_processes_kib: u64,
    /// Of one process among them.
    pub new_process_kib: u64,
    /// Of all processes, where pages that they share count once; zero when unknown.
    pub used_kib: u64,
}

impl Processes {
    /// Reads nothing before the first [`Processes::read`].
    #[must_use]
    pub fn new(peak: Peak) -> Self {
        Self::with(Scanner::of_this_process(), peak)
    }

    /// The descendants of this process instead, for a benchmark that starts its own.
    #[must_use]
    pub fn of_children(peak: Peak) -> Self {
        Self::with(Scanner::of_children(), peak)
    }

    fn with(scanner: Scanner, peak: Peak) -> Self {
        let descriptor_budget = DescriptorBudget::of(MAX_OPEN_FILES);
        Self {
            probes: vec![],
            peak,
            sampled_threads: HashMap::new(),
            was_sampled: false,
            sampled_peaks: SampledPeaks::default(),
            environment_cpu: EnvironmentCpu::new(scanner.namespace(), LAMBDA_INTERFACES, &descriptor_budget),
            environment: EnvironmentReader::new(&descriptor_budget),
            loadavg: ReadableFile::of("/proc/loadavg".to_owned(), &descriptor_budget),
            scanner,
            descriptor_budget,
            last_id: None,
            read_at_ticks: None,
            found_any: false,
            is_incomplete: false,
            brief: BriefInvocations::default(),
        }
    }

    /// As [`Processes::read`], and every counter is read, also after brief invocations.
    pub fn read_all(&mut self) -> Snapshot {
        self.brief = BriefInvocations::default();
        self.read()
    }

    /// Reads every process, new ones included, and drops those that ended.
    ///
    /// The CPU clocks of known processes come first: the handler already runs, and its CPU time until then counts for the
    /// previous invocation. The clocks also show which processes ran; nothing else is read of the others. When too many
    /// ran, only the clock is read of some. After brief invocations, some counters are read once for several of them.
    pub fn read(&mut self) -> Snapshot {
        let clocks: Vec<_> = self.probes.iter().map(Probe::cpu_ns).collect();
        let may_be_new = self.may_have_new_tasks();
        let ran_ns =
            self.probes.iter().zip(&clocks).filter_map(|(probe, clock)| probe.ran_since_read(*clock));
        let is_brief =
            self.brief.skip(ran_ns.fold(0, u64::saturating_add), may_be_new || self.probes.is_empty());
        let mut selected = self.select_since(&clocks, Probe::ran_since_read).into_iter().peekable();
        let mut processes = Vec::with_capacity(self.probes.len());
        let mut peaks_reset = self.peak == Peak::Reset;
        let (mut budget, mut lacks_descriptors) = (ReadBudget::new(), false);
        let mut clocks = clocks.into_iter().enumerate();
        let sampled_threads = &self.sampled_threads;
        self.probes.retain_mut(|probe| {
            let Some((index, cpu_ns)) = clocks.next() else { return true };
            let was_reset = probe.peak_was_reset() || probe.is_new;
            let ran = probe.ran_since_read(cpu_ns).is_some();
            let reading = if probe.has_ended(cpu_ns) {
                None
            } else if selected.next_if_eq(&index).is_some() {
                let reading = probe.read(cpu_ns, may_be_new, is_brief, &mut budget);
                lacks_descriptors |= !probe.is_open();
                reading.map(|mut reading| {
                    add_ended_threads(&mut reading, sampled_threads);
                    probe.set_last(reading)
                })
            } else if ran {
                probe.read_clock_only(cpu_ns, may_be_new)
            } else {
                probe.repeat()
            };
            peaks_reset &= was_reset && !reading.as_ref().is_some_and(|reading| reading.clock_only);
            (probe.is_new, probe.last_sample, probe.is_resting) = (false, None, !ran);
            let alive = reading.is_some();
            processes.extend(reading);
            alive
        });
        if may_be_new {
            self.read_new(&mut processes, &mut budget);
        }
        if processes.is_empty() && !self.found_any && self.scanner.accept_any_runtime() {
            tracing::warn!(
                "no process has the variables of a Lambda runtime: measuring all processes except extensions"
            );
            self.read_new(&mut processes, &mut budget);
        }
        self.found_any |= !processes.is_empty();
        if lacks_descriptors {
            self.probes.iter_mut().filter(|probe| probe.is_resting).for_each(Probe::release);
        }
        processes.sort_unstable_by_key(|process| process.identity);
        self.sampled_threads.clear();
        self.was_sampled = false;
        self.read_at_ticks = now_ticks();
        let used_kib = if processes.len() > 1 { self.environment_cpu.used_kib() } else { None };
        Snapshot {
            processes,
            peaks_reset,
            sampled_peaks: std::mem::take(&mut self.sampled_peaks),
            used_kib,
            is_incomplete: self.is_incomplete,
            environment: if is_brief { self.environment.last() } else { self.environment.read() },
        }
    }

    /// The invocation that ended used `counted_us` of CPU time. Returns the CPU time of the environment, microseconds, that
    /// no process accounts for.
    pub fn unaccounted_us(&mut self, counted_us: u64) -> u64 {
        self.environment_cpu.unaccounted_us(counted_us, &self.scanner)
    }

    /// Reads the new processes.
    fn read_new(&mut self, processes: &mut Vec<Rc<Reading>>, budget: &mut ReadBudget) {
        for mut probe in self.find_new() {
            // It began in this invocation, or before the first one.
            probe.is_new = false;
            if let Some(reading) = probe.read(probe.cpu_ns(), true, false, budget) {
                processes.push(probe.set_last(reading));
                self.probes.push(probe);
            }
        }
    }

    /// The last samples, for an invocation whose processes ended before they could be read.
    #[must_use]
    pub fn last_sample(&self) -> Snapshot {
        if !self.was_sampled {
            return Snapshot::default();
        }
        let reading = |probe: &Probe| {
            let sample = probe.last_sample.or_else(|| probe.sample_at_rest())?;
            let (cpu_ns, peak_kib) = (sample.cpu_ns, sample.peak_kib);
            let mut reading = Reading { identity: probe.identity(), cpu_ns, peak_kib, ..Reading::default() };
            add_ended_threads(&mut reading, &self.sampled_threads);
            reading.live_threads = reading.threads.len();
            Some(Rc::new(reading))
        };
        let mut processes: Vec<_> = self.probes.iter().filter_map(reading).collect();
        processes.sort_unstable_by_key(|process| process.identity);
        Snapshot { processes, sampled_peaks: self.sampled_peaks, ..Snapshot::default() }
    }

    /// Samples threads and memory during an invocation, for what ends before the next reading. `false` when no process
    /// is alive.
    pub fn sample(&mut self) -> bool {
        let may_be_new = self.may_have_new_tasks();
        if may_be_new {
            let new = self.find_new();
            self.probes.extend(new);
        }
        self.sample_all(|probe, cpu_ns, budget| probe.sample(cpu_ns, may_be_new, budget), may_be_new)
    }

    /// The same at the lowest cost: the clocks, and for processes that ran the memory and the threads that account for the
    /// CPU time.
    pub fn quick_sample(&mut self) -> bool {
        self.sample_all(Probe::quick_sample, false)
    }

    fn sample_all(
        &mut self,
        mut sample: impl FnMut(&mut Probe, Option<u64>, &mut ReadBudget),
        may_be_new: bool,
    ) -> bool {
        let clocks: Vec<_> = self.probes.iter().map(Probe::cpu_ns).collect();
        let mut selected = self.select_since(&clocks, Probe::ran_since_sample).into_iter().peekable();
        let (mut budget, mut new_processes_kib, mut alive) = (ReadBudget::new(), 0, 0usize);
        for (index, (probe, cpu_ns)) in self.probes.iter_mut().zip(clocks).enumerate() {
            let is_selected = selected.next_if_eq(&index).is_some();
            if probe.has_ended(cpu_ns) {
                // Its last sample stays.
                continue;
            }
            alive += 1;
            if is_selected {
                sample(probe, cpu_ns, &mut budget);
                for thread in probe.threads().filter(|thread| !thread.has_no_baseline) {
                    let key = (probe.pid(), thread.tid);
                    if self.sampled_threads.len() < MAX_SAMPLED_THREADS
                        || self.sampled_threads.contains_key(&key)
                    {
                        self.sampled_threads.insert(key, thread);
                    }
                }
            } else {
                probe.skip_sample(cpu_ns, may_be_new);
            }
            if let Some(sample) = probe.last_sample.filter(|_| probe.is_new) {
                new_processes_kib += sample.peak_kib;
                self.sampled_peaks.new_process_kib = self.sampled_peaks.new_process_kib.max(sample.peak_kib);
            }
        }
        self.was_sampled |= alive > 0;
        self.sampled_peaks.new_processes_kib = self.sampled_peaks.new_processes_kib.max(new_processes_kib);
        if alive > 1
            && let Some(used_kib) = self.environment_cpu.used_kib()
        {
            self.sampled_peaks.used_kib = self.sampled_peaks.used_kib.max(used_kib);
        }
        alive > 0
    }

    /// The indices of the processes to read. `clocks` has their CPU clocks, and `ran` computes the CPU time since then.
    fn select_since(
        &self,
        clocks: &[Option<u64>],
        ran: impl Fn(&Probe, Option<u64>) -> Option<u64>,
    ) -> Vec<usize> {
        let all = || self.probes.iter().zip(clocks);
        let ended: Vec<&Probe> =
            all().filter(|(probe, clock)| probe.has_ended(**clock)).map(|(probe, _)| probe).collect();
        // The parent of an ended process has counters of it, and its children have another parent now.
        let may_inherit_from_ended = |probe: &Probe| {
            ended
                .iter()
                .any(|ended| ended.parent() == Some(probe.pid()) || probe.parent() == Some(ended.pid()))
        };
        let candidate = |(index, (probe, &clock)): (usize, (&Probe, &Option<u64>))| {
            let (ran_ns, may_inherit) = (ran(probe, clock), may_inherit_from_ended(probe));
            let is_due = !probe.has_ended(clock) && (ran_ns.is_some() || may_inherit);
            is_due.then(|| Candidate {
                index,
                may_inherit,
                ran_ns: ran_ns.unwrap_or_default(),
                is_open: probe.is_open(),
            })
        };
        select(all().enumerate().filter_map(candidate).collect())
    }

    /// Whether a process or thread may have begun since the last call: one read that saves a scan.
    fn may_have_new_tasks(&mut self) -> bool {
        let last_id = self.loadavg.read(parse::last_id);
        last_id.is_none() || std::mem::replace(&mut self.last_id, last_id) != last_id
    }

    fn find_new(&mut self) -> Vec<Probe> {
        let mut known: Vec<i32> = self.probes.iter().map(Probe::pid).collect();
        known.sort_unstable();
        let room = MAX_PROCESSES.saturating_sub(known.len()).min(MAX_NEW_PROCESSES);
        let (new, are_more) = self.scanner.new_pids(&known, room);
        self.is_incomplete = are_more;
        if are_more && room > 0 {
            self.last_id = None;
        }
        new.into_iter()
            .filter_map(|pid| Probe::open(pid, self.read_at_ticks, &self.descriptor_budget))
            .collect()
    }

    /// Resets the peak of every process that was read, if the settings and the kernel allow it.
    pub fn reset_peaks(&mut self) {
        if self.peak == Peak::Reset {
            self.probes.iter_mut().for_each(Probe::reset_peak);
        }
    }
}

/// The time of a clock, nanoseconds; `None` when it does not exist.
fn clock_ns(clock: ClockId) -> Option<u64> {
    let time = clock_gettime(clock).ok()?;
    let (seconds, nanoseconds) = (u64::try_from(time.tv_sec()).ok()?, u64::try_from(time.tv_nsec()).ok()?);
    Some(seconds * 1_000_000_000 + nanoseconds)
}

/// The time since the system started, in the clock ticks of `/proc`.
fn now_ticks() -> Option<u64> {
    Some(clock_ns(ClockId::CLOCK_BOOTTIME)? / parse::TICK_NS)
}

/// Adds the sampled threads that the reading does not have. Most of them ended.
fn add_ended_threads(reading: &mut Reading, sampled_threads: &HashMap<(i32, i32), ThreadReading>) {
    let live = reading.threads.len();
    if sampled_threads.is_empty() {
        return;
    }
    for (&(pid, tid), &thread) in sampled_threads {
        let is_live = reading.threads[..live].binary_search_by_key(&tid, |thread| thread.tid).is_ok();
        if pid == reading.identity.0 && !is_live {
            reading.threads.push(thread);
        }
    }
    reading.threads.sort_unstable_by_key(|thread| thread.tid);
}

/// Our own resident memory, KiB. Not `getrusage`'s maximum, which includes that of the process that started us.
#[must_use]
pub fn own_resident_kib() -> u64 {
    parse::value(&std::fs::read_to_string("/proc/self/status").unwrap_or_default(), "VmRSS:")
}

impl Snapshot {
    /// The reading of one process.
    fn find(&self, identity: (i32, u64)) -> Option<&Reading> {
        let place = self.processes.binary_search_by_key(&identity, |process| process.identity).ok()?;
        Some(&*self.processes[place])
    }

    /// Resident memory of all processes, KiB. Pages that they share count once for each process where it is not known
    /// better.
    #[must_use]
    pub fn resident_kib(&self) -> u64 {
        let sum_kib = self.processes.iter().map(|process| process.resident_kib).sum();
        self.used_kib.map_or(sum_kib, |used_kib| used_kib.min(sum_kib))
    }
}

#[cfg(test)]
mod tests;
