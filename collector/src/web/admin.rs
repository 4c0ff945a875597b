//! Browsers of administrators: a session with the scope `admin`, and the token of its forms.
//!
//! A form is accepted only with the token of the session that requested it, and only when no other site sent it. The token is a
//! digest of the session's secret, which only the browser has.

use std::sync::Arc;

use axum::extract::{Form, FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Page;
use crate::http::App;
use crate::http::auth::{is_cross_site, session_cookie};
use crate::http::error::ApiError;
use crate::http::sessions::{Access, session_id};
use crate::keys::{Scope, SecretDigest};

/// A browser whose session has the scope `admin`.
pub struct PageAdmin {
    /// What the session may read now.
    pub access: Access,
    /// The id of the session.
    pub session: String,
    /// The token that its forms contain.
    pub token: String,
}

impl FromRequestParts<Arc<App>> for PageAdmin {
    type Rejection = Response;

    /// Browsers without a session are sent to the sign-in page. A session without the scope gets 403.
    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Self::Rejection> {
        let signed_in = app.session_access(&parts.headers).zip(session_cookie(&parts.headers));
        let Some((access, secret)) = signed_in else {
            return Err(Redirect::to("/login").into_response());
        };
        if !access.scopes.contains(&Scope::Admin) {
            let message = "keys and sessions are for people who signed in with a key with the scope `admin`";
            return Err(Page::from(ApiError::new(StatusCode::FORBIDDEN, "scope", message)).into_response());
        }
        let token = SecretDigest::of(&format!("form:{secret}")).to_string();
        Ok(Self { access, session: session_id(secret), token })
    }
}

/// The form of an administrator, with a valid token.
pub struct AdminForm<T>(pub PageAdmin, pub T);

#[derive(Deserialize)]
struct WithToken<T> {
    #[serde(default)]
    token: String,
    #[serde(flatten)]
    fields: T,
}

impl<T: DeserializeOwned> FromRequest<Arc<App>> for AdminForm<T> {
    type Rejection = Response;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Self::Rejection> {
        let (mut parts, body) = request.into_parts();
        let admin = PageAdmin::from_request_parts(&mut parts, app).await?;
        let refused =
            |status, message: &str| Page::from(ApiError::new(status, "form", message)).into_response();
        if is_cross_site(&parts.headers) {
            return Err(refused(StatusCode::FORBIDDEN, "the form was sent by another site"));
        }
        let form = Form::<WithToken<T>>::from_request(Request::from_parts(parts, body), &()).await;
        let Form(WithToken { token, fields }) = form
            .map_err(|_| refused(StatusCode::BAD_REQUEST, "the form cannot be read: open the page again"))?;
        // Both are digests, so the time of the comparison shows nothing about the secret.
        if SecretDigest::of(&token) != SecretDigest::of(&admin.token) {
            return Err(refused(
                StatusCode::FORBIDDEN,
                "the form is of another session: open the page again",
            ));
        }
        Ok(Self(admin, fields))
    }
}
