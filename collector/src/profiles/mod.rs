//! Profiles of functions in S3.
//!
//! An extension requests a presigned URL and uploads to it, so that the function needs no permission. The name of an object
//! has all that is known of a profile. So the bucket is the only record: what is listed can be downloaded, several
//! collectors need nothing in common, and a lifecycle rule of the bucket is the retention.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tailor_sizing::units::Megabytes;

use crate::s3::presign::ExactContent;
use crate::s3::{Connection, Location, S3};
use crate::store::{FunctionKey, HOUR_US, Tenant};

pub mod object;
pub mod request;

use object::ObjectName;
use request::NewProfile;

/// Size limit of a profile, bytes. The extension has the same limit.
pub const MAX_BYTES: u64 = 16 << 20;

/// How long an upload may begin. An extension that is frozen before requests another URL.
const UPLOAD_EXPIRY: Duration = Duration::from_secs(300);

/// How long a download may begin.
const DOWNLOAD_EXPIRY: Duration = Duration::from_secs(60);

/// Time limit of a list. A page is shown without profiles after it.
const LIST_TIMEOUT: Duration = Duration::from_secs(3);

/// After a list failed, reports have no profiles for this time, so that not each of them waits for S3.
const PAUSE_US: u64 = 30_000_000;

/// Profiles in a list: the newest.
const MAX_LISTED: usize = 20;

/// Age of the oldest profile in a list, days. A shorter time is tried first, so that a list rarely needs several requests.
const LISTED_DAYS: [u64; 2] = [1, 30];

/// Pages of a list that are read; 1,000 objects each.
const MAX_PAGES: usize = 5;

/// Functions of one tenant whose uploads are counted in an hour. More than upload profiles.
const MAX_COUNTED: usize = 10_000;

/// Where profiles are stored.
#[derive(Debug, Clone)]
pub struct ProfileSettings {
    /// Bucket and prefix.
    pub location: Location,
    /// S3, as the collector and the readers of profiles reach it.
    pub s3: Connection,
    /// URL of S3 as functions reach it, when it is another one.
    pub upload_endpoint: Option<String>,
    /// Most uploads of one function in an hour, of this collector.
    pub max_per_hour: u32,
}

/// The profiles of all functions.
#[derive(Debug)]
pub struct Profiles {
    location: Location,
    s3: S3,
    upload_s3: S3,
    max_per_hour: u32,
    uploads: Mutex<Uploads>,
    /// When reports may list profiles again, microseconds since the Unix epoch.
    paused_until_us: AtomicU64,
}

/// The uploads of one hour.
#[derive(Debug, Default)]
struct Uploads {
    hour: u64,
    by_tenant: HashMap<Tenant, HashMap<FunctionKey, u32>>,
}

/// A profile that can be downloaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// The name that the function gave its file.
    pub name: String,
    /// `pprof`, `cprofile`, `jfr` or `cpuprofile`.
    pub format: String,
    /// Size, bytes.
    pub bytes: u64,
    /// The invocation; `null` when the file was written in Init.
    pub request_id: Option<String>,
    /// When it was complete, microseconds since the Unix epoch.
    pub completed_at_us: u64,
    /// Memory size of its environment.
    #[serde(rename = "memory_mb")]
    pub memory: Megabytes,
    /// Path of the download on this server. The response is a redirect to S3.
    pub download: String,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// The description of the profile is not JSON, or a field is missing.
    #[error("cannot read the profile: {0}")]
    Unreadable(String),
    /// A field has a value that no profile can have.
    #[error("impossible value: {0}")]
    Impossible(&'static str),
    /// The profile is too large.
    #[error("a profile has at most {MAX_BYTES} bytes")]
    TooLarge,
    /// The function has uploaded too many.
    #[error("{0}")]
    TooMany(String),
    /// No profile can have this name.
    #[error("there is no such profile")]
    Unknown,
    /// S3 does not answer or refuses.
    #[error("cannot use the bucket of profiles: {0}")]
    Unavailable(String),
}

/// Where and how an extension uploads a profile.
#[derive(Debug, Serialize)]
pub struct Ticket {
    /// Presigned URL for one PUT.
    url: String,
    /// Headers that the request must have. The signature contains them.
    headers: HashMap<String, String>,
}

impl Profiles {
    /// The profiles at a location. Nothing is requested before the first use.
    pub async fn new(settings: ProfileSettings) -> Self {
        let upload = Connection {
            endpoint: settings.upload_endpoint.or_else(|| settings.s3.endpoint.clone()),
            ..settings.s3.clone()
        };
        Self {
            location: settings.location,
            s3: S3::new(&settings.s3).await,
            upload_s3: S3::new(&upload).await,
            max_per_hour: settings.max_per_hour,
            uploads: Mutex::default(),
            paused_until_us: AtomicU64::new(0),
        }
    }

