//! The text of the environment's own files of `/proc`.

use std::fmt::Write;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use super::load::{Load, Tasks};
use crate::cgroup::{Counters, CpuTime, MemoryUse};

/// Ticks of the user interface of the kernel: 10 ms on every architecture of Lambda.
const TICKS_PER_SECOND: u64 = 100;

/// Longer than the files of the machine that are read.
const MAX_FILE_BYTES: usize = 16 * 1024;

const NS_PER_TICK: u64 = 1_000_000_000 / TICKS_PER_SECOND;

/// The files that an environment has instead of the machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ViewFile {
    Stat,
    Meminfo,
    Uptime,
    Loadavg,
    Cpuinfo,
    Vmstat,
    Pressure(&'static str),
}

/// What the files are computed from.
pub(super) struct Contents {
    counters: Counters,
    /// CPUs that the environment sees.
    vcpus: u64,
    /// Memory size, bytes.
    memory_bytes: u64,
    started: Instant,
    cpuinfo: String,
    /// The machine's file, opened before it was covered. Its last field belongs to the PID namespace.
    loadavg: Option<File>,
    /// The same of its counters of virtual memory.
    vmstat: Option<File>,
    load: Arc<Load>,
    previous: Mutex<Ticks>,
}

/// CPU time of all CPUs since the environment started, in ticks. No field ever decreases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ticks {
    user: u64,
    system: u64,
    idle: u64,
    steal: u64,
}

impl Contents {
    pub(super) fn new(counters: Counters, vcpus: u32, memory_bytes: u64, load: Arc<Load>) -> Contents {
        Contents {
            counters,
            vcpus: u64::from(vcpus).max(1),
            memory_bytes,
            started: Instant::now(),
            cpuinfo: first_cpus(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default(), vcpus),
            loadavg: File::open("/proc/loadavg").ok(),
            vmstat: File::open("/proc/vmstat").ok(),
            load,
            previous: Mutex::default(),
        }
    }

    /// The files for which the kernel has counters.
    pub(super) fn files(&self) -> Vec<(&'static str, ViewFile)> {
        let mut files = vec![
            ("uptime", ViewFile::Uptime),
            ("loadavg", ViewFile::Loadavg),
            ("cpuinfo", ViewFile::Cpuinfo),
        ];
        if self.counters.cpu().is_some() {
            files.push(("stat", ViewFile::Stat));
        }
        if self.counters.memory().is_some() {
            files.push(("meminfo", ViewFile::Meminfo));
        }
        if self.counters.oom_kills().is_some() && self.vmstat.is_some() {
            files.push(("vmstat", ViewFile::Vmstat));
        }
        files
    }

