//! API keys in a store: rows that a part of the program above the store understands.

use async_trait::async_trait;

use super::StoreError;

/// One stored API key. The secret is not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// The SHA-256 digest of the secret, as 64 hexadecimal digits.
    pub digest: String,
    /// What the key permits: a line of the data folder's key file.
    pub text: String,
    /// When a collector last accepted it, seconds since the Unix epoch; 0 for never.
    pub last_used_s: u64,
}

/// The API keys in a store. All collectors with this store accept them.
///
/// A write is on disk when its future resolves to `Ok`. When it resolves to `Err`, nothing was written.
#[async_trait]
pub trait KeyStore: Send + Sync {
    /// All keys, sorted by digest. A damaged row is left out and reported.
    async fn keys(&self) -> Result<Vec<StoredKey>, StoreError>;

    /// Adds keys. A key whose digest is there stays as it is.
    async fn add_keys(&self, keys: Vec<StoredKey>) -> Result<(), StoreError>;

    /// Adds the keys of the first start, unless there are keys or this was done before. Of several collectors that start
    /// at the same time, one does it. Returns whether they were added.
    async fn add_first_keys(&self, keys: Vec<StoredKey>) -> Result<bool, StoreError>;

    /// Removes the key with this digest. Returns whether it was there.
    async fn remove_key(&self, digest: &str) -> Result<bool, StoreError>;

    /// Notes when keys were last used: digests and seconds since the Unix epoch. A later time that is stored stays. A crash
    /// may lose them.
    async fn note_key_uses(&self, uses: Vec<(String, u64)>) -> Result<(), StoreError>;
}

/// The name of the value that marks that the first start has created its keys, in the table `meta`.
pub(super) const FIRST_KEYS: &str = "first-keys";
