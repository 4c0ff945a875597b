//! Tags of functions: from the operator's file, from `PUT /v1/tags`, and from what the tuner read from AWS. Lists filter and
//! group by them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use crate::store::{FunctionKey, Tenant};

pub mod file;
mod sent;

pub use file::TagError;
use sent::SentTags;

/// The tags of one function: key and value.
pub type Tags = BTreeMap<String, String>;

/// How often the file is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Maximum number of functions whose tags are kept from AWS.
const MAX_AWS_FUNCTIONS: usize = 20_000;

/// The tags of the functions of one tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TagTable {
    by_key: BTreeMap<FunctionKey, Tags>,
    by_name: BTreeMap<String, Tags>,
}

impl TagTable {
    /// Reads a file of tags.
    ///
    /// # Errors
    /// [`TagError`] with the line or the function.
    pub fn read(path: &Path) -> Result<Self, TagError> {
        file::read(path)
    }

    /// The value of a tag of a function. An entry with the function's ARN counts before one with its name.
    #[must_use]
    pub fn value(&self, function: &FunctionKey, key: &str) -> Option<&str> {
        let by_key = self.by_key.get(function).and_then(|tags| tags.get(key));
        by_key.or_else(|| self.by_name.get(&function.name)?.get(key)).map(String::as_str)
    }

    /// All tags of a function.
    #[must_use]
    pub fn of(&self, function: &FunctionKey) -> Tags {
        let mut tags = self.by_name.get(&function.name).cloned().unwrap_or_default();
        tags.extend(self.by_key.get(function).cloned().unwrap_or_default());
        tags
    }

    /// The keys of all tags, sorted.
    #[must_use]
    pub fn keys(&self) -> Vec<&str> {
        let all = self.by_key.values().chain(self.by_name.values()).flat_map(BTreeMap::keys);
        let keys: std::collections::BTreeSet<&str> = all.map(String::as_str).collect();
        keys.into_iter().collect()
    }

    /// Adds tags of another table, where there is no tag of the function with the key. An entry with an ARN counts before
    /// one with a name of the same table only.
    fn add_missing(&mut self, other: &Self) {
        for (function, tags) in &other.by_key {
            let named = self.by_name.get(&function.name).cloned().unwrap_or_default();
            let known = self.by_key.entry(function.clone()).or_default();
            for (key, value) in tags.iter().filter(|(key, _)| !named.contains_key(*key)) {
                known.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        for (name, tags) in &other.by_name {
            let known = self.by_name.entry(name.clone()).or_default();
            for (key, value) in tags {
                known.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
    }

    /// The number of functions with tags.
    pub(crate) fn len(&self) -> usize {
        self.by_key.len() + self.by_name.len()
    }
}

/// The tags that are known now.
#[derive(Debug, Default)]
pub struct CurrentTags {
    tenants: RwLock<BTreeMap<Tenant, Sources>>,
    /// Held while a request changes them, so that they and their file change together.
    sent: Mutex<SentTags>,
}

#[derive(Debug, Default)]
struct Sources {
    file: TagTable,
    sent: TagTable,
    aws: BTreeMap<FunctionKey, Tags>,
    /// All, with the file's tags before those that were sent, and those before AWS's.
    merged: Arc<TagTable>,
}

impl Sources {
    fn merge(&mut self) {
        let mut merged = self.file.clone();
        merged.add_missing(&self.sent);
        let named = merged.by_name.clone();
        for (function, tags) in &self.aws {
            let known = merged.by_key.entry(function.clone()).or_default();
            for (key, value) in tags {
                // AWS's own tags, such as those of CloudFormation, begin with `aws:`.
                let is_named = named.get(&function.name).is_some_and(|tags| tags.contains_key(key));
                if !is_named {
                    known.entry(key.clone()).or_insert_with(|| value.clone());
                }
            }
        }
        self.merged = Arc::new(merged);
    }
}

impl CurrentTags {
    /// The tags of a tenant's functions.
    #[must_use]
    pub fn of(&self, tenant: &Tenant) -> Arc<TagTable> {
        let sources = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
        sources.get(tenant).map(|sources| Arc::clone(&sources.merged)).unwrap_or_default()
    }

    /// Replaces the tags from the file.
    pub fn set_file(&self, tenant: &Tenant, table: TagTable) {
        let mut sources = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        let sources = sources.entry(tenant.clone()).or_default();
        sources.file = table;
        sources.merge();
    }

    /// Reads the tags that were sent to this data folder, and keeps them there from now on.
    ///
    /// # Errors
    /// [`TagError`] when the file cannot be read.
    pub fn keep_sent(&self, folder: &Path) -> Result<(), TagError> {
        let sent = SentTags::open(folder)?;
        for (tenant, table) in sent.tables()? {
            self.set_sent(&tenant, table);
        }
        *self.sent.lock().unwrap_or_else(PoisonError::into_inner) = sent;
        Ok(())
    }

    /// Replaces the tags of the functions that a JSON document names; returns the number of functions that have tags that
    /// were sent. They are on disk.
    ///
    /// # Errors
    /// [`TagError`] when the document is not valid or cannot be stored, as without [`Self::keep_sent`]. Then nothing has changed.
    pub fn put_sent(&self, tenant: &Tenant, text: &str) -> Result<usize, TagError> {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, table) = sent.put(tenant, text)?;
        self.set_sent(tenant, table);
        Ok(count)
    }

    fn set_sent(&self, tenant: &Tenant, table: TagTable) {
        let mut sources = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        let sources = sources.entry(tenant.clone()).or_default();
        sources.sent = table;
        sources.merge();
    }

    /// Replaces the tags of one function that AWS returned.
    pub fn set_aws(&self, tenant: &Tenant, function: &FunctionKey, tags: Tags) {
        let mut sources = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        let sources = sources.entry(tenant.clone()).or_default();
        let is_new = !sources.aws.contains_key(function);
        if sources.aws.get(function) == Some(&tags) || (is_new && sources.aws.len() >= MAX_AWS_FUNCTIONS) {
            return;
        }
        sources.aws.insert(function.clone(), tags);
        sources.merge();
    }
}

/// Reads the file again when it changes, until `stopped` resolves. When it cannot be read, the present tags stay.
pub async fn follow(
    tags: Arc<CurrentTags>,
    tenant: Tenant,
    path: PathBuf,
    stopped: impl Future<Output = ()>,
) {
    let fingerprint = || {
        let file = fs::metadata(&path).ok()?;
        Some((file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
    };
    let mut known = fingerprint();
    let mut check = tokio::time::interval(CHECK_INTERVAL);
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            () = &mut stopped => return,
            _ = check.tick() => {}
        }
        let now = fingerprint();
        if now == known {
            continue;
        }
        known = now;
        match TagTable::read(&path) {
            Ok(table) => {
                tracing::info!("reloaded the tags of {} functions", table.len());
                tags.set_file(&tenant, table);
            }
            Err(error) => tracing::error!(%error, "cannot reload the tags: the present ones stay"),
        }
    }
}
