//! What is counted for the environment as a whole: `/tmp`, network bytes and connections.

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use nix::sys::statvfs::statvfs;

use super::files::{Allowance, View};
use super::parse;
use crate::net::connections::own_connections;

/// The network's counters take as long to read as all else (17 µs), so that they are left alone for so long.
/// What they counted goes to a later invocation; nothing of it is lost.
const NETWORK_REST: Duration = Duration::from_millis(20);

/// The largest `/tmp` that Lambda has, and some room for how file systems count. A larger one is not the
/// function's own.
const LARGEST_TMP_KIB: u64 = 11 * 1_024 * 1_024;

/// What Lambda calls the interfaces of its virtual machines (seen by Datadog's extension, which counts on them,
/// too). Where there are none, the network is that of a machine with others on it, and saying nothing of it is
/// better.
const LAMBDA_INTERFACES: &str = "vint";

/// The environment's counters at one moment; those of the network run since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EnvironmentCounters {
    /// `/tmp` in use, KiB; zero when it is not a file system of its own.
    pub tmp_used_kib: u64,
    /// Bytes received over Lambda's interfaces.
    pub received_bytes: u64,
    /// Bytes sent over them.
    pub sent_bytes: u64,
    /// TCP connections opened, the extension's own left out.
    pub connections: u64,
}

/// The open views of it.
#[derive(Debug)]
pub(super) struct EnvironmentReader {
    tmp_is_own: bool,
    /// `None` where the network is not the environment's alone.
    network: Option<Network>,
    last: EnvironmentCounters,
}

#[derive(Debug)]
struct Network {
    prefix: &'static str,
    interfaces: View,
    tcp: View,
    read: Option<Instant>,
}

impl EnvironmentReader {
    pub(super) fn new(allowance: &Allowance) -> Self {
        Self::counting(LAMBDA_INTERFACES, allowance)
    }

    /// Counts what goes over interfaces whose names begin so.
    fn counting(interfaces: &'static str, allowance: &Allowance) -> Self {
        let device = |path| std::fs::metadata(path).map(|folder| folder.dev()).ok();
        Self {
            tmp_is_own: device("/tmp").is_some() && device("/tmp") != device("/"),
            network: Network::of(interfaces, allowance),
            last: EnvironmentCounters::default(),
        }
    }

    /// Reads `/tmp` and, when it had its rest, the network.
    pub(super) fn read(&mut self) -> EnvironmentCounters {
        self.last.tmp_used_kib = if self.tmp_is_own { tmp_used_kib() } else { 0 };
        if let Some(network) = &mut self.network {
            network.read(&mut self.last);
        }
        self.last
    }
}

impl Network {
    fn of(prefix: &'static str, allowance: &Allowance) -> Option<Self> {
        let mut interfaces = View::of("/proc/net/dev".to_owned(), allowance);
        interfaces.read(|text| parse::interface_bytes(text, prefix))?;
        let tcp = View::of("/proc/net/snmp".to_owned(), allowance);
        Some(Self { prefix, interfaces, tcp, read: None })
    }

    fn read(&mut self, machine: &mut EnvironmentCounters) {
        if self.read.is_some_and(|read| read.elapsed() < NETWORK_REST) {
            return;
        }
        self.read = Some(Instant::now());
        if let Some([received, sent]) = self.interfaces.read(|text| parse::interface_bytes(text, self.prefix))
        {
            (machine.received_bytes, machine.sent_bytes) = (received, sent);
        }
        if let Some(opened) = self.tcp.read(parse::active_opens) {
            machine.connections = opened.saturating_sub(own_connections());
        }
    }
}

fn tmp_used_kib() -> u64 {
    statvfs("/tmp").map_or(0, |tmp| {
        let kib = |blocks: u64| blocks.saturating_mul(tmp.fragment_size()) / 1_024;
        if kib(tmp.blocks()) > LARGEST_TMP_KIB { 0 } else { kib(tmp.blocks() - tmp.blocks_free()) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_seen_where_the_network_is_ours_alone() {
        let mut watch = EnvironmentReader::counting("lo", &Allowance::of(8));
        let before = watch.read();
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let connect = || std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let connections = [connect(), connect()];
        std::thread::sleep(NETWORK_REST);
        // Others on this machine connect, too: at least these two.
        let after = watch.read();
        assert!(after.connections >= before.connections + connections.len() as u64, "{before:?} {after:?}");
        assert!(after.sent_bytes > before.sent_bytes);
        let soon = watch.read();
        assert_eq!((soon.connections, soon.sent_bytes), (after.connections, after.sent_bytes), "left alone");
    }

    #[test]
    fn a_network_with_others_on_it_is_not_read() {
        let machine = EnvironmentReader::counting("no such interface", &Allowance::of(8)).read();
        assert_eq!((machine.received_bytes, machine.sent_bytes, machine.connections), (0, 0, 0));
    }
}