    /// A URL for the upload of a profile. A repeated request is for the same object.
    ///
    /// # Errors
    /// [`ProfileError::TooMany`], or [`ProfileError::Unavailable`] without credentials.
    pub async fn ticket(
        &self,
        tenant: &Tenant,
        profile: &NewProfile,
        now_us: u64,
    ) -> Result<Ticket, ProfileError> {
        self.count(tenant, profile.function(), now_us)?;
        let name = profile.object_name(now_us);
        let key =
            self.location.key(&format!("{}{}", object::folder(tenant, profile.function()), name.text()));
        let sha256 = profile.sha256_base64();
        let content = ExactContent { bytes: profile.bytes(), sha256: &sha256 };
        let put = self.upload_s3.presign_put(&self.location.bucket, &key, content, UPLOAD_EXPIRY).await;
        let put = put.map_err(|error| unavailable(&error))?;
        Ok(Ticket { url: put.url, headers: put.headers })
    }

    /// The newest profiles of a function, newest first.
    ///
    /// # Errors
    /// [`ProfileError::Unavailable`] when S3 does not answer.
    pub async fn list(
        &self,
        tenant: &Tenant,
        function: &FunctionKey,
        now_us: u64,
    ) -> Result<Vec<Profile>, ProfileError> {
        let listed = tokio::time::timeout(LIST_TIMEOUT, self.newest(tenant, function, now_us)).await;
        listed.map_err(|_| ProfileError::Unavailable("S3 did not answer in 3 s".to_owned()))?
    }

    /// The same for a report; `None` for a time after a failure.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub async fn list_for_report(
        &self,
        tenant: &Tenant,
        function: &FunctionKey,
        now_us: u64,
    ) -> Option<Result<Vec<Profile>, ProfileError>> {
        if now_us < self.paused_until_us.load(Ordering::Relaxed) {
            return None;
        }
        let listed = self.list(tenant, function, now_us).await;
        if listed.is_err() {
            self.paused_until_us.store(now_us.saturating_add(PAUSE_US), Ordering::Relaxed);
        }
        Some(listed)
    }

    async fn newest(
        &self,
        tenant: &Tenant,
        function: &FunctionKey,
        now_us: u64,
    ) -> Result<Vec<Profile>, ProfileError> {
        let mut profiles = vec![];
        for days in LISTED_DAYS {
            let since_us = now_us.saturating_sub(days * 24 * HOUR_US);
            let Some(listed) = self.since(tenant, function, since_us).await? else { break };
            profiles = listed;
            if profiles.len() >= MAX_LISTED {
                break;
            }
        }
        profiles.reverse();
        profiles.truncate(MAX_LISTED);
        Ok(profiles)
    }

    /// The profiles since a time, oldest first; `None` when there are too many for one list.
    async fn since(
        &self,
        tenant: &Tenant,
        function: &FunctionKey,
        since_us: u64,
    ) -> Result<Option<Vec<Profile>>, ProfileError> {
        let folder = self.location.key(&object::folder(tenant, function));
        let after = format!("{folder}{}", object::time_text(since_us));
        let mut token = None;
        let mut profiles = vec![];
        for _ in 0..MAX_PAGES {
            let page = self.s3.page(&self.location.bucket, &folder, Some(&after), token.take()).await;
            let page = page.map_err(|error| unavailable(&error))?;
            profiles.extend(page.objects.iter().filter_map(|object| {
                let name = ObjectName::parse(object.key.strip_prefix(&folder)?)?;
                Some(name.profile(function, object.bytes))
            }));
            token = page.next;
            if token.is_none() {
                return Ok(Some(profiles));
            }
        }
        Ok(None)
    }

    /// A URL for the download of a profile, by the name of its object. It is not checked whether the object exists.
    ///
    /// # Errors
    /// [`ProfileError::Unknown`] for a name that no profile can have, [`ProfileError::Unavailable`] without credentials.
    pub async fn download(
        &self,
        tenant: &Tenant,
        function: &FunctionKey,
        name: &str,
    ) -> Result<String, ProfileError> {
        let parsed = ObjectName::parse(name).ok_or(ProfileError::Unknown)?;
        let key = self.location.key(&format!("{}{}", object::folder(tenant, function), parsed.text()));
        let url = self.s3.presign_get(&self.location.bucket, &key, parsed.file_name(), DOWNLOAD_EXPIRY).await;
        url.map_err(|error| unavailable(&error))
    }

    fn count(&self, tenant: &Tenant, function: &FunctionKey, now_us: u64) -> Result<(), ProfileError> {
        let mut uploads = self.uploads.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if uploads.hour != now_us / HOUR_US {
            *uploads = Uploads { hour: now_us / HOUR_US, ..Uploads::default() };
        }
        let by_function = uploads.by_tenant.entry(tenant.clone()).or_default();
        let has_room = by_function.len() < MAX_COUNTED;
        let count = match by_function.get_mut(function) {
            Some(count) => count,
            None if has_room => by_function.entry(function.clone()).or_default(),
            None => return Err(limit("profiles of too many functions were uploaded in this hour")),
        };
        if *count >= self.max_per_hour {
            return Err(limit(&format!("a function may upload {} profiles in an hour", self.max_per_hour)));
        }
        *count += 1;
        Ok(())
    }
}

fn limit(message: &str) -> ProfileError {
    ProfileError::TooMany(message.to_owned())
}

fn unavailable(error: &anyhow::Error) -> ProfileError {
    ProfileError::Unavailable(format!("{error:#}"))
}
