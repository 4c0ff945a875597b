//! Extracts the query and the path of a request, with errors that have the cause.

use axum::extract::{self, FromRequestParts};
use http::request::Parts;

use super::error::ApiError;
use crate::clock::now_us;
use crate::query::{Query, UnknownStrategy};

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let parsed = extract::Query::<Self>::from_request_parts(parts, state).await;
        let extract::Query(mut query) = parsed.map_err(|rejection| {
            let cause = std::error::Error::source(&rejection)
                .map_or_else(|| rejection.body_text(), ToString::to_string);
            ApiError::bad_request("query", format!("cannot read the query of the URL: {cause}"))
        })?;
        let checked = query.resolve_since(now_us()).and_then(|()| query.check());
        checked.map_err(|cause| {
            ApiError::bad_request("query", format!("cannot use the query of the URL: {cause}"))
        })?;
        Ok(query)
    }
}

/// The name of a function in the path of a request.
pub struct FunctionName(pub String);

impl<S: Send + Sync> FromRequestParts<S> for FunctionName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let parsed = extract::Path::<String>::from_request_parts(parts, state).await;
        parsed.map(|extract::Path(name)| Self(name)).map_err(|rejection| unreadable(&rejection))
    }
}

impl From<UnknownStrategy> for ApiError {
    fn from(error: UnknownStrategy) -> Self {
        Self::bad_request("strategy", error.to_string())
    }
}

/// The names of a function and of one of its profiles in the path of a request.
pub struct ProfileName(pub String, pub String);

impl<S: Send + Sync> FromRequestParts<S> for ProfileName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let parsed = extract::Path::<(String, String)>::from_request_parts(parts, state).await;
        parsed
            .map(|extract::Path((function, profile))| Self(function, profile))
            .map_err(|rejection| unreadable(&rejection))
    }
}

fn unreadable(rejection: &extract::rejection::PathRejection) -> ApiError {
    ApiError::bad_request("path", format!("cannot read the path of the URL: {}", rejection.body_text()))
}
