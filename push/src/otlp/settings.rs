//! Where metrics are sent, from options and from the standard variables of OpenTelemetry.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::Temporality;

/// The path of metrics below a base address.
const PATH: &str = "/v1/metrics";

/// Time between two exports, unless it is set.
const INTERVAL: Duration = Duration::from_secs(60);

/// The longest time of one request, unless it is set.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What the options of the command give. Each replaces the standard variable.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// The base address, to which `/v1/metrics` is appended.
    pub endpoint: Option<String>,
    /// Headers, as in `OTEL_EXPORTER_OTLP_HEADERS`.
    pub headers: Option<String>,
    /// Time between two exports, seconds.
    pub interval_s: Option<u64>,
}

/// Where and how metrics are sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// The address of metrics.
    pub url: String,
    /// Headers of each request.
    pub headers: Vec<(String, String)>,
    /// Time between two exports.
    pub interval: Duration,
    /// The longest time of one request.
    pub timeout: Duration,
    /// Whether requests are compressed with gzip.
    pub is_compressed: bool,
    /// PEM file with the authorities that are trusted in place of the system's.
    pub certificate: Option<PathBuf>,
    /// PEM files with the certificate of this client and its key.
    pub client: Option<(PathBuf, PathBuf)>,
    /// How sums relate to the exports before.
    pub temporality: Temporality,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers and addresses may contain keys.
        f.debug_struct("Settings")
            .field("interval", &self.interval)
            .field("temporality", &self.temporality)
            .finish_non_exhaustive()
    }
}

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot use {name}: {problem}")]
pub struct SettingsError {
    name: String,
    problem: String,
}

impl SettingsError {
    fn new(name: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { name: name.into(), problem: problem.into() }
    }
}

impl Settings {
    /// Reads the options and the variables; `None` when no address is set. `variable` gives the value of an environment
    /// variable.
    ///
    /// # Errors
    /// A value cannot be used, or the protocol is not `http/protobuf`.
    pub fn of(
        given: &Given,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, SettingsError> {
        let variables = Variables(&variable);
        let Some((url, name)) = url(given, &variables) else { return Ok(None) };
        check_url(&url, name)?;
        if let Some((name, protocol)) = variables.of("PROTOCOL")
            && protocol != "http/protobuf"
        {
            let problem = format!(
                "`{protocol}` is not supported; set OTEL_EXPORTER_OTLP_METRICS_PROTOCOL=http/protobuf, and the address of \
                 the receiver for HTTP, which often has the port 4318"
            );
            return Err(SettingsError::new(name, problem));
        }
        let headers = match &given.headers {
            Some(headers) => Some(("--otlp-headers".to_owned(), headers.clone())),
            None => variables.of("HEADERS"),
        };
        let headers = headers.map_or(Ok(vec![]), |(name, text)| parse_headers(&text, &name))?;
        let interval = match given.interval_s {
            Some(seconds) => Duration::from_secs(seconds),
            None => variables.milliseconds("OTEL_METRIC_EXPORT_INTERVAL")?.unwrap_or(INTERVAL),
        };
        let timeout = match variables.of("TIMEOUT") {
            Some((name, _)) => variables.milliseconds(&name)?.unwrap_or(TIMEOUT),
            None => TIMEOUT,
        };
        let file = |name: &str| variables.of(name).map(|(_, path)| PathBuf::from(path));
        let client = match (file("CLIENT_CERTIFICATE"), file("CLIENT_KEY")) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                let problem = "a certificate of the client needs both it and OTEL_EXPORTER_OTLP_CLIENT_KEY";
                return Err(SettingsError::new("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", problem));
            }
        };
        Ok(Some(Self {
            url,
            headers,
            interval: interval.max(Duration::from_millis(100)),
            timeout: timeout.max(Duration::from_millis(100)),
            is_compressed: is_compressed(&variables)?,
            certificate: file("CERTIFICATE"),
            client,
            temporality: temporality(&variables)?,
        }))
    }

    /// Scheme, host and port of the address, for logs: the path and the user part may contain keys.
    #[must_use]
    pub fn origin(&self) -> &str {
        crate::webhook::origin(&self.url)
    }
}

struct Variables<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Variables<'_> {
    /// A variable with a value. An empty one is as if it were not set, as the specification requires.
    fn get(&self, name: &str) -> Option<String> {
        (self.0)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// The variable for metrics, or the one for all signals, with its name.
    fn of(&self, name: &str) -> Option<(String, String)> {
        [format!("OTEL_EXPORTER_OTLP_METRICS_{name}"), format!("OTEL_EXPORTER_OTLP_{name}")]
            .into_iter()
            .find_map(|name| Some((name.clone(), self.get(&name)?)))
    }

    fn milliseconds(&self, name: &str) -> Result<Option<Duration>, SettingsError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let number = text.parse().map(Duration::from_millis);
        number
            .map(Some)
            .map_err(|_| SettingsError::new(name, format!("`{text}` is not a number of milliseconds")))
    }
}

/// The address, and the name of the setting that it comes from.
fn url(given: &Given, variables: &Variables<'_>) -> Option<(String, &'static str)> {
    let below = |base: &str| match base.trim_end_matches('/') {
        base if base.ends_with(PATH) => base.to_owned(),
        base => format!("{base}{PATH}"),
    };
    if let Some(base) = given.endpoint.as_deref().map(str::trim).filter(|base| !base.is_empty()) {
        return Some((below(base), "--otlp-endpoint"));
    }
    let is_off = variables.get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || variables.get("OTEL_METRICS_EXPORTER").is_some_and(|value| value == "none");
    if is_off {
        return None;
    }
    let name = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT";
    if let Some(url) = variables.get(name) {
        return Some((url, name));
    }
    let name = "OTEL_EXPORTER_OTLP_ENDPOINT";
    Some((below(&variables.get(name)?), name))
}

