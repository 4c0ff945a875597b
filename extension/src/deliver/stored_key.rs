//! The collector's key in Secrets Manager or in SSM Parameter Store. It is read before the first delivery, and again when
//! the collector rejects it, because it may have been replaced.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use http::StatusCode;

use crate::json::Object;
use crate::net::aws::{AwsError, Service};
use crate::net::credentials::Provider;
use crate::settings::{ApiKey, KeyLocation, KeyStore, Variables};

/// A key that AWS stores.
#[derive(Debug)]
pub(super) struct StoredKey {
    service: Service,
    location: KeyLocation,
    current: RefCell<Option<ApiKey>>,
}

/// Why the key cannot be read. Has neither the key nor the name of the secret: the name may be a key that was set in the
/// wrong variable.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoredKeyError {
    #[error("cannot read the key that {variable} names: {source}{advice}")]
    Call { variable: &'static str, source: AwsError, advice: String },
    #[error("the value that {variable} names is not a key: {reason}")]
    Value { variable: &'static str, reason: &'static str },
}

impl StoredKeyError {
    /// Whether another read may succeed soon.
    pub(super) fn is_temporary(&self) -> bool {
        matches!(self, Self::Call { source, .. } if source.is_temporary())
    }
}

impl StoredKey {
    /// The key at `location`. The error is the name of an invalid or missing variable.
    pub(super) fn new(
        location: KeyLocation,
        provider: Rc<Provider>,
        variables: &impl Variables,
    ) -> Result<Self, &'static str> {
        let region = match location.region() {
            Some(region) => region.to_owned(),
            None => variables
                .get("AWS_REGION")
                .or_else(|| variables.get("AWS_DEFAULT_REGION"))
                .ok_or("AWS_REGION")?,
        };
        let endpoint = match location.store {
            KeyStore::SecretsManager => "AWS_ENDPOINT_URL_SECRETS_MANAGER",
            KeyStore::ParameterStore => "AWS_ENDPOINT_URL_SSM",
        };
        let service = Service::new(location.store.service(), &region, endpoint, provider, variables)?;
        Ok(Self { service, location, current: RefCell::new(None) })
    }

    /// The variable that names the key, for messages.
    pub(super) const fn variable(&self) -> &'static str {
        self.location.store.variable()
    }

    /// Whether the network may have no route to the service.
    pub(super) fn may_lack_route(&self) -> bool {
        self.service.may_lack_route()
    }

    /// The key. Reads it unless it is known. `now_s` is seconds since the Unix epoch.
    pub(super) async fn current(&self, now_s: u64) -> Result<ApiKey, StoredKeyError> {
        if let Some(key) = &*self.current.borrow() {
            return Ok(key.clone());
        }
        let key = self.read(now_s).await?;
        self.current.replace(Some(key.clone()));
        Ok(key)
    }

    /// The collector rejected the key: it is read again before the next use.
    pub(super) fn discard(&self) {
        self.current.replace(None);
    }

    async fn read(&self, now_s: u64) -> Result<ApiKey, StoredKeyError> {
        let KeyLocation { store, name, member } = &self.location;
        let (target, request) = match store {
            KeyStore::SecretsManager => {
                ("secretsmanager.GetSecretValue", serde_json::json!({ "SecretId": name }))
            }
            KeyStore::ParameterStore => {
                ("AmazonSSM.GetParameter", serde_json::json!({ "Name": name, "WithDecryption": true }))
            }
        };
        let variable = self.variable();
        let response =
            self.service.call(target, &Bytes::from(request.to_string()), now_s).await.map_err(|source| {
                StoredKeyError::Call { variable, advice: advice(*store, &source), source }
            })?;
        key_in(&response, member.as_deref()).map_err(|reason| StoredKeyError::Value { variable, reason })
    }
}

