//! One process and what is read of it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use super::parse;

/// Length of the kernel's clock tick in `/proc/PID/stat`: `USER_HZ` is 100 on every Linux Lambda runs on.
pub(super) const TICK_NS: u64 = 10_000_000;

/// Threads whose voluntary and involuntary switches are read: that file is dear (6 µs each), and a
/// function with more busy threads than this is not understood by counting its switches.
const MAX_SWITCH_READS: usize = 16;

/// One process at one moment. Counters run since the process began.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// Its id and its start, which together name it for ever.
    pub identity: (i32, u64),
    /// CPU time, ended threads included, nanoseconds.
    pub cpu_ns: u64,
    /// CPU time in the kernel, in steps of a tick, nanoseconds.
    pub system_ns: u64,
    /// CPU time of children that ended and were waited for, in steps of a tick, nanoseconds.
    pub ended_children_ns: u64,
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

/// An open view of one process.
#[derive(Debug)]
pub(super) struct Probe {
    pid: i32,
    started_ticks: u64,
    clock: Option<ClockId>,
    stat: File,
    peak_was_reset: bool,
}

impl Probe {
    /// `None` when the process is gone or may not be looked at.
    pub(super) fn open(pid: i32) -> Option<Self> {
        let stat = File::open(format!("/proc/{pid}/stat")).ok()?;
        let started_ticks = parse::stat(&read_at_start(&stat)?)?.started_ticks;
        let clock = clock_getcpuclockid(Pid::from_raw(pid)).ok();
        Some(Self { pid, started_ticks, clock, stat, peak_was_reset: false })
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

    /// Reads everything; `None` when the process is gone. `cpu_ns` is its clock, read just before.
    pub(super) fn read(&self, cpu_ns: Option<u64>) -> Option<Reading> {
        let stat = parse::stat(&read_at_start(&self.stat)?)?;
        let folder = format!("/proc/{}", self.pid);
        let status = fs::read_to_string(format!("{folder}/status")).unwrap_or_default();
        let io = fs::read_to_string(format!("{folder}/io")).unwrap_or_default();
        let threads = with_switches(read_threads(&folder), &folder);
        Some(Reading {
            identity: (self.pid, self.started_ticks),
            cpu_ns: cpu_ns.unwrap_or((stat.user_ticks + stat.system_ticks) * TICK_NS),
            system_ns: stat.system_ticks * TICK_NS,
            ended_children_ns: stat.ended_children_ticks * TICK_NS,
            minor_faults: stat.minor_faults,
            major_faults: stat.major_faults,
            disk_read_bytes: parse::value(&io, "read_bytes:"),
            disk_written_bytes: parse::value(&io, "write_bytes:"),
            resident_kib: parse::value(&status, "VmRSS:"),
            peak_kib: parse::value(&status, "VmHWM:"),
            // Since Linux 6.2 the size of this folder is the count; before, it is zero.
            descriptors: fs::metadata(format!("{folder}/fd")).map_or(0, |folder| folder.size()),
            live_threads: threads.len(),
            threads,
        })
    }

    /// Run and wait times of its threads now.
    pub(super) fn thread_times(&self) -> Vec<ThreadReading> {
        read_threads(&format!("/proc/{}", self.pid))
    }

    /// Starts a new high-water mark (`5` to `clear_refs`, see proc(5)); remembers whether it was permitted.
    pub(super) fn reset_peak(&mut self) {
        self.peak_was_reset = File::options()
            .write(true)
            .open(format!("/proc/{}/clear_refs", self.pid))
            .and_then(|mut file| file.write_all(b"5"))
            .is_ok();
    }
}

/// Reads a small `/proc` file anew through a held descriptor; `None` when the process is gone.
fn read_at_start(file: &File) -> Option<String> {
    let mut buffer = [0u8; 1024];
    let length = file.read_at(&mut buffer, 0).ok().filter(|&length| length > 0)?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// Run and wait times of all threads, by rising id.
fn read_threads(folder: &str) -> Vec<ThreadReading> {
    let Ok(entries) = fs::read_dir(format!("{folder}/task")) else { return vec![] };
    let mut threads: Vec<_> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(|tid| {
            let [run_ns, wait_ns, timeslices] =
                parse::schedstat(&read_small(&format!("{folder}/task/{tid}/schedstat"))?)?;
            Some(ThreadReading { tid, run_ns, wait_ns, timeslices, ..ThreadReading::default() })
        })
        .collect();
    threads.sort_unstable_by_key(|thread| thread.tid);
    threads
}

/// Adds the context switches of the threads that were put on a CPU most often.
fn with_switches(mut threads: Vec<ThreadReading>, folder: &str) -> Vec<ThreadReading> {
    threads.sort_unstable_by_key(|thread| std::cmp::Reverse(thread.timeslices));
    for thread in threads.iter_mut().take(MAX_SWITCH_READS) {
        let status = read_small(&format!("{folder}/task/{}/status", thread.tid)).unwrap_or_default();
        thread.voluntary_switches = parse::value(&status, "voluntary_ctxt_switches:");
        thread.involuntary_switches = parse::value(&status, "nonvoluntary_ctxt_switches:");
    }
    threads.sort_unstable_by_key(|thread| thread.tid);
    threads
}

/// Reads a file of at most 4 KiB with one `read`.
fn read_small(path: &str) -> Option<String> {
    let mut buffer = [0u8; 4096];
    let length = File::open(path).and_then(|mut file| file.read(&mut buffer)).ok()?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}
