//! One process and what is read from it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;

use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;

use super::clock_ns;
use super::files::{DescriptorBudget, ReadBudget, ReadableFile, WritableFile};
use super::parse::{self, TICK_NS};
use super::threads::{ReadScope, Switches, ThreadReading, Threads};

/// One process at one moment. Counters count from the start of the process.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// Its id and its start time in clock ticks, which together are unique.
    pub identity: (i32, u64),
    /// The id of its parent at this moment.
    pub parent: i32,
    /// CPU time, ended threads included, nanoseconds.
    pub cpu_ns: u64,
    /// CPU time in the kernel, in steps of a clock tick, nanoseconds.
    pub system_ns: u64,
    /// CPU time of children that ended and were waited for, in steps of a clock tick, nanoseconds.
    pub ended_children_ns: u64,
    /// Page faults of children that ended and were waited for.
    pub ended_children_faults: u64,
    /// Page faults without a read from disk.
    pub minor_faults: u64,
    /// Page faults with a read from disk.
    pub major_faults: u64,
    /// Bytes read from storage.
    pub disk_read_bytes: u64,
    /// Bytes written to storage.
    pub disk_written_bytes: u64,
    /// Resident memory now, KiB.
    pub resident_kib: u64,
    /// Highest resident memory since the last reset, or since the process began, KiB.
    pub peak_kib: u64,
    /// Open descriptors; zero when unknown.
    pub descriptors: u64,
    /// The threads that were read, by ascending id: live ones, and sampled ones that ended since the last reading.
    pub threads: Vec<ThreadReading>,
    /// The number of live threads.
    pub live_threads: usize,
    /// Only the CPU clock was read; everything else is from the last full reading.
    pub clock_only: bool,
    /// Its CPU time when it was found, if some of it may belong to an earlier invocation; nanoseconds.
    pub cpu_when_found_ns: Option<u64>,
}

/// Reads one process.
#[derive(Debug)]
pub(super) struct Probe {
    pid: i32,
    started_ticks: u64,
    descriptor_budget: DescriptorBudget,
    clock: Option<ClockId>,
    stat: ReadableFile,
    status: ReadableFile,
    io: ReadableFile,
    /// Created at the first reset: some processes are never reset.
    clear_refs: Option<WritableFile>,
    threads: Threads,
    /// The last full reading.
    last: Option<Rc<Reading>>,
    cpu_when_found_ns: Option<u64>,
    /// Threads may have begun while only its clock was read.
    list_is_due: bool,
    /// It ran since the last reset of its peak.
    reset_is_due: bool,
    peak_was_reset: bool,
    /// It did not run between the last two readings.
    pub(super) is_resting: bool,
    /// It began after the invocation.
    pub(super) is_new: bool,
    /// Its last sample in this invocation.
    pub(super) last_sample: Option<ProcessSample>,
}

/// The CPU time and the memory of a process during an invocation.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProcessSample {
    pub(super) cpu_ns: u64,
    pub(super) peak_kib: u64,
}

impl Probe {
    /// `None` when the process ended or may not be read. A process that began before `last_read_ticks` may have used CPU
    /// time in an earlier invocation.
    pub(super) fn open(
        pid: i32,
        last_read_ticks: Option<u64>,
        descriptor_budget: &DescriptorBudget,
    ) -> Option<Self> {
        let view = |file| ReadableFile::of(format!("/proc/{pid}/{file}"), descriptor_budget);
        let mut stat = view("stat");
        let first = stat.read(parse::stat)?;
        let mut probe = Self {
            pid,
            started_ticks: first.started_ticks,
            descriptor_budget: descriptor_budget.clone(),
            clock: clock_getcpuclockid(Pid::from_raw(pid)).ok(),
            stat,
            status: view("status"),
            io: view("io"),
            clear_refs: None,
            threads: Threads::of(pid, descriptor_budget),
            last: None,
            cpu_when_found_ns: None,
            list_is_due: false,
            reset_is_due: true,
            peak_was_reset: false,
            is_resting: false,
            is_new: true,
            last_sample: None,
        };
        if last_read_ticks.is_some_and(|ticks| first.started_ticks < ticks) {
            probe.cpu_when_found_ns = Some(probe.cpu_ns().unwrap_or_else(|| first.cpu_ns()));
        }
        Some(probe)
    }

    pub(super) const fn pid(&self) -> i32 {
        self.pid
    }

    pub(super) const fn peak_was_reset(&self) -> bool {
        self.peak_was_reset
    }

    pub(super) const fn is_open(&self) -> bool {
        self.stat.is_open()
    }

    /// The id of its parent at the last full reading.
    pub(super) fn parent(&self) -> Option<i32> {
        self.last.as_ref().map(|last| last.parent)
    }

