//! The keys that a running collector accepts. They follow changes in the store and of the key files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::time::Instant;

use super::sources::{KeySources, add_uses};
use super::{KeyError, KeyRing, SecretDigest, file, folder};
use crate::store::StoredKey;

/// How often the store and the key files are checked for changes.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// How often the times of last use are written.
pub const SAVE_INTERVAL: Duration = Duration::from_secs(60);

/// The files that keys come from.
#[derive(Debug, Clone)]
pub struct KeyFiles {
    /// The data folder, when there is one.
    pub folder: Option<PathBuf>,
    /// The operator's file.
    pub operator_file: Option<PathBuf>,
    /// Keys in the form of an operator's file, from the settings.
    pub lines: Option<String>,
}

impl KeyFiles {
    /// Adds the keys of all files.
    ///
    /// # Errors
    /// [`KeyError::File`] and [`KeyError::Line`].
    pub(super) fn add_to(&self, ring: &mut KeyRing) -> Result<(), KeyError> {
        if let Some(folder) = &self.folder {
            file::add_folder_file(ring, &folder::path_of(folder))?;
        }
        if let Some(path) = &self.operator_file {
            file::add_operator_file(ring, path)?;
        }
        if let Some(lines) = &self.lines {
            file::add_lines(ring, lines)?;
        }
        if let Some(folder) = &self.folder {
            folder::add_uses(ring, folder);
        }
        Ok(())
    }

    /// A value that changes when one of the files does.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let of = |path: &Path| {
            let file = fs::metadata(path).ok()?;
            Some((file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
        };
        let folder = self.folder.as_deref().map(folder::path_of);
        Fingerprint(folder.as_deref().and_then(of), self.operator_file.as_deref().and_then(of))
    }
}

type FileState = Option<(u64, u64, i64, i64)>;

/// The state of the key files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(FileState, FileState);

/// The accepted keys, which can be replaced.
#[derive(Debug, Default)]
pub struct CurrentKeys(RwLock<Arc<KeyRing>>);

impl From<KeyRing> for CurrentKeys {
    fn from(ring: KeyRing) -> Self {
        Self(RwLock::new(Arc::new(ring)))
    }
}

impl CurrentKeys {
    /// The accepted keys.
    #[must_use]
    pub fn get(&self) -> Arc<KeyRing> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the accepted keys. Keys that stay keep their time of last use.
    pub fn replace(&self, ring: KeyRing) {
        ring.keep_uses_of(&self.get());
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
    }

    /// Loads the keys again. When that fails, the present keys stay.
    pub async fn reload(&self, sources: &KeySources) {
        self.use_or_report(sources.load().await);
    }

    fn use_or_report(&self, ring: Result<KeyRing, KeyError>) {
        match ring {
            Ok(ring) => {
                tracing::info!("reloaded the API keys: {} are accepted", ring.entries().count());
                self.replace(ring);
            }
            Err(error) => tracing::error!(%error, "cannot reload the API keys: the present ones stay valid"),
        }
    }
}

/// Compares the accepted keys with their sources.
pub struct Follower {
    keys: Arc<CurrentKeys>,
    sources: KeySources,
    /// The files and the keys of the store as they were last read.
    known: Fingerprint,
    stored: Vec<StoredKey>,
    checked: Instant,
}

impl Follower {
    /// Loads the keys, and follows their sources from now on.
    ///
    /// # Errors
    /// As [`KeySources::load`].
    pub async fn start(sources: KeySources) -> Result<Self, KeyError> {
        let known = sources.files.fingerprint();
        let stored = sources.stored().await?;
        let keys = Arc::new(CurrentKeys::from(sources.ring(&stored)?));
        Ok(Self { keys, sources, known, stored, checked: Instant::now() })
    }

    /// The accepted keys.
    #[must_use]
    pub fn keys(&self) -> Arc<CurrentKeys> {
        Arc::clone(&self.keys)
    }

    /// Checks the sources, unless that was done less than [`CHECK_INTERVAL`] ago.
    pub async fn check_if_due(&mut self) {
        if self.checked.elapsed() >= CHECK_INTERVAL {
            self.check(false).await;
        }
    }

    /// Replaces the accepted keys when a source has changed, or in any case with `always`.
    async fn check(&mut self, always: bool) {
        // Before loading: a change after it is then found at the next check.
        let known = self.sources.files.fingerprint();
        let stored = self.sources.stored().await.unwrap_or_else(|error| {
            // Without its store, a collector has no use for other keys. The files are followed in any case.
            tracing::debug!(%error, "cannot read the API keys: those of the last time stay valid");
            self.stored.clone()
        });
        let same = |a: &StoredKey, b: &StoredKey| (&a.digest, &a.text) == (&b.digest, &b.text);
        let is_same = stored.len() == self.stored.len()
            && stored.iter().zip(&self.stored).all(|(a, b)| same(a, b))
            && known == self.known;
        if always || !is_same {
            self.keys.use_or_report(self.sources.ring(&stored));
        }
        add_uses(&self.keys.get(), &stored);
        (self.known, self.stored, self.checked) = (known, stored, Instant::now());
    }

    /// Writes the times of last use.
    pub async fn save_uses(&self) {
        let ring = self.keys.get();
        let later = self.stored.iter().filter_map(|key| {
            let last_used_s = ring.entry(&SecretDigest::from_hex(&key.digest)?)?.last_used_s();
            (last_used_s > key.last_used_s).then(|| (key.digest.clone(), last_used_s))
        });
        let uses: Vec<_> = later.collect();
        if let (Some(store), false) = (&self.sources.store, uses.is_empty())
            && let Err(error) = store.note_key_uses(uses).await
        {
            tracing::warn!(%error, "cannot store when the API keys were last used");
        }
        let in_store = |digest: &SecretDigest| {
            let digest = digest.to_string();
            self.stored.iter().any(|key| key.digest == digest)
        };
        if let Some(folder) = &self.sources.files.folder
            && let Err(error) = folder::save_uses(&ring.without(in_store), folder)
        {
            tracing::warn!(%error, "cannot write when the API keys were last used");
        }
    }
}

/// Follows the store and the key files until `stopped` resolves: reloads the keys when one changes and when the process gets
/// SIGHUP, and writes the times of last use.
pub async fn follow(mut follower: Follower, mut hangups: Signal, stopped: impl Future<Output = ()>) {
    let mut check = tokio::time::interval(CHECK_INTERVAL);
    let mut save = tokio::time::interval_at(Instant::now() + SAVE_INTERVAL, SAVE_INTERVAL);
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            () = &mut stopped => break,
            _ = hangups.recv() => follower.check(true).await,
            _ = check.tick() => follower.check(false).await,
            _ = save.tick() => follower.save_uses().await,
        }
    }
    follower.save_uses().await;
}
