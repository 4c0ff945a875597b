//! The names of the objects.
//!
//! `TENANT/ACCOUNT/REGION/FUNCTION/TIME_REQUEST_MEMORY_DIGEST_NAME`. Names sort by time.

use tailor_sizing::units::Megabytes;
use time::format_description::FormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

use super::Profile;
use crate::query::path_segment;
use crate::store::{FunctionKey, Tenant};

/// What stands for the request of a profile that was written in Init.
const INIT: &str = "init";

/// Digits of the SHA-256 in a name: enough to distinguish the profiles of one invocation.
const DIGEST_DIGITS: usize = 16;

/// Milliseconds, because two files of one invocation may be complete in the same second.
const TIME: &[FormatItem<'static>] =
    format_description!("[year][month][day]T[hour][minute][second].[subsecond digits:3]Z");

/// The ends of file names, by format. The extension has the same list.
const FORMATS: [(&str, &str); 7] = [
    (".pprof", "pprof"),
    (".pb.gz", "pprof"),
    (".cprofile", "cprofile"),
    (".prof", "cprofile"),
    (".pstats", "cprofile"),
    (".jfr", "jfr"),
    (".cpuprofile", "cpuprofile"),
];

/// The format of a file name that the extension uploads.
#[must_use]
pub fn format_of(file_name: &str) -> Option<&'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_name = file_name.len() <= 100 && !file_name.starts_with('.') && file_name.bytes().all(allowed);
    FORMATS.iter().find(|(end, _)| is_name && file_name.ends_with(end)).map(|(_, format)| *format)
}

/// The folder of a function, with a slash at its end.
#[must_use]
pub fn folder(Tenant(tenant): &Tenant, function: &FunctionKey) -> String {
    let account = if function.account.is_empty() { "-" } else { &function.account };
    let parts = [tenant, account, &function.region, &function.name].map(path_segment);
    format!("{}/", parts.join("/"))
}

/// A time as names have it; the end of time when it is after the year 9999.
#[must_use]
pub fn time_text(at_us: u64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at_us) * 1_000);
    at.ok().and_then(|at| at.format(TIME).ok()).unwrap_or_else(|| "99991231T235959.999Z".to_owned())
}

fn time_of(text: &str) -> Option<u64> {
    let at = PrimitiveDateTime::parse(text, TIME).ok()?.assume_utc();
    u64::try_from(at.unix_timestamp_nanos() / 1_000).ok()
}

/// The last part of an object's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectName {
    /// When the profile was complete, microseconds since the Unix epoch, in whole milliseconds.
    at_us: u64,
    request_id: Option<String>,
    memory_mb: u32,
    digest: String,
    file_name: String,
}

impl ObjectName {
    /// The name of a profile whose values are valid.
    pub(super) fn new(
        at_us: u64,
        request_id: Option<&str>,
        memory_mb: u32,
        sha256: &str,
        file_name: &str,
    ) -> Self {
        Self {
            at_us: at_us / 1_000 * 1_000,
            request_id: request_id.map(str::to_owned),
            memory_mb,
            digest: sha256.chars().take(DIGEST_DIGITS).collect(),
            file_name: file_name.to_owned(),
        }
    }

    /// Reads a name; `None` when no profile can have it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(5, '_');
        let (at, request, memory) = (parts.next()?, parts.next()?, parts.next()?);
        let (digest, file_name) = (parts.next()?, parts.next()?);
        let is_digest = digest.len() == DIGEST_DIGITS && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_valid =
            is_digest && (request == INIT || is_request_id(request)) && format_of(file_name).is_some();
        let name = Self {
            at_us: time_of(at)?,
            request_id: (request != INIT).then(|| request.to_owned()),
            memory_mb: memory.parse().ok()?,
            digest: digest.to_owned(),
            file_name: file_name.to_owned(),
        };
        (is_valid && name.text() == text).then_some(name)
    }

    /// It as text.
    #[must_use]
    pub fn text(&self) -> String {
        let request = self.request_id.as_deref().unwrap_or(INIT);
        let (time, memory, digest, name) =
            (time_text(self.at_us), self.memory_mb, &self.digest, &self.file_name);
        format!("{time}_{request}_{memory}_{digest}_{name}")
    }

    /// The name that the function gave its file.
    #[must_use]
    pub fn file_name(&self) -> &str {
        &self.file_name
    }

    /// The profile of a function that this object is.
    pub(super) fn profile(&self, function: &FunctionKey, bytes: u64) -> Profile {
        let query = [("account", &function.account), ("region", &function.region)]
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| format!("{name}={}", path_segment(value)))
            .collect::<Vec<_>>()
            .join("&");
        let (name, object) = (path_segment(&function.name), path_segment(&self.text()));
        Profile {
            name: self.file_name.clone(),
            format: format_of(&self.file_name).unwrap_or_default().to_owned(),
            bytes,
            request_id: self.request_id.clone(),
            completed_at_us: self.at_us,
            memory: Megabytes(self.memory_mb),
            download: format!("/v1/functions/{name}/profiles/{object}?{query}"),
        }
    }
}

/// Whether a text can be the id of a request.
#[must_use]
pub fn is_request_id(text: &str) -> bool {
    (8..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_all_that_is_known_of_a_profile() {
        let request = "3f2504e0-4f89-41d3-9a0c-0305e82c3301";
        let name =
            ObjectName::new(1_795_966_691_123_456, Some(request), 512, &"ab".repeat(32), "cpu_1.pprof");
        let text = format!("20261129T153811.123Z_{request}_512_abababababababab_cpu_1.pprof");
        assert_eq!(name.text(), text);
        assert_eq!(ObjectName::parse(&text), Some(name.clone()));
        let function =
            FunctionKey { account: "1".to_owned(), region: "eu-west-1".to_owned(), name: "a$b".to_owned() };
        let profile = name.profile(&function, 7);
        assert_eq!((profile.format.as_str(), profile.bytes), ("pprof", 7));
        assert_eq!(profile.completed_at_us, 1_795_966_691_123_000);
        assert_eq!(profile.download, format!("/v1/functions/a$b/profiles/{text}?account=1&region=eu-west-1"));
        let init = ObjectName::new(0, None, 128, &"0".repeat(64), "a.jfr");
        assert_eq!(ObjectName::parse(&init.text()), Some(init));
        for text in [
            "",
            "20261129T153811.123Z_init_512_abababababababab_.pprof",
            "20261129T153811.123Z_init_512_abababababababab_a/../b.pprof",
            "20261129T153811.123Z_init_512_abababababababab_a.exe",
            "20261129T153811.123Z_../x_512_abababababababab_a.pprof",
            "20261129T153811.123Z_init_+512_abababababababab_a.pprof",
            "20261329T153811.123Z_init_512_abababababababab_a.pprof",
        ] {
            assert_eq!(ObjectName::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_folder_has_no_parts_of_others() {
        let function =
            FunctionKey { account: String::new(), region: "../x".to_owned(), name: "a/b".to_owned() };
        assert_eq!(folder(&Tenant("t/u".to_owned()), &function), "t%2Fu/-/..%2Fx/a%2Fb/");
    }
}
