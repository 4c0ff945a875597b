//! API keys: what each may do, and for how long.
//!
//! A generated key has 32 random bytes, so its SHA-256 digest is safe against brute force. Only digests are stored. The
//! lookup uses the digest, so its time does not depend on the key. [`sources`] has the places of keys: the store of the
//! collector and files, whose formats are in [`mod@file`]. [`folder`] has the files of a data folder, [`reload`] follows
//! changes.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use sha2::{Digest, Sha256};

use crate::files::cause;
use crate::random::RandomError;
use crate::store::Tenant;

pub mod file;
pub mod folder;
pub mod reload;
pub mod sources;

/// Prefix of every generated key, by which secret scanners can recognize it.
const KEY_PREFIX: &str = "tlr_";

/// Length of a generated secret, bytes.
pub(crate) const SECRET_BYTES: usize = 32;

/// Characters of the digest that identify a key in lists and logs.
const ID_CHARACTERS: usize = 12;

/// Why keys could not be loaded or created.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file could not be read or written.
    #[error("cannot use key file {path}: {}", cause(.error))]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// The cause.
        error: std::io::Error,
    },
    /// A line of a key file is invalid.
    #[error("key file {path}, line {line}: {problem}")]
    Line {
        /// The file.
        path: std::path::PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A line of a text with keys is invalid.
    #[error("line {line}: {problem}")]
    Text {
        /// Line number, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// The operating system provides no random numbers.
    #[error("cannot create a key: {0}")]
    Random(RandomError),
    /// The store failed.
    #[error("cannot use the API keys in the store: {0}")]
    Store(crate::store::StoreError),
    /// There is no such key, or several.
    #[error("{0}")]
    NotOne(String),
}

// The message has the cause, which is therefore not a source: it would be shown twice.
impl From<RandomError> for KeyError {
    fn from(error: RandomError) -> Self {
        Self::Random(error)
    }
}

impl From<crate::store::StoreError> for KeyError {
    fn from(error: crate::store::StoreError) -> Self {
        Self::Store(error)
    }
}

/// A SHA-256 digest of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SecretDigest([u8; 32]);

impl SecretDigest {
    /// The digest of a secret.
    #[must_use]
    pub fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }

    /// Its bytes, for use as a map key.
    #[must_use]
    pub const fn into_bytes(self) -> [u8; 32] {
        self.0
    }

    /// Reads 64 hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl fmt::Display for SecretDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// What a key permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// To send batches.
    Ingest,
    /// To read the reports of its tenant.
    Read,
    /// What concerns all tenants: the collector's metrics, tags, keys and sessions.
    Admin,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 3] = [Self::Ingest, Self::Read, Self::Admin];

    /// Its name in files and arguments.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Scope {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|scope| scope.name() == text);
        known.ok_or_else(|| format!("`{text}` is not a scope: use `ingest`, `read` or `admin`"))
    }
}

/// A pattern of function names, in which `*` stands for any characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionPattern(pub String);

impl FunctionPattern {
    /// Whether a function's name matches.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else { return false };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        for part in parts {
            let Some(at) = rest.find(part) else { return false };
            rest = &rest[at + part.len()..];
        }
        rest.ends_with(last)
    }
}

/// One key: everything but the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The digest of the secret.
    pub digest: SecretDigest,
    /// A name for people; empty when it has none.
    pub name: String,
    /// Whose data it is for.
    pub tenant: Tenant,
    /// What it permits.
    pub scopes: Vec<Scope>,
    /// The functions whose batches it may send; all when empty.
    pub functions: Vec<FunctionPattern>,
    /// When it was created, seconds since the Unix epoch; `None` when not known.
    pub created_at_s: Option<u64>,
    /// When it stops being valid, seconds since the Unix epoch; `None` for never.
    pub expires_at_s: Option<u64>,
}

impl Key {
    /// The first characters of the digest, which identify the key in lists and logs.
    #[must_use]
    pub fn id(&self) -> String {
        let mut id = self.digest.to_string();
        id.truncate(ID_CHARACTERS);
        id
    }

    /// A key of the format without scopes: it sends and reads. One of the default tenant is the operator's.
    #[must_use]
    pub fn without_scopes(digest: SecretDigest, tenant: Tenant) -> Self {
        let scopes = if tenant == Tenant::default() { &Scope::ALL[..] } else { &Scope::ALL[..2] };
        Self {
            digest,
            name: String::new(),
            tenant,
            scopes: scopes.to_vec(),
            functions: Vec::new(),
            created_at_s: None,
            expires_at_s: None,
        }
    }

