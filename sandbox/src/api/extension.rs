//! Extensions API, version 2020-01-01.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::HeaderMap;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::accepted;
use crate::environment::Shared;
use crate::environment::api_error::ApiError;
use crate::environment::extension::EventSet;

pub(super) const IDENTIFIER: &str = "lambda-extension-identifier";

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/2020-01-01/extension/register", post(register))
        .route("/2020-01-01/extension/event/next", get(next))
        .route("/2020-01-01/extension/init/error", post(init_error))
        .route("/2020-01-01/extension/exit/error", post(exit_error))
}

pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

#[derive(Deserialize)]
struct Registration {
    #[serde(default)]
    events: Vec<String>,
}

async fn register(
    State(environment): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let name = header(&headers, "lambda-extension-name").unwrap_or_default();
    if name.is_empty() {
        return Err(ApiError::forbidden("Extension.InvalidExtensionName", "Empty extension name"));
    }
    let registration: Registration = serde_json::from_slice(&body)
        .map_err(|error| ApiError::forbidden("InvalidRequestFormat", error.to_string()))?;
    let mut events = EventSet::default();
    for event in &registration.events {
        match event.as_str() {
            "INVOKE" => events.invoke = true,
            "SHUTDOWN" => events.shutdown = true,
            other => {
                return Err(ApiError::invalid_event_type(other));
            }
        }
    }
    let id = environment.change(|state| state.register(name, events))?;
    environment.trace("extension.register", json!({"name": name, "events": registration.events}));
    let function = &environment.function;
    let mut response = json!({
        "functionName": function.name, "functionVersion": function.version, "handler": function.handler,
    });
    let features = header(&headers, "lambda-extension-accept-feature").unwrap_or_default();
    if features.split(',').any(|feature| feature.trim() == "accountId") {
        response["accountId"] = environment.account.clone().into();
    }
    Ok(([(IDENTIFIER, id)], axum::Json(response)).into_response())
}

async fn next(State(environment): State<Arc<Shared>>, headers: HeaderMap) -> Result<Response, ApiError> {
    let id = header(&headers, IDENTIFIER);
    let (event, name) = environment.change(|state| {
        let event = state.extension_next(id)?;
        Ok::<_, ApiError>((event, state.extension(id)?.name.clone()))
    })?;
    environment.trace("extension.next", json!({"name": name}));
    let event = event.await.map_err(|_| ApiError::ended())?;
    if event["eventType"] != "INVOKE" {
        return Ok(axum::Json(event).into_response());
    }
    let event_id = Uuid::new_v4().to_string();
    Ok(([("lambda-extension-event-identifier", event_id)], axum::Json(event)).into_response())
}

async fn init_error(
    State(environment): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    report_error(&environment, &headers, true)
}

async fn exit_error(
    State(environment): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    report_error(&environment, &headers, false)
}

fn report_error(environment: &Shared, headers: &HeaderMap, init: bool) -> Result<Response, ApiError> {
    let id = header(headers, IDENTIFIER);
    environment.change(|state| state.extension(id).map(|_| ()))?;
    let Some(error_type) = header(headers, "lambda-extension-function-error-type").filter(|t| !t.is_empty())
    else {
        let message = "Lambda-Extension-Function-Error-Type not found";
        return Err(ApiError::forbidden("Extension.MissingHeader", message));
    };
    environment.change(|state| state.extension_error(id, init, error_type.to_owned()))?;
    environment.trace("extension.error", json!({"init": init, "error_type": error_type}));
    Ok(accepted())
}
