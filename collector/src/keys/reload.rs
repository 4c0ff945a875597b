//! The keys that a running collector accepts. They follow changes of the key files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::time::Instant;

use super::{KeyError, KeyRing, file, store};

/// How often the key files are checked for changes.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// How often the times of last use are written.
pub const SAVE_INTERVAL: Duration = Duration::from_secs(60);

/// The files that keys come from.
#[derive(Debug, Clone)]
pub struct KeyFiles {
    /// The data folder.
    pub folder: PathBuf,
    /// The operator's file.
    pub operator_file: Option<PathBuf>,
    /// Keys in the form of an operator's file, from the settings.
    pub lines: Option<String>,
}

impl KeyFiles {
    /// Loads all keys.
    ///
    /// # Errors
    /// [`KeyError::File`] and [`KeyError::Line`].
    pub fn load(&self) -> Result<KeyRing, KeyError> {
        let mut ring = KeyRing::default();
        file::add_folder_file(&mut ring, &store::path_of(&self.folder))?;
        if let Some(path) = &self.operator_file {
            file::add_operator_file(&mut ring, path)?;
        }
        if let Some(lines) = &self.lines {
            file::add_lines(&mut ring, lines)?;
        }
        store::add_uses(&ring, &self.folder);
        Ok(ring)
    }

    /// A value that changes when one of the files does.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let of = |path: &Path| {
            let file = fs::metadata(path).ok()?;
            Some((file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
        };
        Fingerprint(of(&store::path_of(&self.folder)), self.operator_file.as_deref().and_then(of))
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

    /// Loads the keys from their files again. When that fails, the present keys stay.
    pub fn reload(&self, files: &KeyFiles) {
        match files.load() {
            Ok(ring) => {
                tracing::info!("reloaded the API keys: {} are accepted", ring.entries().count());
                self.replace(ring);
            }
            Err(error) => tracing::error!(%error, "cannot reload the API keys: the present ones stay valid"),
        }
    }
}

/// Follows the key files until `stopped` resolves: reloads them when one changes and when the process gets SIGHUP, and
/// writes the times of last use.
pub async fn follow(
    keys: Arc<CurrentKeys>,
    files: KeyFiles,
    mut hangups: Signal,
    stopped: impl Future<Output = ()>,
) {
    let mut known = files.fingerprint();
    let mut check = tokio::time::interval(CHECK_INTERVAL);
    let mut save = tokio::time::interval_at(Instant::now() + SAVE_INTERVAL, SAVE_INTERVAL);
    tokio::pin!(stopped);
    loop {
        let reload = tokio::select! {
            () = &mut stopped => break,
            _ = hangups.recv() => true,
            _ = check.tick() => files.fingerprint() != known,
            _ = save.tick() => {
                save_uses(&keys, &files);
                false
            }
        };
        if reload {
            // Before loading: a change after it is then found at the next check.
            known = files.fingerprint();
            keys.reload(&files);
        }
    }
    save_uses(&keys, &files);
}

fn save_uses(keys: &CurrentKeys, files: &KeyFiles) {
    if let Err(error) = store::save_uses(&keys.get(), &files.folder) {
        tracing::warn!(%error, "cannot write when the API keys were last used");
    }
}
