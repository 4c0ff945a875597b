//! One process and what is read of it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use super::files::{Allowance, View, WritableFile};
use super::parse::{self, TICK_NS};
use super::threads::{Depth, Switches, ThreadReading, Threads};

/// One process at one moment. Counters run since the process began.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// Its id and its start, which together name it for ever.
    pub identity: (i32, u64),
    /// The process that started it, or that took it over when its own ended.
    pub parent: i32,
    /// CPU time, ended threads included, nanoseconds.
    pub cpu_ns: u64,
    /// CPU time in the kernel, in steps of a tick, nanoseconds.
    pub system_ns: u64,
    /// CPU time of children that ended and were waited for, in steps of a tick, nanoseconds.
    pub ended_children_ns: u64,
    /// Page faults of children that ended and were waited for.
    pub ended_children_faults: u64,
    /// Page faults served from memory.
    pub minor_faults: u64,
    /// Page faults that read from disk.
    pub major_faults: u64,
    /// Bytes read from storage.
    pub disk_read_bytes: u64,
    /// Bytes written to storage.
    pub disk_written_bytes: u64,
    /// Resident memory now, KiB.
    pub resident_kib: u64,
    /// Highest resident memory since the last reset, or since the process began, KiB.
    pub peak_kib: u64,
    /// Open descriptors; zero when the kernel does not tell.
    pub descriptors: u64,
    /// Its threads as far as they were read, by rising id: those alive, and those that ended since the last reading and
    /// were seen.
    pub threads: Vec<ThreadReading>,
    /// How many threads are alive.
    pub live_threads: usize,
    /// Only the clock was read; all else is as it was read last.
    pub passed_over: bool,
    /// The CPU time it had when it was found, if that was too late for all of it to be of this invocation.
    pub found_late_ns: Option<u64>,
}

/// An open view of one process.
#[derive(Debug)]
pub(super) struct Probe {
    pid: i32,
    started_ticks: u64,
    allowance: Allowance,
    clock: Option<ClockId>,
    stat: View,
    status: View,
    io: View,
    /// Made at the first reset: some are never reset.
    clear_refs: Option<WritableFile>,
    threads: Threads,
    /// As it was read in full last.
    last: Option<Rc<Reading>>,
    found_late_ns: Option<u64>,
    /// It was passed over when threads may have begun.
    list_is_due: bool,
    /// It ran since its peak was reset last.
    reset_is_due: bool,
    peak_was_reset: bool,
    /// It did not run between the last two readings.
    pub(super) rests: bool,
    /// It was not there when the invocation began.
    pub(super) is_new: bool,
    /// What the last tick of this invocation saw of it.
    pub(super) glance: Option<Glance>,
}

/// What is cheap to know of a process in the middle of an invocation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Glance {
    pub(super) cpu_ns: u64,
    pub(super) peak_kib: u64,
}

impl Probe {
    /// `None` when the process is gone or may not be looked at. One that began before `last_read_ticks` may have done
    /// some of its work in an invocation before.
    pub(super) fn open(pid: i32, last_read_ticks: Option<u64>, allowance: &Allowance) -> Option<Self> {
        let view = |file| View::of(format!("/proc/{pid}/{file}"), allowance);
        let mut stat = view("stat");
        let first = stat.read(parse::stat)?;
        let mut probe = Self {
            pid,
            started_ticks: first.started_ticks,
            allowance: allowance.clone(),
            clock: clock_getcpuclockid(Pid::from_raw(pid)).ok(),
            stat,
            status: view("status"),
            io: view("io"),
            clear_refs: None,
            threads: Threads::of(pid, allowance),
            last: None,
            found_late_ns: None,
            list_is_due: false,
            reset_is_due: true,
            peak_was_reset: false,
            rests: false,
            is_new: true,
            glance: None,
        };
        if last_read_ticks.is_some_and(|ticks| first.started_ticks < ticks) {
            probe.found_late_ns = Some(probe.cpu_ns().unwrap_or_else(|| first.cpu_ns()));
        }
        Some(probe)
    }

    pub(super) const fn pid(&self) -> i32 {
        self.pid
    }

    pub(super) const fn peak_was_reset(&self) -> bool {
        self.peak_was_reset
    }