    /// Whether it ended: its clock existed before and does not any more.
    pub(super) const fn has_ended(&self, cpu_ns: Option<u64>) -> bool {
        self.clock.is_some() && cpu_ns.is_none()
    }

    /// Its CPU time since the last full reading, in nanoseconds, when its clock is at `cpu_ns`. `None` when it did not run,
    /// and so its files have not changed. Without a clock it may have run.
    pub(super) fn ran_since_read(&self, cpu_ns: Option<u64>) -> Option<u64> {
        match (cpu_ns, &self.last) {
            (Some(now), Some(last)) => Some(now.abs_diff(last.cpu_ns)).filter(|&ran_ns| ran_ns > 0),
            _ => Some(u64::MAX),
        }
    }

    /// The same since its last sample, or else its last reading.
    pub(super) fn ran_since_sample(&self, cpu_ns: Option<u64>) -> Option<u64> {
        match (cpu_ns, self.last_sample) {
            (Some(now), Some(sample)) => Some(now.abs_diff(sample.cpu_ns)).filter(|&ran_ns| ran_ns > 0),
            _ => self.ran_since_read(cpu_ns),
        }
    }

    /// The CPU time of the process in nanoseconds, in one call of 0.2 µs; `None` when it is not permitted.
    pub(super) fn cpu_ns(&self) -> Option<u64> {
        clock_ns(self.clock?)
    }

    /// Reads everything; `None` when the process ended. `cpu_ns` is its clock, read before. `may_be_new` states whether
    /// any thread in the environment may have begun since the last reading. After a brief invocation the disk and the
    /// descriptors are those of the last reading.
    pub(super) fn read(
        &mut self,
        cpu_ns: Option<u64>,
        may_be_new: bool,
        is_brief: bool,
        budget: &mut ReadBudget,
    ) -> Option<Reading> {
        // Another process may have the same id now.
        let stat = self.stat.read(parse::stat).filter(|stat| stat.started_ticks == self.started_ticks)?;
        let keys = ["VmHWM:", "VmRSS:", "voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"];
        let status = self.status.read(|status| Some(parse::values(status, keys)));
        let [peak_kib, resident_kib, voluntary, involuntary] = status.unwrap_or_default();
        let earlier = self.last.as_ref().filter(|_| is_brief);
        let [disk_read_bytes, disk_written_bytes, descriptors] = match earlier {
            Some(last) => [last.disk_read_bytes, last.disk_written_bytes, last.descriptors],
            None => self.read_disk_and_descriptors(),
        };
        self.refresh(stat.threads, may_be_new, false);
        self.read_threads(cpu_ns, ReadScope::Full, budget);
        // The switches in the file of the process are those of its first thread.
        self.threads.read_switches(status.map(|_| Switches { voluntary, involuntary }));
        let threads = self.threads.readings();
        Some(Reading {
            identity: self.identity(),
            parent: stat.parent,
            cpu_ns: cpu_ns.unwrap_or_else(|| stat.cpu_ns()),
            system_ns: stat.system_ticks * TICK_NS,
            ended_children_ns: stat.ended_children_ticks * TICK_NS,
            ended_children_faults: stat.ended_children_faults,
            minor_faults: stat.minor_faults,
            major_faults: stat.major_faults,
            disk_read_bytes,
            disk_written_bytes,
            resident_kib,
            peak_kib,
            descriptors,
            live_threads: self.threads.count(),
            threads,
            clock_only: false,
            cpu_when_found_ns: self.cpu_when_found_ns,
        })
    }

    fn read_disk_and_descriptors(&mut self) -> [u64; 3] {
        let disk = self.io.read(|io| Some(parse::values(io, ["read_bytes:", "write_bytes:"])));
        let [disk_read_bytes, disk_written_bytes] = disk.unwrap_or_default();
        // Since Linux 6.2 the size of this folder is the count. Earlier kernels have zero.
        let descriptors = fs::metadata(format!("/proc/{}/fd", self.pid)).map_or(0, |folder| folder.size());
        [disk_read_bytes, disk_written_bytes, descriptors]
    }

    /// Sets the last full reading, which stays valid while the process does not run.
    pub(super) fn set_last(&mut self, reading: Reading) -> Rc<Reading> {
        let reading = Rc::new(reading);
        self.last = Some(Rc::clone(&reading));
        self.reset_is_due = true;
        reading
    }

    /// The reading of a process that did not run since its last full reading.
    pub(super) fn repeat(&mut self) -> Option<Rc<Reading>> {
        let last = self.last.as_mut()?;
        // After a reset the peak is the resident memory.
        if self.peak_was_reset && last.peak_kib != last.resident_kib {
            Rc::make_mut(last).peak_kib = last.resident_kib;
        }
        Some(Rc::clone(last))
    }

