//! Endpoints inside an environment for container credentials and metadata.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};

use crate::environment::Shared;
use crate::environment::api_error::ApiError;
use crate::environment::variables::{ACCESS_KEY_ID, SECRET};
use crate::time::{iso_ms, now};

/// Lifetime of the returned credentials.
const CREDENTIALS_DURATION: Duration = Duration::from_secs(6 * 3600);

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/2021-04-23/credentials", get(credentials))
        .route("/2026-01-15/metadata/execution-environment", get(metadata))
}

fn authorize(environment: &Shared, headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if given.strip_prefix("Bearer ").unwrap_or(given) == environment.token {
        return Ok(());
    }
    Err(ApiError::new(StatusCode::UNAUTHORIZED, "Unauthorized", "the bearer token is missing or wrong"))
}

/// SnapStart functions get credentials here, and not in environment variables.
async fn credentials(
    State(environment): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    authorize(&environment, &headers)?;
    let expiration = iso_ms(now() + CREDENTIALS_DURATION);
    Ok(Json(json!({
        "AccessKeyId": ACCESS_KEY_ID, "SecretAccessKey": SECRET, "Token": SECRET, "Expiration": expiration,
    })))
}

async fn metadata(
    State(environment): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    authorize(&environment, &headers)?;
    Ok(Json(json!({"AvailabilityZoneID": "use1-az1"})))
}
