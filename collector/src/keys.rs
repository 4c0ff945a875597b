//! Who may send and read: API keys, known by their digests, and browser sessions.
//!
//! A key is 32 random bytes, so a plain SHA-256 of it cannot be searched; digests are compared in constant
//! time. The data folder holds digests in `keys`; the one key made at the first start is also left in
//! `api-key`, readable by its owner only, to be copied and removed. Keys an operator manages come from a
//! file of their own and are never copied.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::store::Tenant;

/// What every generated key begins with, so that scanners for leaked secrets can know it.
const KEY_PREFIX: &str = "tlr_";

/// Shortest key taken from an operator's file: fewer characters could be guessed.
const MIN_KEY_CHARACTERS: usize = 16;

const DIGESTS_FILE: &str = "keys";
const PLAIN_FILE: &str = "api-key";

/// Why keys could not be loaded or made.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file could not be read or written.
    #[error("cannot use key file {path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A line that is not what the file should hold.
    #[error("key file {path}, line {line}: {problem}")]
    Line {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The operating system gave no random numbers.
    #[error("cannot make a key: no random numbers from the system: {0}")]
    Random(getrandom::Error),
}

/// A SHA-256 digest of a secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretDigest([u8; 32]);

impl SecretDigest {
    /// The digest of a secret.
    #[must_use]
    pub fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }

    /// Its bytes, to look it up by.
    #[must_use]
    pub const fn into_bytes(self) -> [u8; 32] {
        self.0
    }

    /// Whether two digests are equal, in a time that does not tell how far they agree.
    #[must_use]
    pub fn matches(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

/// The keys that are let in, and whose each is.
#[derive(Clone, Default)]
pub struct KeyRing {
    entries: Vec<(SecretDigest, Tenant)>,
}

impl KeyRing {
    /// The tenant a key belongs to. Looks at every key, whichever matches.
    #[must_use]
    pub fn tenant_of(&self, key: &str) -> Option<&Tenant> {
        let digest = SecretDigest::of(key);
        let mut found = u32::MAX;
        for (index, (entry, _)) in (0u32..).zip(&self.entries) {
            found.conditional_assign(&index, digest.matches(entry));
        }
        self.entries.get(usize::try_from(found).ok()?).map(|(_, tenant)| tenant)
    }

    /// Whether there is no key at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a key.
    pub fn add(&mut self, key: &str, tenant: Tenant) {
        self.entries.push((SecretDigest::of(key), tenant));
    }

    /// Loads the digests of a data folder; none when it has no key yet.
    ///
    /// # Errors
    /// [`KeyError::File`] and [`KeyError::Line`].
    pub fn load(folder: &Path) -> Result<Self, KeyError> {
        let path = folder.join(DIGESTS_FILE);
        let mut ring = Self::default();
        for (line, text) in lines(&path)? {
            let bad = |problem| KeyError::Line { path: path.clone(), line, problem };
            let (tenant, hex) = text.split_once(' ').ok_or_else(|| bad("expected `TENANT DIGEST`"))?;
            let digest = from_hex(hex).ok_or_else(|| bad("the digest is not 64 hexadecimal digits"))?;
            ring.entries.push((SecretDigest(digest), Tenant(tenant.to_owned())));
        }
        Ok(ring)
    }

    /// Adds the keys of an operator's file: one on a line, `KEY` or `TENANT KEY`; `#` begins a comment.
    ///
    /// # Errors
    /// [`KeyError::File`] and [`KeyError::Line`].
    pub fn add_file(&mut self, path: &Path) -> Result<(), KeyError> {
        let there = path.try_exists().map_err(|error| KeyError::File { path: path.to_owned(), error })?;
        if !there {
            return Err(KeyError::File { path: path.to_owned(), error: ErrorKind::NotFound.into() });
        }
        for (line, text) in lines(path)? {
            let (tenant, key) = text.split_once(' ').unwrap_or((Tenant::DEFAULT_NAME, &text));
            if key.trim().len() < MIN_KEY_CHARACTERS {
                let problem = "a key needs at least 16 characters; `openssl rand -hex 32` makes a good one";
                return Err(KeyError::Line { path: path.to_owned(), line, problem });
            }
            self.add(key.trim(), Tenant(tenant.to_owned()));
        }
        Ok(())
    }
}

/// Makes a key for a data folder and keeps its digest there.
///
/// # Errors
/// [`KeyError::File`] and [`KeyError::Random`].
pub fn create(folder: &Path, tenant: &Tenant) -> Result<String, KeyError> {
    let key = format!("{KEY_PREFIX}{}", random_hex()?);
    let SecretDigest(digest) = SecretDigest::of(&key);
    append(&folder.join(DIGESTS_FILE), &format!("{} {}\n", tenant.0, to_hex(&digest)))?;
    Ok(key)
}

/// Leaves a key in the data folder for its owner to copy; returns where.
///
/// # Errors
/// [`KeyError::File`].
pub fn leave_for_owner(folder: &Path, key: &str) -> Result<PathBuf, KeyError> {
    let path = folder.join(PLAIN_FILE);
    append(&path, &format!("{key}\n"))?;
    Ok(path)
}

/// The key left in a data folder, if it still is.
#[must_use]
pub fn left_for_owner(folder: &Path) -> Option<String> {
    let text = fs::read_to_string(folder.join(PLAIN_FILE)).ok()?;
    text.lines().next_back().map(|line| line.trim().to_owned()).filter(|key| !key.is_empty())
}

/// 32 random bytes as hexadecimal digits.
///
/// # Errors
/// [`KeyError::Random`].
pub fn random_hex() -> Result<String, KeyError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(KeyError::Random)?;
    Ok(to_hex(&bytes))
}

