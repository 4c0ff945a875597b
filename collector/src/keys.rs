//! API keys, which are stored as digests.
//!
//! A generated key has 32 random bytes, so its SHA-256 digest is safe against brute force. Digests are compared
//! in constant time. The data folder has the digests in the file `keys`. The key that is created at the first
//! start is also in the file `api-key`, which only its owner can read, and which may be deleted after the key was
//! copied. Keys that an operator manages are read from a separate file and never copied.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::store::Tenant;

/// Prefix of every generated key, by which secret scanners can recognize it.
const KEY_PREFIX: &str = "tlr_";

/// Minimum length of a key in an operator's file: shorter keys could be guessed.
const MIN_KEY_CHARACTERS: usize = 16;

const DIGESTS_FILE: &str = "keys";
const PLAIN_FILE: &str = "api-key";

/// Why keys could not be loaded or created.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file could not be read or written.
    #[error("cannot use key file {path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: std::io::Error,
    },
    /// A line of a key file is invalid.
    #[error("key file {path}, line {line}: {problem}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The operating system provides no random numbers.
    #[error("cannot create a key: the system provides no random numbers: {0}")]
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

    /// Its bytes, for use as a map key.
    #[must_use]
    pub const fn into_bytes(self) -> [u8; 32] {
        self.0
    }

    /// Whether two digests are equal, in constant time.
    #[must_use]
    pub fn matches(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

/// The accepted keys and their tenants.
#[derive(Clone, Default)]
pub struct KeyRing {
    entries: Vec<(SecretDigest, Tenant)>,
}

impl KeyRing {
    /// The tenant of a key. Always compares all keys, so that the time does not depend on the match.
    #[must_use]
    pub fn tenant_of(&self, key: &str) -> Option<&Tenant> {
        let digest = SecretDigest::of(key);
        let mut found = u32::MAX;
        for (index, (entry, _)) in (0u32..).zip(&self.entries) {
            found.conditional_assign(&index, digest.matches(entry));
        }
        self.entries.get(usize::try_from(found).ok()?).map(|(_, tenant)| tenant)
    }

    /// Whether there are no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a key.
    pub fn add(&mut self, key: &str, tenant: Tenant) {
        self.entries.push((SecretDigest::of(key), tenant));
    }

    /// Loads the digests of a data folder. The key ring is empty when the folder has no keys.
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

    /// Adds the keys of an operator's file: one per line, `KEY` or `TENANT KEY`. Lines with `#` are comments.
    ///
    /// # Errors
    /// [`KeyError::File`] and [`KeyError::Line`].
    pub fn add_file(&mut self, path: &Path) -> Result<(), KeyError> {
        let exists = path.try_exists().map_err(|error| KeyError::File { path: path.to_owned(), error })?;
        if !exists {
            return Err(KeyError::File { path: path.to_owned(), error: ErrorKind::NotFound.into() });
        }
        for (line, text) in lines(path)? {
            let (tenant, key) = text.split_once(' ').unwrap_or((Tenant::DEFAULT_NAME, &text));
            if key.trim().len() < MIN_KEY_CHARACTERS {
                let problem = "a key needs at least 16 characters; `openssl rand -hex 32` creates one";
                return Err(KeyError::Line { path: path.to_owned(), line, problem });
            }
            self.add(key.trim(), Tenant(tenant.to_owned()));
        }
        Ok(())
    }
}

/// Creates a key and stores its digest in the data folder.
///
/// # Errors
/// [`KeyError::File`] and [`KeyError::Random`].
pub fn create(folder: &Path, tenant: &Tenant) -> Result<String, KeyError> {
    let key = format!("{KEY_PREFIX}{}", random_hex()?);
    let SecretDigest(digest) = SecretDigest::of(&key);
    append(&folder.join(DIGESTS_FILE), &format!("{} {}\n", tenant.0, to_hex(&digest)))?;
    Ok(key)
}

/// Writes the first key of a data folder to the file `api-key`; returns the path.
///
/// # Errors
/// [`KeyError::File`].
pub fn write_first_key(folder: &Path, key: &str) -> Result<PathBuf, KeyError> {
    let path = folder.join(PLAIN_FILE);
    append(&path, &format!("{key}\n"))?;
    Ok(path)
}

/// The key in the file `api-key` of a data folder, if the file exists.
#[must_use]
pub fn read_first_key(folder: &Path) -> Option<String> {
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

/// The lines without comments and empty lines, with line numbers; none when the file does not exist.
fn lines(path: &Path) -> Result<Vec<(usize, String)>, KeyError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(KeyError::File { path: path.to_owned(), error }),
    };
    let numbered = (1..).zip(text.lines().map(str::trim));
    let content = numbered.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    Ok(content.map(|(number, line)| (number, line.to_owned())).collect())
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
    fn only_the_digest_of_a_created_key_is_stored_and_files_are_private() {
        let folder = tempfile::tempdir().unwrap();
        let key = create(folder.path(), &Tenant("acme".to_owned())).unwrap();
        let key_path = write_first_key(folder.path(), &key).unwrap();
        let ring = KeyRing::load(folder.path()).unwrap();
        assert_eq!(ring.tenant_of(&key), Some(&Tenant("acme".to_owned())));
        assert_eq!(ring.tenant_of(&key[..key.len() - 1]), None);
        assert_eq!(ring.tenant_of(""), None);
        let digests = fs::read_to_string(folder.path().join(DIGESTS_FILE)).unwrap();
        assert!(!digests.contains(&key));
        for path in [key_path, folder.path().join(DIGESTS_FILE)] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(read_first_key(folder.path()), Some(key));
    }

    #[test]
    fn a_key_file_may_have_tenants_and_short_keys_are_refused() {
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
