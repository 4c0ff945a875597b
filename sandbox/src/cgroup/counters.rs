//! The counters of one group, read again and again: the files stay open, because a process that reads them may have
//! lost sight of their paths.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Longer than any counter file of the kernel.
const MAX_FILE_BYTES: usize = 16 * 1024;

/// The resources that have a pressure file.
const PRESSURE_RESOURCES: [&str; 3] = ["cpu", "memory", "io"];

/// Folders of one group that have counters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterFolders {
    /// Version 2: one folder for all controllers. Absent in version 1.
    pub unified: Option<PathBuf>,
    /// Version 1: the folders of these controllers.
    pub cpu: Option<PathBuf>,
    /// As `cpu`.
    pub cpuacct: Option<PathBuf>,
    /// As `cpu`.
    pub memory: Option<PathBuf>,
    /// As `cpu`.
    pub freezer: Option<PathBuf>,
    /// The folder with the pressure files, which only version 2 has. Beside version 1 it is a group without
    /// controllers.
    pub pressure: Option<PathBuf>,
}

/// CPU time of a group since it was created, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// In user mode and in the kernel, together.
    pub usage_ns: u64,
    /// In user mode. A part of `usage_ns`, which the kernel estimates from samples.
    pub user_ns: u64,
    /// Time in which the run queues of the group were throttled.
    pub throttled_ns: u64,
}

/// Memory charged to a group, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Everything that the limit counts.
    pub usage: u64,
    /// Anonymous memory, without tmpfs.
    pub anonymous: u64,
    /// Page cache with tmpfs.
    pub cache: u64,
    /// tmpfs and shared anonymous memory.
    pub shared: u64,
    /// Page cache that is mapped.
    pub mapped: u64,
    /// Waits to be written.
    pub dirty: u64,
    /// Is being written.
    pub writeback: u64,
    /// On the inactive list, anonymous.
    pub inactive_anon: u64,
    /// On the active list, anonymous.
    pub active_anon: u64,
    /// On the inactive list, of files.
    pub inactive_file: u64,
    /// On the active list, of files.
    pub active_file: u64,
    /// Cannot be reclaimed.
    pub unevictable: u64,
    /// Kernel objects that can be reclaimed. 0 in version 1, which does not separate them.
    pub slab_reclaimable: u64,
    /// Other kernel objects. In version 1 all memory of the kernel.
    pub slab_unreclaimable: u64,
    /// Stacks of threads in the kernel. 0 in version 1.
    pub kernel_stack: u64,
    /// Page tables. 0 in version 1.
    pub page_tables: u64,
}

/// The open counter files of one group.
#[derive(Debug)]
pub struct Counters {
    is_unified: bool,
    cpu_stat: Option<File>,
    cpu_usage: Option<File>,
    cpu_user: Option<File>,
    cpu_system: Option<File>,
    memory_stat: Option<File>,
    memory_usage: Option<File>,
    kernel_memory: Option<File>,
    memory_events: Option<File>,
    freezer: Option<File>,
    pressure: Vec<(&'static str, File)>,
}

impl Counters {
    /// Opens the files that exist in `folders`.
    pub fn open(folders: &CounterFolders) -> Counters {
        let open = |folder: &Option<PathBuf>, name: &str| {
            folder.as_deref().and_then(|folder: &Path| File::open(folder.join(name)).ok())
        };
        let pressure = PRESSURE_RESOURCES.into_iter().filter_map(|resource| {
            Some((resource, open(&folders.pressure, &format!("{resource}.pressure"))?))
        });
        // The kernel accepts the open of a pressure file also where pressure is switched off, and fails the read.
        let pressure = pressure.filter(|(_, file)| read(file).is_ok()).collect();
        let unified = &folders.unified;
        if unified.is_some() {
            return Counters {
                is_unified: true,
                cpu_stat: open(unified, "cpu.stat"),
                cpu_usage: None,
                cpu_user: None,
                cpu_system: None,
                memory_stat: open(unified, "memory.stat"),
                memory_usage: open(unified, "memory.current"),
                kernel_memory: None,
                memory_events: open(unified, "memory.events"),
                freezer: open(unified, "cgroup.freeze"),
                pressure,
            };
        }
        Counters {
            is_unified: false,
            cpu_stat: open(&folders.cpu, "cpu.stat"),
            cpu_usage: open(&folders.cpuacct, "cpuacct.usage"),
            cpu_user: open(&folders.cpuacct, "cpuacct.usage_user"),
            cpu_system: open(&folders.cpuacct, "cpuacct.usage_sys"),
            memory_stat: open(&folders.memory, "memory.stat"),
            memory_usage: open(&folders.memory, "memory.usage_in_bytes"),
            kernel_memory: open(&folders.memory, "memory.kmem.usage_in_bytes"),
            memory_events: open(&folders.memory, "memory.oom_control"),
            freezer: open(&folders.freezer, "freezer.state"),
            pressure,
        }
    }

    /// CPU time; `None` where the kernel does not count it.
    pub fn cpu(&self) -> Option<CpuTime> {
        let stat = read(self.cpu_stat.as_ref()?).unwrap_or_default();
        if self.is_unified {
            let value = |key| value(&stat, key).map(|us| us.saturating_mul(1_000));
            return Some(CpuTime {
                usage_ns: value("usage_usec")?,
                user_ns: value("user_usec").unwrap_or_default(),
                throttled_ns: value("throttled_usec").unwrap_or_default(),
            });
        }
        let usage_ns = number(self.cpu_usage.as_ref())?;
        let (user, system) = (number(self.cpu_user.as_ref()), number(self.cpu_system.as_ref()));
        // The two parts are counted at other moments than the sum, so only their ratio is used.
        let user_ns = match (u128::from(user.unwrap_or(1)), u128::from(system.unwrap_or(0))) {
            (0, 0) => usage_ns,
            (user, system) => {
                u64::try_from(u128::from(usage_ns) * user / (user + system)).unwrap_or(usage_ns)
            }
        };
        Some(CpuTime { usage_ns, user_ns, throttled_ns: value(&stat, "throttled_time").unwrap_or_default() })
    }

