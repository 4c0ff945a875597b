//! The event of an experiment as an object of S3.

use anyhow::{Context, bail};
use serde_json::Value;

use crate::s3::S3;

/// Largest event of an asynchronous or synchronous invocation, with space for JSON's white space.
const MAX_BYTES: u64 = 16 << 20;

/// Reads `s3://BUCKET/KEY`. What is not JSON becomes a text.
///
/// # Errors
/// When there are no credentials, or the object cannot be read or is not text.
pub async fn object(s3: &S3, address: &str) -> anyhow::Result<Value> {
    let path = address.strip_prefix("s3://").and_then(|path| path.split_once('/'));
    let Some((bucket, key)) = path.filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty()) else {
        bail!("`{address}` is not an object: use s3://BUCKET/KEY");
    };
    let content = s3.get(bucket, key, MAX_BYTES).await?;
    let text = String::from_utf8(content.into()).ok().with_context(|| format!("{address} is not text"))?;
    Ok(serde_json::from_str(&text).unwrap_or(Value::String(text)))
}
