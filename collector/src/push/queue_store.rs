//! Where the queue of the webhook is kept: a file of the data folder, or the database that several collectors share.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use tailor_push::webhook::{Outbox, OutboxError};

use crate::files;
use crate::store::{Store, Tenant};

/// The file in the data folder.
pub const FILE_NAME: &str = "webhook-queue.json";

/// The name in the database.
pub const NAME: &str = "webhook-queue";

/// The queue in a data folder and the number of events that wait in it; `None` without a queue.
///
/// # Errors
/// It cannot be read.
pub fn in_file(folder: &Path) -> anyhow::Result<Option<(String, u64)>> {
    let path = folder.join(FILE_NAME);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        read => read.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let outbox = Outbox::parse(&text);
    let outbox = outbox.with_context(|| {
        format!("cannot use the queue of the webhook: to continue without it, delete {}", path.display())
    })?;
    Ok(Some((text, outbox.len() as u64)))
}

/// The place.
#[derive(Clone)]
pub enum QueueStore {
    /// A file.
    File(PathBuf),
    /// The database, for one tenant.
    Database(Arc<dyn Store>, Tenant),
}

impl QueueStore {
    /// The file in a data folder.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        Self::File(folder.join(FILE_NAME))
    }

    /// Reads the queue; an empty one when there is none. A damaged one is set aside, so that events are sent again.
    ///
    /// # Errors
    /// It cannot be read, or a newer program wrote it.
    pub(super) async fn read(&self) -> anyhow::Result<Outbox> {
        let text = match self {
            Self::File(path) => match fs::read_to_string(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                read => Some(read.with_context(|| format!("cannot read {}", path.display()))?),
            },
            Self::Database(store, tenant) => store.text(tenant, NAME).await?,
        };
        match text.as_deref().map(Outbox::parse) {
            None => Ok(Outbox::default()),
            Some(Ok(outbox)) => Ok(outbox),
            Some(Err(error @ OutboxError::Newer(_))) => {
                Err(error).context("cannot use the queue of the webhook")
            }
            Some(Err(error)) => {
                tracing::error!("the queue of the webhook is damaged and begins again: {error}");
                if let Self::File(path) = self {
                    fs::rename(path, path.with_extension("damaged"))?;
                }
                Ok(Outbox::default())
            }
        }
    }

    /// Replaces the queue. It is on disk afterwards.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) async fn write(&self, outbox: &mut Outbox) -> anyhow::Result<()> {
        let text = outbox.text()?;
        match self {
            Self::File(path) => {
                let path = path.clone();
                let written = tokio::task::spawn_blocking(move || {
                    files::replace(&path, &text).with_context(|| format!("cannot write {}", path.display()))
                });
                written.await?
            }
            Self::Database(store, tenant) => Ok(store.put_text(tenant, NAME, &text).await?),
        }
    }
}
