//! Packets between the sandbox and a supervisor: one JSON value each, on a `SOCK_SEQPACKET` pair.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Larger than any packet: the environment variables are at most 4 KB by Lambda's rule, the inherited `PATH`
/// little more.
const MAX_PACKET: usize = 256 * 1024;

/// The sockets of a network; a process has two.
const MAX_DESCRIPTORS: usize = 4;

/// Identifies one started process within its environment; never reused.
pub type ProcessId = u32;

/// From the sandbox to the supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Start a process. Two descriptors come with the packet: its standard output and standard error.
    Spawn {
        id: ProcessId,
        program: String,
        arguments: Vec<String>,
        environment: Vec<(String, String)>,
        directory: PathBuf,
    },
    /// Signal one started process.
    Signal { id: ProcessId, signal: i32 },
    /// Signal every process of the environment, including those that the sandbox did not start.
    SignalAll { signal: i32 },
    /// Kill every process, reap them all, then respond with [`Notice::Empty`].
    KillAll,
}

/// From the supervisor to the sandbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Notice {
    /// The network exists. Its descriptors come with the packet, see
    /// [`NetworkSockets`](super::client::NetworkSockets).
    Network,
    /// The mounts exist, and requests are served.
    Ready,
    /// The environment cannot be set up. The supervisor exits.
    SetupFailed { message: String },
    /// A process runs; `pid` is its number inside the environment.
    Spawned { id: ProcessId, pid: i32 },
    /// A process could not be started; `errno` as from `execve`.
    SpawnFailed { id: ProcessId, errno: Option<i32>, message: String },
    /// A started process has ended.
    Exited { id: ProcessId, status: ExitStatus },
    /// Response to [`Request::KillAll`].
    Empty,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// It called `exit` with this code.
    Code(i32),
    /// It was killed by this signal.
    Signal(i32),
}

impl ExitStatus {
    /// Killed with `SIGKILL`, as the out-of-memory killer does.
    pub fn is_killed(self) -> bool {
        self == ExitStatus::Signal(nix::libc::SIGKILL)
    }
}

impl std::fmt::Display for ExitStatus {
    /// As in Lambda's error messages.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ExitStatus::Code(code) => write!(formatter, "exit status {code}"),
            ExitStatus::Signal(9) => write!(formatter, "signal: killed"),
            ExitStatus::Signal(11) => write!(formatter, "signal: segmentation fault"),
            ExitStatus::Signal(6) => write!(formatter, "signal: aborted"),
            ExitStatus::Signal(15) => write!(formatter, "signal: terminated"),
            ExitStatus::Signal(signal) => write!(formatter, "signal: {signal}"),
        }
    }
}

/// Sends one packet with `descriptors` attached.
pub fn send(socket: impl AsFd, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors in one packet"));
    }
    sendmsg(socket, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Waits for one packet; `None` when the other end is closed.
pub fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; MAX_PACKET];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let flags = RecvFlags::CMSG_CLOEXEC;
        match recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags) {
            Ok(received) => break received,
            Err(rustix::io::Errno::INTR) => {}
            // Linux reports this when the peer closed the socket with unread data.
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok(Some((serde_json::from_slice(&bytes[..received.bytes])?, descriptors)))
}
