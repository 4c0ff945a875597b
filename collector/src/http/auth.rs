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
use http::{Extensions, HeaderMap, StatusCode, header};

use super::App;
use super::client::Client;
use super::error::ApiError;
use super::metrics::AuthFailure;
use super::sessions::{Access, SESSION_LIFETIME};
use crate::keys::{Key, KeyEntry, Scope};
use crate::store::Tenant;

/// The header for the key when `Authorization` has another value.
const KEY_HEADER: &str = "x-tailor-api-key";

const COOKIE: &str = "tailor_session";

/// Why a browser was not signed in.
pub(crate) enum SignInError {
    /// The key or ticket is not known, used or expired.
    Unknown,
    /// The key may not read.
    NoReader,
    /// The address has sent too many unknown keys.
    TooManyUnknownKeys,
    /// The form was sent by a page of another site.
    CrossSite,
}

impl App {
    /// The key of a request. It is the bearer token, or `X-Tailor-Api-Key` when `Authorization` has another value, such
    /// as AWS's signature in a request to a function URL.
    ///
    /// # Errors
    /// 401 when the key is missing, unknown or expired, 403 when it does not have the scope.
    pub async fn authenticate_key(
        &self,
        headers: &HeaderMap,
        extensions: &Extensions,
        scope: Scope,
    ) -> Result<Arc<KeyEntry>, ApiError> {
        let entry = self.known_key(headers, extensions).await?;
        if !entry.key.permits(scope) {
            self.metrics.auth_failed(AuthFailure::Scope);
            return Err(ApiError::missing_scope(&entry.key, scope));
        }
        Ok(entry)
    }

