//! Where the keys of a collector come from: its store, which all collectors with one database share, and files.
//!
//! New keys go to the store. A key that is in several places is used as in the last of: store, data folder's file,
//! operator's file, settings. A revoked key is removed from the store and from the data folder's file. What an operator
//! wrote is changed by the operator only.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::folder::{self, FIRST_KEY_FILE, INGEST_KEY_FILE};
use super::reload::KeyFiles;
use super::{
    FunctionPattern, KEY_PREFIX, Key, KeyEntry, KeyError, KeyRing, SECRET_BYTES, Scope, SecretDigest, file,
};
use crate::random;
use crate::store::{KeyStore, StoredKey, Tenant};

/// Characters of an id that are enough to name a key.
const MIN_ID_CHARACTERS: usize = 4;

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
    pub functions: Vec<FunctionPattern>,
    /// As in [`Key`].
    pub expires_at_s: Option<u64>,
}

impl NewKey {
    /// A key of the default tenant for all functions, which does not expire.
    #[must_use]
    pub fn of_default_tenant(name: &str, scopes: &[Scope]) -> Self {
        Self {
            name: name.to_owned(),
            tenant: Tenant::default(),
            scopes: scopes.to_vec(),
            functions: Vec::new(),
            expires_at_s: None,
        }
    }

    /// The key and its secret.
    fn generate(self) -> Result<(String, Key), KeyError> {
        let secret = format!("{KEY_PREFIX}{}", random::hex::<SECRET_BYTES>()?);
        let key = Key {
            digest: SecretDigest::of(&secret),
            name: self.name,
            tenant: self.tenant,
            scopes: self.scopes,
            functions: self.functions,
            created_at_s: Some(crate::clock::now_us() / 1_000_000),
            expires_at_s: self.expires_at_s,
        };
        Ok((secret, key))
    }
}

/// The store and the files that keys come from.
#[derive(Clone)]
pub struct KeySources {
    /// The store; `None` before the first start of a collector.
    pub store: Option<Arc<dyn KeyStore>>,
    /// The files.
    pub files: KeyFiles,
}

impl KeySources {
    /// The keys in the store.
    ///
    /// # Errors
    /// [`KeyError::Store`].
    pub async fn stored(&self) -> Result<Vec<StoredKey>, KeyError> {
        match &self.store {
            Some(store) => Ok(store.keys().await?),
            None => Ok(Vec::new()),
        }
    }

    /// All accepted keys, with `stored` as those in the store.
    ///
    /// # Errors
    /// [`KeyError::File`] and [`KeyError::Line`].
    pub fn ring(&self, stored: &[StoredKey]) -> Result<KeyRing, KeyError> {
        let mut ring = ring_of(stored);
        self.files.add_to(&mut ring)?;
        add_uses(&ring, stored);
        Ok(ring)
    }

    /// Loads all accepted keys.
    ///
    /// # Errors
    /// [`KeyError::Store`], [`KeyError::File`] and [`KeyError::Line`].
    pub async fn load(&self) -> Result<KeyRing, KeyError> {
        self.ring(&self.stored().await?)
    }

