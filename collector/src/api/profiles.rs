//! Profiles: the upload by extensions, the list and the download.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;

use super::{find, text};
use crate::http::App;
use crate::http::auth::ApiReader;
use crate::http::body::{BodyLimit, receive};
use crate::http::error::ApiError;
use crate::http::extract::{FunctionName, ProfileName};
use crate::keys::Scope;
use crate::profiles::request::NewProfile;
use crate::profiles::{Profile, ProfileError, Profiles, Ticket};
use crate::query::{Format, Query};
use crate::render::json::json;
use crate::report::FunctionReport;
use crate::store::Tenant;

/// Limits of the body of an upload's request: it only describes the profile.
const BODY_LIMIT: BodyLimit = BodyLimit { bytes: 4 << 10, timeout: Duration::from_secs(15) };

/// `POST /v1/profiles`: a presigned URL for the upload of one profile.
///
/// # Errors
/// 404 without a bucket, 400 for an impossible value, 403 when the key is not for the function, 409 after too many.
pub async fn post(State(app): State<Arc<App>>, request: Request) -> Result<Json<Ticket>, ApiError> {
    let entry = app.authenticate_key(request.headers(), request.extensions(), Scope::Ingest).await?;
    let profiles = bucket(&app)?;
    let received = receive(&app, request, BODY_LIMIT).await?;
    let profile = NewProfile::parse(&received.bytes)?;
    if !entry.key.permits_function(&profile.function().name) {
        return Err(ApiError::function_not_permitted(&entry.key, &profile.function().name));
    }
    Ok(Json(profiles.ticket(&entry.key.tenant, &profile, app.clock.now_us()).await?))
}

/// `GET /v1/functions/{name}/profiles`: the newest ones, newest first.
///
/// # Errors
/// 404 without a bucket or such a function, 503 when S3 does not answer.
pub async fn list(
    State(app): State<Arc<App>>,
    ApiReader(tenant): ApiReader,
    FunctionName(name): FunctionName,
    query: Query,
) -> Result<Response, ApiError> {
    let key = find(app.store.as_ref(), &tenant, &name, &query).await?;
    let profiles = bucket(&app)?.list(&tenant, &key, app.clock.now_us()).await?;
    Ok(text(Format::Json, json(&serde_json::json!({ "profiles": profiles }), query.style())))
}

/// `GET /v1/functions/{name}/profiles/{profile}`: a redirect to a URL of S3 that is valid for a minute.
///
/// # Errors
/// 404 without a bucket, such a function or such a profile.
pub async fn download(
    State(app): State<Arc<App>>,
    ApiReader(tenant): ApiReader,
    ProfileName(name, profile): ProfileName,
    query: Query,
) -> Result<Response, ApiError> {
    let key = find(app.store.as_ref(), &tenant, &name, &query).await?;
    let url = bucket(&app)?.download(&tenant, &key, &profile).await?;
    Ok(Redirect::to(&url).into_response())
}

impl From<ProfileError> for ApiError {
    fn from(error: ProfileError) -> Self {
        let message = error.to_string();
        match error {
            ProfileError::Unreadable(_) => Self::bad_request("profile", message),
            ProfileError::Impossible(_) => Self::bad_request("value", message),
            ProfileError::TooLarge => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message),
            ProfileError::TooMany(_) => Self::new(StatusCode::CONFLICT, "profile_limit", message),
            ProfileError::Unknown => Self::not_found(message),
            ProfileError::Unavailable(_) => Self::unavailable("s3", message),
        }
    }
}

fn bucket(app: &App) -> Result<&Profiles, ApiError> {
    let off = || ApiError::not_found("this collector stores no profiles: start it with --profiles");
    app.profiles.as_deref().ok_or_else(off)
}

/// Adds the profiles of a function to its report. The report is complete without them.
pub(super) async fn add_to(app: &App, tenant: &Tenant, report: &mut FunctionReport) {
    let Some(profiles) = &app.profiles else { return };
    match profiles.list_for_report(tenant, &report.key(), app.clock.now_us()).await {
        Some(Ok(listed)) => {
            if let Some(newest) = listed.first() {
                report.name_profile(&sentence(newest));
            }
            report.profiles = Some(listed);
            return;
        }
        Some(Err(error)) => tracing::warn!("cannot list the profiles of {}: {error}", report.name),
        None => {}
    }
    report.caveats.push("the profiles cannot be listed now".to_owned());
}

/// What a hint states about the newest profile.
fn sentence(profile: &Profile) -> String {
    let of = profile.request_id.as_ref().map_or_else(|| "Init".to_owned(), |id| format!("request {id}"));
    format!("the newest profile is {} of {of}: {}", profile.name, profile.download)
}
