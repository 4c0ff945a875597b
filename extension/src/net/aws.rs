//! Requests to AWS services with AWS's JSON protocol, signed with the function's credentials.

use std::rc::Rc;

use bytes::Bytes;
use http::{StatusCode, Uri, header};
use http_body_util::Full;

use super::client::{Client, ClientError, Response};
use super::credentials::{CredentialsError, Provider};
use super::proxy::proxy_for;
use super::sign::sign_request;
use crate::json::Object;
use crate::settings::Variables;

/// The longest error code that is used, in characters. Known ones have less than 50.
const MAX_CODE_CHARS: usize = 100;

/// One service in one region.
#[derive(Debug)]
pub struct Service {
    client: Client,
    provider: Rc<Provider>,
    name: &'static str,
    region: String,
}

/// Why there is no result. Has no secrets.
#[derive(Debug, thiserror::Error)]
pub enum AwsError {
    /// No credentials.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// No response.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A rejection. Of the response only the code is kept: the rest may quote the request.
    #[error("AWS responded with {status} {code}")]
    Rejected {
        /// The HTTP status.
        status: StatusCode,
        /// For example `AccessDeniedException`.
        code: String,
    },
}

impl AwsError {
    /// Whether the same request may succeed soon.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Credentials(_) => false,
            Self::Client(_) => true,
            Self::Rejected { status, code } => {
                status.is_server_error()
                    || *status == StatusCode::TOO_MANY_REQUESTS
                    || code.contains("Throttl")
            }
        }
    }
}

impl Service {
    /// The service `name` in `region`, at the endpoint of the variable `endpoint_variable` or `AWS_ENDPOINT_URL`, or at
    /// AWS's own. The error is the name of a variable that is not a URL.
    ///
    /// # Errors
    /// The name of the variable.
    pub fn new(
        name: &'static str,
        region: &str,
        endpoint_variable: &'static str,
        provider: Rc<Provider>,
        variables: &impl Variables,
    ) -> Result<Self, &'static str> {
        let configured = [endpoint_variable, "AWS_ENDPOINT_URL"].into_iter().find_map(|variable| {
            Some((variable, variables.get(variable).filter(|value| !value.is_empty())?))
        });
        let (variable, endpoint) = configured.unwrap_or_else(|| {
            (endpoint_variable, format!("https://{name}.{region}.{}", dns_suffix(region)))
        });
        let endpoint: Uri = endpoint.trim().parse().map_err(|_| variable)?;
        if endpoint.host().is_none() || !matches!(endpoint.scheme_str(), Some("http" | "https")) {
            return Err(variable);
        }
        let client = Client::new(&endpoint).with_proxy(proxy_for(&endpoint, variables));
        Ok(Self { client, provider, name, region: region.to_owned() })
    }

    /// Calls the operation `target` with a JSON body and returns the JSON response. `now_s` is seconds since the Unix epoch.
    ///
    /// # Errors
    /// [`AwsError`].
    pub async fn call(&self, target: &str, body: &Bytes, now_s: u64) -> Result<Bytes, AwsError> {
        let (head, body) = self.send(target, body, now_s).await?;
        if head.status.is_success() {
            return Ok(body);
        }
        // The credentials may have expired.
        self.provider.discard();
        Err(AwsError::Rejected { status: head.status, code: error_code(&body) })
    }

    /// Whether the network may have no route to the service.
    #[must_use]
    pub fn may_lack_route(&self) -> bool {
        self.client.may_lack_route()
    }

    async fn send(&self, target: &str, body: &Bytes, now_s: u64) -> Result<Response, AwsError> {
        let mut request = self
            .client
            .request("POST", "/")
            .header(header::CONTENT_TYPE, "application/x-amz-json-1.1")
            .header("x-amz-target", target)
            .body(Full::new(body.clone()))
            .map_err(ClientError::from)?;
        let credentials = self.provider.current(now_s.saturating_mul(1_000_000)).await?;
        sign_request(&mut request, body, &self.region, self.name, &credentials, now_s)
            .map_err(ClientError::from)?;
        Ok(self.client.exchange_with_resend(request).await?)
    }
}

/// The end of the host names of AWS's services in a region.
fn dns_suffix(region: &str) -> &'static str {
    match region.split('-').next() {
        Some("cn") => "amazonaws.com.cn",
        Some("eusc") => "amazonaws.eu",
        _ => "amazonaws.com",
    }
}

/// The code of an error body, for example `AccessDeniedException`; empty when there is none.
fn error_code(body: &[u8]) -> String {
    let code = Object::parse_bytes(body).and_then(|body| body.text("__type")).unwrap_or_default();
    let code = code.rsplit('#').next().unwrap_or_default();
    code.chars().filter(char::is_ascii_alphanumeric).take(MAX_CODE_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn the_endpoint_is_the_region_s_or_a_configured_one() {
        let host = |region, variables: &[(&'static str, &'static str)]| {
            let mut variables: HashMap<_, _> = variables.iter().copied().collect();
            variables.extend([("AWS_ACCESS_KEY_ID", "A"), ("AWS_SECRET_ACCESS_KEY", "S")]);
            let provider = Rc::new(Provider::read(&variables).unwrap());
            Service::new("ssm", region, "AWS_ENDPOINT_URL_SSM", provider, &variables)
                .map(|service| service.client.host().to_owned())
        };
        assert_eq!(host("eu-west-1", &[]).unwrap(), "ssm.eu-west-1.amazonaws.com");
        assert_eq!(host("cn-north-1", &[]).unwrap(), "ssm.cn-north-1.amazonaws.com.cn");
        let all = ("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
        assert_eq!(host("eu-west-1", &[all]).unwrap(), "127.0.0.1:1");
        assert_eq!(host("eu-west-1", &[all, ("AWS_ENDPOINT_URL_SSM", "http://own:2/")]).unwrap(), "own:2");
        assert_eq!(host("eu-west-1", &[("AWS_ENDPOINT_URL", "own:2")]).unwrap_err(), "AWS_ENDPOINT_URL");
    }

    #[test]
    fn of_an_error_only_the_code_is_kept() {
        let body = br#"{"__type":"com.amazonaws.secretsmanager#AccessDeniedException","Message":"s3cret"}"#;
        assert_eq!(error_code(body), "AccessDeniedException");
        assert_eq!(error_code(b"<html>"), "");
        let rejected = |status, code: &str| AwsError::Rejected { status, code: code.into() }.is_temporary();
        assert!(rejected(StatusCode::BAD_REQUEST, "ThrottlingException"));
        assert!(rejected(StatusCode::SERVICE_UNAVAILABLE, ""));
        assert!(!rejected(StatusCode::BAD_REQUEST, "AccessDeniedException"));
    }
}