    /// Resources with a file in `/proc/pressure`.
    pub(super) fn pressure_resources(&self) -> Vec<&'static str> {
        self.counters.pressure_resources()
    }

    pub(super) fn text(&self, file: ViewFile) -> String {
        match file {
            ViewFile::Stat => self.stat(),
            ViewFile::Meminfo => meminfo(self.memory_bytes, &self.counters.memory().unwrap_or_default()),
            ViewFile::Uptime => {
                let (up, idle) = (uptime().as_secs_f64(), self.ticks().idle);
                format!("{up:.2} {}.{:02}\n", idle / TICKS_PER_SECOND, idle % TICKS_PER_SECOND)
            }
            ViewFile::Loadavg => {
                let [one, five, fifteen] = self.load.averages();
                let Tasks { running, total, .. } = self.load.tasks();
                let last = self.last_process();
                format!("{one:.2} {five:.2} {fifteen:.2} {}/{} {last}\n", running.max(1), total.max(1))
            }
            ViewFile::Cpuinfo => self.cpuinfo.clone(),
            ViewFile::Vmstat => {
                let machine = self.vmstat.as_ref().map_or_else(String::new, read);
                vmstat(&machine, self.counters.oom_kills().unwrap_or_default())
            }
            ViewFile::Pressure(resource) => self.counters.pressure(resource).unwrap_or_default(),
        }
    }

    fn stat(&self) -> String {
        let ticks = self.ticks();
        let line = |Ticks { user, system, idle, steal }: Ticks| {
            format!("{user} 0 {system} {idle} 0 0 0 {steal} 0 0")
        };
        let mut text = format!("cpu  {}\n", line(ticks));
        for cpu in 0..self.vcpus {
            let _ = writeln!(text, "cpu{cpu} {}", line(ticks.of_cpu(cpu, self.vcpus)));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let boot = now.saturating_sub(uptime()).as_secs();
        let Tasks { running, blocked, .. } = self.load.tasks();
        let _ = write!(
            text,
            "btime {boot}\nprocesses {}\nprocs_running {}\nprocs_blocked {blocked}\n",
            self.last_process(),
            running.max(1)
        );
        text
    }

    fn ticks(&self) -> Ticks {
        let cpu = self.counters.cpu().unwrap_or_default();
        let mut previous = self.previous.lock().unwrap_or_else(PoisonError::into_inner);
        *previous = previous.advance(cpu, self.started.elapsed(), self.vcpus);
        *previous
    }

    /// The number of the newest process, which is the count of processes that were ever started.
    fn last_process(&self) -> u64 {
        let text = self.loadavg.as_ref().map_or_else(String::new, read);
        text.split_whitespace().last().and_then(|last| last.parse().ok()).unwrap_or_default()
    }
}

/// Time since the start of the machine, or of the environment where it has a time namespace: the start times of
/// processes count from the same moment.
fn uptime() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or_default(),
        u32::try_from(now.tv_nsec).unwrap_or_default(),
    )
}

impl Ticks {
    /// The values after `elapsed`. Idle is what is left of the time of all CPUs.
    fn advance(self, cpu: CpuTime, elapsed: Duration, vcpus: u64) -> Ticks {
        let busy = (cpu.usage_ns / NS_PER_TICK).max(self.user + self.system);
        let user = (cpu.user_ns / NS_PER_TICK).clamp(self.user, busy - self.system);
        let system = busy - user;
        let elapsed_ns = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let all = elapsed_ns.saturating_mul(vcpus) / NS_PER_TICK;
        // A run queue that is throttled has no more time than its CPU.
        let steal = (cpu.throttled_ns / NS_PER_TICK).min(all.saturating_sub(busy)).max(self.steal);
        let idle = all.saturating_sub(busy + steal).max(self.idle);
        Ticks { user, system, idle, steal }
    }

    /// The part of one CPU: the kernel does not count a group's time by CPU in all versions, so it is divided
    /// equally.
    fn of_cpu(self, cpu: u64, vcpus: u64) -> Ticks {
        let part = |all: u64| all / vcpus + u64::from(cpu < all % vcpus);
        Ticks {
            user: part(self.user),
            system: part(self.system),
            idle: part(self.idle),
            steal: part(self.steal),
        }
    }
}

