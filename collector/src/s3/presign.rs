//! Presigned URLs: who has one can send one request without credentials.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context;
use aws_sdk_s3::config::{Builder, RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_s3::presigning::PresigningConfig;

use super::{S3, explain};

/// What a presigned upload must contain. S3 refuses anything else.
#[derive(Debug, Clone, Copy)]
pub struct ExactContent<'a> {
    /// Size, bytes.
    pub bytes: u64,
    /// The SHA-256 in base64.
    pub sha256: &'a str,
}

/// A presigned request to write an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresignedPut {
    /// URL for one PUT.
    pub url: String,
    /// Headers that the request must have, without `content-length`. The signature contains them.
    pub headers: HashMap<String, String>,
}

/// A presigned request has no body of which the SDK could compute a checksum, and no headers that a browser would not send.
fn without_checksums() -> Builder {
    Builder::new()
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
}

impl S3 {
    /// A URL for the upload of an object with this content.
    ///
    /// # Errors
    /// Without credentials.
    pub async fn presign_put(
        &self,
        bucket: &str,
        key: &str,
        content: ExactContent<'_>,
        expiry: Duration,
    ) -> anyhow::Result<PresignedPut> {
        let put = self.client.put_object().bucket(bucket).key(key);
        let put = put
            .content_length(i64::try_from(content.bytes).unwrap_or(i64::MAX))
            .checksum_sha256(content.sha256)
            .content_type("application/octet-stream")
            .customize()
            .config_override(without_checksums());
        let presigned = put.presigned(PresigningConfig::expires_in(expiry)?).await;
        let presigned = presigned
            .map_err(|error| explain(&error, bucket))
            .with_context(|| format!("cannot sign an upload to s3://{bucket}/{key}"))?;
        // HTTP clients set the length themselves.
        let headers = presigned.headers().filter(|(name, _)| !name.eq_ignore_ascii_case("content-length"));
        Ok(PresignedPut {
            url: presigned.uri().to_owned(),
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        })
    }

    /// A URL for the download of an object as a file of this name. It is not checked whether the object exists.
    ///
    /// # Errors
    /// Without credentials.
    pub async fn presign_get(
        &self,
        bucket: &str,
        key: &str,
        file_name: &str,
        expiry: Duration,
    ) -> anyhow::Result<String> {
        let get = self.client.get_object().bucket(bucket).key(key);
        let get = get
            .response_content_type("application/octet-stream")
            .response_content_disposition(format!("attachment; filename=\"{file_name}\""))
            .customize()
            .config_override(without_checksums());
        let presigned = get.presigned(PresigningConfig::expires_in(expiry)?).await;
        let presigned = presigned.map_err(|error| explain(&error, bucket));
        Ok(presigned
            .with_context(|| format!("cannot sign a download of s3://{bucket}/{key}"))?
            .uri()
            .to_owned())
    }
}
