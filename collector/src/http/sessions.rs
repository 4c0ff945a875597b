//! Browser sessions, and tickets that open one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::keys::{Key, KeyError, SECRET_BYTES, Scope, SecretDigest};
use crate::random;
use crate::store::Tenant;

/// How long a session or an unused ticket is valid.
pub(super) const SESSION_LIFETIME: Duration = Duration::from_secs(12 * 3_600);

/// Maximum number of sessions and tickets of one tenant. A new one replaces that of the tenant that expires first.
const MAX_PER_TENANT: usize = 128;

/// Maximum number of sessions and tickets. A new one replaces the one that expires first of the tenant with the most.
const MAX_SESSIONS: usize = 8_192;

/// Characters of the digest that identify a session in lists and logs.
const ID_CHARACTERS: usize = 12;

/// What a session may read. Tenant and scopes of a kept session are those of its key at the sign-in; `App::session_access`
/// takes the present ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Whose data.
    pub tenant: Tenant,
    /// The scopes of the key.
    pub scopes: Vec<Scope>,
    /// The key that opened it; `None` for the link that `tailor serve` prints. The session ends with the key.
    pub key: Option<SecretDigest>,
}

impl Access {
    /// What a key may read.
    #[must_use]
    pub fn of(key: &Key) -> Self {
        Self { tenant: key.tenant.clone(), scopes: key.scopes.clone(), key: Some(key.digest) }
    }
}

/// An open session, without its secret.
#[derive(Debug, Clone)]
pub struct OpenSession {
    /// The first characters of the digest of its secret.
    pub id: String,
    /// What it may read.
    pub access: Access,
    /// The address that the browser had when it signed in.
    pub address: Option<IpAddr>,
    /// When it was opened, microseconds since the Unix epoch.
    pub opened_at_us: u64,
    /// When it was last used, microseconds since the Unix epoch.
    pub used_at_us: u64,
    /// When it ends, microseconds since the Unix epoch.
    pub expires_at_us: u64,
}

/// Browser sessions and unused tickets, by the digests of their secrets.
pub struct Sessions {
    clock: Clock,
    // A std mutex is enough: it is locked only for a lookup.
    sessions: Mutex<HashMap<SecretDigest, Session>>,
}

struct Session {
    access: Access,
    /// The address that the browser had when it signed in.
    address: Option<IpAddr>,
    /// Microseconds since the Unix epoch.
    opened_at_us: u64,
    used_at_us: u64,
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

    /// Creates a session; returns its secret.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub(super) fn open(&self, access: Access, address: Option<IpAddr>) -> Result<String, KeyError> {
        self.insert(access, address, false)
    }

    /// Creates a ticket that opens one session, which may read everything of a tenant and the metrics.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn issue_ticket(&self, tenant: Tenant) -> Result<String, KeyError> {
        self.insert(Access { tenant, scopes: vec![Scope::Read, Scope::Admin], key: None }, None, true)
    }

    fn insert(&self, access: Access, address: Option<IpAddr>, ticket: bool) -> Result<String, KeyError> {
        let secret = random::hex::<SECRET_BYTES>()?;
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let now_us = self.clock.now_us();
        sessions.retain(|_, session| session.expires_at_us > now_us);
        let mut per_tenant: HashMap<Tenant, usize> = HashMap::new();
        for session in sessions.values() {
            *per_tenant.entry(session.access.tenant.clone()).or_default() += 1;
        }
        if per_tenant.get(&access.tenant).is_some_and(|number| *number >= MAX_PER_TENANT) {
            remove_first(&mut sessions, &access.tenant);
        } else if sessions.len() >= MAX_SESSIONS
            && let Some((tenant, _)) = per_tenant.iter().max_by_key(|(_, number)| **number)
        {
            remove_first(&mut sessions, tenant);
        }
        let lifetime_us = u64::try_from(SESSION_LIFETIME.as_micros()).unwrap_or(u64::MAX);
        let expires_at_us = now_us.saturating_add(lifetime_us);
        let session =
            Session { access, address, opened_at_us: now_us, used_at_us: now_us, expires_at_us, ticket };
        sessions.insert(SecretDigest::of(&secret), session);
        Ok(secret)
    }

    /// Redeems a ticket and removes it; `None` when it is unknown, used or expired.
    pub(super) fn redeem_ticket(&self, ticket: &str) -> Option<Access> {
        let key = SecretDigest::of(ticket);
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if !sessions.get(&key)?.ticket {
            return None;
        }
        sessions
            .remove(&key)
            .filter(|session| session.expires_at_us > self.clock.now_us())
            .map(|session| session.access)
    }

    /// What a session might read when it was opened. The lookup uses the digest, so its time does not depend on the secret.
    pub(super) fn access_of(&self, secret: &str) -> Option<Access> {
        let now_us = self.clock.now_us();
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let session = sessions.get_mut(&SecretDigest::of(secret))?;
        if session.ticket || session.expires_at_us <= now_us {
            return None;
        }
        session.used_at_us = now_us;
        Some(session.access.clone())
    }

    /// The open sessions, the one that was used last first.
    #[must_use]
    pub fn list(&self) -> Vec<OpenSession> {
        let now_us = self.clock.now_us();
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let open = sessions.iter().filter(|(_, session)| !session.ticket && session.expires_at_us > now_us);
        let mut list: Vec<_> = open
            .map(|(digest, session)| OpenSession {
                id: id_of(digest),
                access: session.access.clone(),
                address: session.address,
                opened_at_us: session.opened_at_us,
                used_at_us: session.used_at_us,
                expires_at_us: session.expires_at_us,
            })
            .collect();
        drop(sessions);
        list.sort_by(|a, b| b.used_at_us.cmp(&a.used_at_us).then_with(|| a.id.cmp(&b.id)));
        list
    }

    /// Ends the session with this id; `false` when there is none.
    pub fn end(&self, id: &str) -> bool {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let before = sessions.len();
        sessions.retain(|digest, session| session.ticket || id_of(digest) != id);
        sessions.len() < before
    }

    /// Ends a session.
    pub(super) fn close(&self, secret: &str) {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(&SecretDigest::of(secret));
    }
}

