//! The kernel's own figures of contention for the CPU: pressure, and the periods of the quota. Lambda may show neither. A
//! container runtime, or a later version of Lambda, does.

use std::time::Instant;

use super::environment_counters::{EnvironmentCounters, NETWORK_READ_INTERVAL};
use super::environment_cpu::describes_environment;
use super::files::{DescriptorBudget, ReadableFile};
use super::parse;

/// Pressure stall information of the kernel.
const PRESSURE: &str = "/proc/pressure/cpu";

/// Where a control group shows its periods: version 2, and version 1.
const QUOTAS: [&str; 2] = ["/sys/fs/cgroup/cpu.stat", "/sys/fs/cgroup/cpu/cpu.stat"];

/// Reads the files that exist.
#[derive(Debug)]
pub(super) struct CpuContention {
    interfaces: &'static str,
    descriptor_budget: DescriptorBudget,
    /// `None` before the first reading: at the start every instruction counts.
    files: Option<Files>,
    read: Option<Instant>,
}

#[derive(Debug)]
struct Files {
    pressure: Option<ReadableFile>,
    quota: Option<ReadableFile>,
}

impl CpuContention {
    pub(super) fn new(interfaces: &'static str, descriptor_budget: &DescriptorBudget) -> Self {
        Self { interfaces, descriptor_budget: descriptor_budget.clone(), files: None, read: None }
    }

    /// Reads what exists, if the interval has passed.
    pub(super) fn read(&mut self, counters: &mut EnvironmentCounters) {
        let (interfaces, budget) = (self.interfaces, &self.descriptor_budget);
        let files = self.files.get_or_insert_with(|| Files::find(interfaces, budget));
        if !files.exist() || self.read.is_some_and(|read| read.elapsed() < NETWORK_READ_INTERVAL) {
            return;
        }
        self.read = Some(Instant::now());
        if let Some(pressure_us) = files.pressure.as_mut().and_then(|file| file.read(parse::some_pressure_us))
        {
            counters.pressure_us = pressure_us;
        }
        if let Some([periods, throttled]) = files.quota.as_mut().and_then(|file| file.read(quota)) {
            (counters.quota_periods, counters.throttled_periods) = (periods, throttled);
        }
    }
}

impl Files {
    fn find(interfaces: &str, budget: &DescriptorBudget) -> Self {
        let open = |path: &str| ReadableFile::of(path.to_owned(), budget);
        let mut pressure = Some(open(PRESSURE)).filter(|_| describes_environment(PRESSURE, interfaces));
        pressure = pressure.filter(|_| std::fs::exists(PRESSURE).unwrap_or_default());
        let quota = QUOTAS.into_iter().map(open).find_map(|mut file| file.read(quota).map(|_| file));
        Self { pressure, quota }
    }

    const fn exist(&self) -> bool {
        self.pressure.is_some() || self.quota.is_some()
    }
}

/// The periods of the quota, and those that were throttled; `None` without a quota.
fn quota(text: &str) -> Option<[u64; 2]> {
    text.contains("nr_periods").then(|| parse::values(text, ["nr_periods", "nr_throttled"]))
}