    /// The key of a request, whatever its scopes.
    async fn known_key(
        &self,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Result<Arc<KeyEntry>, ApiError> {
        let Some(secret) = presented_key(headers) else {
            self.metrics.auth_failed(AuthFailure::Missing);
            return Err(ApiError::unauthorized());
        };
        let Some(entry) = self.keys.get().find(secret).cloned() else {
            self.metrics.auth_failed(AuthFailure::Unknown);
            self.delay_unknown_key(&Client::of(headers, extensions, &self.trusted_proxies)).await;
            return Err(ApiError::unauthorized());
        };
        if entry.key.has_expired(self.now_s()) {
            self.metrics.auth_failed(AuthFailure::Expired);
            return Err(ApiError::expired_key(&entry.key));
        }
        entry.used(self.now_s());
        Ok(entry)
    }

    async fn delay_unknown_key(&self, client: &Client) {
        let delay = client.address.map(|address| self.unknown_keys.failed(address)).unwrap_or_default();
        if delay.is_zero() {
            return;
        }
        // The connection may be closed for others meanwhile.
        if let Some(connection) = &client.connection {
            connection.receiving_body(delay * 2);
        }
        tokio::time::sleep(delay).await;
    }

    async fn authenticate_reader(&self, parts: &Parts, scope: Scope) -> Result<Tenant, ApiError> {
        let headers = &parts.headers;
        if presented_key(headers).is_some() {
            let entry = self.authenticate_key(headers, &parts.extensions, scope).await?;
            return Ok(entry.key.tenant.clone());
        }
        match self.reader_without_key(headers) {
            Some((tenant, scopes)) if scopes.contains(&scope) => Ok(tenant),
            _ => {
                self.metrics.auth_failed(AuthFailure::Missing);
                Err(ApiError::unauthorized())
            }
        }
    }

    /// The tenant and the scopes of a session, or of a local read.
    fn reader_without_key(&self, headers: &HeaderMap) -> Option<(Tenant, Vec<Scope>)> {
        if let Some(access) = self.session_access(headers) {
            return Some((access.tenant, access.scopes));
        }
        let is_local = self.local_reads && is_loopback_host(headers);
        is_local.then(|| (Tenant::default(), vec![Scope::Read, Scope::Admin]))
    }

    /// What the session of a browser may read now: what its key permits, which may have changed since the sign-in. A session
    /// without a key keeps what it had. `None` without a session, and when its key is not valid any more.
    pub(crate) fn session_access(&self, headers: &HeaderMap) -> Option<Access> {
        let opened = self.sessions.access_of(session_cookie(headers)?)?;
        let Some(digest) = opened.key else { return Some(opened) };
        let keys = self.keys.get();
        let entry = keys.entry(&digest).filter(|entry| !entry.key.has_expired(self.now_s()))?;
        Some(Access::of(&entry.key))
    }

    /// The tenant for which a browser may request changes: with a session of a key with the scope `admin`. Local reads do not
    /// suffice, and neither does a form of another site.
    ///
    /// # Errors
    /// 403 otherwise.
    pub(crate) fn authenticate_operator(&self, parts: &Parts) -> Result<Tenant, ApiError> {
        let rejected = |message: &str| Err(ApiError::new(StatusCode::FORBIDDEN, "scope", message));
        if is_cross_site(&parts.headers) {
            return rejected("the form was sent by another site");
        }
        match self.session_access(&parts.headers) {
            Some(access) if access.scopes.contains(&Scope::Admin) => Ok(access.tenant),
            _ => rejected("this needs a session with a key with the scope `admin`: sign in with one"),
        }
    }

    /// Whether a request has credentials that are known. The handler decides whether they suffice.
    pub(super) fn has_known_credentials(&self, headers: &HeaderMap) -> bool {
        match presented_key(headers) {
            Some(secret) => self.keys.get().find(secret).is_some(),
            None => self.local_reads || self.session_access(headers).is_some(),
        }
    }

    pub(crate) fn now_s(&self) -> u64 {
        self.clock.now_us() / 1_000_000
    }

    /// Opens a session for a browser that sent a key. The response sets its cookie.
    pub(crate) async fn sign_in_with_key(&self, key: &str, parts: &Parts) -> Result<Response, SignInError> {
        let client = Client::of(&parts.headers, &parts.extensions, &self.trusted_proxies);
        if is_cross_site(&parts.headers) {
            return Err(SignInError::CrossSite);
        }
        if client.address.is_some_and(|address| self.unknown_keys.is_rejected(address)) {
            return Err(SignInError::TooManyUnknownKeys);
        }
        let now_s = self.now_s();
        let found = self.keys.get().find(key.trim()).cloned();
        let Some(entry) = found.filter(|entry| !entry.key.has_expired(now_s)) else {
            self.metrics.auth_failed(AuthFailure::Unknown);
            self.delay_unknown_key(&client).await;
            return Err(SignInError::Unknown);
        };
        if !entry.key.permits(Scope::Read) {
            return Err(SignInError::NoReader);
        }
        entry.used(now_s);
        self.sign_in(Access::of(&entry.key), &client)
    }

    /// Opens a session for a browser that sent a ticket. The response sets its cookie.
    pub(crate) async fn sign_in_with_ticket(
        &self,
        ticket: &str,
        parts: &Parts,
    ) -> Result<Response, SignInError> {
        let client = Client::of(&parts.headers, &parts.extensions, &self.trusted_proxies);
        if client.address.is_some_and(|address| self.unknown_keys.is_rejected(address)) {
            return Err(SignInError::TooManyUnknownKeys);
        }
        let Some(access) = self.sessions.redeem_ticket(ticket) else {
            self.delay_unknown_key(&client).await;
            return Err(SignInError::Unknown);
        };
        self.sign_in(access, &client)
    }

    fn sign_in(&self, access: Access, client: &Client) -> Result<Response, SignInError> {
        let secret = self.sessions.open(access, client.address).map_err(|error| {
            tracing::error!(%error, "cannot open a session");
            SignInError::Unknown
        })?;
        let cookie = cookie(&secret, SESSION_LIFETIME.as_secs(), client.uses_tls);
        Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response())
    }

    /// Ends the session of a browser. The response removes its cookie. `None` when a page of another site requests it.
    pub(crate) fn sign_out(&self, parts: &Parts) -> Option<Response> {
        if is_cross_site(&parts.headers) {
            return None;
        }
        if let Some(secret) = session_cookie(&parts.headers) {
            self.sessions.close(secret);
        }
        let client = Client::of(&parts.headers, &parts.extensions, &self.trusted_proxies);
        let cookie = cookie("", 0, client.uses_tls);
        Some(([(header::SET_COOKIE, cookie)], Redirect::to("/login")).into_response())
    }
}

fn cookie(secret: &str, age_s: u64, secure: bool) -> String {
    let secure = if secure { "; Secure" } else { "" };
    format!("{COOKIE}={secret}; Path=/; HttpOnly; SameSite=Lax; Max-Age={age_s}{secure}")
}

fn presented_key(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let key = value.and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    // A request with other credentials is not that of a browser session.
    key.or_else(|| headers.get(KEY_HEADER).map(|value| value.to_str().unwrap_or_default().trim()))
        .or_else(|| value.map(|_| ""))
}

pub(crate) fn session_cookie(headers: &HeaderMap) -> Option<&str> {
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

/// Whether a page of another site sent this form. Browsers state it in `Sec-Fetch-Site`, or without TLS in `Origin`. The latter
/// is `null` when the page's `Referrer-Policy` is `no-referrer`, so the pages have `same-origin`. A client that sends neither is
/// not a browser.
pub(crate) fn is_cross_site(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => !matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => origin.split_once("://").map(|(_, host)| host) != text("host"),
        (None, None) => false,
    }
}

