//! Counters of the whole environment: `/tmp`, network bytes and connections, and the contention for the CPU.

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use nix::sys::statvfs::statvfs;

use super::cpu_contention::CpuContention;
use super::files::{DescriptorBudget, ReadableFile};
use super::parse;
use crate::net::connections::{own_connections, own_file_bytes};

/// The shortest interval between two readings of the network's counters, which take as long as all others (17 µs). What
/// they count in between belongs to a later invocation; nothing is lost.
pub(super) const NETWORK_READ_INTERVAL: Duration = Duration::from_millis(20);

/// Lambda's largest `/tmp`, with a reserve for the file system itself. A larger one does not belong to the function.
const MAX_TMP_KIB: u64 = 11 * 1_024 * 1_024;

/// The prefix of the network interfaces in Lambda's virtual machines. Datadog's extension uses it, too. Without such an
/// interface the environment shares its network with others, and its counters are not used.
pub(super) const LAMBDA_INTERFACES: &str = "vint";

/// The counters at one moment. Those of the network count from the start of the environment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EnvironmentCounters {
    /// `/tmp` in use, KiB; zero when it is not a file system of its own.
    pub tmp_used_kib: u64,
    /// Bytes received over Lambda's interfaces.
    pub received_bytes: u64,
    /// Bytes sent over them.
    pub sent_bytes: u64,
    /// TCP connections opened, without those of the extension.
    pub connections: u64,
    /// Time in which at least one thread waited for a CPU, microseconds; zero when unknown.
    pub pressure_us: u64,
    /// Periods of the CPU quota; zero when unknown.
    pub quota_periods: u64,
    /// Those of them that were throttled.
    pub throttled_periods: u64,
}

/// Reads the counters.
#[derive(Debug)]
pub(super) struct EnvironmentReader {
    tmp_is_own: bool,
    /// `None` where the environment shares its network.
    network: Option<Network>,
    contention: CpuContention,
    last: EnvironmentCounters,
}

#[derive(Debug)]
struct Network {
    prefix: &'static str,
    interfaces: ReadableFile,
    tcp: ReadableFile,
    read: Option<Instant>,
}

impl EnvironmentReader {
    pub(super) fn new(descriptor_budget: &DescriptorBudget) -> Self {
        Self::counting(LAMBDA_INTERFACES, descriptor_budget)
    }

    /// Counts the interfaces whose names begin with `interfaces`.
    fn counting(interfaces: &'static str, descriptor_budget: &DescriptorBudget) -> Self {
        let device = |path| std::fs::metadata(path).map(|folder| folder.dev()).ok();
        Self {
            tmp_is_own: device("/tmp").is_some() && device("/tmp") != device("/"),
            network: Network::of(interfaces, descriptor_budget),
            contention: CpuContention::new(interfaces, descriptor_budget),
            last: EnvironmentCounters::default(),
        }
    }

    /// The counters of the last reading.
    pub(super) const fn last(&self) -> EnvironmentCounters {
        self.last
    }

    /// Reads `/tmp` and, if the interval has passed, the network and the contention for the CPU.
    pub(super) fn read(&mut self) -> EnvironmentCounters {
        self.last.tmp_used_kib = if self.tmp_is_own { tmp_used_kib() } else { 0 };
        if let Some(network) = &mut self.network {
            network.read(&mut self.last);
        }
        self.contention.read(&mut self.last);
        self.last
    }
}

impl Network {
    fn of(prefix: &'static str, descriptor_budget: &DescriptorBudget) -> Option<Self> {
        let mut interfaces = ReadableFile::of("/proc/net/dev".to_owned(), descriptor_budget);
        interfaces.read(|text| parse::interface_bytes(text, prefix))?;
        let tcp = ReadableFile::of("/proc/net/snmp".to_owned(), descriptor_budget);
        Some(Self { prefix, interfaces, tcp, read: None })
    }

    fn read(&mut self, counters: &mut EnvironmentCounters) {
        if self.read.is_some_and(|read| read.elapsed() < NETWORK_READ_INTERVAL) {
            return;
        }
        self.read = Some(Instant::now());
        if let Some([received, sent]) = self.interfaces.read(|text| parse::interface_bytes(text, self.prefix))
        {
            counters.received_bytes = received;
            counters.sent_bytes = without_own(sent, own_file_bytes(), counters.sent_bytes);
        }
        if let Some(opened) = self.tcp.read(parse::active_opens) {
            counters.connections = opened.saturating_sub(own_connections());
        }
    }
}

/// The bytes that were sent, without those of our own files. A part of a file is counted before the kernel sends it, so the
/// difference may fall: it stays at `last` then.
fn without_own(sent: u64, own: u64, last: u64) -> u64 {
    sent.saturating_sub(own).max(last)
}

fn tmp_used_kib() -> u64 {
    statvfs("/tmp").map_or(0, |tmp| {
        let kib = |blocks: u64| blocks.saturating_mul(tmp.fragment_size()) / 1_024;
        if kib(tmp.blocks()) > MAX_TMP_KIB { 0 } else { kib(tmp.blocks() - tmp.blocks_free()) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_in_a_network_of_our_own() {
        let mut reader = EnvironmentReader::counting("lo", &DescriptorBudget::of(8));
        let before = reader.read();
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let connect = || std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let connections = [connect(), connect()];
        std::thread::sleep(NETWORK_READ_INTERVAL);
        // Other processes may connect, too: at least these two.
        let after = reader.read();
        assert!(after.connections >= before.connections + connections.len() as u64, "{before:?} {after:?}");
        assert!(after.sent_bytes > before.sent_bytes);
        let soon = reader.read();
        assert_eq!(
            (soon.connections, soon.sent_bytes),
            (after.connections, after.sent_bytes),
            "within the interval"
        );
    }

    #[test]
    fn bytes_of_our_own_files_are_not_the_functions() {
        // The function sends 10 bytes, we count a file of 100 bytes, the kernel sends it, the function sends 5 bytes more.
        let readings = [(10, 0), (10, 100), (60, 100), (110, 100), (115, 100)];
        let counted = readings.into_iter().scan(0, |last, (sent, own)| {
            *last = without_own(sent, own, *last);
            Some(*last)
        });
        assert_eq!(counted.collect::<Vec<_>>(), [10, 10, 10, 10, 15]);
    }

    #[test]
    fn a_shared_network_is_not_read() {
        let counters = EnvironmentReader::counting("no such interface", &DescriptorBudget::of(8)).read();
        assert_eq!((counters.received_bytes, counters.sent_bytes, counters.connections), (0, 0, 0));
    }
}
