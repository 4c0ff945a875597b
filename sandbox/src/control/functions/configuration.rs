//! Reading and changing functions.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::control::ControlPlane;
use crate::control::catalog::function_ref::FunctionRef;
use crate::control::catalog::update::ConfigurationUpdate;
use crate::control::server::error::AwsError;

/// `?Qualifier=`.
#[derive(Deserialize)]
pub(in crate::control) struct Qualifier {
    #[serde(rename = "Qualifier")]
    pub(in crate::control) qualifier: Option<String>,
}

type JsonResult = Result<Json<Value>, AwsError>;

pub(in crate::control) async fn get_configuration(
    State(plane): State<Arc<ControlPlane>>,
    Path(name): Path<String>,
    Query(query): Query<Qualifier>,
) -> JsonResult {
    let function = FunctionRef::parse(&name, query.qualifier.as_deref())?;
    let mut catalog = plane.catalog();
    let (record, revision) = catalog.revision(&function, Instant::now())?;
    Ok(Json(record.configuration(&revision, function.qualifier.as_deref())))
}

pub(in crate::control) async fn get(
    State(plane): State<Arc<ControlPlane>>,
    Path(name): Path<String>,
    Query(query): Query<Qualifier>,
) -> JsonResult {
    let function = FunctionRef::parse(&name, query.qualifier.as_deref())?;
    let mut catalog = plane.catalog();
    let (record, revision) = catalog.revision(&function, Instant::now())?;
    let mut response = json!({
        "Configuration": record.configuration(&revision, function.qualifier.as_deref()),
        "Code": {"RepositoryType": "S3", "Location": format!("file://{}", revision.config.code.display())},
    });
    if !record.tags.is_empty() {
        response["Tags"] = json!(record.tags);
    }
    if let Some(reserved) = record.reserved_concurrency {
        response["Concurrency"] = json!({"ReservedConcurrentExecutions": reserved});
    }
    Ok(Json(response))
}

pub(in crate::control) async fn update_configuration(
    State(plane): State<Arc<ControlPlane>>,
    Path(name): Path<String>,
    body: Bytes,
) -> JsonResult {
    let function = FunctionRef::parse(&name, None)?;
    let update: ConfigurationUpdate =
        serde_json::from_slice(&body).map_err(|error| AwsError::malformed(error.to_string()))?;
    let mut catalog = plane.catalog();
    let now = Instant::now();
    let record = catalog.update_configuration(&function.name, update, now, SystemTime::now())?;
    let configuration = record.configuration(&record.latest, None);
    plane.trace("control.update_configuration", &configuration);
    plane.retire_when_settled(record);
    Ok(Json(configuration))
}

/// `?Marker=&MaxItems=&FunctionVersion=`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::control) struct Listing {
    marker: Option<String>,
    max_items: Option<usize>,
    function_version: Option<String>,
}

/// Page size of `ListFunctions`, also when more is requested.
const PAGE: usize = 50;

pub(in crate::control) async fn list(
    State(plane): State<Arc<ControlPlane>>,
    Query(query): Query<Listing>,
) -> JsonResult {
    let with_versions = query.function_version.as_deref() == Some("ALL");
    let mut catalog = plane.catalog();
    let mut all = Vec::new();
    for record in catalog.records(Instant::now()) {
        all.push(record.configuration(&record.latest, with_versions.then_some("$LATEST")));
        if with_versions {
            let versions = record.versions.iter();
            all.extend(versions.map(|(number, it)| record.configuration(it, Some(&number.to_string()))));
        }
    }
    let start = match &query.marker {
        Some(marker) => marker.parse().map_err(|_| AwsError::invalid("invalid Marker"))?,
        None => 0,
    };
    let size = query.max_items.unwrap_or(PAGE).clamp(1, PAGE);
    let page: Vec<Value> = all.iter().skip(start).take(size).cloned().collect();
    let mut response = json!({"Functions": page});
    if start + size < all.len() {
        response["NextMarker"] = (start + size).to_string().into();
    }
    Ok(Json(response))
}
