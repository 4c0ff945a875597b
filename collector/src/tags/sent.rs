//! The tags that were sent to `PUT /v1/tags`, in a file of the data folder.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::file::table;
use super::{TagError, TagTable, Tags};
use crate::files;
use crate::store::Tenant;

/// The file in the data folder.
const FILE_NAME: &str = "sent-tags.json";

/// Maximum number of functions of a tenant: as many as are kept from AWS.
const MAX_FUNCTIONS: usize = super::MAX_AWS_FUNCTIONS;

/// Tags by tenant, then by the name or ARN of the function.
type ByTenant = BTreeMap<String, BTreeMap<String, Tags>>;

/// The content of the file.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Stored {
    tenants: ByTenant,
}

/// The tags that were sent.
#[derive(Debug, Default)]
pub(super) struct SentTags {
    /// Where they are stored. When it is absent, none are accepted.
    path: Option<PathBuf>,
    tenants: ByTenant,
}

impl SentTags {
    /// Those of a data folder.
    pub(super) fn open(folder: &Path) -> Result<Self, TagError> {
        let path = folder.join(FILE_NAME);
        let tenants = match fs::read(&path) {
            Ok(bytes) => {
                let stored = serde_json::from_slice::<Stored>(&bytes);
                stored.map_err(|error| TagError::Form(path.clone(), error.to_string()))?.tenants
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(TagError::Io(path, error)),
        };
        Ok(Self { path: Some(path), tenants })
    }

    /// The tables of all tenants.
    pub(super) fn tables(&self) -> Result<Vec<(Tenant, TagTable)>, TagError> {
        let path = self.path.as_deref().unwrap_or_else(|| Path::new(FILE_NAME));
        let tables = self
            .tenants
            .iter()
            .map(|(tenant, entries)| Ok((Tenant(tenant.clone()), table(path, entries.clone())?)));
        tables.collect()
    }

    /// Replaces the tags of the functions that `text` names, and stores all; returns the number of functions and the table.
    pub(super) fn put(&mut self, tenant: &Tenant, text: &str) -> Result<(usize, TagTable), TagError> {
        let path = self.path.clone().ok_or(TagError::NotStored)?;
        let body = Path::new("the body");
        let sent: BTreeMap<String, Tags> =
            serde_json::from_str(text).map_err(|error| TagError::Body(error.to_string()))?;
        // The entries that remove tags are checked, too.
        table(body, sent.clone())?;
        let mut entries = self.tenants.get(&tenant.0).cloned().unwrap_or_default();
        entries.extend(sent);
        entries.retain(|_, tags| !tags.is_empty());
        if entries.len() > MAX_FUNCTIONS {
            return Err(TagError::TooMany(MAX_FUNCTIONS));
        }
        let (count, table) = (entries.len(), table(body, entries.clone())?);
        let previous = self.tenants.insert(tenant.0.clone(), entries);
        if let Err(error) = self.write(&path) {
            match previous {
                Some(previous) => self.tenants.insert(tenant.0.clone(), previous),
                None => self.tenants.remove(&tenant.0),
            };
            return Err(error);
        }
        Ok((count, table))
    }

    /// Replaces the file in one step, so that a crash leaves the old or the new content.
    fn write(&self, path: &Path) -> Result<(), TagError> {
        let text = serde_json::json!({ "tenants": &self.tenants }).to_string();
        files::replace(path, &text).map_err(|error| TagError::Io(path.to_owned(), error))
    }
}