    pub(super) const fn is_held(&self) -> bool {
        self.stat.is_held()
    }

    /// The process that it would be waited for by, as it was read last.
    pub(super) fn parent(&self) -> Option<i32> {
        self.last.as_ref().map(|last| last.parent)
    }

    /// Its clock was read before, and is not to be had any more.
    pub(super) const fn is_gone(&self, cpu_ns: Option<u64>) -> bool {
        self.clock.is_some() && cpu_ns.is_none()
    }

    /// What it ran since it was read in full, when its clock says `cpu_ns` now; `None` when it did not, and so none of
    /// its files can tell anything new. One whose clock is refused may have run.
    pub(super) fn ran_since_read(&self, cpu_ns: Option<u64>) -> Option<u64> {
        match (cpu_ns, &self.last) {
            (Some(now), Some(last)) => Some(now.abs_diff(last.cpu_ns)).filter(|&ran_ns| ran_ns > 0),
            _ => Some(u64::MAX),
        }
    }

    /// The same since the last look at it, or the last reading.
    pub(super) fn ran_since_look(&self, cpu_ns: Option<u64>) -> Option<u64> {
        match (cpu_ns, self.glance) {
            (Some(now), Some(glance)) => Some(now.abs_diff(glance.cpu_ns)).filter(|&ran_ns| ran_ns > 0),
            _ => self.ran_since_read(cpu_ns),
        }
    }

    /// The process's whole CPU time in nanoseconds, in one cheap call (0.2 µs); `None` where refused.
    pub(super) fn cpu_ns(&self) -> Option<u64> {
        let time = clock_gettime(self.clock?).ok()?;
        let seconds = u64::try_from(time.tv_sec()).ok()?;
        let nanoseconds = u64::try_from(time.tv_nsec()).ok()?;
        Some(seconds * 1_000_000_000 + nanoseconds)
    }

