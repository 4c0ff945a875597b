//! Settings from environment variables. For an invalid value a warning is logged once and the default is used: a wrong
//! setting must not fail the function.

use std::fmt::Debug;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

mod key_location;

pub use key_location::{KeyLocation, KeyStore};

/// The most invocations at which a batch is sent. Twice as many fit into the outbox.
pub const MAX_FLUSH_ITEMS: usize = 1_000;

/// A source of variables: the process in production, a map in tests.
pub trait Variables {
    /// The value of `name`; `None` when it is unset or not UTF-8.
    fn get(&self, name: &str) -> Option<String>;
}

/// The variables of this process.
#[derive(Debug)]
pub struct ProcessVariables;

impl Variables for ProcessVariables {
    fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

/// How the peak of each invocation is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peak {
    /// Reset the kernel's high-water mark before each invocation. This is exact, but it also lowers the maximum that the
    /// function reads with `getrusage`.
    Reset,
    /// Never write to the function's processes. The peak is that of their lifetime.
    Sampled,
}

impl FromStr for Peak {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "reset" => Ok(Self::Reset),
            "sampled" => Ok(Self::Sampled),
            _ => Err("`reset` or `sampled`"),
        }
    }
}

/// How the extension authenticates to the collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// With the collector's key.
    Key,
    /// With an AWS signature, for a Lambda function URL with `AWS_IAM`.
    Iam,
}

impl FromStr for Auth {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "key" => Ok(Self::Key),
            "iam" => Ok(Self::Iam),
            _ => Err("`key` or `iam`"),
        }
    }
}

/// All settings. Each field names its variable.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `TAILOR_ENDPOINT`: the collector's base URL. Without it, summaries go to the log.
    pub endpoint: Option<http::Uri>,
    /// `TAILOR_API_KEY`, or the content of the file `TAILOR_API_KEY_FILE`.
    pub api_key: Option<ApiKey>,
    /// `TAILOR_API_KEY_SECRET` or `TAILOR_API_KEY_PARAMETER`: the ARN or name of a secret or parameter with the
    /// collector's key, optionally with `#MEMBER`. Not used when `api_key` is set.
    pub key_location: Option<KeyLocation>,
    /// `TAILOR_CA_FILE`: a PEM file with certificate authorities to trust in addition to the public ones, for a
    /// collector with a private certificate.
    pub ca_file: Option<PathBuf>,
    /// `TAILOR_AUTH`: `key` or `iam`. Default: `iam` for a Lambda function URL when no key is set.
    pub auth: Auth,
    /// `TAILOR_ENABLED`: with `false` the extension registers and measures nothing. Default `true`.
    pub enabled: bool,
    /// `TAILOR_LOG_LEVEL`: `error`, `warn`, `info`, `debug`, `trace` or `off`. Default `warn`.
    pub log_level: tracing::level_filters::LevelFilter,
    /// `TAILOR_FLUSH_INTERVAL_MS`: the longest time before a measured invocation is sent, while the environment
    /// runs. Default 60,000.
    pub flush_interval: Duration,
    /// `TAILOR_FLUSH_ITEMS`: the number of invocations at which they are sent before the interval ends, 1 to 1,000.
    /// Default 500.
    pub flush_items: usize,
    /// `TAILOR_LOG_SUMMARY`: print a summary line every five minutes and at shutdown. Default: only without an
    /// endpoint.
    pub log_summary: bool,
    /// `TAILOR_LOG_INVOCATIONS`: the most invocations in a minute for which a line is printed. Default 0.
    pub log_invocations: u32,
    /// `TAILOR_EMF`: add the Embedded Metric Format to summary lines, for CloudWatch metrics. Default `false`.
    pub emf: bool,
    /// `TAILOR_PEAK`: `reset` or `sampled`. Default `reset`.
    pub peak: Peak,
    /// `TAILOR_CPU_BUDGET_PERCENT`: the CPU time for samples during an invocation, in percent of the function's
    /// CPU share. 0 disables samples. Default 1.
    pub cpu_budget_percent: f64,
    /// `TAILOR_EPHEMERAL_STORAGE_MB`: the function's ephemeral storage, 512 to 10,240. Lambda bills the part above
    /// 512 and does not inform extensions of it. Default: unknown, and not part of costs.
    pub ephemeral_storage_mb: Option<u32>,
    /// `TAILOR_PROFILES`: upload the profiles that the function leaves in `/tmp/tailor`. Default `false`.
    pub profiles: bool,
    /// `TAILOR_TELEMETRY_PORT`: a fixed port for telemetry. If it is in use, a free port is used. Default 0: the kernel
    /// selects a free port. Other extensions have fixed ports, and end when theirs is in use.
    pub telemetry_port: u16,
}

