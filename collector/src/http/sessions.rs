//! Browser sessions, and tickets that open one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::keys::{KeyError, SecretDigest, random_hex};
use crate::store::Tenant;

/// How long a session or an unused ticket is valid.
pub(super) const SESSION_LIFETIME: Duration = Duration::from_secs(12 * 3_600);

/// Sessions at once; the one that ends first makes room.
const MAX_SESSIONS: usize = 1_024;

/// Browser sessions and unused tickets, by the digests of their secrets.
#[derive(Default)]
pub struct Sessions {
    // Std mutexes: held for a look-up.
    sessions: Mutex<HashMap<[u8; 32], Session>>,
}

struct Session {
    tenant: Tenant,
    ends_at: Instant,
    /// A ticket opens one session and is spent.
    ticket: bool,
}

impl Sessions {
    /// A secret for one browser.
    pub(super) fn open(&self, tenant: Tenant, ticket: bool) -> Result<String, KeyError> {
        let secret = random_hex()?;
        let session = Session { tenant, ends_at: Instant::now() + SESSION_LIFETIME, ticket };
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() >= MAX_SESSIONS {
            let first = sessions.iter().min_by_key(|(_, session)| session.ends_at).map(|(key, _)| *key);
            first.map(|key| sessions.remove(&key));
        }
        sessions.insert(SecretDigest::of(&secret).into_bytes(), session);
        Ok(secret)
    }

    /// A ticket that opens one session.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn issue_ticket(&self, tenant: Tenant) -> Result<String, KeyError> {
        self.open(tenant, true)
    }

    /// Spends a ticket; `None` when it is unknown, spent or too old.
    pub(super) fn spend(&self, ticket: &str) -> Option<Tenant> {
        let key = SecretDigest::of(ticket).into_bytes();
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if !sessions.get(&key)?.ticket {
            return None;
        }
        sessions.remove(&key).filter(|session| session.ends_at > Instant::now()).map(|session| session.tenant)
    }

    /// Looking up a digest takes no time that depends on the secret.
    pub(super) fn tenant_of(&self, secret: &str) -> Option<Tenant> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let session = sessions.get(&SecretDigest::of(secret).into_bytes())?;
        (!session.ticket && session.ends_at > Instant::now()).then(|| session.tenant.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_work_once_and_are_no_sessions() {
        let sessions = Sessions::default();
        let ticket = sessions.issue_ticket(Tenant::default()).unwrap();
        assert_eq!(sessions.tenant_of(&ticket), None);
        assert_eq!(sessions.spend(&ticket), Some(Tenant::default()));
        assert_eq!(sessions.spend(&ticket), None);
        let session = sessions.open(Tenant::default(), false).unwrap();
        assert_eq!(sessions.spend(&session), None);
        assert_eq!(sessions.tenant_of(&session), Some(Tenant::default()));
    }
}
