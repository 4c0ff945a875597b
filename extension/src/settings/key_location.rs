//! Where AWS stores the collector's key: a secret of Secrets Manager, or a parameter of SSM Parameter Store.

/// The longest name in bytes: that of a parameter's ARN.
const MAX_NAME_BYTES: usize = 2_048;

/// A service that stores keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyStore {
    /// AWS Secrets Manager.
    SecretsManager,
    /// AWS Systems Manager Parameter Store.
    ParameterStore,
}

impl KeyStore {
    /// The variable that names the secret or the parameter.
    #[must_use]
    pub const fn variable(self) -> &'static str {
        match self {
            Self::SecretsManager => "TAILOR_API_KEY_SECRET",
            Self::ParameterStore => "TAILOR_API_KEY_PARAMETER",
        }
    }

    /// The service's name in ARNs, host names and signatures.
    #[must_use]
    pub const fn service(self) -> &'static str {
        match self {
            Self::SecretsManager => "secretsmanager",
            Self::ParameterStore => "ssm",
        }
    }
}

/// The place of the collector's key.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyLocation {
    /// The service.
    pub store: KeyStore,
    /// The ARN or name of the secret or parameter.
    pub name: String,
    /// The member with the key, when the value is a JSON object.
    pub member: Option<String>,
}

impl std::fmt::Debug for KeyLocation {
    // The name may be a key that was set in the wrong variable.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyLocation({})", self.store.variable())
    }
}

impl KeyLocation {
    /// Reads `NAME` or `ARN`, optionally with `#MEMBER`. `None` for anything else, such as an ARN of another service.
    #[must_use]
    pub fn parse(store: KeyStore, text: &str) -> Option<Self> {
        let (name, member) = match text.split_once('#') {
            Some((name, member)) => (name, Some(member.to_owned())),
            None => (text, None),
        };
        let is_text = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_text(name) || name.len() > MAX_NAME_BYTES || member.as_deref().is_some_and(str::is_empty) {
            return None;
        }
        let location = Self { store, name: name.to_owned(), member };
        (!name.starts_with("arn:") || location.region().is_some()).then_some(location)
    }

    /// The region of the ARN; `None` for a name.
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        let mut parts = self.name.splitn(6, ':');
        let (arn, _partition, service, region) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_complete = parts.count() == 2;
        let is_region =
            !region.is_empty() && region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        (arn == "arn" && service == self.store.service() && is_region && is_complete).then_some(region)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_arns_are_read_with_an_optional_member() {
        let secret = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:tailor-AbCdEf";
        let parameter = "arn:aws-cn:ssm:cn-north-1:111122223333:parameter/tailor/key";
        for (store, text, name, member, region) in [
            (KeyStore::SecretsManager, secret.to_owned(), secret, None, Some("eu-west-1")),
            (KeyStore::SecretsManager, format!("{secret}#key"), secret, Some("key"), Some("eu-west-1")),
            (KeyStore::SecretsManager, "tailor/key#api key".to_owned(), "tailor/key", Some("api key"), None),
            (KeyStore::ParameterStore, parameter.to_owned(), parameter, None, Some("cn-north-1")),
            (KeyStore::ParameterStore, "/tailor/key:3".to_owned(), "/tailor/key:3", None, None),
        ] {
            let location = KeyLocation::parse(store, &text).unwrap();
            assert_eq!((location.name.as_str(), location.member.as_deref()), (name, member), "{text}");
            assert_eq!(location.region(), region, "{text}");
            assert!(!format!("{location:?}").contains("tailor"), "{location:?}");
        }
        for text in [
            parameter,
            "",
            "#key",
            "name#",
            "two words",
            "arn:aws:secretsmanager",
            "arn:aws:secretsmanager::1:x",
        ] {
            assert_eq!(KeyLocation::parse(KeyStore::SecretsManager, text), None, "{text}");
        }
    }
}