/// The collector's key. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// Reads a key, without the white space around it. `None` when it is empty or not allowed in a header.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let key = text.trim();
        let is_valid = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic());
        is_valid.then(|| Self(key.to_owned()))
    }

    /// The secret itself, for the `Authorization` header.
    #[must_use]
    pub fn secret_value(&self) -> &str {
        &self.0
    }
}

impl Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

impl Settings {
    /// Reads the settings. The second value has one warning for each invalid value.
    #[must_use]
    pub fn read(variables: &impl Variables) -> (Self, Vec<String>) {
        let mut reader = Reader { variables, warnings: vec![] };
        let endpoint = reader.read("TAILOR_ENDPOINT", "an http:// or https:// URL", parse_endpoint);
        let api_key = reader.api_key();
        let key_location = reader.key_location(api_key.is_some());
        let settings = Self {
            auth: reader.parse("TAILOR_AUTH", "`key` or `iam`").unwrap_or_else(|| {
                let is_function_url = endpoint.as_ref().is_some_and(|uri| function_url_region(uri).is_some());
                let has_key = api_key.is_some() || key_location.is_some();
                if is_function_url && !has_key { Auth::Iam } else { Auth::Key }
            }),
            api_key,
            key_location,
            ca_file: reader.parse("TAILOR_CA_FILE", "a path"),
            enabled: reader.boolean("TAILOR_ENABLED").unwrap_or(true),
            log_level: reader
                .parse("TAILOR_LOG_LEVEL", "error, warn, info, debug, trace or off")
                .unwrap_or(tracing::level_filters::LevelFilter::WARN),
            flush_interval: reader
                .parse("TAILOR_FLUSH_INTERVAL_MS", "a number of milliseconds")
                .map_or(Duration::from_secs(60), Duration::from_millis),
            flush_items: reader
                .read("TAILOR_FLUSH_ITEMS", "a number from 1 to 1000", |text| {
                    text.parse().ok().filter(|items| (1..=MAX_FLUSH_ITEMS).contains(items))
                })
                .unwrap_or(500),
            log_summary: reader.boolean("TAILOR_LOG_SUMMARY").unwrap_or_else(|| endpoint.is_none()),
            log_invocations: reader
                .read("TAILOR_LOG_INVOCATIONS", "a number from 0 to 600", |text| {
                    text.parse().ok().filter(|lines| (0..=600).contains(lines))
                })
                .unwrap_or(0),
            emf: reader.boolean("TAILOR_EMF").unwrap_or(false),
            peak: reader.parse("TAILOR_PEAK", "`reset` or `sampled`").unwrap_or(Peak::Reset),
            cpu_budget_percent: reader
                .read("TAILOR_CPU_BUDGET_PERCENT", "a number from 0 to 10", |text| {
                    text.parse().ok().filter(|percent| (0.0..=10.0).contains(percent))
                })
                .unwrap_or(1.0),
            ephemeral_storage_mb: reader.read(
                "TAILOR_EPHEMERAL_STORAGE_MB",
                "a number from 512 to 10240",
                |text| text.parse().ok().filter(|mb| (512..=10_240).contains(mb)),
            ),
            profiles: reader.boolean("TAILOR_PROFILES").unwrap_or(false),
            telemetry_port: reader
                .read("TAILOR_TELEMETRY_PORT", "a port other than 9001, which is Lambda's", |text| {
                    text.parse().ok().filter(|&port| port != 9_001)
                })
                .unwrap_or(0),
            endpoint,
        };
        (settings, reader.warnings)
    }
}

struct Reader<'a, V> {
    variables: &'a V,
    warnings: Vec<String>,
}