fn check_url(url: &str, name: &str) -> Result<(), SettingsError> {
    let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    match host {
        Some(host) if !host.is_empty() && !host.starts_with('/') && !url.contains(char::is_whitespace) => {
            Ok(())
        }
        _ => Err(SettingsError::new(name, "it is not an address such as https://otel.example.com:4318")),
    }
}

/// Reads `name=value,name=value`; values are percent-encoded. No message contains a value, which may be a key.
fn parse_headers(text: &str, setting: &str) -> Result<Vec<(String, String)>, SettingsError> {
    let mut headers = vec![];
    for (index, pair) in text.split(',').filter(|pair| !pair.trim().is_empty()).enumerate() {
        let failed = |problem: &str| SettingsError::new(setting, format!("header {} {problem}", index + 1));
        let (name, value) = pair.split_once('=').ok_or_else(|| failed("has no `=`"))?;
        let name = name.trim().to_ascii_lowercase();
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.is_empty() || !name.chars().all(is_token) {
            return Err(failed("has a name that is not allowed in HTTP"));
        }
        let value = percent_decode_str(value.trim()).decode_utf8().map_err(|_| failed("is not UTF-8"))?;
        if value.chars().any(|c| !(' '..='~').contains(&c)) {
            return Err(failed("has a value with characters that are not allowed in HTTP"));
        }
        headers.push((name, value.into_owned()));
    }
    Ok(headers)
}

fn is_compressed(variables: &Variables<'_>) -> Result<bool, SettingsError> {
    match variables.of("COMPRESSION") {
        None => Ok(true),
        Some((_, value)) if value == "gzip" => Ok(true),
        Some((_, value)) if value == "none" => Ok(false),
        Some((name, value)) => {
            Err(SettingsError::new(name, format!("`{value}` is neither `gzip` nor `none`")))
        }
    }
}

fn temporality(variables: &Variables<'_>) -> Result<Temporality, SettingsError> {
    let name = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
    let Some(value) = variables.get(name) else { return Ok(Temporality::Cumulative) };
    match value.to_ascii_lowercase().as_str() {
        "cumulative" => Ok(Temporality::Cumulative),
        // What is sent are counters and histograms, which are deltas with both values.
        "delta" | "lowmemory" => Ok(Temporality::Delta),
        _ => Err(SettingsError::new(name, format!("`{value}` is not `cumulative`, `delta` or `lowmemory`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(given: &Given, variables: &[(&str, &str)]) -> Result<Option<Settings>, SettingsError> {
        Settings::of(given, |name| {
            let found = variables.iter().find(|(of, _)| *of == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn endpoint(url: &str) -> Given {
        Given { endpoint: Some(url.to_owned()), ..Given::default() }
    }

    #[test]
    fn the_address_follows_the_specification() {
        let general = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318/base/");
        let metrics = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "https://b/own");
        let url = |given: &Given, variables: &[(&str, &str)]| {
            settings(given, variables).unwrap().map(|settings| settings.url)
        };
        let none = Given::default();
        assert_eq!(url(&none, &[general]).as_deref(), Some("http://a:4318/base/v1/metrics"));
        assert_eq!(url(&none, &[general, metrics]).as_deref(), Some("https://b/own"));
        assert_eq!(url(&endpoint("http://c"), &[general]).as_deref(), Some("http://c/v1/metrics"));
        assert_eq!(url(&endpoint("http://c/v1/metrics"), &[]).as_deref(), Some("http://c/v1/metrics"));
        assert_eq!(url(&none, &[]), None);
        assert_eq!(url(&none, &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]), None);
        assert_eq!(url(&none, &[general, ("OTEL_SDK_DISABLED", "True")]), None);
        assert_eq!(url(&none, &[general, ("OTEL_METRICS_EXPORTER", "none")]), None);
        for wrong in ["otel:4318", "http://", "http:///v1", "ftp://a", "http://a b"] {
            assert!(settings(&endpoint(wrong), &[]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_standard_variables_are_used() {
        let read = settings(
            &endpoint("http://c"),
            &[
                ("OTEL_EXPORTER_OTLP_HEADERS", "ignored=1"),
                ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "Authorization=Basic%20YTpi, x-team = a=b "),
                ("OTEL_METRIC_EXPORT_INTERVAL", "2500"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "700"),
                ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
                ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
                ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "DELTA"),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
                ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/protobuf"),
            ],
        );
        let read = read.unwrap().unwrap();
        let headers = [("authorization", "Basic YTpi"), ("x-team", "a=b")];
        assert_eq!(read.headers, headers.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!((read.interval.as_millis(), read.timeout.as_millis()), (2_500, 700));
        assert_eq!((read.is_compressed, read.temporality), (false, Temporality::Delta));
        assert_eq!(read.certificate, Some(PathBuf::from("/ca.pem")));
        assert!(!format!("{read:?}").contains("YTpi"));
    }

    #[test]
    fn a_value_that_cannot_be_used_is_named_and_no_header_is_shown() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "secret"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=secret%0d%0ab"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a b=secret"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "-1"),
            ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "zip"),
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/client.pem"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "never"),
        ] {
            let error = settings(&endpoint("http://c"), &[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(name) && !error.contains("secret"), "{error}");
        }
    }
}
