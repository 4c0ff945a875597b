//! Deliveries through a real HTTP proxy, tinyproxy, and without a route to the collector.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue has failed")]

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tailor_test_kit::fake::{Certificate, FakeCollector, FakePlatform, REGISTRATION};
use tailor_test_kit::process::{Server, free_address};
use tailor_test_kit::{release, skip};

const INVOCATIONS: u64 = 5;

/// User and password of the proxy, and the password in a URL.
const USER: &str = "tailor";
const PASSWORD: &str = "s3cret_word";
const PASSWORD_IN_URL: &str = "s3cret%5Fword";

/// A running proxy that requires the user and the password.
struct TinyProxy {
    _server: Server,
    address: SocketAddr,
    log: PathBuf,
}

impl TinyProxy {
    /// `None` when tinyproxy is not installed.
    fn start(folder: &Path, address: SocketAddr) -> Option<Self> {
        if Command::new("tinyproxy").arg("-v").output().is_err() {
            return None;
        }
        let at = |name: &str| folder.join(format!("{}-{name}", address.port()));
        let log = at("requests.log");
        let settings = format!(
            "Listen {}\nPort {}\nTimeout 20\nLogLevel Info\nLogFile \"{}\"\nBasicAuth {USER} {PASSWORD}\n",
            address.ip(),
            address.port(),
            log.display()
        );
        fs::write(at("settings"), settings).unwrap();
        let mut command = Command::new("tinyproxy");
        command.arg("-d").arg("-c").arg(at("settings"));
        let server =
            Server::start(&mut command, &at("output"), || TcpStream::connect(address).is_ok()).unwrap();
        Some(Self { _server: server, address, log })
    }

    fn url(&self, credentials: &str) -> String {
        format!("http://{credentials}{}", self.address)
    }

    /// The requests that the proxy received so far.
    fn requests(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap();
        log.lines()
            .filter(|line| line.contains("Request (file descriptor"))
            .map(|line| format!("{line}\n"))
            .collect()
    }
}

/// Runs the extension with these variables until the fake platform ends. Returns its log.
fn run(variables: &[(&str, &str)]) -> String {
    let extension = release::build_for_host(&["tailor-extension"]).unwrap().join("tailor-extension");
    let mut command = Command::new(extension);
    let platform = FakePlatform {
        invocations: INVOCATIONS,
        invocations_per_delivery: 1,
        before_event: Box::new(|_| ()),
        registration: REGISTRATION,
    };
    platform.start(&mut command, 1_769).unwrap();
    let output = command.envs(variables.iter().copied()).stdin(Stdio::null()).output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{log}");
    assert!(!log.contains("s3cret"), "the password is not logged: {log}");
    log
}

/// A collector, and the variables of an extension that sends to it.
fn collector(certificate: Option<&Certificate>, variables: &[(&str, &str)]) -> (String, u64) {
    let collector = FakeCollector::start(certificate).unwrap();
    let mut all = vec![("TAILOR_ENDPOINT", collector.url.as_str())];
    all.extend(
        certificate.map(|certificate| ("TAILOR_CA_FILE", certificate.authority_file.to_str().unwrap())),
    );
    all.extend(variables);
    (run(&all), collector.received().invocations)
}

#[test]
fn deliveries_go_through_the_proxy() {
    let folder = tempfile::tempdir().unwrap();
    let (Some(certificate), Some(proxy)) = (
        Certificate::create(folder.path()).unwrap(),
        TinyProxy::start(folder.path(), free_address().unwrap()),
    ) else {
        skip("needs openssl and tinyproxy");
        return;
    };
    let credentials = format!("{USER}:{PASSWORD_IN_URL}@");
    let url = proxy.url(&credentials);
    let deliver = |certificate: Option<&Certificate>, variables: &[(&str, &str)]| {
        let (log, received) = collector(certificate, variables);
        assert!(received == INVOCATIONS && !log.contains("deliver"), "{received}: {log}");
    };

    deliver(Some(&certificate), &[("HTTPS_PROXY", &url)]);
    assert!(proxy.requests().contains("CONNECT 127.0.0.1:"), "{}", proxy.requests());
    deliver(None, &[("http_proxy", &url)]);
    assert!(proxy.requests().contains("POST http://127.0.0.1:"), "{}", proxy.requests());

    // IPv6, where the machine has it.
    if let Ok(listener) = TcpListener::bind("[::1]:0") {
        let address = listener.local_addr().unwrap();
        drop(listener);
        let proxy = TinyProxy::start(folder.path(), address).unwrap();
        let url = proxy.url(&credentials);
        deliver(Some(&certificate), &[("HTTPS_PROXY", &url)]);
        assert!(proxy.requests().contains("CONNECT"), "{}", proxy.requests());
    }

    // Directly to servers that NO_PROXY names, and to servers of the other scheme.
    let before = proxy.requests();
    let without = [("HTTPS_PROXY", url.as_str()), ("NO_PROXY", "example.com,127.0.0.0/8")];
    deliver(Some(&certificate), &without);
    deliver(None, &[("HTTPS_PROXY", &url)]);
    assert_eq!(proxy.requests(), before);
}

#[test]
fn a_refusal_of_the_proxy_is_logged_once_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let (Some(certificate), Some(proxy)) = (
        Certificate::create(folder.path()).unwrap(),
        TinyProxy::start(folder.path(), free_address().unwrap()),
    ) else {
        skip("needs openssl and tinyproxy");
        return;
    };
    let closed = format!("http://{}", free_address().unwrap());
    for (variable, url, expected) in [
        ("HTTPS_PROXY", proxy.url("tailor:s3cret_other@"), "wrong user or password in HTTPS_PROXY"),
        ("HTTP_PROXY", proxy.url("tailor:s3cret_other@"), "wrong user or password in HTTP_PROXY"),
        ("https_proxy", proxy.url(""), "set https_proxy=http://USER:PASSWORD@HOST:PORT"),
        ("HTTP_PROXY", proxy.url(""), "set HTTP_PROXY=http://USER:PASSWORD@HOST:PORT"),
        ("HTTPS_PROXY", closed, "cannot connect to the proxy 127.0.0.1:"),
        ("HTTPS_PROXY", "socks5://s3cret@proxy".to_owned(), "HTTPS_PROXY is not an http:// or https:// URL"),
    ] {
        let is_https = variable.eq_ignore_ascii_case("HTTPS_PROXY");
        let (log, received) = collector(is_https.then_some(&certificate), &[(variable, &url)]);
        assert_eq!(received, if url.starts_with("socks") { INVOCATIONS } else { 0 }, "{variable}: {log}");
        assert_eq!(log.matches(expected).count(), 1, "{variable}: {log}");
    }
}

/// In a VPC without a route to the internet, the packets of a new connection are dropped. A listener whose queue is full
/// drops them too.
#[test]
fn without_a_route_one_line_states_what_to_do() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = vec![];
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        queued.push(stream);
    }
    let log = run(&[("TAILOR_ENDPOINT", &format!("https://{address}")), ("TAILOR_FLUSH_ITEMS", "1")]);
    assert_eq!(log.matches("delivery failed").count(), 1, "{log}");
    let line = log.lines().find(|line| line.contains("delivery failed")).unwrap();
    for expected in ["no connection within", "NAT gateway", "HTTPS_PROXY", &address.to_string()] {
        assert!(line.contains(expected), "{expected}: {log}");
    }
}
