//! The open connections: how many there may be, how long each phase of a connection may take, and which connection is
//! closed for a new one.
//!
//! A connection whose deadline has passed is closed. At the limit, the connections that have waited longest for
//! their clients are closed, idle ones first, so that new clients are always served. An idle environment loses nothing
//! by that: it connects again with its next batch. Some connections above the limit are reserved for health checks and
//! signing in.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Connections above the limit that serve only health checks and signing in.
const RESERVED: usize = 64;

/// At the limit, this part of the connections is closed at once, so that not every new connection searches for one.
const CLOSED_AT_ONCE: usize = 64;

/// File descriptors that are not connections: the database, the log, the listener, connections to AWS.
pub const OTHER_DESCRIPTORS: usize = 128;

/// The limits of connections.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Maximum number of open connections.
    pub max_connections: usize,
    /// Maximum number of open connections of one client address (for IPv6, of one /64 network).
    pub max_per_address: usize,
    /// How long a connection may be open between two requests.
    pub idle_timeout: Duration,
    /// How long the headers of a request may take, and the first byte on a new connection.
    pub head_timeout: Duration,
    /// How long a response may take to be sent, in addition to its size divided by [`Self::min_send_rate`].
    pub send_timeout: Duration,
    /// Minimum rate at which a client has to read a response, bytes per second.
    pub min_send_rate: u64,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self::of(8_192)
    }
}

impl ConnectionLimits {
    /// The default limits for this number of connections. One address may have half of them.
    #[must_use]
    pub const fn of(max_connections: usize) -> Self {
        Self {
            max_connections,
            max_per_address: max_connections.div_ceil(2),
            idle_timeout: Duration::from_secs(15),
            head_timeout: Duration::from_secs(5),
            send_timeout: Duration::from_secs(15),
            min_send_rate: 64 << 10,
        }
    }

    /// File descriptors that the process needs for these limits.
    #[must_use]
    pub const fn descriptors(&self) -> usize {
        self.max_connections + RESERVED + OTHER_DESCRIPTORS
    }

    /// Raises the process's limit of open files as far as permitted, and lowers the limits to what that leaves.
    #[must_use]
    pub fn fitted_to_process(self) -> Self {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let needed = self.descriptors() as u64;
        let now = getrlimit(Resource::Nofile);
        let reachable = now.maximum.map_or(needed, |maximum| maximum.min(needed));
        if now.current.is_some_and(|current| current < reachable) {
            let raised = Rlimit { current: Some(reachable), maximum: now.maximum };
            if let Err(error) = setrlimit(Resource::Nofile, raised) {
                tracing::warn!(%error, "cannot raise the limit of open files");
            }
        }
        let Some(current) = getrlimit(Resource::Nofile).current.filter(|current| *current < needed) else {
            return self;
        };
        let left =
            usize::try_from(current).unwrap_or(usize::MAX).saturating_sub(RESERVED + OTHER_DESCRIPTORS);
        let max_connections = left.max(16);
        tracing::warn!(
            "the process may open {current} files, so it accepts {max_connections} connections and not {}: \
             raise the limit (`ulimit -n`, `LimitNOFILE=`) to {needed}",
            self.max_connections
        );
        Self {
            max_connections,
            max_per_address: self.max_per_address.min(max_connections.div_ceil(2)),
            ..self
        }
    }
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Phase {
    /// It waits for a request.
    Idle,
    /// It receives the headers of a request.
    Head,
    /// It receives the body of a request.
    Body,
    /// It sends a response.
    Sending,
    /// The collector works on the request: the client is not what it waits for.
    Working,
}

/// One open connection.
pub(crate) struct Connection {
    id: u64,
    address: IpAddr,
    /// Whether it is one of the reserved connections.
    reserved: bool,
    started: Instant,
    limits: ConnectionLimits,
    phase: AtomicU8,
    /// When the phase began and when it must have ended, milliseconds after `started`.
    since_ms: AtomicU64,
    deadline_ms: AtomicU64,
    close: Notify,
}

impl Connection {
    fn enter(&self, phase: Phase, timeout: Duration) {
        let now_ms = millis(self.started.elapsed());
        self.since_ms.store(now_ms, Relaxed);
        self.deadline_ms.store(now_ms.saturating_add(millis(timeout)), Relaxed);
        self.phase.store(phase as u8, Relaxed);
    }

