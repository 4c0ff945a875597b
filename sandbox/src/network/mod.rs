//! The sandbox's end of an environment's network: connections into it, and connections from it to the machine and beyond.

mod dns;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::thread;

use nix::sched::{CloneFlags, setns};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use crate::supervisor::network::HOST_ADDRESS;
pub use dns::resolver_file;

/// Name of the machine in `/etc/hosts` of every environment.
pub const HOST_NAME: &str = "host.sandbox.internal";

/// The loopback interface of an environment: its own, or the machine's until [`Loopback::enter`].
#[derive(Debug, Default)]
pub struct Loopback(OnceLock<OwnedFd>);

impl Loopback {
    /// Connections go into this network namespace from now on.
    pub fn enter(&self, namespace: OwnedFd) {
        // Set once, when the environment is created.
        let _ = self.0.set(namespace);
    }

    /// Connects to a port of 127.0.0.1.
    pub async fn connect(self: &Arc<Loopback>, port: u16) -> io::Result<TcpStream> {
        if self.0.get().is_none() {
            return TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
        }
        let (sender, receiver) = oneshot::channel();
        let loopback = self.clone();
        // A thread of its own, because the namespace of a thread that is used again would be wrong for its next task.
        thread::Builder::new().name("connect".into()).spawn(move || {
            let connect = || -> io::Result<std::net::TcpStream> {
                let namespace = loopback.0.get().ok_or(io::ErrorKind::NotFound)?;
                setns(namespace, CloneFlags::CLONE_NEWNET)?;
                let stream = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
                stream.set_nonblocking(true)?;
                Ok(stream)
            };
            let _ = sender.send(connect());
        })?;
        let stream = receiver.await.map_err(io::Error::other)??;
        TcpStream::from_std(stream)
    }
}

/// The tasks that connect an environment's network with the machine's. Dropping it ends them.
#[derive(Debug)]
pub struct Egress(Vec<JoinHandle<()>>);

impl Egress {
    /// Serves the sockets of an environment's gateway.
    pub fn start(connections: TcpListener, names: UdpSocket) -> Egress {
        Egress(vec![tokio::spawn(forward(connections)), tokio::spawn(dns::forward(Arc::new(names)))])
    }
}

impl Drop for Egress {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// Accepts connections to any address. The local address of each is the one that the process connected to.
async fn forward(listener: TcpListener) {
    loop {
        let Ok((inside, _)) = listener.accept().await else {
            // Out of descriptors, which passes.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        tokio::spawn(async move {
            if let Err(error) = connect_both(inside).await {
                tracing::debug!(%error, "a connection out of an environment ended");
            }
        });
    }
}

async fn connect_both(mut inside: TcpStream) -> io::Result<()> {
    let requested = inside.local_addr()?;
    inside.set_nodelay(true)?;
    let target = target(requested);
    let mut outside = match TcpStream::connect(target).await {
        Ok(outside) => outside,
        Err(error) => {
            // The kernel has already accepted the connection, so a reset is what is left of a refusal.
            rustix::net::sockopt::set_socket_linger(&inside, Some(std::time::Duration::ZERO))?;
            return Err(error);
        }
    };
    outside.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut inside, &mut outside).await?;
    Ok(())
}

/// Where a connection to `requested` goes: the machine's loopback interface for the address of the machine.
fn target(requested: SocketAddr) -> SocketAddr {
    if requested.ip() != HOST_ADDRESS {
        return requested;
    }
    match dns::server() {
        Some(server) if requested.port() == dns::PORT => server,
        _ => (Ipv4Addr::LOCALHOST, requested.port()).into(),
    }
}
