//! The arguments about profiles.

use std::sync::Arc;

use clap::Args;

use super::archive::S3Args;
use crate::profiles::{ProfileSettings, Profiles};
use crate::s3::Location;

#[derive(Debug, Args)]
#[command(next_help_heading = "Profiles")]
pub(super) struct ProfileArgs {
    /// Keep the profiles that functions upload in S3: `s3://BUCKET/PREFIX`. docs/profiles.md describes them.
    #[arg(long, env = "TAILOR_PROFILES_LOCATION", value_name = "S3-ADDRESS")]
    profiles: Option<Location>,
    /// URL of S3 as functions reach it, when it is not `--s3-endpoint`.
    #[arg(long, env = "TAILOR_PROFILES_UPLOAD_ENDPOINT", value_name = "URL", value_parser = url, requires = "profiles")]
    profiles_upload_endpoint: Option<String>,
    /// Most profiles that one function may upload in an hour.
    #[arg(long, env = "TAILOR_PROFILES_PER_HOUR", default_value_t = 60)]
    profiles_per_hour: u32,
}

impl ProfileArgs {
    /// Where profiles are stored; `None` when they are not.
    pub(super) const fn location(&self) -> Option<&Location> {
        self.profiles.as_ref()
    }

    /// The profiles; `None` when they are not stored.
    pub(super) async fn open(&self, s3: &S3Args) -> Option<Arc<Profiles>> {
        let settings = ProfileSettings {
            location: self.profiles.clone()?,
            s3: s3.connection(),
            upload_endpoint: self.profiles_upload_endpoint.clone().filter(|url| !url.is_empty()),
            max_per_hour: self.profiles_per_hour,
        };
        tracing::info!("profiles are stored in {}", settings.location);
        Some(Arc::new(Profiles::new(settings).await))
    }
}

/// A URL of a server. An empty value counts as absent, as an empty variable does elsewhere.
fn url(text: &str) -> Result<String, String> {
    if text.is_empty() || text.starts_with("http://") || text.starts_with("https://") {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err(format!("the address must begin with its scheme: http://{text} or https://{text}"))
    }
}
