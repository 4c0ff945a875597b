//! TCP connections and large uploads of the extension itself. The kernel counts them together with the function's.

use std::sync::atomic::{AtomicU64, Ordering};

/// Connections in either direction since the process started.
static OWN_CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// Counts a connection that the extension opened, or that the platform opened to the extension.
pub fn count_own_connection() {
    OWN_CONNECTIONS.fetch_add(1, Ordering::Relaxed);
}

/// The connections counted so far.
#[must_use]
pub fn own_connections() -> u64 {
    OWN_CONNECTIONS.load(Ordering::Relaxed)
}

/// Bytes of files since the process started.
static OWN_FILE_BYTES: AtomicU64 = AtomicU64::new(0);

/// Counts a part of a file that the extension sends.
pub fn count_own_file_bytes(bytes: u64) {
    OWN_FILE_BYTES.fetch_add(bytes, Ordering::Relaxed);
}

/// The bytes counted so far.
#[must_use]
pub fn own_file_bytes() -> u64 {
    OWN_FILE_BYTES.load(Ordering::Relaxed)
}
