//! The key files of a data folder: `keys` with the digests, `key-use` with the times of last use, and the keys that the
//! first start creates, which only their owner can read and which may be deleted after they were copied.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{KEY_PREFIX, Key, KeyError, KeyRing, Scope, SecretDigest, file, random_hex};
use crate::store::Tenant;

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

/// What a new key is for.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// As in [`Key`].
    pub name: String,
    /// As in [`Key`].
    pub tenant: Tenant,
    /// As in [`Key`].
    pub scopes: Vec<Scope>,
    /// As in [`Key`].
    pub functions: Vec<super::FunctionPattern>,
    /// As in [`Key`].
    pub expires_at_s: Option<u64>,
}

/// Creates a key and stores its digest in the data folder. Returns the secret.
///
/// # Errors
/// [`KeyError::File`] and [`KeyError::Random`].
pub fn create(folder: &Path, new: NewKey) -> Result<String, KeyError> {
    let secret = format!("{KEY_PREFIX}{}", random_hex()?);
    let key = Key {
        digest: SecretDigest::of(&secret),
        name: new.name,
        tenant: new.tenant,
        scopes: new.scopes,
        functions: new.functions,
        created_at_s: Some(crate::clock::now_us() / 1_000_000),
        expires_at_s: new.expires_at_s,
    };
    let _lock = lock(folder)?;
    append(&path_of(folder), &format!("{}\n", file::to_line(&key)))?;
    Ok(secret)
}

/// Creates a key of the default tenant and writes it to a file of the data folder. Returns the secret and the file.
///
/// # Errors
/// [`KeyError::File`] and [`KeyError::Random`].
pub fn create_first(
    folder: &Path,
    file: &str,
    name: &str,
    scopes: &[Scope],
) -> Result<(String, PathBuf), KeyError> {
    let secret = create(
        folder,
        NewKey {
            name: name.to_owned(),
            tenant: Tenant::default(),
            scopes: scopes.to_vec(),
            functions: Vec::new(),
            expires_at_s: None,
        },
    )?;
    let path = folder.join(file);
    append(&path, &format!("{secret}\n"))?;
    Ok((secret, path))
}

/// Revokes the key with this id, begin of an id, or name. Returns the key.
///
/// # Errors
/// [`KeyError::NotOne`] when there is none or several, [`KeyError::File`] and [`KeyError::Line`].
pub fn revoke(folder: &Path, id_or_name: &str) -> Result<Key, KeyError> {
    let _lock = lock(folder)?;
    let ring = load(folder)?;
    let matching = |entry: &&std::sync::Arc<super::KeyEntry>| {
        entry.key.name == id_or_name || (id_or_name.len() >= 4 && entry.key.id().starts_with(id_or_name))
    };
    let found: Vec<_> = ring.entries().filter(matching).collect();
    let [entry] = found[..] else {
        let number =
            if found.is_empty() { "no key has".to_owned() } else { format!("{} keys have", found.len()) };
        let hint = "`tailor keys list` shows the ids";
        return Err(KeyError::NotOne(format!("{number} the id or name `{id_or_name}`: {hint}")));
    };
    let path = path_of(folder);
    let text = fs::read_to_string(&path).map_err(|error| KeyError::File { path: path.clone(), error })?;
    let digest = entry.key.digest.to_string();
    let kept = text.lines().filter(|line| !line.to_ascii_lowercase().contains(&digest));
    replace(&path, &kept.map(|line| format!("{line}\n")).collect::<String>())?;
    Ok(entry.key.clone())
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

/// Replaces a file in one step, so that a reader sees the old or the new content.
fn replace(path: &Path, text: &str) -> Result<(), KeyError> {
    let new = path.with_extension("new");
    let failed = |error| KeyError::File { path: path.to_owned(), error };
    let mut options = OpenOptions::new();
    let mut file = options.create(true).write(true).truncate(true).mode(0o600).open(&new).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    fs::rename(&new, path).map_err(failed)?;
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_the_digest_of_a_created_key_is_stored_and_files_are_private() {
        let folder = tempfile::tempdir().unwrap();
        let (secret, path) = create_first(folder.path(), FIRST_KEY_FILE, "first", &Scope::ALL).unwrap();
        let ring = load(folder.path()).unwrap();
        assert_eq!(ring.find(&secret).unwrap().key.scopes, Scope::ALL);
        assert!(ring.find(&secret[..secret.len() - 1]).is_none() && ring.find("").is_none());
        ring.find(&secret).unwrap().used(1_700_000_000);
        save_uses(&ring, folder.path()).unwrap();
        assert_eq!(load(folder.path()).unwrap().find(&secret).unwrap().last_used_s(), 1_700_000_000);
        assert!(!fs::read_to_string(path_of(folder.path())).unwrap().contains(&secret));
        for path in
            [path, path_of(folder.path()), folder.path().join(USES_FILE), folder.path().join(LOCK_FILE)]
        {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(read_first_key(folder.path()), Some(secret));
    }

    #[test]
    fn a_file_of_an_earlier_version_is_accepted_and_its_keys_can_be_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let (mine, theirs) = (SecretDigest::of("mine"), SecretDigest::of("theirs"));
        fs::write(path_of(folder.path()), format!("default {mine}\nacme {theirs}\n")).unwrap();
        let ring = load(folder.path()).unwrap();
        assert_eq!(ring.find("mine").unwrap().key.scopes, Scope::ALL);
        assert_eq!(ring.find("theirs").unwrap().key.scopes, [Scope::Ingest, Scope::Read]);
        assert!(matches!(revoke(folder.path(), "0000"), Err(KeyError::NotOne(_))));
        let revoked = revoke(folder.path(), &theirs.to_string()[..8]).unwrap();
        assert_eq!(revoked.tenant.0, "acme");
        let ring = load(folder.path()).unwrap();
        assert!(ring.find("mine").is_some() && ring.find("theirs").is_none());
    }
}