fn append(path: &Path, text: &str) -> Result<(), KeyError> {
    let failed = |error| KeyError::File { path: path.to_owned(), error };
    let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)
}

/// The lines that say something, with their numbers; none when there is no file.
fn lines(path: &Path) -> Result<Vec<(usize, String)>, KeyError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(KeyError::File { path: path.to_owned(), error }),
    };
    let numbered = (1..).zip(text.lines().map(str::trim));
    let telling = numbered.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    Ok(telling.map(|(number, line)| (number, line.to_owned())).collect())
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_made_key_is_known_by_its_digest_only_and_kept_private() {
        let folder = tempfile::tempdir().unwrap();
        let key = create(folder.path(), &Tenant("acme".to_owned())).unwrap();
        let place = leave_for_owner(folder.path(), &key).unwrap();
        let ring = KeyRing::load(folder.path()).unwrap();
        assert_eq!(ring.tenant_of(&key), Some(&Tenant("acme".to_owned())));
        assert_eq!(ring.tenant_of(&key[..key.len() - 1]), None);
        assert_eq!(ring.tenant_of(""), None);
        let digests = fs::read_to_string(folder.path().join(DIGESTS_FILE)).unwrap();
        assert!(!digests.contains(&key));
        for path in [place, folder.path().join(DIGESTS_FILE)] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(left_for_owner(folder.path()), Some(key));
    }

    #[test]
    fn an_operators_file_names_tenants_and_refuses_weak_keys() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mounted");
        fs::write(&path, "# ours\n0123456789abcdef\nacme fedcba9876543210\n").unwrap();
        let mut ring = KeyRing::default();
        ring.add_file(&path).unwrap();
        assert_eq!(ring.tenant_of("0123456789abcdef"), Some(&Tenant::default()));
        assert_eq!(ring.tenant_of("fedcba9876543210"), Some(&Tenant("acme".to_owned())));
        fs::write(&path, "ok-key-ok-key-ok-key\nshort\n").unwrap();
        let error = ring.add_file(&path).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("16 characters"), "{error}");
    }
}
