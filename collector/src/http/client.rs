//! Who sends a request: the address of the client, and whether it used TLS.
//!
//! Behind a proxy, both are in headers that the proxy sets. The headers are used only from the addresses of
//! `--trusted-proxy`, because any client can send them.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};

use http::{Extensions, HeaderMap};

use super::connections::Connection;
use super::server::{OverTls, Peer};

/// A network of proxies: an address and the number of its bits that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyNetwork {
    address: IpAddr,
    bits: u32,
}

impl FromStr for ProxyNetwork {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let problem = || format!("`{text}` is neither an address nor a network such as `10.0.0.0/8`");
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| problem())?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(all), str::parse).map_err(|_| problem())?;
        if bits > all { Err(problem()) } else { Ok(Self { address, bits }) }
    }
}

impl ProxyNetwork {
    fn contains(&self, address: IpAddr) -> bool {
        let same = |a: u128, b: u128, width: u32| self.bits == 0 || (a ^ b) >> (width - self.bits) == 0;
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
            _ => false,
        }
    }
}

/// The proxies whose headers are used. They can be replaced.
#[derive(Debug, Default)]
pub struct TrustedProxies(RwLock<Arc<[ProxyNetwork]>>);

impl From<Vec<ProxyNetwork>> for TrustedProxies {
    fn from(networks: Vec<ProxyNetwork>) -> Self {
        Self(RwLock::new(networks.into()))
    }
}

impl TrustedProxies {
    fn get(&self) -> Arc<[ProxyNetwork]> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Uses the headers of these proxies from now on.
    pub fn replace(&self, networks: Vec<ProxyNetwork>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = networks.into();
    }
}

/// The sender of a request.
pub(crate) struct Client {
    /// Its address; `None` only for a request that did not come over a connection.
    pub(crate) address: Option<IpAddr>,
    /// Whether it used TLS, to the collector itself or as a trusted proxy reports.
    pub(crate) uses_tls: bool,
    /// Its connection.
    pub(super) connection: Option<Arc<Connection>>,
}

impl Client {
    /// The sender of a request with these headers and extensions.
    pub(crate) fn of(headers: &HeaderMap, extensions: &Extensions, proxies: &TrustedProxies) -> Self {
        let proxies = proxies.get();
        let over_tls = extensions.get::<OverTls>().is_some();
        let peer = extensions.get::<Peer>().map(|Peer(peer)| peer.ip().to_canonical());
        let connection = extensions.get::<Arc<Connection>>().cloned();
        let is_proxy = |address: IpAddr| proxies.iter().any(|proxy| proxy.contains(address));
        if !peer.is_some_and(is_proxy) {
            return Self { address: peer, uses_tls: over_tls, connection };
        }
        let values = |name: &'static str| {
            headers
                .get_all(name)
                .iter()
                .rev()
                .filter_map(|value| value.to_str().ok())
                .flat_map(|value| value.rsplit(','))
        };
        // Each proxy appends the address that it saw. The last one that is not a proxy's is the client's. When all are in the networks
        // of proxies, so is the client: it is the first one.
        let forwarded = values("x-forwarded-for").map_while(|address| address.trim().parse().ok());
        let mut client = None;
        for address in forwarded.map(|address: IpAddr| address.to_canonical()) {
            client = Some(address);
            if !is_proxy(address) {
                break;
            }
        }
        let uses_tls =
            over_tls || values("x-forwarded-proto").next().is_some_and(|proto| proto.trim() == "https");
        Self { address: client.or(peer), uses_tls, connection }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn forwarded_headers_are_used_only_from_a_trusted_proxy() {
        let proxies: Vec<ProxyNetwork> =
            ["10.0.0.0/8", "192.0.2.1", "fd00::/16"].map(|text| text.parse().unwrap()).to_vec();
        let proxies = TrustedProxies::from(proxies);
        let client = |peer: &str, forwarded: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", HeaderValue::from_static(forwarded));
            headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
            let mut extensions = Extensions::new();
            extensions.insert(Peer(format!("{peer}:1000").parse().unwrap()));
            let client = Client::of(&headers, &extensions, &proxies);
            (client.address.unwrap().to_string(), client.uses_tls)
        };
        assert_eq!(client("10.1.2.3", "203.0.113.9"), ("203.0.113.9".to_owned(), true));
        assert_eq!(client("10.1.2.3", "1.1.1.1, 203.0.113.9, 192.0.2.1"), ("203.0.113.9".to_owned(), true));
        assert_eq!(client("[fd00::1]", "nonsense"), ("fd00::1".to_owned(), true));
        // A client in the network of the proxies is not taken for the proxy: the limits of an address are its own.
        assert_eq!(client("10.1.2.3", "10.0.0.9"), ("10.0.0.9".to_owned(), true));
        assert_eq!(client("10.1.2.3", "10.0.0.9, 192.0.2.1"), ("10.0.0.9".to_owned(), true));
        assert_eq!(client("10.1.2.3", "nonsense, 10.0.0.9, 192.0.2.1"), ("10.0.0.9".to_owned(), true));
        assert_eq!(client("203.0.113.5", "1.1.1.1"), ("203.0.113.5".to_owned(), false));
        for invalid in ["10.0.0.0/33", "proxy", "10.0.0.0/", ""] {
            assert!(invalid.parse::<ProxyNetwork>().is_err(), "{invalid}");
        }
    }
}
