//! Extracts the query of a request, with an error that has the cause.

use axum::extract::{self, FromRequestParts};
use http::request::Parts;

use super::error::ApiError;
use crate::query::{Query, UnknownStrategy};

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let parsed = extract::Query::<Self>::from_request_parts(parts, state).await;
        parsed.map(|extract::Query(query)| query).map_err(|rejection| {
            let cause = std::error::Error::source(&rejection)
                .map_or_else(|| rejection.body_text(), ToString::to_string);
            ApiError::bad_request("query", format!("cannot read the query of the URL: {cause}"))
        })
    }
}

impl From<UnknownStrategy> for ApiError {
    fn from(error: UnknownStrategy) -> Self {
        Self::bad_request("strategy", error.to_string())
    }
}