    /// A reading with a new clock; everything else is from the last full reading.
    pub(super) fn read_clock_only(&mut self, cpu_ns: Option<u64>, may_be_new: bool) -> Option<Rc<Reading>> {
        self.peak_was_reset = false;
        self.list_is_due |= may_be_new;
        let last = self.last.as_deref()?.clone();
        let cpu_ns = cpu_ns.unwrap_or(last.cpu_ns);
        Some(Rc::new(Reading { cpu_ns, clock_only: true, ..last }))
    }

    /// Samples a process that ran.
    pub(super) fn sample(&mut self, cpu_ns: Option<u64>, may_be_new: bool, budget: &mut ReadBudget) {
        let stat = self.stat.read(parse::stat).filter(|stat| stat.started_ticks == self.started_ticks);
        let Some(stat) = stat else { return };
        self.refresh(stat.threads, may_be_new, true);
        self.sample_memory(cpu_ns.unwrap_or_else(|| stat.cpu_ns()));
        self.read_threads(cpu_ns, ReadScope::Full, budget);
    }

    /// Samples its memory and only the threads that account for its CPU time.
    pub(super) fn quick_sample(&mut self, cpu_ns: Option<u64>, budget: &mut ReadBudget) {
        let Some(now_ns) = cpu_ns else { return };
        self.sample_memory(now_ns);
        self.read_threads(cpu_ns, ReadScope::Accounted, budget);
    }

    fn sample_memory(&mut self, cpu_ns: u64) {
        let peak = self.status.read(|status| Some(parse::value(status, "VmHWM:")));
        // A process that is ending has no memory any more; the earlier sample stays.
        let seen_kib = self.last_sample.map_or(0, |sample| sample.peak_kib);
        self.last_sample = Some(ProcessSample { cpu_ns, peak_kib: peak.unwrap_or_default().max(seen_kib) });
    }

    /// Samples only the clock.
    pub(super) fn skip_sample(&mut self, cpu_ns: Option<u64>, may_be_new: bool) {
        self.list_is_due |= may_be_new && self.ran_since_sample(cpu_ns).is_some();
        let seen = self.last_sample.or_else(|| self.sample_at_rest());
        if let Some(seen) = seen {
            self.last_sample = Some(ProcessSample { cpu_ns: cpu_ns.unwrap_or(seen.cpu_ns), ..seen });
        }
    }

    fn refresh(&mut self, count: u64, may_be_new: bool, may_list_many: bool) {
        let may_be_new = std::mem::take(&mut self.list_is_due) || may_be_new;
        self.threads.refresh(count, may_be_new, may_list_many);
    }

    fn read_threads(&mut self, cpu_ns: Option<u64>, scope: ReadScope, budget: &mut ReadBudget) {
        let before_ns = self.last.as_ref().map_or(0, |last| last.cpu_ns);
        let ran_ns = cpu_ns.map(|now| now.saturating_sub(before_ns));
        self.threads.read_times(ran_ns, scope, budget);
    }

    /// The sample of a process that did not run since its last full reading.
    pub(super) fn sample_at_rest(&self) -> Option<ProcessSample> {
        let last = self.last.as_ref()?;
        let peak_kib = if self.peak_was_reset { last.resident_kib } else { last.peak_kib };
        Some(ProcessSample { cpu_ns: last.cpu_ns, peak_kib })
    }

    /// Its id and start time, which together are unique.
    pub(super) const fn identity(&self) -> (i32, u64) {
        (self.pid, self.started_ticks)
    }

    /// Its threads that were read in the last reading or sample.
    pub(super) fn threads(&self) -> impl Iterator<Item = ThreadReading> + '_ {
        self.threads.seen()
    }

    /// Resets the high-water mark (`5` to `clear_refs`, see proc(5)) and keeps whether it was permitted. Nothing is reset
    /// when the process did not run since the last reset, or when only its clock was read.
    pub(super) fn reset_peak(&mut self) {
        if !std::mem::take(&mut self.reset_is_due) {
            return;
        }
        let path = || format!("/proc/{}/clear_refs", self.pid);
        let file = self.clear_refs.get_or_insert_with(|| WritableFile::of(path(), &self.descriptor_budget));
        self.peak_was_reset = file.write(b"5");
    }

    /// Closes its files, so that those of running processes may stay open.
    pub(super) fn release(&mut self) {
        self.stat.release();
        self.status.release();
        self.io.release();
        self.clear_refs = None;
        self.threads.release();
    }
}
