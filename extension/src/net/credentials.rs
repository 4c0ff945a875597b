//! AWS credentials of the function: from environment variables, or from the container endpoint that SnapStart uses.

use std::cell::RefCell;
use std::fmt::Debug;
use std::net::IpAddr;
use std::rc::Rc;

use http::{StatusCode, Uri, header};
use http_body_util::Full;

use crate::json::Object;
use crate::net::client::{Client, ClientError};
use crate::settings::Variables;
use crate::timestamp;

/// Credentials are renewed this long before they expire, in microseconds: enough for the slowest try of a delivery and a
/// clock that is wrong by minutes.
const REFRESH_BEFORE_US: u64 = 300 * 1_000_000;

/// Access key, secret key and session token. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    access_key: String,
    secret_key: String,
    session_token: Option<String>,
    /// Microseconds since the Unix epoch; `None` when they do not expire.
    expires_us: Option<u64>,
}

impl Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(…)")
    }
}

impl Credentials {
    /// Credentials that do not expire.
    #[must_use]
    pub const fn new(access_key: String, secret_key: String, session_token: Option<String>) -> Self {
        Self { access_key, secret_key, session_token, expires_us: None }
    }

    /// The access key id, which is not secret.
    #[must_use]
    pub fn access_key(&self) -> &str {
        &self.access_key
    }

    /// The secret key, only for signatures.
    #[must_use]
    pub fn secret_key(&self) -> &str {
        &self.secret_key
    }

    /// The session token, for its header.
    #[must_use]
    pub fn session_token(&self) -> Option<&str> {
        self.session_token.as_deref()
    }

    fn valid_at(&self, time_us: u64) -> bool {
        self.expires_us.is_none_or(|expires_us| expires_us > time_us)
    }
}

/// Why there are no credentials. Has no secrets.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// No variable names credentials.
    #[error(
        "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_CONTAINER_CREDENTIALS_FULL_URI"
    )]
    Missing,
    /// The token would be sent over the network without encryption.
    #[error(
        "AWS_CONTAINER_CREDENTIALS_FULL_URI must be an https:// URL, or an http:// URL of this environment"
    )]
    Endpoint,
    /// The file with the token.
    #[error("cannot read AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE {path}: {source}")]
    TokenFile {
        /// Its path.
        path: String,
        /// The cause.
        source: std::io::Error,
    },
    /// No response.
    #[error("cannot fetch credentials: {0}")]
    Transport(#[from] ClientError),
    /// A rejection.
    #[error("the credentials endpoint responded with {0}")]
    Rejected(StatusCode),
    /// The response cannot be decoded.
    #[error("cannot decode the response of the credentials endpoint")]
    Shape,
}

/// The source of credentials, and the latest ones.
#[derive(Debug)]
pub struct Provider {
    source: Source,
    current: RefCell<Option<Rc<Credentials>>>,
}

#[derive(Debug)]
enum Source {
    Variables,
    Container { client: Box<Client>, token: Token },
}

/// The authorization token for the container endpoint.
enum Token {
    None,
    Value(String),
    /// Read at every fetch, because its content may be replaced.
    File(String),
}