    /// Whether it has this scope.
    #[must_use]
    pub fn permits(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    /// Whether it may send batches of this function.
    #[must_use]
    pub fn permits_function(&self, name: &str) -> bool {
        self.functions.is_empty() || self.functions.iter().any(|pattern| pattern.matches(name))
    }

    /// Whether it has expired at `now_s`, seconds since the Unix epoch.
    #[must_use]
    pub fn has_expired(&self, now_s: u64) -> bool {
        self.expires_at_s.is_some_and(|expires| expires <= now_s)
    }
}

/// A key with the time of its last use.
#[derive(Debug)]
pub struct KeyEntry {
    /// The key.
    pub key: Key,
    last_used_s: AtomicU64,
}

impl KeyEntry {
    /// Notes that it was used now, in seconds since the Unix epoch.
    pub fn used(&self, now_s: u64) {
        // Most uses are in the same second as the one before: a load leaves the cache line shared.
        if self.last_used_s.load(Relaxed) < now_s {
            self.last_used_s.store(now_s, Relaxed);
        }
    }

    /// When it was last used, seconds since the Unix epoch; 0 for never.
    #[must_use]
    pub fn last_used_s(&self) -> u64 {
        self.last_used_s.load(Relaxed)
    }
}

/// The accepted keys.
#[derive(Debug, Clone, Default)]
pub struct KeyRing {
    entries: HashMap<SecretDigest, Arc<KeyEntry>>,
}

impl KeyRing {
    /// The entry of a key, which may have expired.
    #[must_use]
    pub fn find(&self, secret: &str) -> Option<&Arc<KeyEntry>> {
        self.entries.get(&SecretDigest::of(secret))
    }

    /// The entry of the key with this digest, which may have expired.
    #[must_use]
    pub fn entry(&self, digest: &SecretDigest) -> Option<&Arc<KeyEntry>> {
        self.entries.get(digest)
    }

    /// Whether the key with this digest is accepted at `now_s`, seconds since the Unix epoch.
    #[must_use]
    pub fn is_valid(&self, digest: &SecretDigest, now_s: u64) -> bool {
        self.entries.get(digest).is_some_and(|entry| !entry.key.has_expired(now_s))
    }

    /// Whether there are no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All keys with their last use, unsorted.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<KeyEntry>> {
        self.entries.values()
    }

    /// Adds a key that sends and reads.
    pub fn add(&mut self, secret: &str, tenant: Tenant) {
        self.insert(Key::without_scopes(SecretDigest::of(secret), tenant));
    }

    /// Adds a key. One with the same digest is replaced.
    pub fn insert(&mut self, key: Key) {
        self.entries.insert(key.digest, Arc::new(KeyEntry { key, last_used_s: AtomicU64::new(0) }));
    }

    /// The keys but those with these digests.
    fn without(&self, left_out: impl Fn(&SecretDigest) -> bool) -> Self {
        let kept = self.entries.iter().filter(|(digest, _)| !left_out(digest));
        Self { entries: kept.map(|(digest, entry)| (*digest, Arc::clone(entry))).collect() }
    }

    /// Takes over the times of last use from another key ring.
    fn keep_uses_of(&self, other: &Self) {
        for (digest, entry) in &self.entries {
            if let Some(before) = other.entries.get(digest) {
                entry.used(before.last_used_s());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_has_64_hexadecimal_digits() {
        let digest = SecretDigest::of("secret");
        assert_eq!(SecretDigest::from_hex(&digest.to_string()), Some(digest));
        assert_eq!(SecretDigest::from_hex(&digest.to_string().to_uppercase()), Some(digest));
        for invalid in ["", "0", &"0".repeat(63), &"0".repeat(66), &"+0".repeat(32), &"é".repeat(32)] {
            assert_eq!(SecretDigest::from_hex(invalid), None, "{invalid}");
        }
    }

    #[test]
    fn a_pattern_matches_the_whole_name() {
        let matches = |pattern: &str, name: &str| FunctionPattern(pattern.to_owned()).matches(name);
        for (pattern, name) in [
            ("checkout", "checkout"),
            ("checkout-*", "checkout-price"),
            ("*-prod", "a-prod"),
            ("*", "x"),
            ("a*b*c", "a-b-b-c"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("checkout", "checkout-price"),
            ("checkout-*", "my-checkout-price"),
            ("*-prod", "a-prod-2"),
            ("a*b*c", "acb"),
            ("ab*b", "ab"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