/// The tenant that an API request may read.
pub struct ApiReader(pub Tenant);

impl FromRequestParts<Arc<App>> for ApiReader {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Self::Rejection> {
        app.authenticate_reader(parts, Scope::Read).await.map(Self)
    }
}

/// A request for metrics: the tenant whose fleet it may read, and whether it may read what concerns all tenants.
pub struct MetricsReader {
    /// The tenant.
    pub tenant: Tenant,
    /// Whether it may read the tenant's fleet.
    pub may_read: bool,
    /// Whether it may read the collector's own metrics.
    pub is_admin: bool,
}

impl FromRequestParts<Arc<App>> for MetricsReader {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Self::Rejection> {
        let (tenant, scopes) = if presented_key(&parts.headers).is_some() {
            let entry = app.known_key(&parts.headers, &parts.extensions).await?;
            let scopes = Scope::ALL.into_iter().filter(|scope| entry.key.permits(*scope)).collect();
            if !entry.key.permits(Scope::Read) && !entry.key.permits(Scope::Admin) {
                app.metrics.auth_failed(AuthFailure::Scope);
                return Err(ApiError::missing_scope(&entry.key, Scope::Read));
            }
            (entry.key.tenant.clone(), scopes)
        } else {
            app.reader_without_key(&parts.headers).unwrap_or_default()
        };
        let (may_read, is_admin) = (scopes.contains(&Scope::Read), scopes.contains(&Scope::Admin));
        if !may_read && !is_admin {
            app.metrics.auth_failed(AuthFailure::Missing);
            return Err(ApiError::unauthorized());
        }
        Ok(Self { tenant, may_read, is_admin })
    }
}

/// The tenant that a browser may read. Unauthenticated browsers are redirected to the sign-in page.
pub struct PageReader(pub Tenant);

impl FromRequestParts<Arc<App>> for PageReader {
    type Rejection = Redirect;
    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Self::Rejection> {
        app.authenticate_reader(parts, Scope::Read).await.map(Self).map_err(|_| Redirect::to("/login"))
    }
}

impl ApiError {
    /// The key has expired.
    #[must_use]
    pub fn expired_key(key: &Key) -> Self {
        let message =
            format!("the API key {} has expired: create another with `tailor keys create`", name_of(key));
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    /// The key does not have the scope that the request needs.
    #[must_use]
    pub fn missing_scope(key: &Key, scope: Scope) -> Self {
        let scopes: Vec<_> = key.scopes.iter().map(|scope| scope.name()).collect();
        let message = format!(
            "this needs a key with the scope `{}`; the API key {} has `{}`",
            scope.name(),
            name_of(key),
            scopes.join(",")
        );
        Self::new(StatusCode::FORBIDDEN, "scope", message)
    }

    /// The key may not send batches of this function.
    #[must_use]
    pub fn function_not_permitted(key: &Key, function: &str) -> Self {
        let message =
            format!("the API key {} may not send batches of the function `{function}`", name_of(key));
        Self::new(StatusCode::FORBIDDEN, "function", message)
    }
}

fn name_of(key: &Key) -> String {
    if key.name.is_empty() { key.id() } else { format!("{} ({})", key.id(), key.name) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn only_loopback_host_names_are_local() {
        let host = |name: &str| is_loopback_host(&headers(&[(header::HOST, name)]));
        assert!(host("localhost:8080") && host("127.0.0.1:1") && host("[::1]:8080") && host("[::1]"));
        assert!(!host("evil.example:8080") && !host("127.0.0.1.evil.example") && !host(""));
    }

    #[test]
    fn a_form_of_another_site_is_recognized() {
        let site = HeaderName::from_static("sec-fetch-site");
        let host = (header::HOST, "tailor.example:8080");
        let cross = |extra: &[(HeaderName, &str)]| {
            is_cross_site(&headers(&[std::slice::from_ref(&host), extra].concat()))
        };
        assert!(!cross(&[]) && !cross(&[(site.clone(), "same-origin")]) && !cross(&[(site.clone(), "none")]));
        assert!(!cross(&[(header::ORIGIN, "https://tailor.example:8080")]));
        assert!(cross(&[(site.clone(), "cross-site")]) && cross(&[(site, "same-site")]));
        for origin in ["https://evil.example", "null", "https://tailor.example"] {
            assert!(cross(&[(header::ORIGIN, origin)]), "{origin}");
        }
    }
}