    /// Memory; `None` where the kernel does not count it.
    pub fn memory(&self) -> Option<MemoryUse> {
        let usage = number(self.memory_usage.as_ref())?;
        let stat = read(self.memory_stat.as_ref()?).ok()?;
        let value = |key| value(&stat, key).unwrap_or_default();
        let common = MemoryUse {
            usage,
            shared: value("shmem"),
            inactive_anon: value("inactive_anon"),
            active_anon: value("active_anon"),
            inactive_file: value("inactive_file"),
            active_file: value("active_file"),
            unevictable: value("unevictable"),
            ..MemoryUse::default()
        };
        Some(if self.is_unified {
            MemoryUse {
                anonymous: value("anon"),
                cache: value("file"),
                mapped: value("file_mapped"),
                dirty: value("file_dirty"),
                writeback: value("file_writeback"),
                slab_reclaimable: value("slab_reclaimable"),
                slab_unreclaimable: value("slab_unreclaimable"),
                kernel_stack: value("kernel_stack"),
                page_tables: value("pagetables"),
                ..common
            }
        } else {
            MemoryUse {
                anonymous: value("rss"),
                cache: value("cache"),
                mapped: value("mapped_file"),
                dirty: value("dirty"),
                writeback: value("writeback"),
                slab_unreclaimable: number(self.kernel_memory.as_ref()).unwrap_or_default(),
                ..common
            }
        })
    }

    /// Processes that the kernel killed because of the memory limit; `None` where it does not count them.
    pub fn oom_kills(&self) -> Option<u64> {
        value(&read(self.memory_events.as_ref()?).ok()?, "oom_kill")
    }

    /// Resources whose pressure the kernel counts for this group.
    pub fn pressure_resources(&self) -> Vec<&'static str> {
        self.pressure.iter().map(|(resource, _)| *resource).collect()
    }

    /// The pressure file of `resource`, in the format of `/proc/pressure`.
    pub fn pressure(&self, resource: &str) -> Option<String> {
        let (_, file) = self.pressure.iter().find(|(known, _)| *known == resource)?;
        read(file).ok()
    }

    /// Whether the group is frozen, or about to be.
    pub fn is_frozen(&self) -> bool {
        let state = self.freezer.as_ref().and_then(|file| read(file).ok());
        state.is_some_and(|state| !matches!(state.trim(), "0" | "THAWED"))
    }
}

/// Reads a file of the kernel from its beginning, which computes it anew.
fn read(file: &File) -> io::Result<String> {
    let mut bytes = vec![0; MAX_FILE_BYTES];
    let mut length = 0;
    while length < bytes.len() {
        match file.read_at(&mut bytes[length..], length as u64)? {
            0 => break,
            count => length += count,
        }
    }
    bytes.truncate(length);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn number(file: Option<&File>) -> Option<u64> {
    read(file?).ok()?.trim().parse().ok()
}

/// The value of `key` in lines of `key value`.
fn value(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (known, value) = line.split_once(' ')?;
        (known == key).then(|| value.trim().parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn both_versions_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("cpu.stat", "usage_usec 30\nuser_usec 20\nsystem_usec 10\nthrottled_usec 5\n");
        write("memory.current", "4096\n");
        write("memory.stat", "anon 1\nfile 2\nshmem 3\nslab_reclaimable 4\nslab_unreclaimable 5\n");
        write("cpu.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=7\n");
        let folder = Some(dir.path().to_owned());
        let unified =
            CounterFolders { unified: folder.clone(), pressure: folder, ..CounterFolders::default() };
        let counters = Counters::open(&unified);
        let cpu = CpuTime { usage_ns: 30_000, user_ns: 20_000, throttled_ns: 5_000 };
        assert_eq!(counters.cpu(), Some(cpu));
        let memory = counters.memory().unwrap();
        assert_eq!((memory.usage, memory.anonymous, memory.cache, memory.shared), (4096, 1, 2, 3));
        assert_eq!(counters.pressure_resources(), ["cpu"]);
        assert!(counters.pressure("cpu").unwrap().ends_with("total=7\n"));

        write("cpu.stat", "nr_periods 1\nthrottled_time 9\n");
        write("cpuacct.usage", "100\n");
        write("cpuacct.usage_user", "60\n");
        write("cpuacct.usage_sys", "20\n");
        write("memory.usage_in_bytes", "8192\n");
        write("memory.kmem.usage_in_bytes", "6\n");
        write("memory.stat", "cache 2\nrss 1\nrss_huge 0\nshmem 3\n");
        let folder = Some(dir.path().to_owned());
        let separate = CounterFolders {
            cpu: folder.clone(),
            cpuacct: folder.clone(),
            memory: folder,
            ..CounterFolders::default()
        };
        let counters = Counters::open(&separate);
        assert_eq!(counters.cpu(), Some(CpuTime { usage_ns: 100, user_ns: 75, throttled_ns: 9 }));
        let memory = counters.memory().unwrap();
        assert_eq!(
            (memory.usage, memory.anonymous, memory.cache, memory.slab_unreclaimable),
            (8192, 1, 2, 6)
        );
        assert!(counters.pressure_resources().is_empty());
    }
}