impl<V: Variables> Reader<'_, V> {
    /// The parsed value; `None` when it is unset, empty or, with a warning, invalid.
    fn read<T>(&mut self, name: &str, expected: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let text = self.variables.get(name).filter(|text| !text.is_empty())?;
        let value = parse(text.trim());
        if value.is_none() {
            // The value itself is not logged: it may have a password, or a key in the wrong variable.
            self.warnings.push(format!("{name} is not {expected}: using the default"));
        }
        value
    }

    /// A boolean in the usual spellings.
    fn boolean(&mut self, name: &str) -> Option<bool> {
        self.read(name, "`true` or `false`", |text| match text.to_ascii_lowercase().as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        })
    }

    fn parse<T: FromStr>(&mut self, name: &str, expected: &str) -> Option<T> {
        self.read(name, expected, |text| text.parse().ok())
    }

    fn api_key(&mut self) -> Option<ApiKey> {
        let get = |name| self.variables.get(name).filter(|text| !text.is_empty());
        let key = get("TAILOR_API_KEY").or_else(|| {
            let path = PathBuf::from(get("TAILOR_API_KEY_FILE")?);
            std::fs::read_to_string(&path)
                .map_err(|error| {
                    self.warnings
                        .push(format!("cannot read TAILOR_API_KEY_FILE {}: {error}", path.display()));
                })
                .ok()
        })?;
        let key = ApiKey::parse(&key);
        if key.is_none() {
            // The invalid key is not logged.
            self.warnings.push(
                "TAILOR_API_KEY is empty or has characters that are not allowed in a header: no key is sent"
                    .to_owned(),
            );
        }
        key
    }

    /// The location of the key. `has_key` is whether there is a key already.
    fn key_location(&mut self, has_key: bool) -> Option<KeyLocation> {
        let mut used = None;
        for (store, expected) in [
            (KeyStore::SecretsManager, "the ARN or name of a secret"),
            (KeyStore::ParameterStore, "the ARN or name of a parameter"),
        ] {
            let name = store.variable();
            let location = self.read(name, expected, |text| KeyLocation::parse(store, text));
            if location.is_some() && (has_key || used.is_some()) {
                self.warnings.push(format!("{name} is not used: another variable sets the API key"));
            } else {
                used = used.or(location);
            }
        }
        used
    }
}

/// The region of a Lambda function URL (`ID.lambda-url.REGION.on.aws`); `None` for any other.
#[must_use]
pub fn function_url_region(endpoint: &http::Uri) -> Option<&str> {
    let (_, rest) = endpoint.host()?.split_once(".lambda-url.")?;
    rest.strip_suffix(".on.aws").or_else(|| rest.strip_suffix(".on.amazonwebservices.com.cn"))
}

