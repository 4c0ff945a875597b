//! The API of the sandbox itself, under `/sandbox/`. AWS has no such API.
//!
//! - `GET`, `PUT /sandbox/faults`: the current faults; a `PUT` switches off the fields that it does not contain;
//! - `GET /sandbox/environments`: environments that accept invocations;
//! - `POST /sandbox/environments/{id}/kill` with `{"process":"runtime"}` or `{"process":"extensions/NAME"}`.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::control::ControlPlane;
use crate::control::server::error::AwsError;
use crate::environment::Environment;
use crate::faults::Settings;

pub(in crate::control) fn routes() -> Router<Arc<ControlPlane>> {
    Router::new()
        .route("/sandbox/faults", get(faults).put(set_faults))
        .route("/sandbox/environments", get(environments))
        .route("/sandbox/environments/{id}/kill", post(kill))
}

async fn faults(State(plane): State<Arc<ControlPlane>>) -> Json<Settings> {
    Json(Settings::clone(&plane.fleet.platform().faults.settings()))
}

async fn set_faults(State(plane): State<Arc<ControlPlane>>, body: Bytes) -> Result<Json<Settings>, AwsError> {
    let requested: Settings = serde_json::from_slice(&body)
        .map_err(|error| AwsError::malformed(format!("invalid faults: {error}")))?;
    plane
        .fleet
        .platform()
        .set_faults(requested.clone())
        .map_err(|error| AwsError::invalid(format!("cannot apply the faults: {error:#}")))?;
    Ok(Json(requested))
}

async fn environments(State(plane): State<Arc<ControlPlane>>) -> Json<Value> {
    let all = plane.fleet.environments();
    Json(json!({"Environments": all.iter().filter_map(Environment::describe).collect::<Vec<_>>()}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kill {
    process: String,
}

async fn kill(
    State(plane): State<Arc<ControlPlane>>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<StatusCode, AwsError> {
    let Kill { process } =
        serde_json::from_slice(&body).map_err(|error| AwsError::malformed(error.to_string()))?;
    let all = plane.fleet.environments();
    let environment = all.iter().find(|environment| environment.id == id);
    let environment =
        environment.ok_or_else(|| AwsError::not_found(format!("there is no environment {id}")))?;
    if environment.kill(&process) {
        return Ok(StatusCode::NO_CONTENT);
    }
    let message = format!("environment {id} has no process {process}; use runtime or extensions/NAME");
    Err(AwsError::not_found(message))
}