    /// Reads everything; `None` when the process is gone. `cpu_ns` is its clock, read just before; `may_have_begun`
    /// says whether any thread on the machine began since the last time, and `dear` how many files that are not held
    /// may be read for threads.
    pub(super) fn read(
        &mut self,
        cpu_ns: Option<u64>,
        may_have_begun: bool,
        dear: &mut usize,
    ) -> Option<Reading> {
        // An id may have been given again.
        let stat = self.stat.read(parse::stat).filter(|stat| stat.started_ticks == self.started_ticks)?;
        let keys = ["VmHWM:", "VmRSS:", "voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"];
        let status = self.status.read(|status| Some(parse::values(status, keys)));
        let [peak_kib, resident_kib, voluntary, involuntary] = status.unwrap_or_default();
        let disk = self.io.read(|io| Some(parse::values(io, ["read_bytes:", "write_bytes:"])));
        let [disk_read_bytes, disk_written_bytes] = disk.unwrap_or_default();
        self.refresh(stat.threads, may_have_begun, false);
        self.look_at_threads(cpu_ns, Depth::Full, dear);
        // The switches in a process's own file are its first thread's.
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
            // Since Linux 6.2 the size of this folder is the count; before, it is zero.
            descriptors: fs::metadata(format!("/proc/{}/fd", self.pid)).map_or(0, |folder| folder.size()),
            live_threads: self.threads.count(),
            threads,
            passed_over: false,
            found_late_ns: self.found_late_ns,
        })
    }

    /// Remembers a reading in full, to repeat it while the process does not run.
    pub(super) fn keep(&mut self, reading: Reading) -> Rc<Reading> {
        let reading = Rc::new(reading);
        self.last = Some(Rc::clone(&reading));
        self.reset_is_due = true;
        reading
    }

    /// The reading of a process that did not run since it was read in full.
    pub(super) fn repeat(&mut self) -> Option<Rc<Reading>> {
        let last = self.last.as_mut()?;
        // A new peak begins at what is resident.
        if self.peak_was_reset && last.peak_kib != last.resident_kib {
            Rc::make_mut(last).peak_kib = last.resident_kib;
        }
        Some(Rc::clone(last))
    }

    /// The reading of a process of which only the clock was read.
    pub(super) fn pass_over(&mut self, cpu_ns: Option<u64>, may_have_begun: bool) -> Option<Rc<Reading>> {
        self.peak_was_reset = false;
        self.list_is_due |= may_have_begun;
        let last = self.last.as_deref()?.clone();
        let cpu_ns = cpu_ns.unwrap_or(last.cpu_ns);
        Some(Rc::new(Reading { cpu_ns, passed_over: true, ..last }))
    }

    /// Looks at a process that ran, in the middle of an invocation.
    pub(super) fn tick(&mut self, cpu_ns: Option<u64>, may_have_begun: bool, dear: &mut usize) {
        let stat = self.stat.read(parse::stat).filter(|stat| stat.started_ticks == self.started_ticks);
        let Some(stat) = stat else { return };
        self.refresh(stat.threads, may_have_begun, true);
        self.glance_at_memory(cpu_ns.unwrap_or_else(|| stat.cpu_ns()));
        self.look_at_threads(cpu_ns, Depth::Full, dear);
    }

    /// Looks only at its memory and at so many threads as account for what it ran.
    pub(super) fn look_back(&mut self, cpu_ns: Option<u64>, dear: &mut usize) {
        let Some(now_ns) = cpu_ns else { return };
        self.glance_at_memory(now_ns);
        self.look_at_threads(cpu_ns, Depth::Accounted, dear);
    }

    fn glance_at_memory(&mut self, cpu_ns: u64) {
        let peak = self.status.read(|status| Some(parse::value(status, "VmHWM:")));
        // One that is ending has no memory any more; what was seen of it stands.
        let seen_kib = self.glance.map_or(0, |glance| glance.peak_kib);
        self.glance = Some(Glance { cpu_ns, peak_kib: peak.unwrap_or_default().max(seen_kib) });
    }

    /// Notes the clock of one that is not looked at.
    pub(super) fn glance_over(&mut self, cpu_ns: Option<u64>, may_have_begun: bool) {
        self.list_is_due |= may_have_begun && self.ran_since_look(cpu_ns).is_some();
        let seen = self.glance.or_else(|| self.glance_at_rest());
        if let Some(seen) = seen {
            self.glance = Some(Glance { cpu_ns: cpu_ns.unwrap_or(seen.cpu_ns), ..seen });
        }
    }

    fn refresh(&mut self, count: u64, may_have_begun: bool, at_leisure: bool) {
        let may_have_begun = std::mem::take(&mut self.list_is_due) || may_have_begun;
        self.threads.refresh(count, may_have_begun, at_leisure);
    }

    fn look_at_threads(&mut self, cpu_ns: Option<u64>, depth: Depth, dear: &mut usize) {
        let before_ns = self.last.as_ref().map_or(0, |last| last.cpu_ns);
        let ran_ns = cpu_ns.map(|now| now.saturating_sub(before_ns));
        self.threads.read_times(ran_ns, depth, dear);
    }

    /// What a tick knows of it when it did not run since it was read.
    pub(super) fn glance_at_rest(&self) -> Option<Glance> {
        let last = self.last.as_ref()?;
        let peak_kib = if self.peak_was_reset { last.resident_kib } else { last.peak_kib };
        Some(Glance { cpu_ns: last.cpu_ns, peak_kib })
    }

    /// Its name for ever.
    pub(super) const fn identity(&self) -> (i32, u64) {
        (self.pid, self.started_ticks)
    }

    /// Those of its threads that were read at the last look.
    pub(super) fn threads(&self) -> impl Iterator<Item = ThreadReading> + '_ {
        self.threads.seen()
    }

    /// Starts a new high-water mark (`5` to `clear_refs`, see proc(5)); remembers whether it was permitted. One that
    /// did not run since the last reset has nothing to reset, and one that was passed over keeps its peak.
    pub(super) fn reset_peak(&mut self) {
        if !std::mem::take(&mut self.reset_is_due) {
            return;
        }
        let path = || format!("/proc/{}/clear_refs", self.pid);
        let file = self.clear_refs.get_or_insert_with(|| WritableFile::of(path(), &self.allowance));
        self.peak_was_reset = file.write(b"5");
    }

    /// Lets processes that run hold files instead.
    pub(super) fn release(&mut self) {
        self.stat.release();
        self.status.release();
        self.io.release();
        self.clear_refs = None;
        self.threads.release();
    }
}
