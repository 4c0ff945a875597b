//! The key files of a data folder: `keys` with digests that earlier versions wrote, `key-use` with the times of last use, and
//! the secrets that the first start creates, which only their owner can read and which may be deleted after they were
//! copied.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{KeyError, KeyRing, SecretDigest, file};
use crate::files;

const DIGESTS_FILE: &str = "keys";
const LOCK_FILE: &str = "keys.lock";
const USES_FILE: &str = "key-use";

/// The file of the key that may do everything. The first start creates it.
pub const FIRST_KEY_FILE: &str = "api-key";

/// The file of the key that only sends, for the functions. The first start creates it.
pub const INGEST_KEY_FILE: &str = "ingest-key";

/// The file with the keys of a data folder.
#[must_use]
pub fn path_of(folder: &Path) -> PathBuf {
    folder.join(DIGESTS_FILE)
}

/// Loads the keys of a data folder, with the times of last use that a collector has written.
///
/// # Errors
/// [`KeyError::File`] and [`KeyError::Line`].
pub fn load(folder: &Path) -> Result<KeyRing, KeyError> {
    let mut ring = KeyRing::default();
    file::add_folder_file(&mut ring, &path_of(folder))?;
    add_uses(&ring, folder);
    Ok(ring)
}

/// Adds the times of last use that a collector has written.
pub(super) fn add_uses(ring: &KeyRing, folder: &Path) {
    // They are for information only: an unreadable file is replaced by the next collector.
    let text = fs::read_to_string(folder.join(USES_FILE)).unwrap_or_default();
    let uses: BTreeMap<String, u64> = serde_json::from_str(&text).unwrap_or_default();
    for entry in ring.entries() {
        entry.used(uses.get(&entry.key.id()).copied().unwrap_or(0));
    }
}

/// Writes the times of last use.
///
/// # Errors
/// [`KeyError::File`].
pub fn save_uses(ring: &KeyRing, folder: &Path) -> Result<(), KeyError> {
    let used = ring.entries().filter(|entry| entry.last_used_s() > 0);
    let uses: BTreeMap<String, u64> = used.map(|entry| (entry.key.id(), entry.last_used_s())).collect();
    replace(&folder.join(USES_FILE), &serde_json::to_string(&uses).unwrap_or_default())
}

/// Creates the file of a secret, or appends to it.
///
/// # Errors
/// [`KeyError::File`].
pub(super) fn write_secret(folder: &Path, file: &str, secret: &str) -> Result<PathBuf, KeyError> {
    let path = folder.join(file);
    append(&path, &format!("{secret}\n"))?;
    Ok(path)
}

/// Removes the key with this digest from the file `keys`, when it is there.
///
/// # Errors
/// [`KeyError::File`].
pub(super) fn remove(folder: &Path, digest: SecretDigest) -> Result<(), KeyError> {
    let path = path_of(folder);
    if !path.exists() {
        return Ok(());
    }
    let _lock = lock(folder)?;
    let text = fs::read_to_string(&path).map_err(|error| KeyError::File { path: path.clone(), error })?;
    let digest = digest.to_string();
    let has_digest = |line: &&str| line.to_ascii_lowercase().contains(&digest);
    if !text.lines().any(|line| has_digest(&line)) {
        return Ok(());
    }
    let kept = text.lines().filter(|line| !has_digest(line));
    let text: String = kept.map(|line| format!("{line}\n")).collect();
    replace(&path, &text)
}

/// The key in the file `api-key` of a data folder, if the file exists.
#[must_use]
pub fn read_first_key(folder: &Path) -> Option<String> {
    let text = fs::read_to_string(folder.join(FIRST_KEY_FILE)).ok()?;
    text.lines().next_back().map(|line| line.trim().to_owned()).filter(|key| !key.is_empty())
}

/// Serializes changes of the key file by several processes, until the file is dropped.
fn lock(folder: &Path) -> Result<File, KeyError> {
    let path = folder.join(LOCK_FILE);
    let failed = |error| KeyError::File { path: path.clone(), error };
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(failed)?;
    file.lock().map_err(failed)?;
    Ok(file)
}

fn append(path: &Path, text: &str) -> Result<(), KeyError> {
    let failed = |error| KeyError::File { path: path.to_owned(), error };
    let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)
}

fn replace(path: &Path, text: &str) -> Result<(), KeyError> {
    files::replace(path, text).map_err(|error| KeyError::File { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Scope;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_of_an_earlier_version_is_accepted_and_a_key_is_removed_from_it() {
        let folder = tempfile::tempdir().unwrap();
        let (mine, theirs) = (SecretDigest::of("mine"), SecretDigest::of("theirs"));
        remove(folder.path(), mine).unwrap();
        assert!(!folder.path().join(LOCK_FILE).exists(), "nothing is created");
        fs::write(path_of(folder.path()), format!("default {mine}\nacme {theirs}\n")).unwrap();
        let ring = load(folder.path()).unwrap();
        assert_eq!(ring.find("mine").unwrap().key.scopes, Scope::ALL);
        assert_eq!(ring.find("theirs").unwrap().key.scopes, [Scope::Ingest, Scope::Read]);
        remove(folder.path(), theirs).unwrap();
        let ring = load(folder.path()).unwrap();
        assert!(ring.find("mine").is_some() && ring.find("theirs").is_none());
    }

    #[test]
    fn files_are_private() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(path_of(folder.path()), format!("default {}\n", SecretDigest::of("mine"))).unwrap();
        let ring = load(folder.path()).unwrap();
        ring.find("mine").unwrap().used(1_700_000_000);
        save_uses(&ring, folder.path()).unwrap();
        assert_eq!(load(folder.path()).unwrap().find("mine").unwrap().last_used_s(), 1_700_000_000);
        let secret = write_secret(folder.path(), FIRST_KEY_FILE, "secret").unwrap();
        remove(folder.path(), SecretDigest::of("mine")).unwrap();
        for path in
            [secret, path_of(folder.path()), folder.path().join(USES_FILE), folder.path().join(LOCK_FILE)]
        {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(read_first_key(folder.path()), Some("secret".to_owned()));
    }
}