    fn is(&self, phase: Phase) -> bool {
        self.phase.load(Relaxed) == phase as u8
    }

    /// Bytes have arrived.
    pub(super) fn received(&self) {
        if self.is(Phase::Idle) {
            self.enter(Phase::Head, self.limits.head_timeout);
        }
    }

    /// The collector works on a request, for at most `timeout`.
    pub(crate) fn working(&self, timeout: Duration) {
        self.enter(Phase::Working, timeout);
    }

    /// The body of a request has to arrive within `timeout`.
    pub(crate) fn receiving_body(&self, timeout: Duration) {
        self.enter(Phase::Body, timeout);
    }

    /// A response of this size is ready to be sent.
    pub(super) fn sending(&self, bytes: usize) {
        let transfer_ms = (bytes as u64).saturating_mul(1_000) / self.limits.min_send_rate.max(1);
        self.enter(Phase::Sending, self.limits.send_timeout + Duration::from_millis(transfer_ms));
    }

    /// The response was sent. The next request may have begun already.
    pub(super) fn sent(&self) {
        if self.is(Phase::Sending) {
            self.enter(Phase::Idle, self.limits.idle_timeout);
        }
    }

    /// Whether it serves only health checks and signing in.
    pub(super) fn is_reserved(&self) -> bool {
        self.reserved
    }

    /// Resolves when the connection has to be closed.
    pub(super) async fn closed(&self) {
        self.close.notified().await;
    }
}

/// The open connections of a server.
pub struct Connections {
    limits: ConnectionLimits,
    started: Instant,
    next_id: AtomicU64,
    /// Connections that were closed: for others, and because a deadline passed.
    closed_for_others: AtomicUsize,
    closed_overdue: AtomicUsize,
    // A std mutex is enough: it is never held across an await.
    open: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    connections: HashMap<u64, Arc<Connection>>,
    per_address: HashMap<IpAddr, usize>,
}

impl Table {
    /// Closes connections that wait for their clients, of one address or of all, the longest idle first. Returns how many.
    fn make_room(&mut self, address: Option<IpAddr>, open: usize, limit: usize) -> usize {
        let mut waiting: Vec<_> = self
            .connections
            .values()
            .filter(|connection| !connection.is(Phase::Working))
            .filter(|connection| address.is_none_or(|address| address == connection.address))
            .map(|connection| {
                (connection.phase.load(Relaxed), connection.since_ms.load(Relaxed), Arc::clone(connection))
            })
            .collect();
        let number = ((open + 1).saturating_sub(limit) + limit / CLOSED_AT_ONCE).min(waiting.len());
        waiting.sort_unstable_by_key(|(phase, since_ms, connection)| (*phase, *since_ms, connection.id));
        waiting.iter().take(number).for_each(|(_, _, connection)| self.close(connection));
        number
    }

    /// Closes a connection. It leaves the table at once, its socket a moment later.
    fn close(&mut self, connection: &Connection) {
        connection.close.notify_one();
        self.remove(connection);
    }

    fn remove(&mut self, connection: &Connection) {
        if self.connections.remove(&connection.id).is_none() {
            return;
        }
        if let Some(count) = self.per_address.get_mut(&connection.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.per_address.remove(&connection.address);
            }
        }
    }
}

impl Default for Connections {
    fn default() -> Self {
        Self::new(ConnectionLimits::default())
    }
}

impl Connections {
    /// No connections yet.
    #[must_use]
    pub fn new(limits: ConnectionLimits) -> Self {
        Self {
            limits,
            started: Instant::now(),
            next_id: AtomicU64::new(0),
            closed_for_others: AtomicUsize::new(0),
            closed_overdue: AtomicUsize::new(0),
            open: Mutex::default(),
        }
    }

