//! The HTTP proxy for requests that leave the environment: `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, also in lower case,
//! with the meaning that curl and AWS's SDKs give them.

use std::net::IpAddr;

use http::Uri;
use http::uri::Authority;

use crate::settings::Variables;

/// A proxy, with its credentials. The credentials are never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// The variable that names it, for messages.
    pub variable: &'static str,
    /// Its host, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether the connection to the proxy itself uses TLS.
    pub is_https: bool,
    /// The value of `Proxy-Authorization`.
    pub authorization: Option<String>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proxy({self})")
    }
}

impl std::fmt::Display for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{open}{}{close}:{} ({})", self.host, self.port, self.variable)
    }
}

/// The proxy for requests to `server`, an `http` or `https` URL. `None` without a proxy, when `NO_PROXY` names the server,
/// and, with a warning, when the variable is invalid.
#[must_use]
pub fn proxy_for(server: &Uri, variables: &impl Variables) -> Option<Proxy> {
    let is_https = server.scheme_str() == Some("https");
    let names = if is_https { ["HTTPS_PROXY", "https_proxy"] } else { ["HTTP_PROXY", "http_proxy"] };
    let (variable, value) = first_set(names, variables)?;
    let host = server.host()?;
    let port = server.port_u16().unwrap_or(if is_https { 443 } else { 80 });
    if let Some((_, excluded)) = first_set(["NO_PROXY", "no_proxy"], variables)
        && excluded.split([',', ' ']).any(|entry| is_excluded(entry, without_brackets(host), port))
    {
        return None;
    }
    let proxy = parse(variable, &value);
    if proxy.is_none() {
        // The value is not logged: it may have a password.
        tracing::warn!("{variable} is not an http:// or https:// URL: no proxy is used");
    }
    proxy
}

fn first_set(names: [&'static str; 2], variables: &impl Variables) -> Option<(&'static str, String)> {
    names.into_iter().find_map(|name| {
        let value = variables.get(name)?.trim().to_owned();
        (!value.is_empty()).then_some((name, value))
    })
}

/// Reads `[http[s]://][user[:password]@]host[:port][/]`. The default port is the scheme's.
fn parse(variable: &'static str, value: &str) -> Option<Proxy> {
    let (scheme, rest) = value.split_once("://").unwrap_or(("http", value));
    let is_https = scheme.eq_ignore_ascii_case("https");
    if !is_https && !scheme.eq_ignore_ascii_case("http") {
        return None;
    }
    let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // A password may contain the character.
    let (credentials, server) = match rest.rsplit_once('@') {
        Some((credentials, server)) => (Some(credentials), server),
        None => (None, rest),
    };
    let authority: Authority = server.parse().ok()?;
    let host = without_brackets(authority.host());
    let has_invalid_port = server.len() > authority.host().len() && authority.port_u16().is_none();
    if host.is_empty() || has_invalid_port {
        return None;
    }
    Some(Proxy {
        variable,
        host: host.to_owned(),
        port: authority.port_u16().unwrap_or(if is_https { 443 } else { 80 }),
        is_https,
        authorization: credentials.map(basic_authorization),
    })
}

/// Only URLs have brackets around an IPv6 address.
pub(super) fn without_brackets(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// `Basic` authorization from the percent-encoded `user:password` of a URL.
fn basic_authorization(credentials: &str) -> String {
    let mut text = percent_decoded(credentials);
    if !credentials.contains(':') {
        text.push(b':');
    }
    format!("Basic {}", base64(&text))
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = (byte == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        let value = hex.filter(|hex| !hex.starts_with('+')).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        decoded.push(value.unwrap_or(byte));
        at += if value.is_some() { 3 } else { 1 };
    }
    decoded
}

/// Base64 of RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |index| u32::from(group.get(index).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for position in 0..4 {
            let index = (bits >> (18 - 6 * position) & 63) as usize;
            let digit = ALPHABET.get(index).filter(|_| position <= group.len());
            text.push(digit.map_or('=', |&digit| char::from(digit)));
        }
    }
    text
}

/// Whether an entry of `NO_PROXY` names the server: `*`, a host, a domain with all its hosts, an address, or a range of
/// addresses (`10.0.0.0/8`). An entry with a port names only this port.
fn is_excluded(entry: &str, host: &str, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    let (entry, only_port) = split_port(entry);
    if only_port.is_some_and(|only| only != port) {
        return false;
    }
    let entry = without_brackets(entry);
    if let Ok(address) = host.parse::<IpAddr>() {
        return match entry.split_once('/') {
            Some((network, length)) => is_in_network(address, network, length),
            None => entry.parse() == Ok(address),
        };
    }
    let domain = entry.trim_start_matches('*').trim_matches('.');
    let host = host.trim_end_matches('.');
    let start = host.len().checked_sub(domain.len());
    let Some((before, end)) = start.and_then(|start| host.split_at_checked(start)) else { return false };
    !domain.is_empty() && end.eq_ignore_ascii_case(domain) && (before.is_empty() || before.ends_with('.'))
}

/// An entry without its port. Of an IPv6 address, only one in brackets has a port.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    match entry.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (entry, None),
        },
        _ => (entry, None),
    }
}

