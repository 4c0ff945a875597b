//! The event of an experiment as an object of S3.

use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use aws_config::SdkConfig;
use aws_credential_types::provider::ProvideCredentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use serde_json::Value;

/// Largest event of an asynchronous or synchronous invocation, with space for JSON's white space.
const MAX_BYTES: u64 = 16 << 20;
/// Time limit of the request.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Reads `s3://BUCKET/KEY` in a region. What is not JSON becomes a text.
///
/// The request is signed here, with the credentials of the other calls of the experiment.
/// The endpoint can be set with `AWS_ENDPOINT_URL_S3`.
///
/// # Errors
/// When there are no credentials, or the object cannot be read.
pub async fn object(config: &SdkConfig, region: &str, address: &str) -> anyhow::Result<Value> {
    let path = address.strip_prefix("s3://").and_then(|path| path.split_once('/'));
    let Some((bucket, key)) = path.filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty()) else {
        bail!("`{address}` is not an object: use s3://BUCKET/KEY");
    };
    let endpoint = std::env::var("AWS_ENDPOINT_URL_S3").ok();
    let endpoint = endpoint.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
    // A signature of S3 expects `$` encoded.
    let key: Vec<_> =
        key.split('/').map(|part| crate::query::path_segment(part).replace('$', "%24")).collect();
    let url = format!("{}/{bucket}/{}", endpoint.trim_end_matches('/'), key.join("/"));
    let headers = signed(config, region, &url).await?;
    let mut request =
        ureq::get(&url).config().timeout_global(Some(TIMEOUT)).http_status_as_error(false).build();
    for (name, value) in &headers {
        request = request.header(name, value);
    }
    let mut response =
        tokio::task::block_in_place(|| request.call()).with_context(|| format!("cannot read {address}"))?;
    let body = response.body_mut().with_config().limit(MAX_BYTES).read_to_string();
    let body = body.with_context(|| format!("cannot read {address}"))?;
    match response.status().as_u16() {
        200 => Ok(serde_json::from_str(&body).unwrap_or(Value::String(body))),
        301 | 307 => bail!("{address} is in another region than the function"),
        403 => bail!("{address} cannot be read: the credentials need `s3:GetObject` on it"),
        404 => bail!("{address} does not exist"),
        code => bail!("S3 responded with {code} for {address}"),
    }
}

/// The headers that sign a GET request.
async fn signed(config: &SdkConfig, region: &str, url: &str) -> anyhow::Result<Vec<(String, String)>> {
    let provider = config.credentials_provider().context("there are no AWS credentials")?;
    let identity = provider.provide_credentials().await.context("cannot get AWS credentials")?.into();
    let mut settings = SigningSettings::default();
    settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    // S3 signs the path as it is sent.
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("s3")
        .time(SystemTime::now())
        .settings(settings)
        .build()
        .context("cannot sign the request")?
        .into();
    let request = SignableRequest::new("GET", url, std::iter::empty(), SignableBody::Bytes(&[]))?;
    let (instructions, _) = sign(request, &parameters)?.into_parts();
    Ok(instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}
