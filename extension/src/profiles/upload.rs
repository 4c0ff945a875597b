//! One upload: the collector gives a presigned URL, and S3 takes the file.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use agent_proto::batch::Environment;
use http::{HeaderName, HeaderValue, Request, StatusCode, Uri};
use ring::digest::{Context, SHA256};

use super::folder::{self, Found};
use crate::deliver::shipper::Shipper;
use crate::freeze_timeout;
use crate::json::Object;
use crate::net::client::body::{Body, FileBody, PART_BYTES};
use crate::net::pace::Pace;
use crate::net::sign::hex;

/// The collector's path for requests for an upload.
const PATH: &str = "/v1/profiles";

/// The longest time for the transfer of a file, without freezes.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(60);

/// The end of one try.
#[derive(Debug)]
pub(super) enum Outcome {
    /// S3 has the file.
    Uploaded,
    /// It can be tried again.
    Failed(String),
    /// The file is no longer what was found.
    FileChanged,
    /// The collector does not take this profile.
    Rejected(String),
    /// The collector takes no profile of this environment.
    AllRejected(String),
}

/// What a profile belongs to.
pub(super) struct Invocation<'a> {
    pub(super) environment: &'a Environment,
    /// Empty for a profile of Init.
    pub(super) request_id: &'a str,
}

pub(super) async fn upload(
    shipper: &Shipper,
    folder: &Path,
    profile: &Found,
    invocation: &Invocation<'_>,
    mut pace: Pace,
) -> Outcome {
    let Some(file) = folder::open(folder, profile) else { return Outcome::FileChanged };
    let Some(sha256) = digest(file, profile.bytes, &mut pace).await else { return Outcome::FileChanged };
    let response = shipper.post(PATH, request(profile, &sha256, invocation)).await;
    let Some((head, body)) = response else {
        return Outcome::Failed("no response from the collector".to_owned());
    };
    let rejection = || format!("the collector responded with {}", head.status);
    match head.status {
        StatusCode::OK => {}
        StatusCode::BAD_REQUEST | StatusCode::CONFLICT | StatusCode::PAYLOAD_TOO_LARGE => {
            return Outcome::Rejected(rejection());
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
            return Outcome::AllRejected(rejection());
        }
        _ => return Outcome::Failed(rejection()),
    }
    let Some(upload) = PresignedUpload::read(&body).filter(|upload| shipper.permits(&upload.url)) else {
        return Outcome::Failed("the collector responded without a URL that may be used".to_owned());
    };
    // Opened again: the first pass read it to its end.
    let Some(file) = folder::open(folder, profile) else { return Outcome::FileChanged };
    let transfer = send(shipper, upload, FileBody::new(file, profile.bytes, pace));
    match freeze_timeout::within(TRANSFER_TIMEOUT, transfer).await {
        // S3 has checked the digest, so that a file that grew was rejected.
        Some(Ok(status)) if status.is_success() => Outcome::Uploaded,
        Some(Ok(status)) => Outcome::Failed(format!("S3 responded with {status}")),
        Some(Err(error)) => Outcome::Failed(error.to_string()),
        None => Outcome::Failed(format!("S3 did not respond within {TRANSFER_TIMEOUT:?}")),
    }
}

/// A presigned upload: the URL and the headers that its signature contains.
struct PresignedUpload {
    url: Uri,
    /// The headers that the URL's signature contains.
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl PresignedUpload {
    fn read(body: &[u8]) -> Option<Self> {
        let response = Object::parse_bytes(body)?;
        let url: Uri = response.text("url")?.parse().ok()?;
        url.host()?;
        let signed = response.object("headers");
        let headers = signed.texts().map(|(name, value)| {
            Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?))
        });
        Some(Self { headers: headers.collect::<Option<_>>()?, url })
    }
}

async fn send(
    shipper: &Shipper,
    upload: PresignedUpload,
    file: FileBody,
) -> Result<StatusCode, crate::net::client::ClientError> {
    let client = shipper.client_of(&upload.url);
    let path = upload.url.path_and_query().map_or("/", |path| path.as_str());
    let mut request: Request<Body> = client.request("PUT", path).body(Body::File(file))?;
    for (name, value) in upload.headers {
        request.headers_mut().insert(name, value);
    }
    Ok(client.send(request).await?.0.status)
}

fn request(profile: &Found, sha256: &str, invocation: &Invocation<'_>) -> String {
    let Environment { account, region, function, memory, .. } = invocation.environment;
    let (request_id, Found { name, bytes, completed_at_us, .. }) = (invocation.request_id, profile);
    // The debug format of text without control characters is JSON, and needs less code than a JSON value.
    format!(
        "{{\"account\":{account:?},\"region\":{region:?},\"function\":{function:?},\"memory_mb\":{},\
         \"request_id\":{request_id:?},\"name\":{name:?},\"bytes\":{bytes},\"sha256\":{sha256:?},\
         \"completed_at_us\":{completed_at_us}}}",
        memory.0
    )
}

/// The digest of the first `length` bytes, as hexadecimal digits; `None` when there are less.
async fn digest(mut file: File, length: u64, pace: &mut Pace) -> Option<String> {
    let mut context = Context::new(&SHA256);
    let mut part = vec![0; PART_BYTES];
    let mut left = length;
    while left > 0 {
        let part_length = usize::try_from(left).unwrap_or(PART_BYTES).min(PART_BYTES);
        file.read_exact(&mut part[..part_length]).ok()?;
        context.update(&part[..part_length]);
        left -= part_length as u64;
        pace.pause().await;
    }
    Some(hex(context.finish().as_ref()))
}
