//! Requests of people to the running tuner. They need no AWS: they are files in the data folder, or rows of the database.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::plan::Plan;
use crate::files::replace_with_mode;
use crate::store::{Store, StoreError, Tenant};

/// The folder of the requests in the data folder.
pub const FOLDER: &str = "tuner-requests";

/// One request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum TunerRequest {
    /// Start no change, and roll the open ones back.
    Freeze {
        /// The reason.
        reason: String,
    },
    /// Changes are possible again.
    Unfreeze {
        /// The reason.
        reason: String,
    },
    /// Roll one change back.
    Rollback {
        /// The name of the function.
        function: String,
        /// Its account; absent when the name is enough.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        account: Option<String>,
        /// Its region; absent when the name is enough.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        region: Option<String>,
        /// The change; the latest one when absent.
        change_id: Option<String>,
    },
    /// Freeze, and roll all changes back that are in force.
    RevertAll {
        /// The reason.
        reason: String,
    },
    /// Make the changes of a plan, if their functions are as they were.
    Apply {
        /// The plan.
        #[serde(with = "text")]
        plan: Plan,
    },
}

/// A plan as JSON in a text: a value with a tag inside cannot have integers of 128 bits, which amounts of money are.
mod text {
    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Plan;

    pub(super) fn serialize<S: Serializer>(plan: &Plan, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&serde_json::to_string(plan).map_err(S::Error::custom)?)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Plan, D::Error> {
        serde_json::from_str(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// Where requests are kept until a tuner executes them.
#[derive(Clone)]
pub enum RequestStore {
    /// Files in a folder, which a running collector and its commands share.
    Folder(PathBuf),
    /// The database that collectors and commands share, for one tenant.
    Store(Arc<dyn Store>, Tenant),
}

impl fmt::Debug for RequestStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => f.debug_tuple("Folder").field(folder).finish(),
            Self::Store(_, tenant) => f.debug_tuple("Store").field(tenant).finish(),
        }
    }
}

impl RequestStore {
    /// The requests in this data folder.
    #[must_use]
    pub fn in_data_folder(data: &Path) -> Self {
        Self::Folder(data.join(FOLDER))
    }

    /// Keeps a request. It is on disk afterwards.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be written.
    pub async fn submit(&self, request: &TunerRequest, now_us: u64) -> Result<(), StoreError> {
        let name = format!("{now_us:020}-{}.json", std::process::id());
        let failed = |what: &str| StoreError::Engine(format!("cannot keep the request: {what}"));
        let text = serde_json::to_string_pretty(request).map_err(|error| failed(&error.to_string()))?;
        match self {
            Self::Folder(folder) => {
                write(folder, &name, &text).map_err(|error| failed(&format!("{}: {error}", folder.display())))
            }
            Self::Store(store, tenant) => store.put_request(tenant, &name, &text).await,
        }
    }

    /// The requests that were not executed yet, with their names, oldest first. One that cannot be read is set aside, so that
    /// it does not block others.
    pub async fn pending(&self) -> Vec<(String, TunerRequest)> {
        let texts = match self {
            Self::Folder(folder) => files(folder),
            Self::Store(store, tenant) => store.requests(tenant).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "cannot read the requests; trying again in the next round");
                Vec::new()
            }),
        };
        let mut requests = Vec::new();
        for (name, text) in texts {
            match serde_json::from_str(&text) {
                Ok(request) => requests.push((name, request)),
                Err(error) => {
                    tracing::warn!(%error, "cannot read the request {name}");
                    self.set_aside(&name).await;
                }
            }
        }
        requests
    }

    async fn set_aside(&self, name: &str) {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(name);
                let _ = fs::rename(&path, path.with_extension("invalid"));
            }
            Self::Store(..) => {
                self.remove(name).await;
            }
        }
    }

    /// Removes a request that was executed. Returns whether that was possible.
    pub async fn remove(&self, name: &str) -> bool {
        let removed = match self {
            Self::Folder(folder) => fs::remove_file(folder.join(name)).map_err(|error| error.to_string()),
            Self::Store(store, tenant) => {
                store.remove_request(tenant, name).await.map_err(|error| error.to_string())
            }
        };
        if let Err(error) = &removed {
            tracing::warn!(error, "cannot remove the request {name}");
        }
        removed.is_ok()
    }
}

/// Writes a file of a request. The collector may run as another user than the command, so its mode is the usual one.
fn write(folder: &Path, name: &str, text: &str) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    replace_with_mode(&folder.join(name), text, 0o666)
}

/// The names and texts of the files in a folder, oldest first.
fn files(folder: &Path) -> Vec<(String, String)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".json")).collect();
    names.sort_unstable();
    names
        .into_iter()
        .filter_map(|name| Some((name.clone(), fs::read_to_string(folder.join(&name)).ok()?)))
        .collect()
}
