//! Errors of the database, and which of them are worth another attempt.

use std::io;
use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;

use crate::causes::with_causes;
use crate::store::StoreError;

/// How long a request waits for a database that cannot be reached, restarts, or fails over to another server.
const UNREACHABLE_LIMIT: Duration = Duration::from_secs(5);

/// Maximum number of attempts of a transaction that conflicts with others.
const MAX_CONFLICTS: u32 = 20;

/// The first pause before another attempt; each further one is twice as long, up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(5);
const MAX_PAUSE: Duration = Duration::from_millis(500);

/// Why a transaction failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Database(#[from] tokio_postgres::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another collector changed the same rows.
    #[error("another collector changed the same rows")]
    Conflict,
}

/// What can be done about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remedy {
    /// The same transaction again.
    Repeat,
    /// The same transaction on a new connection. If it was committing, it may have taken effect.
    Reconnect,
    None,
}

impl Failure {
    fn remedy(&self) -> Remedy {
        let error = match self {
            Self::Database(error) => error,
            Self::Conflict => return Remedy::Repeat,
            Self::Store(_) => return Remedy::None,
        };
        let Some(state) = error.code() else {
            // Without a code, it is not the server's: the connection was refused or lost, or the client's fault. A
            // certificate that is not valid is invalid data, also in the next attempt.
            let source =
                std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
            let is_io = source.is_some_and(|error| error.kind() != io::ErrorKind::InvalidData);
            return if is_io || error.is_closed() { Remedy::Reconnect } else { Remedy::None };
        };
        match state {
            // An insert of a key that another transaction inserted since it was looked up.
            &SqlState::T_R_SERIALIZATION_FAILURE
            | &SqlState::T_R_DEADLOCK_DETECTED
            | &SqlState::UNIQUE_VIOLATION => Remedy::Repeat,
            // The server stops, starts, or is no longer the one that writes.
            &SqlState::ADMIN_SHUTDOWN
            | &SqlState::CRASH_SHUTDOWN
            | &SqlState::CANNOT_CONNECT_NOW
            | &SqlState::READ_ONLY_SQL_TRANSACTION
            | &SqlState::TOO_MANY_CONNECTIONS
            | &SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT => Remedy::Reconnect,
            state if state.code().starts_with("08") => Remedy::Reconnect,
            _ => Remedy::None,
        }
    }

    /// Whether the connection must not be used again.
    pub(super) fn is_disconnect(&self) -> bool {
        self.remedy() == Remedy::Reconnect
    }

    /// The error for the requester.
    pub(super) fn into_store_error(self) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Database(error) if error.code() == Some(&SqlState::DISK_FULL) => {
                StoreError::Full("the database".to_owned())
            }
            Self::Database(error) => {
                StoreError::Engine(format!("the database failed: {}", with_causes(&error)))
            }
            Self::Conflict => StoreError::Engine(self.to_string()),
        }
    }
}

/// Counts attempts and waits between them.
pub(super) struct Attempts {
    start: Instant,
    conflicts: u32,
    pause: Duration,
    /// Whether an earlier attempt may have taken effect.
    pub(super) may_have_committed: bool,
}

impl Attempts {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), conflicts: 0, pause: MIN_PAUSE, may_have_committed: false }
    }

    /// Waits before the next attempt; fails when there is none.
    pub(super) async fn next(&mut self, failure: Failure) -> Result<(), StoreError> {
        let is_possible = match failure.remedy() {
            Remedy::Repeat => {
                self.conflicts += 1;
                self.conflicts < MAX_CONFLICTS
            }
            Remedy::Reconnect => {
                self.may_have_committed = true;
                self.start.elapsed() < UNREACHABLE_LIMIT
            }
            Remedy::None => false,
        };
        if !is_possible {
            return Err(failure.into_store_error());
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (2 * self.pause).min(MAX_PAUSE);
        Ok(())
    }
}
