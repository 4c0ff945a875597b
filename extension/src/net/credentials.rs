//! AWS credentials of the function: from variables, or from the container endpoint that SnapStart has instead.

use std::cell::RefCell;
use std::fmt::Debug;
use std::net::IpAddr;
use std::rc::Rc;

use http::{StatusCode, Uri, header};
use http_body_util::Full;
use serde::Deserialize;

use crate::net::client::{Client, ClientError};
use crate::settings::Variables;
use crate::timestamp;

/// Credentials are fetched anew when so little of their life is left: enough for a delivery's slowest try,
/// and for a clock that is minutes off.
const REFRESH_BEFORE_US: u64 = 300 * 1_000_000;

/// Who signs. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    access_key: String,
    secret_key: String,
    session_token: Option<String>,
    /// Microseconds since the Unix epoch; `None` for those that outlive the environment.
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

    /// The access key's id, which is not secret.
    #[must_use]
    pub fn access_key(&self) -> &str {
        &self.access_key
    }

    /// The secret, for the signature alone.
    #[must_use]
    pub fn secret_key(&self) -> &str {
        &self.secret_key
    }

    /// The session's token, for its header.
    #[must_use]
    pub fn session_token(&self) -> Option<&str> {
        self.session_token.as_deref()
    }

    fn lasts_until(&self, moment_us: u64) -> bool {
        self.expires_us.is_none_or(|expires_us| expires_us > moment_us)
    }
}

/// No credentials to sign with. What is secret is in none of these.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// Nothing is set.
    #[error(
        "there are no credentials: neither AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY nor AWS_CONTAINER_CREDENTIALS_FULL_URI is set"
    )]
    Missing,
    /// The endpoint would hear the token in the clear, somewhere.
    #[error(
        "AWS_CONTAINER_CREDENTIALS_FULL_URI must be an https:// URL, or an http:// URL of this environment"
    )]
    Endpoint,
    /// The token's file.
    #[error("cannot read AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE {path}: {source}")]
    TokenFile {
        /// Its path.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// No answer.
    #[error("credentials cannot be fetched: {0}")]
    Transport(#[from] ClientError),
    /// A refusal.
    #[error("the credentials endpoint answers {0}")]
    Refused(StatusCode),
    /// An answer of another shape.
    #[error("the credentials endpoint answers in a shape that is not known")]
    Shape,
}

/// Where credentials come from, and those that came last.
#[derive(Debug)]
pub struct Provider {
    source: Source,
    current: RefCell<Option<Rc<Credentials>>>,
}

#[derive(Debug)]
enum Source {
    Variables,
    Container { client: Client, token: Token },
}

/// The container endpoint's own credential.
enum Token {
    None,
    Value(String),
    /// Read at every fetch: whoever wrote it may replace it.
    File(String),
}

impl Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Provider {
    /// The source that the variables name; keys first, then the container endpoint, as AWS's SDKs have it.
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
        if !may_hear_the_token(&uri, &platform) {
            return Err(CredentialsError::Endpoint);
        }
        let token = match get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
            Some(path) => Token::File(path),
            None => get("AWS_CONTAINER_AUTHORIZATION_TOKEN").map_or(Token::None, Token::Value),
        };
        let source = Source::Container { client: Client::new(&uri), token };
        Ok(Self { source, current: RefCell::new(None) })
    }

    /// Credentials that are good now; fetched when there are none, or when they are about to expire.
    ///
    /// # Errors
    /// [`CredentialsError`] when there are none, not even old ones that are still good.
    pub async fn current(&self, now_us: u64) -> Result<Rc<Credentials>, CredentialsError> {
        let known = self.current.borrow().clone();
        let Source::Container { client, token } = &self.source else {
            return known.ok_or(CredentialsError::Missing);
        };
        if let Some(known) = &known
            && known.lasts_until(now_us.saturating_add(REFRESH_BEFORE_US))
        {
            return Ok(Rc::clone(known));
        }
        match (fetch(client, token).await, known) {
            (Ok(fresh), _) => {
                let fresh = Rc::new(fresh);
                self.current.replace(Some(Rc::clone(&fresh)));
                Ok(fresh)
            }
            (Err(error), Some(known)) if known.lasts_until(now_us) => {
                tracing::info!(%error, "signing with the credentials there are");
                Ok(known)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// The credentials were refused: fetch others next time, if there is where from.
    pub fn forget(&self) {
        if matches!(self.source, Source::Container { .. }) {
            self.current.replace(None);
        }
    }
}

/// Whether the token may be sent there: encrypted, or to this very environment, or to the addresses that
/// AWS's containers have for this.
fn may_hear_the_token(uri: &Uri, platform: &str) -> bool {
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

/// What the endpoint answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
    expiration: Option<String>,
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
    let exchange = || {
        let mut request = client.request("GET", "");
        if let Some(token) = &token {
            request = request.header(header::AUTHORIZATION, token.trim());
        }
        request.body(Full::default()).map_err(ClientError::from)
    };
    let (head, body) = match client.exchange(exchange()?).await {
        // The connection died in the freeze.
        Err(ClientError::Broken(_)) => client.exchange(exchange()?).await?,
        answer => answer?,
    };
    if !head.status.is_success() {
        return Err(CredentialsError::Refused(head.status));
    }
    let answer: Answer = serde_json::from_slice(&body).map_err(|_| CredentialsError::Shape)?;
    let expires_us = match answer.expiration {
        Some(text) => Some(timestamp::unix_us(&text).ok_or(CredentialsError::Shape)?),
        None => None,
    };
    Ok(Credentials {
        access_key: answer.access_key_id,
        secret_key: answer.secret_access_key,
        session_token: answer.token,
        expires_us,
    })
}

#[cfg(test)]
mod tests;
