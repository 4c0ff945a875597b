//! Signatures of events, as the Standard Webhooks specification defines them.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// What a secret begins with.
const PREFIX: &str = "whsec_";

/// Length of the key of a secret, bytes.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// The keys that sign. Several sign while a secret is replaced: a receiver accepts any of them.
#[derive(Clone, PartialEq, Eq)]
pub struct Secrets(Vec<Vec<u8>>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

/// A secret that cannot be used. The message does not contain it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} {problem}; `echo whsec_$(openssl rand -base64 32)` makes a secret")]
pub struct SecretsError {
    line: usize,
    problem: &'static str,
}

impl Secrets {
    /// Reads secrets, one a line: `whsec_` and a key of 24 to 64 bytes as Base64.
    ///
    /// # Errors
    /// There is none, or one has another form.
    pub fn parse(text: &str) -> Result<Self, SecretsError> {
        let mut keys = vec![];
        for (index, line) in text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty()) {
            let failed = |problem| SecretsError { line: index + 1, problem };
            let encoded = line.strip_prefix(PREFIX).ok_or_else(|| failed("does not begin with `whsec_`"))?;
            let key = STANDARD.decode(encoded).map_err(|_| failed("is not Base64 after `whsec_`"))?;
            if !KEY_BYTES.contains(&key.len()) {
                return Err(failed("has a key that is not 24 to 64 bytes long"));
            }
            keys.push(key);
        }
        if keys.is_empty() { Err(SecretsError { line: 1, problem: "has no secret" }) } else { Ok(Self(keys)) }
    }

    /// The header `webhook-signature` of a message: a signature over its id, time and body for each secret.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp_s: u64, body: &str) -> String {
        let signature = |key: &Vec<u8>| {
            // HMAC has keys of any length.
            let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
            mac.update(format!("{id}.{timestamp_s}.{body}").as_bytes());
            Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
        };
        self.0.iter().filter_map(signature).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's reference libraries.
    #[test]
    fn a_signature_is_that_of_the_standard() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", r#"{"test": 2432232314}"#);
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(Secrets::parse(secret).unwrap().sign(id, 1_614_265_330, body), expected);
        let two = Secrets::parse(&format!("{secret}\n\nwhsec_{}\n", STANDARD.encode([1; 24]))).unwrap();
        let signatures = two.sign(id, 1_614_265_330, body);
        assert!(signatures.starts_with(&format!("{expected} v1,")), "{signatures}");
        assert!(!format!("{two:?}").contains("MfKQ"));
    }

    #[test]
    fn a_secret_of_another_form_is_not_used() {
        for text in ["", "\n", "hunter2", "whsec_", "whsec_###", "whsec_aHVudGVyMg=="] {
            let error = Secrets::parse(text).unwrap_err().to_string();
            assert!(!error.contains("hunter") && !error.contains("aHVu"), "{error}");
        }
    }
}