/// What to do about a rejection, after a separator; empty when the rejection is not a known one.
fn advice(store: KeyStore, error: &AwsError) -> String {
    let AwsError::Rejected { status, code } = error else { return String::new() };
    if code.starts_with("AccessDenied") || *status == StatusCode::FORBIDDEN {
        let action = match store {
            KeyStore::SecretsManager => "secretsmanager:GetSecretValue",
            KeyStore::ParameterStore => "ssm:GetParameter",
        };
        format!(
            ": allow {action} in the function's role, and kms:Decrypt when a KMS key of your own encrypts it"
        )
    } else if code.ends_with("NotFoundException") || code == "ParameterNotFound" {
        ": check the name, the region and the account, or use the ARN".to_owned()
    } else {
        String::new()
    }
}

/// The key in the response of either service. The error is the reason why there is none.
fn key_in(response: &[u8], member: Option<&str>) -> Result<ApiKey, &'static str> {
    let response = Object::parse_bytes(response).unwrap_or_default();
    let text = response.text("SecretString").or_else(|| response.object("Parameter").text("Value"));
    let text = text.ok_or("it is not text")?;
    let text =
        if member.is_some() || text.trim_start().starts_with('{') { member_of(&text, member)? } else { text };
    ApiKey::parse(&text).ok_or("it is empty or has characters that are not allowed in a header")
}

/// The text of a member of a JSON object; without a name, of its only member.
fn member_of(text: &str, name: Option<&str>) -> Result<String, &'static str> {
    let members = Object::parse(text).ok_or("it is not a JSON object")?;
    match name {
        Some(name) => members.text(name).ok_or("it has no such member with a string"),
        None => {
            members.only_text().ok_or("it has not exactly one member, a string: name one with NAME#MEMBER")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(value: &str, member: Option<&str>) -> Result<String, &'static str> {
        let secret =
            serde_json::json!({ "ARN": "a", "SecretString": value, "VersionStages": ["AWSCURRENT"] });
        let parameter = serde_json::json!({ "Parameter": { "Name": "n", "Value": value, "Version": 1 } });
        let [one, other] = [secret, parameter].map(|response| {
            key_in(response.to_string().as_bytes(), member).map(|key| key.secret_value().to_owned())
        });
        assert_eq!(one, other);
        one
    }

    #[test]
    fn a_rejection_names_the_missing_permission() {
        let advice = |status, code: &str| {
            advice(KeyStore::ParameterStore, &AwsError::Rejected { status, code: code.to_owned() })
        };
        assert!(advice(StatusCode::BAD_REQUEST, "AccessDeniedException").contains("ssm:GetParameter"));
        assert!(advice(StatusCode::FORBIDDEN, "").contains("kms:Decrypt"));
        assert!(advice(StatusCode::BAD_REQUEST, "ParameterNotFound").contains("region"));
        assert_eq!(advice(StatusCode::BAD_REQUEST, "InvalidSignatureException"), "");
    }

    #[test]
    fn the_key_is_the_value_or_a_member_of_it() {
        assert_eq!(key(" k3y\n", None).unwrap(), "k3y");
        assert_eq!(key(r#"{"api_key":"k3y"}"#, None).unwrap(), "k3y");
        assert_eq!(key(r#"{"user":1,"api_key":"k3\u0079"}"#, Some("api_key")).unwrap(), "k3y");
        for (value, member, reason) in [
            (r#"{"user":1,"api_key":"k3y"}"#, None, "NAME#MEMBER"),
            (r#"{"api_key":"k3y"}"#, Some("key"), "no such member"),
            (r#"{"api_key":1}"#, None, "not exactly one member"),
            ("k3y", Some("key"), "not a JSON object"),
            ("{}", None, "not exactly one member"),
            ("k3 y", None, "not allowed in a header"),
            ("", None, "empty"),
        ] {
            let error = key(value, member).unwrap_err();
            assert!(error.contains(reason) && !error.contains("k3"), "{value}: {error}");
        }
        assert!(key_in(br#"{"SecretBinary":"aw=="}"#, None).unwrap_err().contains("not text"));
        assert!(key_in(b"<html>", None).is_err());
    }
}
