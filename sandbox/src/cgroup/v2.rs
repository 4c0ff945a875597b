//! Version 2: one tree for all controllers.

use std::fs;
use std::path::{Path, PathBuf};

use super::{
    CPU_PERIOD_US, CgroupError, CounterFolders, CpuUsage, MAX_TASKS, Owner, await_freezer,
    files::{make, read_key, read_u64, remove, remove_leftovers, write},
};

#[derive(Debug)]
pub(super) struct Hierarchy {
    tree: PathBuf,
}

impl Hierarchy {
    /// `None` when the unified hierarchy lacks a controller (they then belong to version 1) or is read-only.
    pub(super) fn detect(owner: &Owner) -> Option<Hierarchy> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let root = mounts.lines().find_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            (after.split_whitespace().next()? == "cgroup2")
                .then(|| before.split_whitespace().nth(4))
                .flatten()
        })?;
        let root = Path::new(root);
        let available = fs::read_to_string(root.join("cgroup.controllers")).ok()?;
        if !["cpu", "memory"].iter().all(|needed| available.split_whitespace().any(|name| name == *needed)) {
            return None;
        }
        remove_leftovers(root);
        // Directly under the root: a group that has processes, as this one's own does, may not have
        // sub-groups with controllers.
        let tree = root.join(owner.name());
        make(&tree).ok()?;
        let hierarchy = Hierarchy { tree };
        let enabled = enable(root).and_then(|()| enable(&hierarchy.tree));
        if enabled.is_err() {
            hierarchy.remove();
        }
        enabled.is_ok().then_some(hierarchy)
    }

    pub(super) fn create(&self, name: &str) -> Result<Group, CgroupError> {
        let directory = self.tree.join(name);
        make(&directory)?;
        // Optional controller: without it the number of tasks is not limited.
        let _ = write(&directory, "pids.max", &MAX_TASKS.to_string());
        Ok(Group { directory })
    }

    pub(super) fn remove(&self) {
        remove(&self.tree);
    }
}

fn enable(directory: &Path) -> Result<(), CgroupError> {
    write(directory, "cgroup.subtree_control", "+cpu +memory")?;
    let _ = write(directory, "cgroup.subtree_control", "+pids");
    Ok(())
}

#[derive(Debug)]
pub(super) struct Group {
    directory: PathBuf,
}

impl Group {
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn entrances(&self) -> Vec<PathBuf> {
        vec![self.directory.join("cgroup.procs")]
    }

    pub(super) fn counter_folders(&self) -> CounterFolders {
        let directory = Some(self.directory.clone());
        CounterFolders { unified: directory.clone(), pressure: directory, ..CounterFolders::default() }
    }

    pub(super) fn thaw_file(&self) -> Option<(PathBuf, String)> {
        Some((self.directory.join("cgroup.freeze"), "0".into()))
    }

    #[expect(clippy::unused_self, reason = "same interface as version 1")]
    pub(super) fn has_freezer(&self) -> bool {
        true
    }

    pub(super) fn limit_cpu(&self, quota_us: Option<u64>) -> Result<(), CgroupError> {
        let quota = quota_us.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
        write(&self.directory, "cpu.max", &format!("{quota} {CPU_PERIOD_US}"))
    }

    pub(super) fn limit_memory(&self, bytes: u64) -> Result<(), CgroupError> {
        write(&self.directory, "memory.max", &bytes.to_string())?;
        // Absent without swap accounting.
        let _ = write(&self.directory, "memory.swap.max", "0");
        Ok(())
    }

    pub(super) fn freeze(&self) -> Result<(), CgroupError> {
        self.set_freezer("1", "frozen 1")
    }

    pub(super) fn thaw(&self) -> Result<(), CgroupError> {
        self.set_freezer("0", "frozen 0")
    }

    fn set_freezer(&self, value: &str, state: &'static str) -> Result<(), CgroupError> {
        write(&self.directory, "cgroup.freeze", value)?;
        await_freezer(&self.directory, state, || {
            fs::read_to_string(self.directory.join("cgroup.events"))
                .is_ok_and(|events| events.lines().any(|line| line == state))
        })
    }

    pub(super) fn cpu(&self) -> Option<CpuUsage> {
        let key = |key| read_key(&self.directory, "cpu.stat", key);
        Some(CpuUsage {
            usage_ns: key("usage_usec ")?.saturating_mul(1000),
            periods: key("nr_periods ").unwrap_or_default(),
            throttled_periods: key("nr_throttled ").unwrap_or_default(),
            throttled_ns: key("throttled_usec ").unwrap_or_default().saturating_mul(1000),
        })
    }

    pub(super) fn memory_peak(&self) -> Option<u64> {
        read_u64(&self.directory, "memory.peak")
    }

    /// The kernel resets `memory.peak` only for the descriptor that wrote to it, so a reset seen by later
    /// opens is not possible. The peak covers the whole life of the environment.
    #[expect(clippy::unused_self, reason = "same interface as version 1")]
    pub(super) fn reset_memory_peak(&self) -> bool {
        false
    }

    pub(super) fn memory_current(&self) -> Option<u64> {
        read_u64(&self.directory, "memory.current")
    }

    pub(super) fn oom_kills(&self) -> u64 {
        read_key(&self.directory, "memory.events", "oom_kill ").unwrap_or_default()
    }

    pub(super) fn remove(&self) {
        remove(&self.directory);
    }
}
