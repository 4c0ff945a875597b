//! Authentication of requests: an API key, a browser session, or local reads if the operator permits them.
//!
//! A browser gets its session from the sign-in page, or from a link with a ticket that works once, so that
//! no key is stored in the browser's history. With `--local-reads` no authentication is needed on a loopback
//! address. The `Host` header is then checked, because a web page could otherwise read the data through a DNS
//! name that resolves to this machine (DNS rebinding).

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Redirect, Response};
use http::request::Parts;
use http::{HeaderMap, header};

use super::App;
use super::error::ApiError;
use super::sessions::SESSION_LIFETIME;
use crate::store::Tenant;

/// The header for the key when `Authorization` has another value.
const KEY_HEADER: &str = "x-tailor-api-key";

const COOKIE: &str = "tailor_session";

impl App {
    /// The tenant of a request's key. The key is the bearer token, or `X-Tailor-Api-Key` when `Authorization` has another
    /// value, such as AWS's signature in a request to a function URL.
    ///
    /// # Errors
    /// 401 when the key is missing or unknown.
    pub fn authenticate_bearer(&self, headers: &HeaderMap) -> Result<Tenant, ApiError> {
        let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let key = value.and_then(|value| {
            let (scheme, key) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
        });
        let key = key.or_else(|| headers.get(KEY_HEADER)?.to_str().ok().map(str::trim));
        key.and_then(|key| self.keys.tenant_of(key)).cloned().ok_or_else(ApiError::unauthorized)
    }

    fn authenticate_reader(&self, headers: &HeaderMap) -> Result<Tenant, ApiError> {
        if headers.contains_key(header::AUTHORIZATION) || headers.contains_key(KEY_HEADER) {
            return self.authenticate_bearer(headers);
        }
        if let Some(tenant) = session_cookie(headers).and_then(|secret| self.sessions.tenant_of(secret)) {
            return Ok(tenant);
        }
        if self.local_reads && is_loopback_host(headers) {
            return Ok(Tenant::default());
        }
        Err(ApiError::unauthorized())
    }

    /// Opens a session for a browser that sent a key. The response sets its cookie.
    pub(crate) fn sign_in_with_key(&self, key: &str) -> Option<Response> {
        self.sign_in(self.keys.tenant_of(key.trim())?.clone())
    }

    /// Opens a session for a browser that sent a ticket. The response sets its cookie.
    pub(crate) fn sign_in_with_ticket(&self, ticket: &str) -> Option<Response> {
        self.sign_in(self.sessions.redeem_ticket(ticket)?)
    }

    fn sign_in(&self, tenant: Tenant) -> Option<Response> {
        let secret = self.sessions.open(tenant, false).ok()?;
        let age = SESSION_LIFETIME.as_secs();
        let cookie = format!("{COOKIE}={secret}; Path=/; HttpOnly; SameSite=Lax; Max-Age={age}");
        Some(([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response())
    }
}

fn session_cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

fn is_loopback_host(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = if host.ends_with(']') { host } else { host.rsplit_once(':').map_or(host, |(name, _)| name) };
    matches!(name, "localhost" | "127.0.0.1" | "[::1]")
}

/// The tenant that an API request may read.
pub struct ApiReader(pub Tenant);

impl FromRequestParts<Arc<App>> for ApiReader {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Self::Rejection> {
        app.authenticate_reader(&parts.headers).map(Self)
    }
}

/// The tenant that a browser may read. Unauthenticated browsers are redirected to the sign-in page.
pub struct PageReader(pub Tenant);

impl FromRequestParts<Arc<App>> for PageReader {
    type Rejection = Redirect;
    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Self::Rejection> {
        app.authenticate_reader(&parts.headers).map(Self).map_err(|_| Redirect::to("/login"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn only_loopback_host_names_are_local() {
        let host = |name: &str| {
            is_loopback_host(&HeaderMap::from_iter([(header::HOST, HeaderValue::from_str(name).unwrap())]))
        };
        assert!(host("localhost:8080") && host("127.0.0.1:1") && host("[::1]:8080") && host("[::1]"));
        assert!(!host("evil.example:8080") && !host("127.0.0.1.evil.example") && !host(""));
    }
}