impl Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Provider {
    /// The source in the variables: keys first, then the container endpoint, in the order of AWS's SDKs.
    ///
    /// # Errors
    /// [`CredentialsError::Missing`], or [`CredentialsError::Endpoint`].
    pub fn read(variables: &impl Variables) -> Result<Self, CredentialsError> {
        let get = |name| variables.get(name).filter(|value| !value.is_empty());
        if let (Some(access_key), Some(secret_key)) = (get("AWS_ACCESS_KEY_ID"), get("AWS_SECRET_ACCESS_KEY"))
        {
            let credentials = Credentials::new(access_key, secret_key, get("AWS_SESSION_TOKEN"));
            return Ok(Self { source: Source::Variables, current: RefCell::new(Some(Rc::new(credentials))) });
        }
        let uri = get("AWS_CONTAINER_CREDENTIALS_FULL_URI").ok_or(CredentialsError::Missing)?;
        let platform = get("AWS_LAMBDA_RUNTIME_API").unwrap_or_default();
        let uri: Uri = uri.parse().map_err(|_| CredentialsError::Endpoint)?;
        if !may_receive_token(&uri, &platform) {
            return Err(CredentialsError::Endpoint);
        }
        let token = match get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
            Some(path) => Token::File(path),
            None => get("AWS_CONTAINER_AUTHORIZATION_TOKEN").map_or(Token::None, Token::Value),
        };
        let source = Source::Container { client: Box::new(Client::new(&uri)), token };
        Ok(Self { source, current: RefCell::new(None) })
    }

    /// Valid credentials. Fetches new ones if there are none or if they expire soon. `now_us` is microseconds since the
    /// Unix epoch.
    ///
    /// # Errors
    /// [`CredentialsError`] when the fetch fails and the latest ones have expired.
    pub async fn current(&self, now_us: u64) -> Result<Rc<Credentials>, CredentialsError> {
        let known = self.current.borrow().clone();
        let Source::Container { client, token } = &self.source else {
            return known.ok_or(CredentialsError::Missing);
        };
        if let Some(known) = &known
            && known.valid_at(now_us.saturating_add(REFRESH_BEFORE_US))
        {
            return Ok(Rc::clone(known));
        }
        match (fetch(client, token).await, known) {
            (Ok(fresh), _) => {
                let fresh = Rc::new(fresh);
                self.current.replace(Some(Rc::clone(&fresh)));
                Ok(fresh)
            }
            (Err(error), Some(known)) if known.valid_at(now_us) => {
                tracing::info!(%error, "cannot renew credentials: using the present ones until they expire");
                Ok(known)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// The credentials were rejected: fetches new ones the next time, if the source allows it.
    pub fn discard(&self) {
        if matches!(self.source, Source::Container { .. }) {
            self.current.replace(None);
        }
    }
}

/// Whether the token may be sent to `uri`: with encryption, inside this environment, or to the addresses that AWS uses for
/// container credentials.
fn may_receive_token(uri: &Uri, platform: &str) -> bool {
    let Some(authority) = uri.authority() else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let is_local = match host.parse::<IpAddr>() {
        Ok(address) => {
            address.is_loopback() || ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"].contains(&host)
        }
        Err(_) => host == "localhost",
    };
    match uri.scheme_str() {
        Some("https") => true,
        Some("http") => is_local || authority.as_str() == platform,
        _ => false,
    }
}

async fn fetch(client: &Client, token: &Token) -> Result<Credentials, CredentialsError> {
    let token = match token {
        Token::None => None,
        Token::Value(token) => Some(token.clone()),
        Token::File(path) => Some(
            std::fs::read_to_string(path)
                .map_err(|source| CredentialsError::TokenFile { path: path.clone(), source })?,
        ),
    };
    let mut request = client.request("GET", "");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, token.trim());
    }
    let request = request.body(Full::default()).map_err(ClientError::from)?;
    let (head, body) = client.exchange_with_resend(request).await?;
    if !head.status.is_success() {
        return Err(CredentialsError::Rejected(head.status));
    }
    credentials_in(&body).ok_or(CredentialsError::Shape)
}

/// The credentials in the response of the endpoint.
fn credentials_in(body: &[u8]) -> Option<Credentials> {
    let response = Object::parse_bytes(body)?;
    let expires_us = match response.text("Expiration") {
        Some(text) => Some(timestamp::parse_rfc3339(&text)?),
        None => None,
    };
    Some(Credentials {
        access_key: response.text("AccessKeyId")?,
        secret_key: response.text("SecretAccessKey")?,
        session_token: response.text("Token"),
        expires_us,
    })
}

#[cfg(test)]
mod tests;
