//! Tags of functions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::control::ControlPlane;
use crate::control::catalog::function_ref::FunctionRef;
use crate::control::server::error::AwsError;

pub(in crate::control) async fn list(
    State(plane): State<Arc<ControlPlane>>,
    Path(arn): Path<String>,
) -> Result<Json<Value>, AwsError> {
    let function = FunctionRef::parse(&arn, None)?;
    let mut catalog = plane.catalog();
    let record = catalog.record(&function.name, Instant::now())?;
    Ok(Json(json!({"Tags": record.tags})))
}

#[derive(Deserialize)]
struct Tags {
    #[serde(rename = "Tags")]
    tags: BTreeMap<String, String>,
}

pub(in crate::control) async fn tag(
    State(plane): State<Arc<ControlPlane>>,
    Path(arn): Path<String>,
    body: Bytes,
) -> Result<StatusCode, AwsError> {
    let function = FunctionRef::parse(&arn, None)?;
    let Tags { tags } =
        serde_json::from_slice(&body).map_err(|error| AwsError::malformed(error.to_string()))?;
    let mut catalog = plane.catalog();
    let record = catalog.record(&function.name, Instant::now())?;
    crate::control::catalog::check_change(record, None)?;
    record.tags.extend(tags);
    Ok(StatusCode::NO_CONTENT)
}

pub(in crate::control) async fn untag(
    State(plane): State<Arc<ControlPlane>>,
    Path(arn): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<StatusCode, AwsError> {
    let function = FunctionRef::parse(&arn, None)?;
    let mut catalog = plane.catalog();
    let record = catalog.record(&function.name, Instant::now())?;
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        if name == "tagKeys" {
            record.tags.remove(value.as_ref());
        }
    }
    Ok(StatusCode::NO_CONTENT)
}
