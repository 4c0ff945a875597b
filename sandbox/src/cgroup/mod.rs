//! Limits and accounting of one environment, by control groups.
//!
//! Version 1 and version 2 hierarchies are behind [`Group`]. Where a controller is missing or not writable the
//! corresponding limit is off, and [`Hierarchy::missing`] lists the controller. Nothing is approximated.

mod counters;
mod files;
mod owner;
mod v1;
mod v2;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use thiserror::Error;

pub use counters::{CounterFolders, Counters, CpuTime, MemoryUse};
pub use owner::Owner;

/// CFS period on Lambda, microseconds (measured by several third parties; specification sheet section 3.4).
pub const CPU_PERIOD_US: u64 = 20_000;

/// The kernel rejects quotas under one millisecond.
const MINIMUM_QUOTA_US: u64 = 1_000;

/// Processes and threads an environment may have (Lambda quotas).
const MAX_TASKS: u32 = 1024;

/// Time limit for a freeze or thaw to complete. Tasks in uninterruptible sleep delay it.
const FREEZER_TIMEOUT: Duration = Duration::from_secs(2);

/// A control group operation that failed.
#[derive(Debug, Error)]
pub enum CgroupError {
    #[error("cannot {action} {path}")]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} did not become {state} within {FREEZER_TIMEOUT:?}")]
    FreezerStuck { path: PathBuf, state: &'static str },
}

/// CPU counters since the group was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuUsage {
    /// CPU time consumed, nanoseconds.
    pub usage_ns: u64,
    /// Periods in which the group had threads that were ready to run.
    pub periods: u64,
    /// Periods in which it ran out of quota.
    pub throttled_periods: u64,
    /// Time its run queues were throttled, nanoseconds.
    pub throttled_ns: u64,
}

impl CpuUsage {
    /// The difference to `earlier`.
    pub fn since(self, earlier: CpuUsage) -> CpuUsage {
        CpuUsage {
            usage_ns: self.usage_ns.saturating_sub(earlier.usage_ns),
            periods: self.periods.saturating_sub(earlier.periods),
            throttled_periods: self.throttled_periods.saturating_sub(earlier.throttled_periods),
            throttled_ns: self.throttled_ns.saturating_sub(earlier.throttled_ns),
        }
    }
}

/// The control groups of this machine that the sandbox may use.
#[derive(Debug)]
pub struct Hierarchy {
    backend: Backend,
    missing: Vec<&'static str>,
}

#[derive(Debug)]
enum Backend {
    V1(v1::Hierarchy),
    V2(v2::Hierarchy),
    Off,
}

impl Hierarchy {
    /// Finds the mounted and writable hierarchies, removes the groups of sandboxes that have ended, and creates this
    /// sandbox's parent group.
    pub fn detect() -> Hierarchy {
        let owner = Owner::current();
        if let Some(hierarchy) = v2::Hierarchy::detect(&owner) {
            return Hierarchy { backend: Backend::V2(hierarchy), missing: Vec::new() };
        }
        let (hierarchy, missing) = v1::Hierarchy::detect(&owner);
        match hierarchy {
            Some(hierarchy) => Hierarchy { backend: Backend::V1(hierarchy), missing },
            None => Hierarchy { backend: Backend::Off, missing },
        }
    }

    /// No limits, no freezer, no accounting.
    pub fn off() -> Hierarchy {
        Hierarchy { backend: Backend::Off, missing: v1::Hierarchy::CONTROLLERS.to_vec() }
    }

    /// Controllers that cannot be used; empty when everything is on.
    pub fn missing(&self) -> &[&'static str] {
        &self.missing
    }

    /// The version in use, for log messages.
    pub fn version(&self) -> &'static str {
        match self.backend {
            Backend::V1(_) => "cgroup v1",
            Backend::V2(_) => "cgroup v2",
            Backend::Off => "no cgroups",
        }
    }

    /// Whether groups count CPU time and memory.
    pub fn has_counters(&self) -> bool {
        !self.missing.iter().any(|name| ["cpu", "cpuacct", "memory"].contains(name))
    }

    /// Makes the group of one environment.
    pub fn create(&self, name: &str) -> Result<Group, CgroupError> {
        Ok(Group(match &self.backend {
            Backend::V1(hierarchy) => GroupKind::V1(hierarchy.create(name)?),
            Backend::V2(hierarchy) => GroupKind::V2(hierarchy.create(name)?),
            Backend::Off => GroupKind::Off,
        }))
    }

    /// Removes the parent group that [`Hierarchy::detect`] created, and everything in it.
    pub fn remove(&self) {
        match &self.backend {
            Backend::V1(hierarchy) => hierarchy.remove(),
            Backend::V2(hierarchy) => hierarchy.remove(),
            Backend::Off => {}
        }
    }
}

