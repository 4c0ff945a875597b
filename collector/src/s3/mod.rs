//! S3, or a compatible server: the client of the archive, of profiles, of imports and of exports of the bill.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ServerSideEncryption, StorageClass};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_types::timeout::TimeoutConfig;
use bytes::Bytes;

use crate::causes;

pub mod objects;
pub mod presign;
mod reader;
mod retry;

pub use reader::BlockingReader;

/// Time limit to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Time limit of one attempt of a request, its body included: a file of the archive at 1 MB/s.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(300);

/// Objects that are listed in one response.
const PAGE: i32 = 1_000;

/// How to reach S3.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    /// The URL of a compatible server; that of AWS when absent.
    pub endpoint: Option<String>,
    /// The region; that of the environment when absent.
    pub region: Option<String>,
    /// Whether the bucket is in the path of URLs, and not in the name of the host.
    pub path_style: bool,
}

/// A bucket and the prefix of the names of its objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The bucket.
    pub bucket: String,
    /// The prefix, without a slash at its begin or end. Empty for the whole bucket.
    pub prefix: String,
}

impl Location {
    /// The key of an object of this name under the prefix.
    #[must_use]
    pub fn key(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}/{name}", self.prefix) }
    }
}

impl FromStr for Location {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix("s3://") else {
            return Err("it must be an address such as s3://BUCKET/PREFIX".to_owned());
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(is_valid) {
            return Err(format!("`{bucket}` is not the name of a bucket"));
        }
        Ok(Self { bucket: bucket.to_owned(), prefix: prefix.trim_matches('/').to_owned() })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

/// How S3 encrypts an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encryption {
    /// With keys of S3.
    S3,
    /// With a key of KMS: its id, alias or ARN.
    Kms(String),
}

impl FromStr for Encryption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("kms:")) {
            ("sse-s3", _) => Ok(Self::S3),
            (_, Some(key)) if !key.is_empty() => Ok(Self::Kms(key.to_owned())),
            _ => Err("use `sse-s3`, or `kms:` with a key id, alias or ARN".to_owned()),
        }
    }
}

/// How an object is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PutOptions {
    /// The storage class; that of the bucket's default when absent.
    pub storage_class: Option<String>,
    /// The encryption; that of the bucket when absent.
    pub encryption: Option<Encryption>,
}

/// One object of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its name in the bucket.
    pub key: String,
    /// Its size, bytes.
    pub bytes: u64,
    /// When it was last changed, microseconds since the Unix epoch; 0 when it is not known.
    pub changed_us: u64,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its objects, in order of names.
    pub objects: Vec<Object>,
    /// What continues the list; `None` after the last page.
    pub next: Option<String>,
}

/// The client.
#[derive(Debug, Clone)]
pub struct S3 {
    client: Client,
}

/// The settings that AWS's clients share, with credentials from the SDK's default chain.
pub async fn shared_config(region: Option<&str>) -> SdkConfig {
    let http =
        aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .build();
    let region = RegionProviderChain::first_try(region.map(|region| Region::new(region.to_owned())))
        .or_else(EnvironmentVariableRegionProvider::new())
        .or_else(Region::new("us-east-1"));
    aws_config::defaults(BehaviorVersion::latest())
        .region(region)
        .http_client(http)
        .timeout_config(timeouts)
        .load()
        .await
}

impl S3 {
    /// A client with the credentials of the process. It does not connect yet.
    pub async fn new(connection: &Connection) -> Self {
        Self::with(&shared_config(connection.region.as_deref()).await, connection)
    }

    /// A client with these settings.
    #[must_use]
    pub fn with(shared: &SdkConfig, connection: &Connection) -> Self {
        let mut config = aws_sdk_s3::config::Builder::from(shared)
            .force_path_style(connection.path_style)
            .retry_classifier(retry::BrokenConnection);
        if let Some(endpoint) = &connection.endpoint {
            // Compatible servers do not support all of AWS's checksums.
            config = config
                .endpoint_url(endpoint)
                .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
                .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        }
        Self { client: Client::from_conf(config.build()) }
    }

    /// Writes an object, over the one with this name.
    ///
    /// # Errors
    /// When S3 refuses or cannot be reached.
    pub async fn put(
        &self,
        bucket: &str,
        key: &str,
        body: Bytes,
        options: &PutOptions,
    ) -> anyhow::Result<()> {
        let mut request = self
            .client
            .put_object()
            .bucket(bucket)
            .key(key)
            .content_type("application/vnd.apache.parquet")
            .body(ByteStream::from(body));
        if let Some(class) = &options.storage_class {
            request = request.storage_class(StorageClass::from(class.as_str()));
        }
        request = match &options.encryption {
            None => request,
            Some(Encryption::S3) => request.server_side_encryption(ServerSideEncryption::Aes256),
            Some(Encryption::Kms(key)) => {
                request.server_side_encryption(ServerSideEncryption::AwsKms).ssekms_key_id(key)
            }
        };
        let written = request.send().await.map_err(|error| explain(&error, bucket));
        written.map(drop).with_context(|| format!("cannot write s3://{bucket}/{key}"))
    }

