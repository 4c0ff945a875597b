//! Version 1: one tree per controller.

use std::fs;
use std::path::{Path, PathBuf};

use super::{
    CPU_PERIOD_US, CgroupError, CounterFolders, CpuUsage, MAX_TASKS, Owner, await_freezer,
    files::{make, read_key, read_u64, remove, remove_leftovers, write},
};

#[derive(Debug)]
pub(super) struct Hierarchy {
    trees: Vec<(&'static str, PathBuf)>,
    /// Version 2 may be mounted beside version 1, without controllers. Its groups have pressure files.
    pressure: Option<PathBuf>,
}

impl Hierarchy {
    /// The freezer is first: removal in this order thaws processes, which can end only when they are not frozen.
    pub(super) const CONTROLLERS: [&'static str; 5] = ["freezer", "cpu", "cpuacct", "memory", "pids"];

    pub(super) fn detect(owner: &Owner) -> (Option<Hierarchy>, Vec<&'static str>) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mut trees = Vec::new();
        let mut missing = Vec::new();
        for controller in Self::CONTROLLERS {
            let parent = parent(&mounts, &own, controller);
            if let Some(parent) = &parent {
                remove_leftovers(parent);
            }
            match parent.map(|parent| parent.join(owner.name())) {
                Some(tree) if make(&tree).is_ok() => trees.push((controller, tree)),
                _ => missing.push(controller),
            }
        }
        let pressure = unified_parent(&mounts, &own).and_then(|parent| {
            remove_leftovers(&parent);
            let tree = parent.join(owner.name());
            make(&tree).is_ok().then_some(tree)
        });
        ((!trees.is_empty()).then_some(Hierarchy { trees, pressure }), missing)
    }

    pub(super) fn create(&self, name: &str) -> Result<Group, CgroupError> {
        let mut group = Group { trees: Vec::new(), pressure: None };
        for (controller, tree) in &self.trees {
            let directory = tree.join(name);
            make(&directory)?;
            group.trees.push((controller, directory));
        }
        if let Some(tree) = &self.pressure {
            let directory = tree.join(name);
            make(&directory)?;
            group.pressure = Some(directory);
        }
        if let Some(pids) = group.tree("pids") {
            write(pids, "pids.max", &MAX_TASKS.to_string())?;
        }
        Ok(group)
    }

    pub(super) fn remove(&self) {
        for tree in self.trees.iter().map(|(_, tree)| tree).chain(&self.pressure) {
            remove(tree);
        }
    }
}

/// As [`parent`], in the tree of version 2.
fn unified_parent(mounts: &str, own: &str) -> Option<PathBuf> {
    let point = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let is_v2 = after.split_whitespace().next()? == "cgroup2";
        is_v2.then(|| before.split_whitespace().nth(4)).flatten()
    })?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let directory = Path::new(point).join(path.trim_start_matches('/'));
    directory.join("cgroup.procs").is_file().then_some(directory)
}

/// Where this process's own group in `controller`'s tree is mounted. Groups nest under it, so that a limit set
/// on the sandbox as a whole applies to its environments too.
fn parent(mounts: &str, own: &str, controller: &str) -> Option<PathBuf> {
    let mount = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split_whitespace();
        let is_v1 = after.next()? == "cgroup";
        let has = after.nth(1)?.split(',').any(|option| option == controller);
        let mut fields = before.split_whitespace().skip(3);
        (is_v1 && has).then_some((fields.next()?, fields.next()?))
    })?;
    let path = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let has = fields.next()?.split(',').any(|name| name == controller);
        has.then(|| fields.next()).flatten()
    })?;
    let (root, point) = mount;
    let inside = path.strip_prefix(root).unwrap_or(path).trim_start_matches('/');
    let directory = Path::new(point).join(inside);
    directory.is_dir().then_some(directory)
}

#[derive(Debug)]
pub(super) struct Group {
    trees: Vec<(&'static str, PathBuf)>,
    pressure: Option<PathBuf>,
}

impl Group {
    fn tree(&self, controller: &str) -> Option<&Path> {
        self.trees.iter().find(|(name, _)| *name == controller).map(|(_, path)| path.as_path())
    }

    pub(super) fn directory(&self) -> &Path {
        // `create` is only reached with at least one tree.
        self.trees.first().map_or_else(|| Path::new("/"), |(_, path)| path)
    }

