//! Aliases, with weights between two versions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::control::ControlPlane;
use crate::control::catalog::Catalog;
use crate::control::catalog::function_ref::FunctionRef;
use crate::control::catalog::record::{Alias, LATEST, Record, new_revision_id};
use crate::control::server::error::AwsError;

/// The request body of `CreateAlias` and `UpdateAlias`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AliasUpdate {
    name: Option<String>,
    function_version: Option<String>,
    description: Option<String>,
    routing_config: Option<RoutingConfig>,
    revision_id: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RoutingConfig {
    #[serde(default)]
    additional_version_weights: BTreeMap<String, f64>,
}

type JsonResult = Result<Json<Value>, AwsError>;

/// The JSON of an alias, or why it was not changed.
type ValueResult = Result<Value, AwsError>;

fn parse(body: &[u8]) -> Result<AliasUpdate, AwsError> {
    serde_json::from_slice(body).map_err(|error| AwsError::malformed(error.to_string()))
}

fn missing(record: &Record, alias: &str) -> AwsError {
    AwsError::not_found(format!("Cannot find alias arn: {}:{alias}", record.arn))
}

/// Both versions must exist; a weighted alias may not contain `$LATEST`.
fn check(record: &Record, alias: &Alias) -> Result<(), AwsError> {
    let exists = |version: &str| {
        let found = record.version(version).map(|_| ());
        found.ok_or_else(|| AwsError::not_found(format!("Function not found: {}:{version}", record.arn)))
    };
    exists(&alias.version)?;
    let Some((version, weight)) = &alias.additional else { return Ok(()) };
    if alias.version == LATEST || version == LATEST {
        return Err(AwsError::invalid(
            "$LATEST is not supported for an alias pointing to more than 1 version",
        ));
    }
    if !(0.0..=1.0).contains(weight) {
        return Err(AwsError::invalid(format!("weight {weight} is not between 0 and 1")));
    }
    if *version == alias.version {
        return Err(AwsError::invalid("a weighted alias needs two different versions"));
    }
    exists(version)
}

fn routing(config: RoutingConfig) -> Result<Option<(String, f64)>, AwsError> {
    let mut weights = config.additional_version_weights.into_iter();
    match (weights.next(), weights.next()) {
        (additional, None) => Ok(additional),
        _ => Err(AwsError::invalid("AdditionalVersionWeights may have at most one version")),
    }
}

impl Catalog {
    /// Creates an alias, under the rules of `CreateAlias`.
    pub fn create_alias(&mut self, function: &str, alias: AliasUpdate, now: Instant) -> ValueResult {
        let (Some(name), Some(version)) = (alias.name, alias.function_version) else {
            return Err(AwsError::invalid("Name and FunctionVersion are required"));
        };
        let is_number = name.chars().all(|character| character.is_ascii_digit());
        if name.is_empty() || is_number || name.contains('$') {
            return Err(AwsError::invalid(format!("{name} is not an alias name")));
        }
        let record = self.record(function, now)?;
        if record.aliases.contains_key(&name) {
            return Err(AwsError::conflict(format!("Alias already exists: {}:{name}", record.arn)));
        }
        let alias = Alias {
            version,
            additional: alias.routing_config.map(routing).transpose()?.flatten(),
            description: alias.description.unwrap_or_default(),
            revision_id: new_revision_id(),
        };
        check(record, &alias)?;
        let shown = record.alias(&name, &alias);
        record.aliases.insert(name, alias);
        Ok(shown)
    }

    /// Changes an alias, under the rules of `UpdateAlias`. Absent fields stay as they are.
    pub fn update_alias(
        &mut self,
        function: &str,
        name: &str,
        update: AliasUpdate,
        now: Instant,
    ) -> ValueResult {
        let record = self.record(function, now)?;
        let mut alias = record.aliases.get(name).cloned().ok_or_else(|| missing(record, name))?;
        if update.revision_id.is_some_and(|requested| requested != alias.revision_id) {
            let message = "The RevisionId provided does not match the latest RevisionId for the Lambda function or alias. Call the GetFunction or the GetAlias API to retrieve the latest RevisionId";
            return Err(AwsError::precondition(message));
        }
        if let Some(version) = update.function_version {
            alias.version = version;
        }
        if let Some(config) = update.routing_config {
            alias.additional = routing(config)?;
        }
        if let Some(description) = update.description {
            alias.description = description;
        }
        check(record, &alias)?;
        alias.revision_id = new_revision_id();
        let shown = record.alias(name, &alias);
        record.aliases.insert(name.to_owned(), alias);
        Ok(shown)
    }
}

pub(in crate::control) async fn create(
    State(plane): State<Arc<ControlPlane>>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), AwsError> {
    let function = FunctionRef::parse(&name, None)?;
    let shown = plane.catalog().create_alias(&function.name, parse(&body)?, Instant::now())?;
    plane.trace("control.create_alias", &shown);
    Ok((StatusCode::CREATED, Json(shown)))
}

pub(in crate::control) async fn update(
    State(plane): State<Arc<ControlPlane>>,
    Path((name, alias)): Path<(String, String)>,
    body: Bytes,
) -> JsonResult {
    let function = FunctionRef::parse(&name, None)?;
    let shown = plane.catalog().update_alias(&function.name, &alias, parse(&body)?, Instant::now())?;
    plane.trace("control.update_alias", &shown);
    Ok(Json(shown))
}

pub(in crate::control) async fn get(
    State(plane): State<Arc<ControlPlane>>,
    Path((name, alias)): Path<(String, String)>,
) -> JsonResult {
    let function = FunctionRef::parse(&name, None)?;
    let mut catalog = plane.catalog();
    let record = catalog.record(&function.name, Instant::now())?;
    let found = record.aliases.get(&alias).ok_or_else(|| missing(record, &alias))?;
    Ok(Json(record.alias(&alias, found)))
}

pub(in crate::control) async fn delete(
    State(plane): State<Arc<ControlPlane>>,
    Path((name, alias)): Path<(String, String)>,
) -> Result<StatusCode, AwsError> {
    let function = FunctionRef::parse(&name, None)?;
    let mut catalog = plane.catalog();
    catalog.record(&function.name, Instant::now())?.aliases.remove(&alias);
    Ok(StatusCode::NO_CONTENT)
}

/// `?FunctionVersion=`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::control) struct Filter {
    function_version: Option<String>,
}

pub(in crate::control) async fn list(
    State(plane): State<Arc<ControlPlane>>,
    Path(name): Path<String>,
    Query(filter): Query<Filter>,
) -> JsonResult {
    let function = FunctionRef::parse(&name, None)?;
    let mut catalog = plane.catalog();
    let record = catalog.record(&function.name, Instant::now())?;
    let requested =
        |alias: &Alias| filter.function_version.as_ref().is_none_or(|version| *version == alias.version);
    let aliases = record.aliases.iter().filter(|(_, alias)| requested(alias));
    let aliases: Vec<Value> = aliases.map(|(name, alias)| record.alias(name, alias)).collect();
    Ok(Json(json!({"Aliases": aliases})))
}