/// `/proc/meminfo` of a machine that has the memory size and only this group in it.
fn meminfo(total: u64, memory: &MemoryUse) -> String {
    let free = total.saturating_sub(memory.usage);
    let files = memory.inactive_file + memory.active_file;
    let slab = memory.slab_reclaimable + memory.slab_unreclaimable;
    let available = (free + files + memory.slab_reclaimable).min(total);
    let lines = [
        ("MemTotal", total),
        ("MemFree", free),
        ("MemAvailable", available),
        ("Buffers", 0),
        ("Cached", memory.cache),
        ("SwapCached", 0),
        ("Active", memory.active_anon + memory.active_file),
        ("Inactive", memory.inactive_anon + memory.inactive_file),
        ("Active(anon)", memory.active_anon),
        ("Inactive(anon)", memory.inactive_anon),
        ("Active(file)", memory.active_file),
        ("Inactive(file)", memory.inactive_file),
        ("Unevictable", memory.unevictable),
        ("Mlocked", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Dirty", memory.dirty),
        ("Writeback", memory.writeback),
        ("AnonPages", memory.anonymous),
        ("Mapped", memory.mapped),
        ("Shmem", memory.shared),
        ("KReclaimable", memory.slab_reclaimable),
        ("Slab", slab),
        ("SReclaimable", memory.slab_reclaimable),
        ("SUnreclaim", memory.slab_unreclaimable),
        ("KernelStack", memory.kernel_stack),
        ("PageTables", memory.page_tables),
    ];
    let mut text = String::with_capacity(lines.len() * 28);
    for (name, bytes) in lines {
        let _ = writeln!(text, "{:<16}{:>8} kB", format!("{name}:"), bytes / 1024);
    }
    text
}

/// A file of the kernel, from its beginning; empty when it cannot be read.
fn read(file: &File) -> String {
    let mut bytes = vec![0; MAX_FILE_BYTES];
    let length = file.read_at(&mut bytes, 0).unwrap_or_default();
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

/// `/proc/vmstat` of the machine with the number of out-of-memory kills of the environment.
fn vmstat(machine: &str, oom_kills: u64) -> String {
    let lines = machine.lines().filter(|line| !line.starts_with("oom_kill "));
    let mut text: String = lines.flat_map(|line| [line, "\n"]).collect();
    let _ = writeln!(text, "oom_kill {oom_kills}");
    text
}

/// The first `count` processors of `/proc/cpuinfo`.
fn first_cpus(cpuinfo: &str, count: u32) -> String {
    let blocks = cpuinfo.split_inclusive("\n\n").take(count as usize);
    blocks.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_add_up_to_the_time_of_all_cpus_and_never_decrease() {
        let cpu = CpuTime { usage_ns: 1_000_000_000, user_ns: 700_000_000, throttled_ns: 500_000_000 };
        let first = Ticks::default().advance(cpu, Duration::from_secs(2), 2);
        assert_eq!(first, Ticks { user: 70, system: 30, idle: 250, steal: 50 });
        // The kernel's estimate of the user part has become smaller.
        let cpu = CpuTime { usage_ns: 1_010_000_000, user_ns: 500_000_000, throttled_ns: 500_000_000 };
        let second = first.advance(cpu, Duration::from_secs(2), 2);
        assert_eq!(second, Ticks { user: 70, system: 31, idle: 250, steal: 50 });
        let parts = [second.of_cpu(0, 2), second.of_cpu(1, 2)];
        assert_eq!(parts[0].system + parts[1].system, 31);
    }

    #[test]
    fn meminfo_accounts_for_the_memory_size() {
        let memory = MemoryUse {
            usage: 100 << 20,
            anonymous: 60 << 20,
            cache: 30 << 20,
            inactive_file: 20 << 20,
            slab_unreclaimable: 10 << 20,
            ..MemoryUse::default()
        };
        let text = meminfo(128 << 20, &memory);
        let value = |name: &str| -> u64 {
            let line = text.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        assert_eq!(value("MemTotal"), 128 << 10);
        assert_eq!(value("MemFree"), 28 << 10);
        assert_eq!(value("MemAvailable"), 48 << 10);
        assert_eq!(value("AnonPages") + value("Cached") + value("Slab"), 100 << 10);
    }

    #[test]
    fn vmstat_has_the_kills_of_the_environment() {
        assert_eq!(vmstat("pgfault 7\noom_kill 38\nthp 0\n", 2), "pgfault 7\nthp 0\noom_kill 2\n");
    }

    #[test]
    fn cpuinfo_has_the_visible_cpus() {
        let machine = "processor\t: 0\nmodel\t: x\n\nprocessor\t: 1\nmodel\t: x\n\nprocessor\t: 2\n\n";
        assert_eq!(first_cpus(machine, 2), "processor\t: 0\nmodel\t: x\n\nprocessor\t: 1\nmodel\t: x\n\n");
    }
}
