//! The process and its disk, read at each scrape. The names of the first are those of Prometheus's client libraries.

use std::fmt;
use std::path::{Path, PathBuf};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// The process, and the folder with its data.
#[derive(Debug)]
pub(super) struct ProcessMetrics {
    /// The data folder; `None` in tests without one.
    folder: Option<PathBuf>,
}

impl ProcessMetrics {
    pub(super) const fn of(folder: Option<PathBuf>) -> Self {
        Self { folder }
    }
}

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let pid = Pid::from_u32(std::process::id());
        let what = ProcessRefreshKind::nothing().with_cpu().with_memory();
        let system = System::new().map(|mut system| {
            system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, what);
            system
        });
        if let Some(process) = system.as_ref().ok().and_then(|system| system.process(pid)) {
            let help = "CPU time of the process";
            let mut metric =
                encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), MetricType::Counter)?;
            let seconds = process.accumulated_cpu_time() as f64 / 1e3;
            metric.encode_counter::<NoLabelSet, _, f64>(&seconds, None)?;
            let gauges = [
                ("process_resident_memory", "Resident memory of the process", Unit::Bytes, process.memory()),
                (
                    "process_virtual_memory",
                    "Virtual memory of the process",
                    Unit::Bytes,
                    process.virtual_memory(),
                ),
                (
                    "process_start_time",
                    "Start of the process, seconds since the Unix epoch",
                    Unit::Seconds,
                    process.start_time(),
                ),
            ];
            for (name, help, unit, value) in gauges {
                let mut metric = encoder.encode_descriptor(name, help, Some(&unit), MetricType::Gauge)?;
                metric.encode_gauge(&value)?;
            }
            let files = [
                ("process_open_fds", "Open file descriptors", process.open_files()),
                ("process_max_fds", "Limit of open file descriptors", process.open_files_limit()),
            ];
            for (name, help, value) in files {
                let Some(value) = value else { continue };
                let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                metric.encode_gauge(&value)?;
            }
        }
        self.folder.as_deref().map_or(Ok(()), |folder| encode_disk(&mut encoder, folder))
    }
}

fn encode_disk(encoder: &mut DescriptorEncoder<'_>, folder: &Path) -> fmt::Result {
    let mut sizes =
        vec![("tailor_data_folder_size", "Size of the files in the data folder", size_of(folder))];
    if let Ok(disk) = rustix::fs::statvfs(folder) {
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        let free = "Free space of the file system of the data folder";
        sizes.push(("tailor_disk_free", free, bytes(disk.f_bavail)));
        sizes.push(("tailor_disk_size", "Size of the file system of the data folder", bytes(disk.f_blocks)));
    }
    for (name, help, value) in sizes {
        let mut metric = encoder.encode_descriptor(name, help, Some(&Unit::Bytes), MetricType::Gauge)?;
        metric.encode_gauge(&value)?;
    }
    Ok(())
}

/// Bytes of the files directly in a folder: the store, its log, and the keys.
fn size_of(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let files =
        entries.flatten().filter_map(|entry| entry.metadata().ok()).filter(std::fs::Metadata::is_file);
    files.map(|file| file.len()).sum()
}
