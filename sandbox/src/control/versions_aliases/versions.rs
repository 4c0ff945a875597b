//! Publishing, listing and deleting versions.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::{FunctionConfig, InitializationType};
use crate::control::ControlPlane;
use crate::control::catalog::function_ref::FunctionRef;
use crate::control::catalog::record::{Alias, LATEST, Record, Revision, new_revision_id};
use crate::control::catalog::{Catalog, check_change};
use crate::control::functions::configuration::Qualifier;
use crate::control::server::error::AwsError;

/// The request body of `PublishVersion`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Publication {
    code_sha256: Option<String>,
    description: Option<String>,
    revision_id: Option<String>,
}

impl Catalog {
    /// Makes a version of `$LATEST`, or returns the newest one if neither code nor configuration has changed
    /// since it was made.
    pub fn publish(
        &mut self,
        name: &str,
        publication: &Publication,
        now: Instant,
        time: SystemTime,
    ) -> Result<(&Record, Revision), AwsError> {
        let generation = self.next_generation();
        let record = self.record(name, now)?;
        check_change(record, publication.revision_id.as_deref())?;
        if publication.code_sha256.as_ref().is_some_and(|requested| *requested != record.latest.code_sha256) {
            let message = format!(
                "CodeSHA256 ({}) is different from current CodeSHA256 in $LATEST ({}). Please try again with the CodeSHA256 in $LATEST.",
                publication.code_sha256.as_deref().unwrap_or_default(),
                record.latest.code_sha256
            );
            return Err(AwsError::precondition(message));
        }
        let newest = record.versions.last_key_value().map(|(_, newest)| newest.clone());
        // The description is a part of the configuration. A version with a description of its own does not have it.
        let has_own = publication.description.is_some();
        let is_described = |newest: &Revision| has_own || newest.description == record.latest.description;
        if let Some(newest) = newest.filter(|newest| is_same(newest, &record.latest) && is_described(newest))
        {
            return Ok((record, newest));
        }
        let number = record.next_version;
        record.next_version += 1;
        let mut config = FunctionConfig::clone(&record.latest.config);
        config.version = number.to_string();
        if config.snap_start_versions {
            config.initialization_type = InitializationType::SnapStart;
        }
        let revision = Revision {
            config: Arc::new(config),
            generation,
            revision_id: new_revision_id(),
            last_modified: time,
            description: publication.description.clone().unwrap_or_else(|| record.latest.description.clone()),
            ..record.latest.clone()
        };
        record.versions.insert(number, revision.clone());
        Ok((record, revision))
    }

    /// Deletes a version that no alias uses. A version that does not exist is no error.
    pub fn delete_version(&mut self, name: &str, version: &str, now: Instant) -> Result<(), AwsError> {
        let arn = self.function_arn(name);
        let record = self.record(name, now)?;
        let number: u64 =
            version.parse().map_err(|_| AwsError::invalid(format!("{version} is not a version")))?;
        let uses = |alias: &Alias| {
            let additional = alias.additional.as_ref().is_some_and(|(other, _)| other == version);
            alias.version == version || additional
        };
        if let Some((alias, _)) = record.aliases.iter().find(|(_, alias)| uses(alias)) {
            return Err(AwsError::conflict(format!("Version {version} is in use by alias {alias} of {arn}")));
        }
        record.versions.remove(&number);
        Ok(())
    }
}

fn is_same(version: &Revision, latest: &Revision) -> bool {
    let mut config = FunctionConfig::clone(&version.config);
    config.version = LATEST.to_owned();
    config.initialization_type = latest.config.initialization_type;
    version.code_sha256 == latest.code_sha256 && config == *latest.config
}

pub(in crate::control) async fn publish(
    State(plane): State<Arc<ControlPlane>>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), AwsError> {
    let function = FunctionRef::parse(&name, None)?;
    let publication = if body.is_empty() {
        Publication::default()
    } else {
        serde_json::from_slice(&body).map_err(|error| AwsError::malformed(error.to_string()))?
    };
    let mut catalog = plane.catalog();
    let (record, revision) =
        catalog.publish(&function.name, &publication, Instant::now(), SystemTime::now())?;
    let configuration = record.configuration(&revision, Some(&revision.config.version));
    plane.trace("control.publish_version", &configuration);
    Ok((StatusCode::CREATED, Json(configuration)))
}

pub(in crate::control) async fn list(
    State(plane): State<Arc<ControlPlane>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, AwsError> {
    let function = FunctionRef::parse(&name, None)?;
    let mut catalog = plane.catalog();
    let record = catalog.record(&function.name, Instant::now())?;
    let mut versions = vec![record.configuration(&record.latest, Some(LATEST))];
    let published = record.versions.iter();
    versions.extend(published.map(|(number, it)| record.configuration(it, Some(&number.to_string()))));
    Ok(Json(json!({"Versions": versions})))
}

pub(in crate::control) async fn delete(
    State(plane): State<Arc<ControlPlane>>,
    Path(name): Path<String>,
    Query(query): Query<Qualifier>,
) -> Result<StatusCode, AwsError> {
    let function = FunctionRef::parse(&name, query.qualifier.as_deref())?;
    let mut catalog = plane.catalog();
    let record = catalog.record(&function.name, Instant::now())?;
    let retired: Vec<String> = match function.qualifier.as_deref() {
        Some(LATEST) => {
            return Err(AwsError::invalid(
                "$LATEST version cannot be deleted without deleting the function.",
            ));
        }
        Some(version) => {
            catalog.delete_version(&function.name, version, Instant::now())?;
            vec![version.to_owned()]
        }
        None => {
            let versions = record.versions.keys().map(u64::to_string);
            let all = versions.chain([LATEST.to_owned()]).collect();
            catalog.remove(&function.name);
            all
        }
    };
    plane.trace("control.delete_function", &json!({"name": function.name, "versions": retired}));
    for version in retired {
        plane.fleet.retire(&function.name, &version, u64::MAX);
    }
    Ok(StatusCode::NO_CONTENT)
}
