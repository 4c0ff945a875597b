//! Name resolution of environments: queries to the address of the machine go to the machine's own name server.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::HOST_ADDRESS;

/// Port of name servers.
pub(super) const PORT: u16 = 53;

/// Longer than resolvers wait for a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest response over UDP.
const MAX_PACKET_BYTES: usize = 65_535;

/// The machine's resolver configuration.
const RESOLVER_FILE: &str = "/etc/resolv.conf";

/// `/etc/resolv.conf` of an environment: the machine's, with the address of the machine as its name server.
pub fn resolver_file() -> String {
    let machine = fs::read_to_string(RESOLVER_FILE).unwrap_or_default();
    let others = machine.lines().filter(|line| !line.trim_start().starts_with("nameserver"));
    let lines: String = others.map(|line| format!("{line}\n")).collect();
    format!("{lines}nameserver {HOST_ADDRESS}\n")
}

/// The machine's first name server.
pub(super) fn server() -> Option<SocketAddr> {
    let machine = fs::read_to_string(RESOLVER_FILE).ok()?;
    let address = machine.lines().find_map(|line| {
        let address: IpAddr = line.trim().strip_prefix("nameserver")?.trim().parse().ok()?;
        Some(address)
    })?;
    Some((address, PORT).into())
}

/// Sends each query to the name server and its response back.
pub(super) async fn forward(socket: Arc<UdpSocket>) {
    let mut query = vec![0; MAX_PACKET_BYTES];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut query).await else { continue };
        let (socket, query) = (socket.clone(), query[..length].to_vec());
        tokio::spawn(async move {
            if let Some(response) = query_each_server(&query).await {
                let _ = socket.send_to(&response, client).await;
            }
        });
    }
}

async fn query_each_server(query: &[u8]) -> Option<Vec<u8>> {
    let server = server()?;
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0; 16], 0).into() };
    let socket = UdpSocket::bind(any).await.ok()?;
    socket.connect(server).await.ok()?;
    socket.send(query).await.ok()?;
    let mut response = vec![0; MAX_PACKET_BYTES];
    let length = timeout(RESPONSE_TIMEOUT, socket.recv(&mut response)).await.ok()?.ok()?;
    response.truncate(length);
    Some(response)
}
