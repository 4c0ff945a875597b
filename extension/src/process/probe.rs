//! One process and what is read of it.

use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use super::files::{Allowance, Knob, View};
use super::parse;
use super::threads::{Switches, ThreadReading, Threads};

/// Length of the kernel's clock tick in `/proc/PID/stat`: `USER_HZ` is 100 on every Linux Lambda runs on.
pub(super) const TICK_NS: u64 = 10_000_000;

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
    /// Its threads, by rising id: those alive, and those that ended since the last reading and were seen.
    pub threads: Vec<ThreadReading>,
    /// How many of them are alive.
    pub live_threads: usize,
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
    clear_refs: Option<Knob>,
    threads: Threads,
    peak_was_reset: bool,
    /// It was not there when the invocation began.
    pub(super) is_new: bool,
}

/// What is cheap to know of a process in the middle of an invocation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Glance {
    pub(super) identity: (i32, u64),
    pub(super) cpu_ns: u64,
    pub(super) peak_kib: u64,
}

impl Probe {
    /// `None` when the process is gone or may not be looked at.
    pub(super) fn open(pid: i32, allowance: &Allowance) -> Option<Self> {
        let view = |file| View::of(format!("/proc/{pid}/{file}"), allowance);
        let stat = view("stat");
        Some(Self {
            pid,
            started_ticks: stat.read(parse::stat)?.started_ticks,
            allowance: allowance.clone(),
            clock: clock_getcpuclockid(Pid::from_raw(pid)).ok(),
            stat,
            status: view("status"),
            io: view("io"),
            clear_refs: None,
            threads: Threads::of(pid, allowance),
            peak_was_reset: false,
            is_new: true,
        })
    }

    pub(super) const fn pid(&self) -> i32 {
        self.pid
    }

    pub(super) const fn peak_was_reset(&self) -> bool {
        self.peak_was_reset
    }

    /// The process's whole CPU time in nanoseconds, in one cheap call (0.2 µs); `None` where refused.
    pub(super) fn cpu_ns(&self) -> Option<u64> {
        let time = clock_gettime(self.clock?).ok()?;
        let seconds = u64::try_from(time.tv_sec()).ok()?;
        let nanoseconds = u64::try_from(time.tv_nsec()).ok()?;
        Some(seconds * 1_000_000_000 + nanoseconds)
    }

    /// Reads everything; `None` when the process is gone. `cpu_ns` is its clock, read just before;
    /// `may_have_begun` says whether any thread on the machine began since the last time.
    pub(super) fn read(&mut self, cpu_ns: Option<u64>, may_have_begun: bool) -> Option<Reading> {
        let stat = self.stat.read(parse::stat)?;
        let keys = ["VmHWM:", "VmRSS:", "voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"];
        let status = self.status.read(|status| Some(parse::values(status, keys)));
        let [peak_kib, resident_kib, voluntary, involuntary] = status.unwrap_or_default();
        let disk = self.io.read(|io| Some(parse::values(io, ["read_bytes:", "write_bytes:"])));
        let [disk_read_bytes, disk_written_bytes] = disk.unwrap_or_default();
        self.threads.refresh(stat.threads, may_have_begun);
        // The switches in a process's own file are its first thread's.
        let threads = self.threads.read(status.map(|_| Switches { voluntary, involuntary }));
        Some(Reading {
            identity: (self.pid, self.started_ticks),
            parent: stat.parent,
            cpu_ns: cpu_ns.unwrap_or((stat.user_ticks + stat.system_ticks) * TICK_NS),
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
            live_threads: threads.len(),
            threads,
        })
    }

    /// What a tick keeps of it: name, CPU time and, for one that began in this invocation and may end in it, peak.
    pub(super) fn glance(&self) -> Glance {
        let peak = |status: &str| Some(parse::value(status, "VmHWM:"));
        Glance {
            identity: (self.pid, self.started_ticks),
            cpu_ns: self.cpu_ns().unwrap_or_default(),
            peak_kib: if self.is_new { self.status.read(peak).unwrap_or_default() } else { 0 },
        }
    }

    /// Run and wait times of its threads now; none when the process is gone.
    pub(super) fn thread_times(&mut self, may_have_begun: bool) -> impl Iterator<Item = ThreadReading> + '_ {
        if let Some(stat) = self.stat.read(parse::stat) {
            self.threads.refresh(stat.threads, may_have_begun);
        }
        self.threads.read_times()
    }

    /// Starts a new high-water mark (`5` to `clear_refs`, see proc(5)); remembers whether it was permitted.
    pub(super) fn reset_peak(&mut self) {
        let path = || format!("/proc/{}/clear_refs", self.pid);
        let knob = self.clear_refs.get_or_insert_with(|| Knob::of(path(), &self.allowance));
        self.peak_was_reset = knob.turn(b"5");
    }
}