    /// The number of open connections, of those closed to make room, and of those closed because a deadline passed.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize) {
        let open = self.lock().connections.len();
        (open, self.closed_for_others.load(Relaxed), self.closed_overdue.load(Relaxed))
    }

    /// Enters a new connection, closing others as needed; `None` when there is no room for it at all.
    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr) -> Option<Entry> {
        let address = network(peer);
        let mut table = self.lock();
        let of_address = table.per_address.get(&address).copied().unwrap_or(0);
        if of_address >= self.limits.max_per_address {
            let closed = table.make_room(Some(address), of_address, self.limits.max_per_address);
            self.closed_for_others.fetch_add(closed, Relaxed);
        }
        let open = table.connections.len();
        if open >= self.limits.max_connections {
            let closed = table.make_room(None, open, self.limits.max_connections);
            self.closed_for_others.fetch_add(closed, Relaxed);
        }
        let open = table.connections.len();
        if open >= self.limits.max_connections + RESERVED {
            return None;
        }
        let connection = Arc::new(Connection {
            id: self.next_id.fetch_add(1, Relaxed),
            address,
            reserved: open >= self.limits.max_connections,
            started: self.started,
            limits: self.limits,
            phase: AtomicU8::new(Phase::Idle as u8),
            since_ms: AtomicU64::new(0),
            deadline_ms: AtomicU64::new(0),
            close: Notify::new(),
        });
        connection.enter(Phase::Idle, self.limits.head_timeout);
        table.connections.insert(connection.id, Arc::clone(&connection));
        *table.per_address.entry(address).or_default() += 1;
        drop(table);
        Some(Entry { connections: Arc::clone(self), connection })
    }

    /// Closes the connections whose deadline has passed.
    pub(super) fn close_overdue(&self) {
        let now_ms = millis(self.started.elapsed());
        let mut table = self.lock();
        let overdue = table.connections.values().filter(|open| open.deadline_ms.load(Relaxed) < now_ms);
        let overdue: Vec<_> = overdue.cloned().collect();
        self.closed_overdue.fetch_add(overdue.len(), Relaxed);
        overdue.iter().for_each(|connection| table.close(connection));
    }

    /// Closes the connection that has been sending a response for the longest time, if any has for `min_age`.
    pub(super) fn close_slowest_reader(&self, min_age: Duration) {
        let mut table = self.lock();
        let mut slow = self.in_phase(&table, Phase::Sending, min_age);
        slow.sort_unstable_by_key(|connection| connection.since_ms.load(Relaxed));
        slow.truncate(1);
        self.close_for_others(&mut table, &slow);
    }

    /// Closes the connections whose bodies have been arriving for `min_age`.
    pub(super) fn close_slow_senders(&self, min_age: Duration) {
        let mut table = self.lock();
        let slow = self.in_phase(&table, Phase::Body, min_age);
        self.close_for_others(&mut table, &slow);
    }

    /// The connections that have been in a phase for `min_age`.
    fn in_phase(&self, table: &Table, phase: Phase, min_age: Duration) -> Vec<Arc<Connection>> {
        let latest_ms = millis(self.started.elapsed()).saturating_sub(millis(min_age));
        let connections = table.connections.values();
        connections
            .filter(|connection| connection.is(phase) && connection.since_ms.load(Relaxed) <= latest_ms)
            .cloned()
            .collect()
    }

    fn close_for_others(&self, table: &mut Table, connections: &[Arc<Connection>]) {
        connections.iter().for_each(|connection| table.close(connection));
        self.closed_for_others.fetch_add(connections.len(), Relaxed);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place in the table, which it leaves when this is dropped.
pub(super) struct Entry {
    connections: Arc<Connections>,
    pub(super) connection: Arc<Connection>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.connections.lock().remove(&self.connection);
    }
}

/// The address that is counted: one client may have a whole /64 network of IPv6 addresses.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