    pub(super) fn entrances(&self) -> Vec<PathBuf> {
        let trees = self.trees.iter().map(|(_, path)| path).chain(&self.pressure);
        trees.map(|path| path.join("cgroup.procs")).collect()
    }

    pub(super) fn counter_folders(&self) -> CounterFolders {
        let folder = |controller| self.tree(controller).map(Path::to_owned);
        CounterFolders {
            unified: None,
            cpu: folder("cpu"),
            cpuacct: folder("cpuacct"),
            memory: folder("memory"),
            freezer: folder("freezer"),
            pressure: self.pressure.clone(),
        }
    }

    pub(super) fn thaw_file(&self) -> Option<(PathBuf, String)> {
        Some((self.tree("freezer")?.join("freezer.state"), "THAWED".into()))
    }

    pub(super) fn has_freezer(&self) -> bool {
        self.tree("freezer").is_some()
    }

    pub(super) fn limit_cpu(&self, quota_us: Option<u64>) -> Result<(), CgroupError> {
        let Some(cpu) = self.tree("cpu") else { return Ok(()) };
        write(cpu, "cpu.cfs_period_us", &CPU_PERIOD_US.to_string())?;
        let quota = quota_us.map_or_else(|| "-1".to_owned(), |quota| quota.to_string());
        write(cpu, "cpu.cfs_quota_us", &quota)
    }

    pub(super) fn limit_memory(&self, bytes: u64) -> Result<(), CgroupError> {
        let Some(memory) = self.tree("memory") else { return Ok(()) };
        write(memory, "memory.limit_in_bytes", &bytes.to_string())?;
        // Absent when the kernel does not account for swap; then there is none to limit.
        let _ = write(memory, "memory.memsw.limit_in_bytes", &bytes.to_string());
        Ok(())
    }

    pub(super) fn freeze(&self) -> Result<(), CgroupError> {
        self.set_freezer("FROZEN")
    }

    pub(super) fn thaw(&self) -> Result<(), CgroupError> {
        self.set_freezer("THAWED")
    }

    fn set_freezer(&self, state: &'static str) -> Result<(), CgroupError> {
        let Some(freezer) = self.tree("freezer") else { return Ok(()) };
        write(freezer, "freezer.state", state)?;
        await_freezer(freezer, state, || {
            fs::read_to_string(freezer.join("freezer.state")).is_ok_and(|now| now.trim() == state)
        })
    }

    pub(super) fn cpu(&self) -> Option<CpuUsage> {
        let usage_ns = read_u64(self.tree("cpuacct")?, "cpuacct.usage")?;
        let key = |key| self.tree("cpu").and_then(|cpu| read_key(cpu, "cpu.stat", key)).unwrap_or_default();
        Some(CpuUsage {
            usage_ns,
            periods: key("nr_periods "),
            throttled_periods: key("nr_throttled "),
            throttled_ns: key("throttled_time "),
        })
    }

    pub(super) fn memory_peak(&self) -> Option<u64> {
        read_u64(self.tree("memory")?, "memory.max_usage_in_bytes")
    }

    pub(super) fn reset_memory_peak(&self) -> bool {
        self.tree("memory").is_some_and(|memory| write(memory, "memory.max_usage_in_bytes", "0").is_ok())
    }

    pub(super) fn memory_current(&self) -> Option<u64> {
        read_u64(self.tree("memory")?, "memory.usage_in_bytes")
    }

    pub(super) fn oom_kills(&self) -> u64 {
        self.tree("memory")
            .and_then(|memory| read_key(memory, "memory.oom_control", "oom_kill "))
            .unwrap_or_default()
    }

    pub(super) fn remove(&self) {
        for tree in self.trees.iter().map(|(_, tree)| tree).chain(&self.pressure) {
            remove(tree);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_this_process_own_group() {
        let dir = tempfile::tempdir().unwrap();
        let point = dir.path().display();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        let mounts = format!(
            "31 24 0:28 / {point} rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
             40 24 0:30 / /elsewhere rw - cgroup2 cgroup rw\n"
        );
        let own = "4:cpu,cpuacct:/a/b\n0::/\n";
        assert_eq!(parent(&mounts, own, "cpu"), Some(dir.path().join("a/b")));
        assert_eq!(parent(&mounts, own, "cpuacct"), Some(dir.path().join("a/b")));
        assert_eq!(parent(&mounts, own, "memory"), None);
    }
}