/// Whether the first `length` bits of the addresses are equal.
fn is_in_network(address: IpAddr, network: &str, length: &str) -> bool {
    let (Ok(network), Ok(length)) = (network.parse::<IpAddr>(), length.parse::<u32>()) else { return false };
    let different = match (address, network) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            (one.to_bits() ^ other.to_bits()).checked_shr(32_u32.saturating_sub(length)).map(u128::from)
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => {
            (one.to_bits() ^ other.to_bits()).checked_shr(128_u32.saturating_sub(length))
        }
        _ => return false,
    };
    // A shift by all bits: a length of zero names every address.
    different.is_none_or(|bits| bits == 0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn proxy(server: &str, variables: &[(&'static str, &'static str)]) -> Option<Proxy> {
        proxy_for(&server.parse().unwrap(), &variables.iter().copied().collect::<HashMap<_, _>>())
    }

    #[test]
    fn the_scheme_of_the_server_selects_the_variable() {
        let both = [
            ("HTTPS_PROXY", "http://secure:1"),
            ("http_proxy", "plain:2"),
            ("https_proxy", "http://lower:3"),
        ];
        assert_eq!(proxy("https://a.example", &both).unwrap().to_string(), "secure:1 (HTTPS_PROXY)");
        assert_eq!(proxy("http://a.example", &both).unwrap().to_string(), "plain:2 (http_proxy)");
        assert_eq!(proxy("https://a.example", &both[1..]).unwrap().to_string(), "lower:3 (https_proxy)");
        assert_eq!(proxy("https://a.example", &both[1..2]), None);
        assert_eq!(proxy("https://a.example", &[("HTTPS_PROXY", " "), ("https_proxy", "")]), None);
    }

    #[test]
    fn usual_proxy_urls_are_read_and_others_are_not_used() {
        for (url, host, port, authorization) in [
            ("http://proxy:3128", "proxy", 3_128, None),
            ("proxy:3128/", "proxy", 3_128, None),
            ("HTTP://proxy", "proxy", 80, None),
            ("https://proxy", "proxy", 443, None),
            ("http://[::1]:3128", "::1", 3_128, None),
            ("http://user:pass@proxy:1", "proxy", 1, Some("Basic dXNlcjpwYXNz")),
            // `us@er`, `p:a%s/s`
            ("http://us%40er:p%3Aa%25s%2fs@proxy:1", "proxy", 1, Some("Basic dXNAZXI6cDphJXMvcw==")),
            ("http://user:p@ss@[fd00::1]:1", "fd00::1", 1, Some("Basic dXNlcjpwQHNz")),
            ("http://user@proxy:1", "proxy", 1, Some("Basic dXNlcjo=")),
        ] {
            let proxy = proxy("http://a.example", &[("HTTP_PROXY", url)]).unwrap();
            assert_eq!((proxy.host.as_str(), proxy.port), (host, port), "{url}");
            assert_eq!(proxy.authorization.as_deref(), authorization, "{url}");
            assert_eq!(proxy.is_https, url.starts_with("https"), "{url}");
            assert!(!format!("{proxy:?}").contains("Basic"), "the password is not printed");
        }
        for url in ["socks5://proxy:1080", "http://", "http://proxy:x", "http://proxy:99999", "http://a b"] {
            assert_eq!(proxy("http://a.example", &[("HTTP_PROXY", url)]), None, "{url}");
        }
    }

    #[test]
    fn no_proxy_names_hosts_domains_ports_and_networks() {
        let used = |server, no_proxy| {
            let variables = [("HTTP_PROXY", "p:1"), ("HTTPS_PROXY", "p:1"), ("no_proxy", no_proxy)];
            proxy(server, &variables).is_some()
        };
        for (server, no_proxy) in [
            ("https://a.example.com", "*"),
            ("https://a.example.com", "other, example.com"),
            ("https://a.example.com", ".example.com"),
            ("https://a.example.com", "*.example.com"),
            ("https://A.Example.com", "a.EXAMPLE.com."),
            ("https://example.com", ".example.com"),
            ("https://a.example.com", "example.com:443"),
            ("http://a.example.com:8080", "x,a.example.com:8080"),
            ("http://10.1.2.3", "10.0.0.0/8"),
            ("http://10.1.2.3", "0.0.0.0/0"),
            ("http://10.1.2.3", "10.1.2.3"),
            ("http://10.1.2.3:8080", "10.1.2.3:8080"),
            ("http://[fd00::1]", "fd00::/8"),
            ("http://[fd00::1]:81", "fd00:0::1"),
            ("http://[fd00::1]:81", "[fd00::1]:81"),
        ] {
            assert!(!used(server, no_proxy), "{server} {no_proxy}");
        }
        for (server, no_proxy) in [
            ("https://a.example.com", ""),
            ("https://a.example.com", ","),
            ("https://a.example.com", "."),
            ("https://badexample.com", "example.com"),
            ("https://example.com", "a.example.com"),
            ("https://a.example.com", "example.com:8443"),
            ("http://10.1.2.3", "10.1.2.4/30"),
            ("http://10.1.2.3", "10.1.2.3/x"),
            ("http://10.1.2.3", "2.3"),
            ("http://[fd00::1]", "fe00::/8"),
            ("http://[fd00::1]:81", "[fd00::1]:82"),
            ("http://10.1.2.3", "::/0"),
        ] {
            assert!(used(server, no_proxy), "{server} {no_proxy}");
        }
    }

    /// The values in RFC 4648.
    #[test]
    fn base64_is_that_of_the_standard() {
        let encoded = ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(|text| base64(text.as_bytes()));
        assert_eq!(encoded, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]);
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }
}