    /// The keys that can be revoked: those of the store and of the data folder's file.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub async fn revocable(&self) -> Result<KeyRing, KeyError> {
        let files = KeyFiles { operator_file: None, lines: None, ..self.files.clone() };
        Self { files, store: self.store.clone() }.load().await
    }

    /// Creates a key and stores its digest. Returns the secret.
    ///
    /// # Errors
    /// [`KeyError::Random`] and [`KeyError::Store`].
    pub async fn create(&self, new: NewKey) -> Result<String, KeyError> {
        let (secret, key) = new.generate()?;
        self.writable()?.add_keys(vec![to_stored(&key, 0)]).await?;
        Ok(secret)
    }

    /// Creates the keys of the first start of a new store: one for the functions, which only sends, and one with all
    /// scopes. Their secrets are written to files of the data folder, which are returned in this order; `None` when there are
    /// keys, or another collector creates them.
    ///
    /// # Errors
    /// [`KeyError::Random`], [`KeyError::Store`] and [`KeyError::File`].
    pub async fn create_first(&self) -> Result<Option<[PathBuf; 2]>, KeyError> {
        // Usually there are keys, and nothing is written: the disk may be full.
        if !self.stored().await?.is_empty() {
            return Ok(None);
        }
        let (ingest, ingest_key) = NewKey::of_default_tenant("functions", &[Scope::Ingest]).generate()?;
        let (admin, admin_key) = NewKey::of_default_tenant("first", &Scope::ALL).generate()?;
        let keys = [ingest_key, admin_key].iter().map(|key| to_stored(key, 0)).collect();
        // The secrets have no other place.
        let Some(folder) = &self.files.folder else { return Ok(None) };
        if !self.writable()?.add_first_keys(keys).await? {
            return Ok(None);
        }
        Ok(Some([
            folder::write_secret(folder, INGEST_KEY_FILE, &ingest)?,
            folder::write_secret(folder, FIRST_KEY_FILE, &admin)?,
        ]))
    }

    /// Revokes the key with this id, prefix of an id, or name. Returns the key.
    ///
    /// # Errors
    /// [`KeyError::NotOne`] when there is none or several, and as [`Self::load`].
    pub async fn revoke(&self, id_or_name: &str) -> Result<Key, KeyError> {
        let ring = self.revocable().await?;
        let is_named = |entry: &&Arc<KeyEntry>| {
            let is_id = id_or_name.len() >= MIN_ID_CHARACTERS && entry.key.id().starts_with(id_or_name);
            entry.key.name == id_or_name || is_id
        };
        let found: Vec<_> = ring.entries().filter(is_named).collect();
        let [entry] = found[..] else {
            let number =
                if found.is_empty() { "no key has".to_owned() } else { format!("{} keys have", found.len()) };
            let hint = "`tailor keys list` shows the ids";
            return Err(KeyError::NotOne(format!("{number} the id or name `{id_or_name}`: {hint}")));
        };
        let digest = entry.key.digest;
        // The file first: when the store fails, the key is still in the list, and can be revoked again.
        if let Some(folder) = &self.files.folder {
            folder::remove(folder, digest)?;
        }
        if let Some(store) = &self.store {
            store.remove_key(&digest.to_string()).await?;
        }
        Ok(entry.key.clone())
    }

    fn writable(&self) -> Result<&Arc<dyn KeyStore>, KeyError> {
        let missing =
            || KeyError::NotOne("there is no store for the key: start `tailor serve` once".to_owned());
        self.store.as_ref().ok_or_else(missing)
    }
}

/// The keys in the data folder's file, as a store keeps them.
///
/// # Errors
/// [`KeyError::File`] and [`KeyError::Line`].
pub fn of_folder_file(folder: &Path) -> Result<Vec<StoredKey>, KeyError> {
    let ring = folder::load(folder)?;
    Ok(ring.entries().map(|entry| to_stored(&entry.key, entry.last_used_s())).collect())
}

/// Adds the times of last use that are in the store.
pub(super) fn add_uses(ring: &KeyRing, stored: &[StoredKey]) {
    for key in stored {
        let entry = SecretDigest::from_hex(&key.digest).and_then(|digest| ring.entry(&digest));
        if let Some(entry) = entry {
            entry.used(key.last_used_s);
        }
    }
}

fn to_stored(key: &Key, last_used_s: u64) -> StoredKey {
    StoredKey { digest: key.digest.to_string(), text: file::to_line(key), last_used_s }
}

/// The keys of a store. One that cannot be read is left out, so that it is not accepted.
fn ring_of(stored: &[StoredKey]) -> KeyRing {
    let mut ring = KeyRing::default();
    for StoredKey { digest, text, .. } in stored {
        match file::parse_json(text) {
            Ok(key) if key.digest.to_string() == *digest => ring.insert(key),
            Ok(_) => {
                tracing::error!(digest, "an API key in the store has another digest: it is not accepted")
            }
            Err(error) => {
                tracing::error!(digest, error, "cannot read an API key in the store: it is not accepted");
            }
        }
    }
    ring
}
