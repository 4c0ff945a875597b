//! The environment's own network namespace.
//!
//! It has the loopback interface, with the APIs at 127.0.0.1:9001, and one other interface. The other end of that
//! interface is in a second namespace, the gateway, where every address is local and every TCP connection is directed to
//! one listener. The sandbox accepts from it and connects to the requested address in the machine's own namespace. So
//! nothing of the machine's network changes, and two environments cannot have the same address or port in use.

use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use nix::sched::{CloneFlags, setns, unshare};

use super::socket_lookup;

/// Address of the machine, as an environment sees it.
pub const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 100, 5);

/// Address of the environment.
const OWN_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 100, 6);

/// Address of the APIs, as on Lambda.
pub const API_PORT: u16 = 9001;

/// Name of the interface. On Lambda an interface has this name too, and agents look for it.
const INTERFACE: &str = "vinternal_1";

const DNS_PORT: u16 = 53;

/// The sockets of one environment's network, for the sandbox.
pub(super) struct Network {
    namespace: File,
    api: TcpListener,
    egress: TcpListener,
    dns: UdpSocket,
    /// Directs connections to `egress` as long as it is open.
    _link: OwnedFd,
}

/// Makes both namespaces and moves this process into the environment's.
pub(super) fn enter() -> anyhow::Result<Network> {
    unshare(CloneFlags::CLONE_NEWNET).context("cannot create a network namespace")?;
    let gateway = current()?;
    ip("link set lo up\nroute add local 0.0.0.0/0 dev lo table local\n")?;
    let egress = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let dns = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, DNS_PORT))?;
    let link = socket_lookup::direct_all(&egress, &gateway)?;
    unshare(CloneFlags::CLONE_NEWNET).context("cannot create a network namespace")?;
    let namespace = current()?;
    let place = format!("/proc/{}/fd/{}", std::process::id(), gateway.as_raw_fd());
    ip(&format!(
        "link set lo up\nlink add {INTERFACE} type veth peer name gateway netns {place}\n\
         addr add {OWN_ADDRESS}/30 dev {INTERFACE}\nlink set {INTERFACE} up\nroute add default via {HOST_ADDRESS}\n"
    ))?;
    setns(&gateway, CloneFlags::CLONE_NEWNET)?;
    // In the same table as the route above, which would otherwise apply to the environment too.
    ip(&format!(
        "addr add {HOST_ADDRESS}/30 dev gateway\nlink set gateway up\n\
         route add {OWN_ADDRESS}/32 dev gateway table local\n"
    ))?;
    setns(&namespace, CloneFlags::CLONE_NEWNET)?;
    let api = TcpListener::bind((Ipv4Addr::LOCALHOST, API_PORT))?;
    Ok(Network { namespace, api, egress, dns, _link: link })
}

impl Network {
    /// In the order of [`NetworkSockets`](super::client::NetworkSockets).
    pub(super) fn descriptors(&self) -> [BorrowedFd<'_>; 4] {
        [self.namespace.as_fd(), self.api.as_fd(), self.egress.as_fd(), self.dns.as_fd()]
    }
}

/// The network namespace of this process.
fn current() -> anyhow::Result<File> {
    File::open("/proc/self/ns/net").context("cannot open the network namespace")
}

/// Runs commands of the program `ip` in the network namespace of this process.
fn ip(commands: &str) -> anyhow::Result<()> {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start `ip` (package iproute2)")?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(commands.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`ip` failed: {}", error.trim());
    Ok(())
}
