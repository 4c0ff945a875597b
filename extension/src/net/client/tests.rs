use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use tailor_test_kit::fake::Certificate;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::*;

/// A server that responds to one request on each connection with its head, and closes the connection.
fn closing_server() -> std::net::SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let head: Vec<_> = BufReader::new(&stream)
                .lines()
                .map_while(Result::ok)
                .take_while(|line| !line.is_empty())
                .collect();
            let body = head.join("|");
            let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            (&stream).write_all(response.as_bytes()).unwrap();
        }
    });
    address
}

async fn get(client: &Client, path: &str) -> Result<String, ClientError> {
    let request = client.request("GET", path).body(Full::default())?;
    Ok(String::from_utf8(client.exchange(request).await?.1.to_vec()).unwrap())
}

/// Runs `action` as the extension runs: one thread, local tasks.
pub(crate) fn on_one_thread<T>(action: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, action)
}

#[test]
fn the_path_is_joined_to_any_base_and_the_host_is_named() {
    for (base, path, host) in [
        ("https://tailor.example.com", "/v1/batches", "tailor.example.com"),
        ("http://127.0.0.1:8080/", "/v1/batches", "127.0.0.1:8080"),
        ("https://user@example.com/tailor/", "/tailor/v1/batches", "example.com"),
    ] {
        let client = Client::new(&base.parse().unwrap());
        let request = client.request("POST", "/v1/batches").body(()).unwrap();
        assert_eq!(request.uri(), path);
        assert_eq!(request.headers()["host"], host);
    }
}

#[test]
fn a_broken_connection_is_replaced() {
    on_one_thread(async {
        let client = Client::new(&format!("http://{}/base", closing_server()).parse().unwrap());
        for path in ["/one", "/two", "/three"] {
            // The server closes the connection after each response. The client may not have noticed yet.
            let request = client.request("GET", path).body(Full::default()).unwrap();
            let (_, body) = client.exchange_with_resend(request).await.unwrap();
            assert!(body.starts_with(format!("GET /base{path} HTTP/1.1|host: 127.0.0.1").as_bytes()));
        }
    });
}

#[test]
fn errors_name_the_server() {
    on_one_thread(async {
        let client = Client::new(&"http://127.0.0.1:1".parse().unwrap());
        let error = get(&client, "/").await.unwrap_err().to_string();
        assert!(error.starts_with("cannot connect to 127.0.0.1:1: "), "{error}");
    });
}

/// Handshakes with real servers prove that the selected algorithms suffice. No authority issued the certificates, so each
/// handshake must fail at the trust check, which comes after the key exchange and the signatures.
#[test]
fn handshakes_succeed_with_all_usual_servers_and_unknown_issuers_are_rejected() {
    if Command::new("openssl").arg("version").output().is_err() {
        tailor_test_kit::skip("needs openssl");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let kinds: [&[&str]; 3] = [
        &["-newkey", "rsa:2048"],
        &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"],
        &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp384r1"],
    ];
    for kind in kinds {
        let made = Command::new("openssl")
            .args(["req", "-x509", "-nodes", "-subj", "/CN=localhost", "-keyout", "key", "-out", "cert"])
            .args([
                "-addext",
                "subjectAltName=DNS:localhost",
                "-addext",
                "basicConstraints=critical,CA:FALSE",
            ])
            .args(kind)
            .current_dir(&folder)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        for version in ["-tls1_2", "-tls1_3"] {
            let error = handshake_with_openssl(folder.path(), version);
            assert!(error.contains("invalid peer certificate: UnknownIssuer"), "{kind:?} {version}: {error}");
        }
    }
}

/// The client's error with `openssl s_server` and the certificate in `folder`.
fn handshake_with_openssl(folder: &std::path::Path, version: &str) -> String {
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let mut server = Command::new("openssl")
        .args(["s_server", "-quiet", "-key", "key", "-cert", "cert", "-accept", &port.to_string(), version])
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let client = Client::new(&format!("https://localhost:{port}").parse().unwrap());
    let error = on_one_thread(async {
        loop {
            match get(&client, "/").await.unwrap_err() {
                ClientError::Connect { source, .. } if source.kind() == ErrorKind::ConnectionRefused => {
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
                error => break error.to_string(),
            }
        }
    });
    server.kill().unwrap();
    server.wait().unwrap();
    error
}

/// A server with TLS that is a proxy for the method CONNECT, and responds to any other request with its head.
async fn serve_as_proxy(stream: TcpStream, acceptor: TlsAcceptor) -> std::io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let Some(server) = head.strip_prefix("CONNECT ") else {
        let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{head}", head.len());
        return stream.write_all(response.as_bytes()).await;
    };
    assert!(head.contains("\r\nProxy-Authorization: Basic dTpw\r\n"), "{head}");
    let mut server = TcpStream::connect(server.split(' ').next().unwrap()).await?;
    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    tokio::io::copy_bidirectional(&mut stream, &mut server).await.map(drop)
}

/// TLS to the proxy, and in it TLS to the server. Both are the same program here.
#[test]
fn a_proxy_may_require_tls() {
    let folder = tempfile::tempdir().unwrap();
    let Some(certificate) = Certificate::create(folder.path()).unwrap() else {
        tailor_test_kit::skip("needs openssl");
        return;
    };
    on_one_thread(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(certificate.server_config());
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::task::spawn_local(serve_as_proxy(stream, acceptor.clone()));
            }
        });
        let server: Uri = format!("https://{address}").parse().unwrap();
        let proxy = format!("https://u:p@{address}");
        let variables = std::collections::HashMap::from([("HTTPS_PROXY", proxy.as_str())]);
        let client = Client::new(&server)
            .with_ca_file(Some(certificate.authority_file))
            .with_proxy(crate::net::proxy::proxy_for(&server, &variables));
        let response = get(&client, "/path").await.unwrap();
        assert!(response.starts_with("GET /path HTTP/1.1\r\n"), "{response}");
        assert!(
            !response.to_ascii_lowercase().contains("proxy"),
            "credentials are for the proxy only: {response}"
        );
    });
}
