//! Reserved and provisioned concurrency, and the account's limits.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::control::ControlPlane;
use crate::control::catalog::function_ref::FunctionRef;
use crate::control::catalog::record::LATEST;
use crate::control::functions::configuration::Qualifier;
use crate::control::server::error::AwsError;
use crate::time::last_modified;

type JsonResult = Result<Json<Value>, AwsError>;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Reserved {
    reserved_concurrent_executions: u32,
}

pub(in crate::control) async fn put_reserved(
    State(plane): State<Arc<ControlPlane>>,
    Path(name): Path<String>,
    body: Bytes,
) -> JsonResult {
    let function = FunctionRef::parse(&name, None)?;
    let Reserved { reserved_concurrent_executions: reserved } =
        serde_json::from_slice(&body).map_err(|error| AwsError::malformed(error.to_string()))?;
    plane.catalog().record(&function.name, Instant::now())?.reserved_concurrency = Some(reserved);
    Ok(Json(json!({"ReservedConcurrentExecutions": reserved})))
}

pub(in crate::control) async fn get_reserved(
    State(plane): State<Arc<ControlPlane>>,
    Path(name): Path<String>,
) -> JsonResult {
    let function = FunctionRef::parse(&name, None)?;
    let reserved = plane.catalog().record(&function.name, Instant::now())?.reserved_concurrency;
    Ok(Json(reserved.map_or_else(|| json!({}), |it| json!({"ReservedConcurrentExecutions": it}))))
}

pub(in crate::control) async fn delete_reserved(
    State(plane): State<Arc<ControlPlane>>,
    Path(name): Path<String>,
) -> Result<StatusCode, AwsError> {
    let function = FunctionRef::parse(&name, None)?;
    plane.catalog().record(&function.name, Instant::now())?.reserved_concurrency = None;
    Ok(StatusCode::NO_CONTENT)
}

/// The version or alias that provisioned concurrency needs, and never `$LATEST`.
fn qualified(name: &str, query: &Qualifier) -> Result<(FunctionRef, String), AwsError> {
    let function = FunctionRef::parse(name, query.qualifier.as_deref())?;
    match function.qualifier.clone() {
        Some(qualifier) if qualifier != LATEST => Ok((function, qualifier)),
        _ => Err(AwsError::invalid(
            "Provisioned Concurrency Configs cannot be applied to unpublished function versions.",
        )),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Provisioned {
    provisioned_concurrent_executions: u32,
}

pub(in crate::control) async fn put_provisioned(
    State(plane): State<Arc<ControlPlane>>,
    Path(name): Path<String>,
    Query(query): Query<Qualifier>,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), AwsError> {
    let (function, qualifier) = qualified(&name, &query)?;
    let Provisioned { provisioned_concurrent_executions: requested } =
        serde_json::from_slice(&body).map_err(|error| AwsError::malformed(error.to_string()))?;
    let target = {
        let mut catalog = plane.catalog();
        // 1 is never below a weight, so the alias's main version is what gets the environments.
        let resolved = catalog.resolve(&function, Instant::now(), 1.0)?;
        if resolved.target.config.tenant_isolation {
            return Err(AwsError::invalid(
                "Provisioned concurrency is not supported for functions with tenant isolation",
            ));
        }
        let record = catalog.record(&function.name, Instant::now())?;
        record.provisioned_concurrency.insert(qualifier, requested);
        resolved.target
    };
    plane.fleet.provision(&target, requested)?;
    let status = json!({
        "RequestedProvisionedConcurrentExecutions": requested, "Status": "IN_PROGRESS",
        "AllocatedProvisionedConcurrentExecutions": 0, "AvailableProvisionedConcurrentExecutions": 0,
        "LastModified": last_modified(SystemTime::now()),
    });
    Ok((StatusCode::ACCEPTED, Json(status)))
}

/// `?List=ALL`, without which one configuration is requested.
#[derive(Deserialize)]
pub(in crate::control) struct List {
    #[serde(rename = "List")]
    list: Option<String>,
}

pub(in crate::control) async fn get_provisioned(
    State(plane): State<Arc<ControlPlane>>,
    Path(name): Path<String>,
    Query(list): Query<List>,
    Query(query): Query<Qualifier>,
) -> JsonResult {
    if list.list.as_deref() == Some("ALL") {
        return list_provisioned(&plane, &name);
    }
    let (function, qualifier) = qualified(&name, &query)?;
    let mut catalog = plane.catalog();
    let resolved = catalog.resolve(&function, Instant::now(), 1.0)?;
    let record = catalog.record(&function.name, Instant::now())?;
    let Some(requested) = record.provisioned_concurrency.get(&qualifier).copied() else {
        let message = "No Provisioned Concurrency Config found for this function";
        let error = AwsError::not_found(message);
        return Err(AwsError { exception: "ProvisionedConcurrencyConfigNotFoundException", ..error });
    };
    let (allocated, available) = plane.fleet.provisioned(&function.name, &resolved.version);
    Ok(Json(json!({
        "RequestedProvisionedConcurrentExecutions": requested,
        "AllocatedProvisionedConcurrentExecutions": allocated,
        "AvailableProvisionedConcurrentExecutions": available,
        "Status": if allocated >= requested as usize { "READY" } else { "IN_PROGRESS" },
        "LastModified": last_modified(SystemTime::now()),
    })))
}

fn list_provisioned(plane: &ControlPlane, name: &str) -> JsonResult {
    let function = FunctionRef::parse(name, None)?;
    let mut catalog = plane.catalog();
    let record = catalog.record(&function.name, Instant::now())?;
    let configs = record.provisioned_concurrency.iter().map(|(qualifier, requested)| {
        json!({
            "FunctionArn": format!("{}:{qualifier}", record.arn),
            "RequestedProvisionedConcurrentExecutions": requested,
            "Status": "READY", "LastModified": last_modified(SystemTime::now()),
        })
    });
    Ok(Json(json!({ "ProvisionedConcurrencyConfigs": configs.collect::<Vec<_>>() })))
}

pub(in crate::control) async fn delete_provisioned(
    State(plane): State<Arc<ControlPlane>>,
    Path(name): Path<String>,
    Query(query): Query<Qualifier>,
) -> Result<StatusCode, AwsError> {
    let (function, qualifier) = qualified(&name, &query)?;
    let target = {
        let mut catalog = plane.catalog();
        catalog.record(&function.name, Instant::now())?.provisioned_concurrency.remove(&qualifier);
        catalog.resolve(&function, Instant::now(), 1.0)?.target
    };
    plane.fleet.provision(&target, 0)?;
    Ok(StatusCode::NO_CONTENT)
}

pub(in crate::control) async fn account_settings(State(plane): State<Arc<ControlPlane>>) -> JsonResult {
    let mut catalog = plane.catalog();
    let (mut count, mut size, mut reserved) = (0_u64, 0, 0);
    for record in catalog.records(Instant::now()) {
        count += 1;
        size += record.latest.code_size;
        reserved += record.reserved_concurrency.unwrap_or_default();
    }
    let limit = plane.fleet.account_concurrency();
    Ok(Json(json!({
        "AccountLimit": {
            "ConcurrentExecutions": limit,
            "UnreservedConcurrentExecutions": limit.saturating_sub(reserved),
            "TotalCodeSize": 80_530_636_800_u64,
            "CodeSizeUnzipped": 262_144_000, "CodeSizeZipped": 52_428_800,
        },
        "AccountUsage": {"FunctionCount": count, "TotalCodeSize": size},
    })))
}
