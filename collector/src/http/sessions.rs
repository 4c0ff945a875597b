//! Browser sessions, and tickets that open one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::keys::{KeyError, SecretDigest, random_hex};
use crate::store::Tenant;

/// How long a session or an unused ticket is valid.
pub(super) const SESSION_LIFETIME: Duration = Duration::from_secs(12 * 3_600);

/// Maximum number of sessions and tickets. A new one replaces the one that expires first.
const MAX_SESSIONS: usize = 1_024;

/// Browser sessions and unused tickets, by the digests of their secrets.
pub struct Sessions {
    clock: Clock,
    // A std mutex is enough: it is locked only for a lookup.
    sessions: Mutex<HashMap<[u8; 32], Session>>,
}

struct Session {
    tenant: Tenant,
    /// Microseconds since the Unix epoch.
    expires_at_us: u64,
    /// Whether this is a ticket, which opens one session.
    ticket: bool,
}

impl Sessions {
    /// No sessions. They expire by `clock`.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, sessions: Mutex::default() }
    }

    /// Creates a session or a ticket; returns its secret.
    pub(super) fn open(&self, tenant: Tenant, ticket: bool) -> Result<String, KeyError> {
        let secret = random_hex()?;
        let lifetime_us = u64::try_from(SESSION_LIFETIME.as_micros()).unwrap_or(u64::MAX);
        let expires_at_us = self.clock.now_us().saturating_add(lifetime_us);
        let session = Session { tenant, expires_at_us, ticket };
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() >= MAX_SESSIONS {
            let first = sessions.iter().min_by_key(|(_, session)| session.expires_at_us).map(|(key, _)| *key);
            first.map(|key| sessions.remove(&key));
        }
        sessions.insert(SecretDigest::of(&secret).into_bytes(), session);
        Ok(secret)
    }

    /// Creates a ticket that opens one session.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn issue_ticket(&self, tenant: Tenant) -> Result<String, KeyError> {
        self.open(tenant, true)
    }

    /// Redeems a ticket and removes it; `None` when it is unknown, used or expired.
    pub(super) fn redeem_ticket(&self, ticket: &str) -> Option<Tenant> {
        let key = SecretDigest::of(ticket).into_bytes();
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if !sessions.get(&key)?.ticket {
            return None;
        }
        sessions
            .remove(&key)
            .filter(|session| session.expires_at_us > self.clock.now_us())
            .map(|session| session.tenant)
    }

    /// The tenant of a session. The lookup uses the digest, so its time does not depend on the secret.
    pub(super) fn tenant_of(&self, secret: &str) -> Option<Tenant> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let session = sessions.get(&SecretDigest::of(secret).into_bytes())?;
        (!session.ticket && session.expires_at_us > self.clock.now_us()).then(|| session.tenant.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn a_ticket_works_once_and_is_not_a_session() {
        let sessions = Sessions::new(Clock::system());
        let ticket = sessions.issue_ticket(Tenant::default()).unwrap();
        assert_eq!(sessions.tenant_of(&ticket), None);
        assert_eq!(sessions.redeem_ticket(&ticket), Some(Tenant::default()));
        assert_eq!(sessions.redeem_ticket(&ticket), None);
        let session = sessions.open(Tenant::default(), false).unwrap();
        assert_eq!(sessions.redeem_ticket(&session), None);
        assert_eq!(sessions.tenant_of(&session), Some(Tenant::default()));
    }
    #[test]
    fn sessions_and_tickets_expire() {
        let now_us = Arc::new(AtomicU64::new(1_000_000));
        let clock = Arc::clone(&now_us);
        let sessions = Sessions::new(Clock::from_fn(move || clock.load(Ordering::Relaxed)));
        let session = sessions.open(Tenant::default(), false).unwrap();
        let ticket = sessions.issue_ticket(Tenant::default()).unwrap();
        let lifetime_us = u64::try_from(SESSION_LIFETIME.as_micros()).unwrap();
        now_us.fetch_add(lifetime_us - 1, Ordering::Relaxed);
        assert_eq!(sessions.tenant_of(&session), Some(Tenant::default()));
        now_us.fetch_add(1, Ordering::Relaxed);
        assert_eq!(sessions.tenant_of(&session), None);
        assert_eq!(sessions.redeem_ticket(&ticket), None);
    }
}