/// The id of the session with this digest of its secret.
fn id_of(digest: &SecretDigest) -> String {
    let mut id = digest.to_string();
    id.truncate(ID_CHARACTERS);
    id
}

/// The id of the session with this secret.
#[must_use]
pub fn session_id(secret: &str) -> String {
    id_of(&SecretDigest::of(secret))
}

fn remove_first(sessions: &mut HashMap<SecretDigest, Session>, tenant: &Tenant) {
    let of_tenant = sessions.iter().filter(|(_, session)| session.access.tenant == *tenant);
    let first = of_tenant.min_by_key(|(_, session)| session.expires_at_us).map(|(secret, _)| *secret);
    first.map(|secret| sessions.remove(&secret));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn access(tenant: &str) -> Access {
        Access { tenant: Tenant(tenant.to_owned()), scopes: vec![Scope::Read], key: None }
    }

    #[test]
    fn a_ticket_works_once_and_is_not_a_session() {
        let sessions = Sessions::new(Clock::system());
        let ticket = sessions.issue_ticket(Tenant::default()).unwrap();
        assert_eq!(sessions.access_of(&ticket), None);
        assert_eq!(sessions.redeem_ticket(&ticket).map(|access| access.tenant), Some(Tenant::default()));
        assert_eq!(sessions.redeem_ticket(&ticket), None);
        let session = sessions.open(access("acme"), None).unwrap();
        assert_eq!(sessions.redeem_ticket(&session), None);
        assert_eq!(sessions.access_of(&session), Some(access("acme")));
        sessions.close(&session);
        assert_eq!(sessions.access_of(&session), None);
    }

    #[test]
    fn a_tenant_cannot_end_the_sessions_of_another() {
        let sessions = Sessions::new(Clock::system());
        let other = sessions.open(access("other"), None).unwrap();
        let first = sessions.open(access("busy"), None).unwrap();
        for _ in 0..2 * MAX_PER_TENANT {
            sessions.open(access("busy"), None).unwrap();
        }
        assert!(sessions.access_of(&other).is_some());
        assert!(sessions.access_of(&first).is_none());
    }

    #[test]
    fn sessions_and_tickets_expire() {
        let now_us = Arc::new(AtomicU64::new(1_000_000));
        let clock = Arc::clone(&now_us);
        let sessions = Sessions::new(Clock::from_fn(move || clock.load(Ordering::Relaxed)));
        let session = sessions.open(access("acme"), None).unwrap();
        let ticket = sessions.issue_ticket(Tenant::default()).unwrap();
        let lifetime_us = u64::try_from(SESSION_LIFETIME.as_micros()).unwrap();
        now_us.fetch_add(lifetime_us - 1, Ordering::Relaxed);
        assert_eq!(sessions.access_of(&session), Some(access("acme")));
        now_us.fetch_add(1, Ordering::Relaxed);
        assert_eq!(sessions.access_of(&session), None);
        assert_eq!(sessions.redeem_ticket(&ticket), None);
    }
}
