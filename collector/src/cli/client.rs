//! The HTTP clients of commands that read from a running collector, and the address of one on this machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use ureq::Agent;
use ureq::tls::TlsConfig;

use crate::push;

/// A client for a collector. It trusts the certificate authorities of the system and those of the file.
///
/// # Errors
/// The file cannot be used.
pub(super) fn trusting(server: &str, authorities: Option<&Path>) -> anyhow::Result<Agent> {
    if !server.starts_with("https://") {
        return Ok(Agent::new_with_defaults());
    }
    let tls = TlsConfig::builder().root_certs(push::roots_with(authorities)?).build();
    Ok(Agent::config_builder().tls_config(tls).build().new_agent())
}

/// A client for the collector on this machine. It does not verify the certificate, which is for the name by which functions reach the
/// collector, and not for a loopback address. No key may be sent with it.
pub(super) fn unverified() -> Agent {
    let tls = TlsConfig::builder().disable_verification(true).build();
    Agent::config_builder().tls_config(tls).proxy(None).build().new_agent()
}

/// What to do when a request failed because of the certificate; empty when it failed for another reason.
pub(super) fn advice(error: &ureq::Error) -> &'static str {
    if error.to_string().contains("certificate") {
        "; name a certificate authority of your own with --ca-file"
    } else {
        ""
    }
}

/// The URL of a collector that listens on `url`, as programs on this machine reach it: by a loopback address when it listens on all
/// addresses.
pub(super) fn on_this_machine(url: &str) -> String {
    let Some((scheme, address)) = url.split_once("://") else { return url.to_owned() };
    match address.parse::<SocketAddr>() {
        Ok(socket) if socket.ip().is_unspecified() => {
            let ip: IpAddr =
                if socket.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
            format!("{scheme}://{}", SocketAddr::new(ip, socket.port()))
        }
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_on_all_addresses_is_reached_on_a_loopback_address() {
        for (listens, reached) in [
            ("https://0.0.0.0:8443", "https://127.0.0.1:8443"),
            ("http://[::]:8080", "http://[::1]:8080"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("https://10.0.0.7:8443", "https://10.0.0.7:8443"),
            ("https://collector.example:8443", "https://collector.example:8443"),
            ("", ""),
        ] {
            assert_eq!(on_this_machine(listens), reached);
        }
    }
}