/// The control group of one environment.
#[derive(Debug)]
pub struct Group(GroupKind);

#[derive(Debug)]
enum GroupKind {
    V1(v1::Group),
    V2(v2::Group),
    Off,
}

macro_rules! delegate {
    ($self:ident, $group:ident => $call:expr, $off:expr) => {
        match &$self.0 {
            GroupKind::V1($group) => $call,
            GroupKind::V2($group) => $call,
            GroupKind::Off => $off,
        }
    };
}

impl Group {
    /// Files to which a process writes `0` to enter the group.
    pub fn entrances(&self) -> Vec<PathBuf> {
        delegate!(self, group => group.entrances(), Vec::new())
    }

    /// Folders with the group's counters.
    pub fn counter_folders(&self) -> CounterFolders {
        delegate!(self, group => group.counter_folders(), CounterFolders::default())
    }

    /// A file and the value to write to it to thaw the processes. The supervisor uses it when the sandbox has ended.
    pub fn thaw_file(&self) -> Option<(PathBuf, String)> {
        delegate!(self, group => group.thaw_file(), None)
    }

    /// Whether [`Group::freeze`] does anything.
    pub fn has_freezer(&self) -> bool {
        delegate!(self, group => group.has_freezer(), false)
    }

    /// Limits CPU bandwidth to `vcpus`, or lifts the limit.
    pub fn limit_cpu(&self, vcpus: Option<f64>) -> Result<(), CgroupError> {
        let quota_us = vcpus.map(quota_us);
        delegate!(self, group => group.limit_cpu(quota_us), Ok(()))
    }

    /// Limits memory, swap included.
    pub fn limit_memory(&self, bytes: u64) -> Result<(), CgroupError> {
        delegate!(self, group => group.limit_memory(bytes), Ok(()))
    }

    /// Stops every process of the group and returns when all have stopped.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        delegate!(self, group => group.freeze(), Ok(()))
    }

    /// Continues every process of the group.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        delegate!(self, group => group.thaw(), Ok(()))
    }

    /// CPU counters; `None` where the kernel has none.
    pub fn cpu(&self) -> Option<CpuUsage> {
        delegate!(self, group => group.cpu(), None)
    }

    /// Highest memory charged to the group since the last [`Group::reset_memory_peak`], bytes.
    pub fn memory_peak(&self) -> Option<u64> {
        delegate!(self, group => group.memory_peak(), None)
    }

    /// Resets the peak. `false` when the kernel does not support it.
    pub fn reset_memory_peak(&self) -> bool {
        delegate!(self, group => group.reset_memory_peak(), false)
    }

    /// Memory charged now, bytes.
    pub fn memory_current(&self) -> Option<u64> {
        delegate!(self, group => group.memory_current(), None)
    }

    /// Processes killed for exceeding the memory limit.
    pub fn oom_kills(&self) -> u64 {
        delegate!(self, group => group.oom_kills(), 0)
    }

    /// Process ids in the group, as this process sees them.
    pub fn processes(&self) -> Vec<i32> {
        delegate!(self, group => files::processes(group.directory()), Vec::new())
    }

    /// Removes the group. Its processes must have ended. The kernel may need some milliseconds to release it.
    pub fn remove(&self) {
        delegate!(self, group => group.remove(), ());
    }
}

fn quota_us(vcpus: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive number of microseconds"
    )]
    let quota = (vcpus.max(0.0) * CPU_PERIOD_US as f64).round() as u64;
    quota.max(MINIMUM_QUOTA_US)
}

/// Polls `reached` until it is true: freezing is asynchronous in both versions.
fn await_freezer(path: &Path, state: &'static str, reached: impl Fn() -> bool) -> Result<(), CgroupError> {
    let started = Instant::now();
    while !reached() {
        if started.elapsed() > FREEZER_TIMEOUT {
            return Err(CgroupError::FreezerStuck { path: path.to_owned(), state });
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quota_is_the_share_of_a_20_ms_period() {
        assert_eq!(quota_us(1.0), 20_000);
        assert_eq!(quota_us(128.0 / 1769.0), 1_447);
        assert_eq!(quota_us(10_240.0 / 1769.0), 115_772);
    }
}