    /// All objects under a location, in order of names. `s3://bucket/a` has `a` and `a/b`, and not `ab`.
    ///
    /// # Errors
    /// When S3 refuses or cannot be reached.
    pub async fn list(&self, location: &Location) -> anyhow::Result<Vec<Object>> {
        let Location { bucket, prefix } = location;
        let mut objects = vec![];
        let mut token = None;
        loop {
            let page = self.page(bucket, prefix, None, token).await;
            let page = page.with_context(|| format!("cannot list {location}"))?;
            objects.extend(page.objects.into_iter().filter(|object| {
                let rest = object.key.strip_prefix(prefix.as_str()).unwrap_or_default();
                prefix.is_empty() || rest.is_empty() || rest.starts_with('/')
            }));
            token = page.next;
            if token.is_none() {
                return Ok(objects);
            }
        }
    }

    /// Up to 1,000 objects whose names begin with `prefix`, in order of names: those after the name `after`, or those of the
    /// next page.
    ///
    /// # Errors
    /// When S3 refuses or cannot be reached.
    pub async fn page(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<&str>,
        token: Option<String>,
    ) -> anyhow::Result<Page> {
        let page = self
            .client
            .list_objects_v2()
            .bucket(bucket)
            .set_prefix(Some(prefix.to_owned()).filter(|prefix| !prefix.is_empty()))
            .max_keys(PAGE)
            .set_start_after(after.map(str::to_owned))
            .set_continuation_token(token)
            .send()
            .await
            .map_err(|error| explain(&error, bucket))?;
        let objects = page.contents().iter().map(|object| {
            let changed = object.last_modified().and_then(|at| at.to_millis().ok()).unwrap_or(0);
            Object {
                key: object.key().unwrap_or_default().to_owned(),
                bytes: u64::try_from(object.size().unwrap_or(0)).unwrap_or(0),
                changed_us: u64::try_from(changed).unwrap_or(0).saturating_mul(1_000),
            }
        });
        let next = page.next_continuation_token().filter(|_| page.is_truncated() == Some(true));
        Ok(Page { objects: objects.collect(), next: next.map(str::to_owned) })
    }

    /// The content of an object, as it arrives.
    ///
    /// # Errors
    /// When S3 refuses or cannot be reached.
    pub async fn open(&self, bucket: &str, key: &str) -> anyhow::Result<ByteStream> {
        let object = self.client.get_object().bucket(bucket).key(key).send().await;
        let object = object.map_err(|error| explain(&error, bucket));
        Ok(object.with_context(|| format!("cannot read s3://{bucket}/{key}"))?.body)
    }

    /// The content of an object of at most `max_bytes`.
    ///
    /// # Errors
    /// As [`Self::open`], and when the object is larger.
    pub async fn get(&self, bucket: &str, key: &str, max_bytes: u64) -> anyhow::Result<Bytes> {
        let mut body = self.open(bucket, key).await?;
        let mut content = Vec::new();
        while let Some(chunk) = body.next().await {
            content.extend_from_slice(&chunk.with_context(|| format!("cannot read s3://{bucket}/{key}"))?);
            if content.len() as u64 > max_bytes {
                bail!("s3://{bucket}/{key} is larger than {max_bytes} bytes");
            }
        }
        Ok(content.into())
    }
}

/// The codes of a refusal because of permissions.
const DENIED: [&str; 2] = ["AccessDenied", "Forbidden"];

/// What S3 refused, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{advice} ({code})")]
struct Refusal {
    code: String,
    advice: String,
}

/// Whether S3 refused a request because the credentials do not permit it.
#[must_use]
pub fn is_denied(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refusal>().is_some_and(|refusal| DENIED.contains(&refusal.code.as_str()))
}

/// What failed and what to do, for the usual errors.
fn explain<E>(error: &SdkError<E>, bucket: &str) -> anyhow::Error
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
{
    let code = error.code().unwrap_or_default();
    let advice = match code {
        "NoSuchBucket" => format!("the bucket {bucket} does not exist: create it, or correct the address"),
        "NoSuchKey" => "the object does not exist".to_owned(),
        denied if DENIED.contains(&denied) => {
            "the credentials do not permit it: docs/archive.md and docs/profiles.md list the permissions"
                .to_owned()
        }
        "InvalidAccessKeyId" | "SignatureDoesNotMatch" => {
            "the server does not accept the credentials".to_owned()
        }
        "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
            format!("the bucket {bucket} is in another region: set --s3-region")
        }
        _ => return anyhow::anyhow!(causes::of_aws(error)),
    };
    Refusal { code: code.to_owned(), advice }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_and_encryption_are_read() {
        let location: Location = "s3://my-bucket/a/b/".parse().unwrap();
        assert_eq!((location.bucket.as_str(), location.prefix.as_str()), ("my-bucket", "a/b"));
        assert_eq!(
            (location.to_string().as_str(), location.key("c").as_str()),
            ("s3://my-bucket/a/b", "a/b/c")
        );
        assert_eq!("s3://my-bucket".parse::<Location>().unwrap().key("c"), "c");
        assert_eq!("s3://my-bucket".parse::<Location>().unwrap().to_string(), "s3://my-bucket");
        for bad in ["", "my-bucket", "s3://", "s3://a/b", "s3://my bucket/a", "https://my-bucket/a"] {
            assert!(bad.parse::<Location>().is_err(), "{bad}");
        }
        assert_eq!("sse-s3".parse(), Ok(Encryption::S3));
        assert_eq!("kms:alias/logs".parse(), Ok(Encryption::Kms("alias/logs".to_owned())));
        for bad in ["", "kms:", "aes256"] {
            assert!(bad.parse::<Encryption>().is_err(), "{bad}");
        }
    }
}