fn parse_endpoint(text: &str) -> Option<http::Uri> {
    let uri: http::Uri = text.parse().ok()?;
    let authority = uri.authority()?;
    let server = authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, server)| server);
    let has_odd_port = server != authority.host() && authority.port_u16().is_none();
    let usable = matches!(uri.scheme_str(), Some("http" | "https")) && !authority.host().is_empty();
    (usable && !has_odd_port).then_some(uri)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    impl Variables for HashMap<&str, &str> {
        fn get(&self, name: &str) -> Option<String> {
            HashMap::get(self, name).map(ToString::to_string)
        }
    }

    #[test]
    fn without_variables_the_defaults_are_the_documented_ones() {
        let (settings, warnings) = Settings::read(&HashMap::new());
        assert!(warnings.is_empty());
        assert_eq!(settings.flush_interval, Duration::from_secs(60));
        assert!(settings.enabled && settings.log_summary && settings.endpoint.is_none());
        assert_eq!(settings.peak, Peak::Reset);
    }

    #[test]
    fn requests_to_function_urls_are_signed_unless_a_key_is_set() {
        let auth = |variables: &[(&'static str, &'static str)]| {
            Settings::read(&variables.iter().copied().collect::<HashMap<_, _>>()).0.auth
        };
        let url = ("TAILOR_ENDPOINT", "https://abc.lambda-url.eu-west-1.on.aws/");
        let own = ("TAILOR_ENDPOINT", "https://tailor.example.com");
        assert_eq!(auth(&[url]), Auth::Iam);
        assert_eq!(auth(&[url, ("TAILOR_API_KEY", "k")]), Auth::Key);
        assert_eq!(auth(&[url, ("TAILOR_API_KEY", "k"), ("TAILOR_AUTH", "iam")]), Auth::Iam);
        assert_eq!(auth(&[url, ("TAILOR_AUTH", "key")]), Auth::Key);
        assert_eq!((auth(&[own]), auth(&[own, ("TAILOR_AUTH", "iam")])), (Auth::Key, Auth::Iam));
        assert_eq!(function_url_region(&url.1.parse().unwrap()), Some("eu-west-1"));
    }

    #[test]
    fn an_invalid_value_is_named_and_the_default_used() {
        let variables = HashMap::from([
            ("TAILOR_ENDPOINT", "ftp://collector"),
            ("TAILOR_FLUSH_ITEMS", "many"),
            ("TAILOR_FLUSH_INTERVAL_MS", "1000"),
            ("TAILOR_PEAK", "sampled"),
            ("TAILOR_TELEMETRY_PORT", "9001"),
            ("TAILOR_EPHEMERAL_STORAGE_MB", "100"),
        ]);
        let (settings, warnings) = Settings::read(&variables);
        assert_eq!((warnings.len(), settings.ephemeral_storage_mb), (4, None), "{warnings:?}");
        assert!(
            warnings
                .contains(&"TAILOR_FLUSH_ITEMS is not a number from 1 to 1000: using the default".to_owned())
        );
        assert_eq!(settings.flush_items, 500);
        assert_eq!(settings.flush_interval, Duration::from_secs(1));
        assert_eq!(settings.peak, Peak::Sampled);
        assert_eq!(settings.telemetry_port, 0);
    }

    #[test]
    fn the_key_is_never_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "s3cret\n").unwrap();
        let path = file.path().to_str().unwrap();
        let (settings, _) = Settings::read(&HashMap::from([("TAILOR_API_KEY_FILE", path)]));
        assert_eq!(settings.api_key.as_ref().unwrap().secret_value(), "s3cret");
        assert!(!format!("{settings:?}").contains("s3cret"));
        // An empty variable counts as unset.
        let (settings, _) =
            Settings::read(&HashMap::from([("TAILOR_API_KEY", ""), ("TAILOR_API_KEY_FILE", path)]));
        assert_eq!(settings.api_key.as_ref().unwrap().secret_value(), "s3cret");
        // Also when it is in the wrong variable.
        for variable in
            ["TAILOR_API_KEY", "TAILOR_API_KEY_SECRET", "TAILOR_ENDPOINT", "TAILOR_FLUSH_ITEMS", "TAILOR_EMF"]
        {
            for value in ["s3 cret\u{e9}", "tailor:s3cret@collector.example.com"] {
                let (_, warnings) = Settings::read(&HashMap::from([(variable, value)]));
                assert!(!warnings.join(" ").contains("s3"), "{warnings:?}");
            }
        }
    }

    #[test]
    fn the_first_variable_with_a_key_is_used() {
        let read = |variables: &[(&'static str, &'static str)]| {
            let (settings, warnings) = Settings::read(&variables.iter().copied().collect::<HashMap<_, _>>());
            (settings.key_location.map(|location| location.store), warnings.len(), settings.auth)
        };
        let url = ("TAILOR_ENDPOINT", "https://abc.lambda-url.eu-west-1.on.aws/");
        let secret = ("TAILOR_API_KEY_SECRET", "tailor");
        let parameter = ("TAILOR_API_KEY_PARAMETER", "/tailor");
        assert_eq!(read(&[url, secret]), (Some(KeyStore::SecretsManager), 0, Auth::Key));
        assert_eq!(
            read(&[parameter, ("TAILOR_API_KEY_SECRET", "")]),
            (Some(KeyStore::ParameterStore), 0, Auth::Key)
        );
        assert_eq!(read(&[secret, parameter]), (Some(KeyStore::SecretsManager), 1, Auth::Key));
        assert_eq!(read(&[secret, ("TAILOR_API_KEY", "k")]), (None, 1, Auth::Key));
        assert_eq!(read(&[url, ("TAILOR_API_KEY_SECRET", "two words")]), (None, 1, Auth::Iam));
    }

    #[test]
    fn endpoints_and_booleans_are_read_in_all_usual_spellings() {
        let read = |name, value| Settings::read(&HashMap::from([(name, value)]));
        for url in
            ["https://a", "http://u:p@a.example:8080/x", "http://[::1]:80", "http://[::1]", "http://a:/"]
        {
            assert_eq!(read("TAILOR_ENDPOINT", url).0.endpoint.is_some(), !url.ends_with(":/"), "{url}");
        }
        for url in ["https://a:x/", "http://a:70000", "a.example", "ftp://a", "http://"] {
            assert_eq!(read("TAILOR_ENDPOINT", url).0.endpoint, None, "{url}");
        }
        let enabled = |value| read("TAILOR_ENABLED", value).0.enabled;
        assert_eq!(["False", "0", "FALSE", "true", "no"].map(enabled), [false, false, false, true, true]);
        let items = |value| read("TAILOR_FLUSH_ITEMS", value).0.flush_items;
        assert_eq!(["1", "1000", "0", "1001"].map(items), [1, MAX_FLUSH_ITEMS, 500, 500]);
    }
}
